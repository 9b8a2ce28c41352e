"""Finite differences and when they lie."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from . import Exercise, WrongAnswer, expect


def _check_numeric(answer: Any) -> None:
    rng = np.random.default_rng(3)
    for shape in ((3,), (2, 3), (2, 1, 2)):
        x, weights = rng.standard_normal(shape), rng.standard_normal(shape)

        def f(v: Any, weights: np.ndarray = weights) -> float:
            if np.shape(v) != weights.shape:
                raise WrongAnswer(f"f was called with an array of shape {np.shape(v)}; x has shape {weights.shape}.")
            return float((weights * np.sin(v)).sum()) ** 2

        h, given = 0.1, x.copy()
        wanted = np.empty(shape)
        for index in np.ndindex(shape):
            move = np.zeros(shape)
            move[index] = h
            wanted[index] = (f(x + move) - f(x - move)) / (2 * h)
        found = answer(f, given, h)
        expect(given, x, "x after the call", "Put every element back, or work on a copy.")
        hint = "Each element is moved alone, by h up and by h down, and the difference is divided by 2 h."
        expect(found, wanted, f"the gradient for an x of shape {shape}", hint, tolerance=1e-9)


def _check_step(answer: Any) -> None:
    for eps, value, bend in ((1e-16, 1.0, 1.0), (1e-7, 2.0, 0.5), (1e-16, -1e6, 3.0), (1e-16, 1e-3, -40.0)):
        h = 10.0 ** np.linspace(-12, 3, 300_001)
        best = h[np.argmin(h * abs(bend) / 2 + 2 * eps * abs(value) / h)]
        hint = "At the lowest point of a h + b / h both terms are equal: h = sqrt(b / a)."
        expect(answer(eps, value, bend), best, f"best_step({eps:g}, {value:g}, {bend:g})", hint, tolerance=1e-3)


def _check_relu(answer: Any) -> None:
    for x, h in itertools.product((-0.5, -0.1, -0.04, 0.0, 0.03, 0.1, 0.7), (0.1, 0.3)):
        wanted = (max(x + h, 0.0) - max(x - h, 0.0)) / (2 * h)
        hint = "Between -h and h only f(x + h) is above 0."
        expect(answer(x, h), wanted, f"relu_difference({x:g}, {h:g})", hint, tolerance=1e-9)


def _check_judge(answer: Any) -> None:
    rng = np.random.default_rng(4)
    good = rng.uniform(1, 2, 6) * np.array([1, -1, 1, 1, -1, 1])
    good[4] = 0.05  # 1 % of it is little beside the others
    off = good.copy()
    off[4] *= 1.01
    noisy, zeros, missing = good.copy(), np.zeros(3), good.copy()
    noisy[2], missing[0] = 0.0, np.nan
    noise = noisy.copy()
    noise[2] = 1e-9
    cases = [
        (good, good * (1 + 1e-9), True, "both are equal but for the tenth digit"),
        (good, off, False, "one of six elements is off by 1 %"),
        (1e-7 * good, 1e-7 * off, False, "all are about 1e-7, and one is off by 1 %"),
        (1e7 * good, 1e7 * good * (1 + 1e-9), True, "all are about 1e7, and equal but for the tenth digit"),
        (noisy, noise, True, "the difference found 1e-9 of noise where the gradient is 0 and the others about 1"),
        (zeros, zeros, True, "both are 0 everywhere"),
        (good, -good, False, "all signs are wrong"),
        (missing, good, False, "one gradient is NaN"),
    ]
    for analytic, numeric, wanted, text in cases:
        with np.errstate(all="ignore"):
            found = answer(analytic.copy(), numeric.copy())
        if np.ndim(found):
            raise WrongAnswer(f"is_right gives an array of shape {np.shape(found)}; it must be a single True or False.")
        if bool(found) != wanted:
            raise WrongAnswer(
                f"is_right says {found} where {text}; it must say {wanted}. Compare the largest "
                "|a - n| / max(|a|, |n|, floor), where floor is a small share of the largest |a|."
            )


EXERCISES = [
    Exercise(
        name="numeric_gradient",
        question="""numeric_gradient(f, x, h): f maps an array of x's shape to a number. Return the array of
its central differences with step h, one for each element of x, which has any number of axes. x must be
afterwards what it was before. (np.ndindex(x.shape) gives all indices.)""",
        start="""
def numeric_gradient(f, x, h):
    gradient = np.zeros(x.shape)
    ...
    return gradient
""",
        solution="""
def numeric_gradient(f, x, h):
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (f(up) - f(down)) / (2 * h)
    return gradient
""",
        wrong=[
            """
def numeric_gradient(f, x, h):  # forward differences
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up = x.copy()
        up[index] += h
        gradient[index] = (f(up) - f(x)) / h
    return gradient
""",
            """
def numeric_gradient(f, x, h):  # x is not put back
    gradient = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        x[index] += h
        up = f(x)
        x[index] -= h
        x[index] -= h
        gradient[index] = (up - f(x)) / (2 * h)
    return gradient
""",
            """
def numeric_gradient(f, x, h):  # all elements at once
    return (f(x + h) - f(x - h)) / (2 * h)
""",
        ],
        check=_check_numeric,
    ),
    Exercise(
        name="best_step",
        question="""best_step(eps, value, bend): a forward difference is off by h |bend| / 2, where bend is
the second derivative, and by 2 eps |value| / h, because each of the two values is rounded to a relative
precision of eps. Return the step h for which the sum of both is least.""",
        start="""
def best_step(eps, value, bend):
    ...
""",
        solution="""
def best_step(eps, value, bend):
    return 2 * np.sqrt(eps * abs(value) / abs(bend))
""",
        wrong=[
            "def best_step(eps, value, bend):\n    return np.sqrt(eps)\n",
            "def best_step(eps, value, bend):\n    return np.sqrt(eps * abs(value) / abs(bend))\n",
            "def best_step(eps, value, bend):\n    return 2 * np.sqrt(eps * abs(bend) / abs(value))\n",
        ],
        check=_check_step,
    ),
    Exercise(
        name="relu_difference",
        question="""relu_difference(x, h): what the central difference of relu with step h is at the number x,
without calling relu or max twice: one formula for each of the three parts of the picture's blue curve.""",
        start="""
def relu_difference(x, h):
    ...
""",
        solution="""
def relu_difference(x, h):
    if x <= -h:
        return 0.0
    return 1.0 if x >= h else (x + h) / (2 * h)
""",
        wrong=[
            "def relu_difference(x, h):\n    return 1.0 if x > 0 else 0.0\n",
            "def relu_difference(x, h):\n    return 0.0 if x <= -h else 1.0 if x >= h else 0.5\n",
            "def relu_difference(x, h):\n    return 0.0 if x <= -h else 1.0 if x >= h else x / (2 * h)\n",
            "def relu_difference(x, h):  # the lesson's h\n    return min(max(0.5 + 5 * x, 0.0), 1.0)\n",
        ],
        check=_check_relu,
    ),
    Exercise(
        name="is_right",
        question="""is_right(analytic, numeric): whether an array of gradients may pass, given their central
differences. An error of 1 % in one element must not pass, whether the gradients are about 1e-7 or 1e7;
rounding (a relative error of 1e-9) must; and 1e-9 of noise must pass beside gradients of about 1.""",
        start="""
def is_right(analytic, numeric):
    ...
""",
        solution="""
def is_right(analytic, numeric):
    size = np.maximum(np.abs(analytic), np.abs(numeric))
    floor = np.abs(analytic).max() / 100
    return bool((np.abs(analytic - numeric) <= 1e-5 * np.maximum(size, floor)).all())
""",
        wrong=[
            "def is_right(analytic, numeric):\n    return np.allclose(analytic, numeric)\n",
            "def is_right(analytic, numeric):\n    return np.abs(analytic - numeric).max() < 1e-3\n",
            "def is_right(analytic, numeric):\n    return (np.abs(analytic / numeric - 1) < 1e-5).all()\n",
            """
def is_right(analytic, numeric):  # by the largest element only: errors of small ones are lost
    return np.abs(analytic - numeric).max() <= 1e-3 * np.abs(analytic).max()
""",
            "def is_right(analytic, numeric):\n    return np.abs(analytic - numeric) < 1e-5 * np.abs(numeric)\n",
        ],
        check=_check_judge,
    ),
]
