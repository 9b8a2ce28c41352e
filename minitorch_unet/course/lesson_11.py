"""Why it trains: first weights, momentum, one large tile."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt

from . import Exercise, expect


def _check_scale(answer: Any) -> None:
    for channels, filters, rows, columns in ((64, 128, 3, 3), (1, 64, 3, 3), (128, 2, 1, 1), (3, 8, 5, 7)):
        drawn = mt.nn.Conv2d(channels, filters, (rows, columns)).weight.data.std()
        n = channels * rows * columns
        hint = f"One result is a sum of {n} products. (The engine's weights, just drawn, have {drawn:.4f}.)"
        what = f"the scale for {channels} -> {filters} channels, {rows} x {columns}"
        expect(answer(channels, filters, rows, columns), np.sqrt(2 / n), what, hint)


def _check_rms(answer: Any) -> None:
    for c, layers in ((2.0, 18), (1.0, 18), (4.0, 3), (1.9, 50)):
        wanted = (c / 2) ** (layers / 2)
        hint = f"Each layer multiplies the mean square by {c / 2:g}; the rms is its root."
        expect(answer(c, layers), wanted, f"rms_after({c:g}, {layers})", hint)


def _moves(lr: float, momentum: float, steps: int) -> list[float]:
    """How far SGD of the engine moves in each step while the gradient is 1."""
    place = mt.nn.Parameter(np.zeros(1))
    optimizer, before, moves = mt.optim.SGD([place], lr=lr, momentum=momentum), 0.0, []
    for _ in range(steps):
        place.grad = mt.Tensor(np.ones(1))
        optimizer.step()
        moves.append(before - place.item())
        before = place.item()
    return moves


def _check_rate(answer: Any) -> None:
    for lr, momentum in ((0.1, 0.9), (1.0, 0.99), (0.5, 0.0)):
        moves = _moves(lr, momentum, 300)
        for step in (1, 2, 10, 300):
            limit = lr / (1 - momentum)
            hint = f"The first step moves by {moves[0]:g}, the second by {moves[1]:g}, the limit is {limit:g}."
            what = f"effective_rate({lr:g}, {momentum:g}, {step})"
            expect(answer(lr, momentum, step), moves[step - 1], what, hint)


def _check_sgd(answer: Any) -> None:
    rng = np.random.default_rng(11)
    start, gradients = rng.standard_normal(3), rng.standard_normal((5, 3))
    for momentum in (0.0, 0.9):
        place = mt.nn.Parameter(start.copy())
        optimizer = mt.optim.SGD([place], lr=0.1, momentum=momentum)
        for count, g in enumerate(gradients, 1):
            place.grad = mt.Tensor(g)
            optimizer.step()
            found = answer(start.copy(), gradients[:count].copy(), 0.1, momentum)
            hint = "The velocity is v = momentum v + g, from v = 0, and p moves by -lr v."
            expect(found, place, f"p after {count} steps with momentum {momentum:g}", hint)


EXERCISES = [
    Exercise(
        name="weight_scale",
        question="""weight_scale(channels, filters, rows, columns): the standard deviation of the paper's Gaussian
first weights, for a convolution of `filters` filters of rows x columns pixels over `channels` channels.""",
        start="""
def weight_scale(channels, filters, rows, columns):
    ...
""",
        solution="""
def weight_scale(channels, filters, rows, columns):
    return np.sqrt(2 / (channels * rows * columns))
""",
        wrong=[
            "def weight_scale(channels, filters, rows, columns):\n    return np.sqrt(2 / channels)\n",
            "def weight_scale(channels, filters, rows, columns):\n    return 2 / (channels * rows * columns)\n",
            "def weight_scale(channels, filters, rows, columns):\n    return np.sqrt(2 / (filters * rows * columns))\n",
            "def weight_scale(channels, filters, rows, columns):\n    return (channels * rows * columns) ** -0.5\n",
        ],
        check=_check_scale,
    ),
    Exercise(
        name="rms_after",
        question="""rms_after(c, layers): weights are drawn with variance c/N, and the input has rms 1. Which rms
has the map behind so many layers with ReLU, by the rule of the lesson?""",
        start="""
def rms_after(c, layers):
    ...
""",
        solution="""
def rms_after(c, layers):
    return np.sqrt(c / 2) ** layers
""",
        wrong=[
            "def rms_after(c, layers):\n    return (c / 2) ** layers\n",
            "def rms_after(c, layers):\n    return np.sqrt(c) ** layers\n",
            "def rms_after(c, layers):\n    return layers * np.sqrt(c / 2)\n",
        ],
        check=_check_rms,
    ),
    Exercise(
        name="effective_rate",
        question="""effective_rate(lr, momentum, step): the gradient is 1 in every step. By how much does step
number `step` (the first is 1) move the parameter? Find a formula, without a loop.""",
        start="""
def effective_rate(lr, momentum, step):
    ...
""",
        solution="""
def effective_rate(lr, momentum, step):
    return lr * (1 - momentum**step) / (1 - momentum)  # 1 + m + ... + m^(step - 1)
""",
        wrong=[
            "def effective_rate(lr, momentum, step):\n    return lr / (1 - momentum)\n",
            "def effective_rate(lr, momentum, step):\n    return lr * (1 - momentum**step)\n",
            "def effective_rate(lr, momentum, step):\n    return lr * (1 - momentum ** (step + 1)) / (1 - momentum)\n",
        ],
        check=_check_rate,
    ),
    Exercise(
        name="sgd",
        question="""sgd(p, gradients, lr, momentum): p is an array, gradients a sequence of arrays of its shape, one
for each step. Return p after all steps of SGD with momentum, as the lesson describes it.""",
        start="""
def sgd(p, gradients, lr, momentum):
    velocity = np.zeros_like(p)
    ...
""",
        solution="""
def sgd(p, gradients, lr, momentum):
    velocity = np.zeros_like(p)
    for g in gradients:
        velocity = momentum * velocity + g
        p = p - lr * velocity
    return p
""",
        wrong=[
            """
def sgd(p, gradients, lr, momentum):  # a mean: a hundred times too slow with 0.99
    velocity = np.zeros_like(p)
    for g in gradients:
        velocity = momentum * velocity + (1 - momentum) * g
        p = p - lr * velocity
    return p
""",
            """
def sgd(p, gradients, lr, momentum):  # moves before the new gradient has come in
    velocity = np.zeros_like(p)
    for g in gradients:
        p = p - lr * velocity
        velocity = momentum * velocity + g
    return p
""",
            """
def sgd(p, gradients, lr, momentum):  # the velocity begins anew in each step
    for g in gradients:
        velocity = np.zeros_like(p)
        velocity = momentum * velocity + g
        p = p - lr * velocity
    return p
""",
        ],
        check=_check_sgd,
    ),
]
