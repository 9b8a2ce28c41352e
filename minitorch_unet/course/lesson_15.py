"""Diffusion: pictures out of noise."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Exercise, expect


def _schedule(steps: int) -> np.ndarray:
    """The lesson's alpha_bar, (steps + 1), from 1 to 0."""
    return np.cos(np.pi / 2 * np.arange(steps + 1) / steps) ** 2


def _check_noised(answer: Any) -> None:
    """Against one picture and one step at a time: each step shrinks and adds noise; all steps share one direction."""
    rng = np.random.default_rng(1)
    alpha_bar = _schedule(10)
    x0, noise = rng.standard_normal((2, 3, 1, 4, 4))
    t = np.array([9, 0, 4])
    wanted = np.empty_like(x0)
    for i in range(3):
        kept, variance = 1.0, 0.0
        for step in range(1, t[i] + 1):
            alpha = alpha_bar[step] / alpha_bar[step - 1]
            kept, variance = kept * np.sqrt(alpha), variance * alpha + (1 - alpha)
        wanted[i] = kept * x0[i] + np.sqrt(variance) * noise[i]
    found = answer(x0.copy(), t.copy(), noise.copy(), alpha_bar.copy())
    hint = (
        f"Picture 0 is at t = 9, where alpha_bar is {alpha_bar[9]:.4f}: it is multiplied by "
        f"{np.sqrt(alpha_bar[9]):.4f} and its noise by {np.sqrt(1 - alpha_bar[9]):.4f}. "
        "Picture 1 is at t = 0: it is untouched."
    )
    expect(found, wanted, "x_t", hint)


def _check_posterior(answer: Any) -> None:
    """Against Bayes' rule on a fine grid of x_(t-1): density given x0, times density of x_t given x_(t-1)."""
    alpha_bar = _schedule(10)
    grid = np.linspace(-12, 12, 20001)
    for t, x_t, x0 in ((3, 0.4, 1.0), (5, -1.5, 1.0), (9, 2.0, -1.0)):
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        exponent = -((grid - np.sqrt(alpha_bar[t - 1]) * x0) ** 2) / (2 * (1 - alpha_bar[t - 1]))
        exponent -= (x_t - np.sqrt(alpha) * grid) ** 2 / (2 * (1 - alpha))
        density = np.exp(exponent - exponent.max())
        density /= density.sum()
        mean = density @ grid
        variance = density @ (grid - mean) ** 2
        hint = (
            f"As functions of x_(t-1) the two curves have the means {np.sqrt(alpha_bar[t - 1]) * x0:.4f} and "
            f"{x_t / np.sqrt(alpha):.4f} and the variances {1 - alpha_bar[t - 1]:.4f} and {(1 - alpha) / alpha:.4f}. "
            "Of a product the inverse variances add up, and the means are weighted by them."
        )
        where = f"(mean, variance) at t = {t}, x_t = {x_t:g}, x0 = {x0:g}"
        expect(answer(x_t, x0, t, alpha_bar.copy()), (mean, variance), where, hint, 1e-5)


def _check_noise_error(answer: Any) -> None:
    rng = np.random.default_rng(3)
    alpha_bar = _schedule(200)
    x0, noise, wrong = rng.standard_normal((3, 50))
    for t in (20, 100, 190):
        signal, sigma = np.sqrt(alpha_bar[t]), np.sqrt(1 - alpha_bar[t])
        x_t, guess = signal * x0 + sigma * noise, x0 + wrong
        implied = (x_t - signal * guess) / sigma
        picture_error = np.mean((guess - x0) ** 2)
        hint = f"At t = {t} the picture's part in x_t is {signal:.4f}, that of the noise {sigma:.4f}."
        wanted = np.mean((implied - noise) ** 2)
        what = f"the noise's error for a picture_error of {picture_error:.4f}"
        expect(answer(picture_error, t, alpha_bar.copy()), wanted, what, hint)


EXERCISES = [
    Exercise(
        name="noised",
        question="""noised(x0, t, noise, alpha_bar): x_t for a batch of pictures x0 (N, 1, H, W), each with a time t
(N) of its own; noise is shaped like x0, alpha_bar (T + 1) holds the schedule. One formula, no loop over steps.""",
        start="""
def noised(x0, t, noise, alpha_bar):
    ...
""",
        solution="""
def noised(x0, t, noise, alpha_bar):
    kept = alpha_bar[t][:, None, None, None]
    return np.sqrt(kept) * x0 + np.sqrt(1 - kept) * noise
""",
        wrong=[
            """
def noised(x0, t, noise, alpha_bar):  # variances where standard deviations belong
    kept = alpha_bar[t][:, None, None, None]
    return kept * x0 + (1 - kept) * noise
""",
            """
def noised(x0, t, noise, alpha_bar):  # shares that add up to 1, as if picture and noise were mixed like paint
    kept = np.sqrt(alpha_bar[t])[:, None, None, None]
    return kept * x0 + (1 - kept) * noise
""",
            """
def noised(x0, t, noise, alpha_bar):  # the first picture's time for all
    return np.sqrt(alpha_bar[t[0]]) * x0 + np.sqrt(1 - alpha_bar[t[0]]) * noise
""",
        ],
        check=_check_noised,
    ),
    Exercise(
        name="posterior",
        question="""posterior(x_t, x0, t, alpha_bar): the mean and the variance of x_(t-1) if both x_t and x0 are
known, numbers, t at least 2.

A step forward is x_t = sqrt(alpha) x_(t-1) + sqrt(1 - alpha) noise with alpha = alpha_bar[t] / alpha_bar[t-1], and
x_(t-1) given x0 alone is a bell curve with mean sqrt(alpha_bar[t-1]) x0 and variance 1 - alpha_bar[t-1]. Multiply
the two bell curves, as functions of x_(t-1). (Ho et al. 2020, equation 7. Their sampler draws x_(t-1) from this, with
the network's guess as x0.)""",
        start="""
def posterior(x_t, x0, t, alpha_bar):
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    ...
    return mean, variance
""",
        solution="""
def posterior(x_t, x0, t, alpha_bar):
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    before = alpha_bar[t - 1]
    variance = (1 - before) * (1 - alpha) / (1 - alpha_bar[t])
    mean = np.sqrt(before) * (1 - alpha) * x0 + np.sqrt(alpha) * (1 - before) * x_t
    return mean / (1 - alpha_bar[t]), variance
""",
        wrong=[
            """
def posterior(x_t, x0, t, alpha_bar):  # the variance of the step forward
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    before = alpha_bar[t - 1]
    mean = np.sqrt(before) * (1 - alpha) * x0 + np.sqrt(alpha) * (1 - before) * x_t
    return mean / (1 - alpha_bar[t]), 1 - alpha
""",
            """
def posterior(x_t, x0, t, alpha_bar):  # x_t ignored: x0 is noised afresh
    return np.sqrt(alpha_bar[t - 1]) * x0, 1 - alpha_bar[t - 1]
""",
            """
def posterior(x_t, x0, t, alpha_bar):  # the step undone, x0 ignored
    alpha = alpha_bar[t] / alpha_bar[t - 1]
    return x_t / np.sqrt(alpha), (1 - alpha) / alpha
""",
            """
def posterior(x_t, x0, t, alpha_bar):  # alpha_bar in alpha's place
    variance = (1 - alpha_bar[t - 1]) * (1 - alpha_bar[t])
    return np.sqrt(alpha_bar[t - 1]) * x0 + np.sqrt(alpha_bar[t]) * x_t, variance
""",
        ],
        check=_check_posterior,
    ),
    Exercise(
        name="noise_error",
        question="""noise_error(picture_error, t, alpha_bar): the guess of x0 has the mean squared error
picture_error. With x_t it implies a guess of the noise, (x_t - sqrt(alpha_bar) guess) / sqrt(1 - alpha_bar). What is
the mean squared error of that? (It says what a loss on the noise, as Ho et al. have it, asks of the picture: much where
there is little noise, next to nothing where there is much.)""",
        start="""
def noise_error(picture_error, t, alpha_bar):
    ...
""",
        solution="""
def noise_error(picture_error, t, alpha_bar):
    return picture_error * alpha_bar[t] / (1 - alpha_bar[t])  # the ratio of signal to noise, in variances
""",
        wrong=[
            "def noise_error(picture_error, t, alpha_bar):\n    return picture_error\n",
            """
def noise_error(picture_error, t, alpha_bar):  # the ratio is not squared
    return picture_error * np.sqrt(alpha_bar[t] / (1 - alpha_bar[t]))
""",
            """
def noise_error(picture_error, t, alpha_bar):  # upside down
    return picture_error * (1 - alpha_bar[t]) / alpha_bar[t]
""",
        ],
        check=_check_noise_error,
    ),
]
