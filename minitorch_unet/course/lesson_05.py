"""Pooling, ties and routes of gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

from . import Exercise, expect


def _gradient(function: Callable[[mt.Tensor], mt.Tensor], x: np.ndarray, gy: np.ndarray) -> np.ndarray:
    """The engine's gradient of x, if that of function(x) is gy."""
    tensor = mt.Tensor(x, requires_grad=True)
    function(tensor).backward(mt.Tensor(gy))
    assert tensor.grad is not None
    return tensor.grad.numpy()


def _check_max(answer: Any) -> None:
    rng = np.random.default_rng(5)
    for h, w in ((2, 2), (2, 4), (4, 6), (8, 8)):
        for x in (rng.permutation(h * w).reshape(h, w) - 5.0, rng.integers(-2, 0, (h, w)).astype(float)):
            gy = rng.uniform(1, 2, (h // 2, w // 2))
            wanted = _gradient(lambda t: F.max_pool2d(t, 2), x[None, None], gy[None, None])[0, 0]
            image = x.astype(int).tolist() if x.size < 10 else f"a {h} x {w} image"
            hint = "Only the largest value of a window gets its gradient; among equals the first, row by row."
            expect(answer(x.copy(), gy.copy()), wanted, f"the gradient of {image}", hint)


def _check_avg(answer: Any) -> None:
    rng = np.random.default_rng(6)
    for h, w, k in ((2, 2, 2), (4, 6, 2), (5, 7, 2), (10, 9, 3)):
        gy = rng.standard_normal((h // k, w // k))
        x = np.zeros((1, 1, h, w))
        wanted = _gradient(lambda t, k=k: F.avg_pool2d(t, k), x, gy[None, None])[0, 0]  # type: ignore[misc]
        hint = f"Each of a window's {k * k} pixels gets 1/{k * k} of its gradient; pixels in no window get 0."
        expect(answer(gy.copy(), k, h, w), wanted, f"the gradient of a {h} x {w} image, windows {k} x {k},", hint)


def _check_amax(answer: Any) -> None:
    rng = np.random.default_rng(7)
    for shape in ((1, 3), (4, 5), (3, 1)):
        x, gy = rng.integers(-3, 0, shape).astype(float), rng.uniform(1, 2, shape[0])
        wanted = _gradient(lambda t: F.amax(t, 1), x, gy)
        times = (x == x.max(1, keepdims=True)).sum(1).tolist()
        hint = f"A row's gradient is divided by how often its largest value occurs: {times}."
        expect(answer(x.copy(), gy.copy()), wanted, f"the gradient of {x.astype(int).tolist()}", hint)


def _check_bytes(answer: Any) -> None:
    hint = "The pooled map has 64 channels of 284 x 284 pixels; each pixel is the winner of one window."
    expect(answer, 64 * 284 * 284, "kept_bytes", hint, tell=False)


EXERCISES = [
    Exercise(
        name="max_pool_backward",
        question="""max_pool_backward(x, gy): the gradient of the image x (H, W), H and W even, for max
pooling with 2 x 2 windows, if gy (H/2, W/2) is that of the result. Among equal values the first wins, row by
row. Without the engine.""",
        start="""
def max_pool_backward(x, gy):
    gx = np.zeros_like(x)
    ...
    return gx
""",
        solution="""
def max_pool_backward(x, gy):
    gx = np.zeros_like(x)
    for p, q in np.ndindex(gy.shape):
        r, s = divmod(x[2 * p : 2 * p + 2, 2 * q : 2 * q + 2].argmax(), 2)
        gx[2 * p + r, 2 * q + s] = gy[p, q]
    return gx
""",
        wrong=[
            """
def max_pool_backward(x, gy):  # all equals get it
    largest = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2).max((1, 3))
    double = lambda a: a.repeat(2, 0).repeat(2, 1)
    return double(gy) * (x == double(largest))
""",
            """
def max_pool_backward(x, gy):  # the last wins
    gx = np.zeros_like(x)
    for p, q in np.ndindex(gy.shape):
        r, s = divmod(3 - x[2 * p : 2 * p + 2, 2 * q : 2 * q + 2].ravel()[::-1].argmax(), 2)
        gx[2 * p + r, 2 * q + s] = gy[p, q]
    return gx
""",
            "def max_pool_backward(x, gy):  # everybody\n    return gy.repeat(2, 0).repeat(2, 1)\n",
        ],
        check=_check_max,
    ),
    Exercise(
        name="avg_pool_backward",
        question="""avg_pool_backward(gy, k, height, width): the gradient of a height x width image for
average pooling with k x k windows that do not overlap. The size need not be a multiple of k; what is left
over on the right and below belongs to no window.""",
        start="""
def avg_pool_backward(gy, k, height, width):
    ...
""",
        solution="""
def avg_pool_backward(gy, k, height, width):
    gx = np.zeros((height, width))
    spread = gy.repeat(k, 0).repeat(k, 1) / k**2
    gx[: spread.shape[0], : spread.shape[1]] = spread
    return gx
""",
        wrong=[
            "def avg_pool_backward(gy, k, height, width):\n    return gy.repeat(k, 0).repeat(k, 1) / k**2\n",
            """
def avg_pool_backward(gy, k, height, width):  # a share of 1/k
    gx = np.zeros((height, width))
    gx[: len(gy) * k, : gy.shape[1] * k] = gy.repeat(k, 0).repeat(k, 1) / k
    return gx
""",
        ],
        check=_check_avg,
    ),
    Exercise(
        name="amax_backward",
        question="""amax_backward(x, gy): the result is the largest value of each row of x (N, M), gy (N) its
gradient. Return the gradient of x; equal largest values share evenly.""",
        start="""
def amax_backward(x, gy):
    ...
""",
        solution="""
def amax_backward(x, gy):
    largest = x == x.max(axis=1, keepdims=True)
    return gy[:, None] * largest / largest.sum(axis=1, keepdims=True)
""",
        wrong=[
            "def amax_backward(x, gy):\n    return gy[:, None] * (x == x.max(axis=1, keepdims=True))\n",
            "def amax_backward(x, gy):\n    return gy[:, None] * (np.arange(x.shape[1]) == x.argmax(1)[:, None])\n",
        ],
        check=_check_amax,
    ),
    Exercise(
        name="kept_bytes",
        question="""kept_bytes: how many bytes does the first pooling of the paper's network keep for the way
back, if the winner of a 2 x 2 window (a number from 0 to 3) takes one byte? It pools 64 channels of 568 x 568
pixels. (Keeping its input in float32 would take 16 times as many.)""",
        start="kept_bytes = ...\n",
        solution="kept_bytes = 64 * 284 * 284\n",
        wrong=["kept_bytes = 64 * 568 * 568\n", "kept_bytes = 64 * 284 * 284 * 4\n"],
        check=_check_bytes,
    ),
]
