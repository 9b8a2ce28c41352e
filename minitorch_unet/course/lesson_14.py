"""Batch normalisation and dropout: two layers that know the time of day."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

from . import Exercise, expect


def _check_backward(answer: Any) -> None:
    rng = np.random.default_rng(14)
    for shape in ((4, 1, 1, 1), (2, 3, 4, 5)):
        values, gz = rng.standard_normal(shape) * 2 + 1, rng.standard_normal(shape)
        x = mt.Tensor(values, requires_grad=True)
        F.batch_norm(x, None, None, training=True, eps=1e-3).backward(mt.Tensor(gz))
        found = answer(gz.copy(), values.copy(), 1e-3)
        hint = "Mean and variance are over all axes but 1, and both depend on x."
        if isinstance(found, np.ndarray) and found.shape == shape:
            total, along = found[:, 0].sum(), (found * values)[:, 0].sum()
            hint += f" In channel 0 the gradient adds up to {total:.3f}, the gradient times x to {along:.3f}; "
            hint += "both must be 0 (or nearly)."
        expect(found, x.grad, f"the gradient for {shape}", hint)


def _check_running(answer: Any) -> None:
    rng = np.random.default_rng(15)
    batches = rng.standard_normal((4, 6)) * 3 + 5
    for count in (1, 4):
        for momentum in (0.1, 0.4):
            layer = mt.nn.BatchNorm2d(1, momentum=momentum, dtype=np.float64)
            for batch in batches[:count]:
                layer(mt.Tensor(batch.reshape(6, 1, 1, 1)))
            wanted = (layer.running_mean.item(), layer.running_var.item())
            first = batches[0]
            hint = (
                f"The first batch has mean {first.mean():.4f}, biased variance {first.var():.4f}, unbiased variance "
                f"{first.var(ddof=1):.4f}."
            )
            what = f"(mean, variance) after {count} of the batches, momentum {momentum:g},"
            expect(answer(batches[:count].copy(), momentum), wanted, what, hint)


def _check_dropout(answer: Any) -> None:
    rng = np.random.default_rng(16)
    x, numbers = rng.standard_normal((2, 3, 4)) + 2, rng.uniform(size=(2, 3, 4))
    for p in (0.25, 0.8):
        wanted = np.where(numbers >= p, x / (1 - p), 0)
        hint = f"{int((numbers < p).sum())} of 24 numbers are below {p}; what is kept is divided by {1 - p:g}."
        expect(answer(x.copy(), numbers.copy(), p), wanted, f"dropout with p = {p}", hint)


def _check_variance(answer: Any) -> None:
    rng = np.random.default_rng(17)
    for mean, variance, p in ((0.0, 1.0, 0.5), (1.0, 0.0, 0.2), (2.0, 3.0, 0.4)):
        values = mean + np.sqrt(variance) * rng.standard_normal(200_000)
        drawn = F.dropout(mt.Tensor(values), p, generator=np.random.Generator(np.random.Philox(3))).data
        wanted = (mean**2 + variance) / (1 - p) - mean**2
        hint = (
            f"Of 200,000 such numbers, behind dropout, the mean is {drawn.mean():.3f}, the mean square "
            f"{(drawn**2).mean():.3f}, the variance {drawn.var():.3f}."
        )
        what = f"the variance for mean {mean:g}, variance {variance:g}, p {p:g}"
        expect(answer(mean, variance, p), wanted, what, hint)


EXERCISES = [
    Exercise(
        name="batch_norm_backward",
        question="""batch_norm_backward(gz, x, eps): z = (x - mean) / sqrt(variance + eps), with mean and variance
of each channel of x (N, C, H, W) in training. gz is the gradient with respect to z; return the one with respect to
x. Use NumPy only.""",
        start="""
def batch_norm_backward(gz, x, eps):
    axes = (0, 2, 3)
    ...
""",
        solution="""
def batch_norm_backward(gz, x, eps):
    axes = (0, 2, 3)
    deviation = np.sqrt(x.var(axes, keepdims=True) + eps)
    z = (x - x.mean(axes, keepdims=True)) / deviation
    return (gz - gz.mean(axes, keepdims=True) - z * (gz * z).mean(axes, keepdims=True)) / deviation
""",
        wrong=[
            """
def batch_norm_backward(gz, x, eps):  # as if the statistics were constants
    return gz / np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)
""",
            """
def batch_norm_backward(gz, x, eps):  # the variance does not move
    deviation = np.sqrt(x.var((0, 2, 3), keepdims=True) + eps)
    return (gz - gz.mean((0, 2, 3), keepdims=True)) / deviation
""",
            """
def batch_norm_backward(gz, x, eps):  # statistics of each image
    axes = (2, 3)
    deviation = np.sqrt(x.var(axes, keepdims=True) + eps)
    z = (x - x.mean(axes, keepdims=True)) / deviation
    return (gz - gz.mean(axes, keepdims=True) - z * (gz * z).mean(axes, keepdims=True)) / deviation
""",
        ],
        check=_check_backward,
    ),
    Exercise(
        name="running_statistics",
        question="""running_statistics(batches, momentum): the running mean and variance of one channel, as a tuple,
after these batches (each an array of n values). They begin at 0 and 1; running = (1 - momentum) running + momentum
batch. The variance taken over is the unbiased one (divided by n - 1).""",
        start="""
def running_statistics(batches, momentum):
    mean, variance = 0.0, 1.0
    ...
""",
        solution="""
def running_statistics(batches, momentum):
    mean, variance = 0.0, 1.0
    for batch in batches:
        mean = (1 - momentum) * mean + momentum * batch.mean()
        variance = (1 - momentum) * variance + momentum * batch.var(ddof=1)
    return mean, variance
""",
        wrong=[
            """
def running_statistics(batches, momentum):  # the biased variance
    mean, variance = 0.0, 1.0
    for batch in batches:
        mean = (1 - momentum) * mean + momentum * batch.mean()
        variance = (1 - momentum) * variance + momentum * batch.var()
    return mean, variance
""",
            """
def running_statistics(batches, momentum):  # momentum as optimisers have it
    mean, variance = 0.0, 1.0
    for batch in batches:
        mean = momentum * mean + (1 - momentum) * batch.mean()
        variance = momentum * variance + (1 - momentum) * batch.var(ddof=1)
    return mean, variance
""",
            """
def running_statistics(batches, momentum):  # the mean of the batches
    return np.mean([b.mean() for b in batches]), np.mean([b.var(ddof=1) for b in batches])
""",
        ],
        check=_check_running,
    ),
    Exercise(
        name="dropout",
        question="""dropout(x, numbers, p): dropout in training, with given random numbers between 0 and 1, one for
each value of x: a value becomes 0 where its number is below p. The mean must stay what it was.""",
        start="""
def dropout(x, numbers, p):
    ...
""",
        solution="""
def dropout(x, numbers, p):
    return np.where(numbers >= p, x / (1 - p), 0)
""",
        wrong=[
            "def dropout(x, numbers, p):\n    return np.where(numbers >= p, x, 0)\n",
            "def dropout(x, numbers, p):\n    return np.where(numbers < p, x / p, 0)\n",
            "def dropout(x, numbers, p):\n    return np.where(numbers >= p, x * (1 - p), 0)\n",
        ],
        check=_check_dropout,
    ),
    Exercise(
        name="dropped_variance",
        question="""dropped_variance(mean, variance, p): values have this mean and variance. Which variance have
they behind dropout? (The mean of the squares is variance + mean^2. What becomes of it?)""",
        start="""
def dropped_variance(mean, variance, p):
    ...
""",
        solution="""
def dropped_variance(mean, variance, p):
    mean_square = (variance + mean**2) * (1 - p) / (1 - p) ** 2
    return mean_square - mean**2
""",
        wrong=[
            "def dropped_variance(mean, variance, p):\n    return variance\n",
            "def dropped_variance(mean, variance, p):\n    return variance / (1 - p)\n",
            "def dropped_variance(mean, variance, p):\n    return (variance + mean**2) * (1 - p) - mean**2\n",
        ],
        check=_check_variance,
    ),
]
