"""Convolution and its three gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

from . import Exercise, expect


def _conv_and_gradients(x: np.ndarray, k: np.ndarray, gy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(gx, gk) of a convolution of two-dimensional arrays, by the engine."""
    tx, tk = (mt.Tensor(a[None, None], requires_grad=True) for a in (x, k))
    F.conv2d(tx, tk).backward(mt.Tensor(gy[None, None]))
    assert tx.grad is not None and tk.grad is not None
    return tx.grad.numpy()[0, 0], tk.grad.numpy()[0, 0]


def _check_index(answer: Any) -> None:
    for height, width, kernel, stride in ((3, 3, 3, 1), (4, 5, 3, 1), (6, 4, 2, 2), (7, 5, 3, 2)):
        place = np.arange(height * width).reshape(height, width)
        rows = [
            place[p : p + kernel, q : q + kernel].ravel()
            for p in range(0, height - kernel + 1, stride)
            for q in range(0, width - kernel + 1, stride)
        ]
        call = f"patch_index({height}, {width}, {kernel}, {stride})"
        hint = f"Weight (r, s) of output (p, q) reads row {stride} p + r and column {stride} q + s; a row has {width}."
        expect(answer(height, width, kernel, stride), rows, call, hint)


def _check_convolve(answer: Any) -> None:
    rng = np.random.default_rng(4)
    for c, h, w, filters, r, s in ((1, 3, 3, 1, 3, 3), (2, 5, 6, 3, 3, 3), (3, 6, 4, 2, 1, 2)):
        x, k = rng.standard_normal((c, h, w)), rng.standard_normal((filters, c, r, s))
        wanted = F.conv2d(mt.Tensor(x[None]), mt.Tensor(k)).numpy()[0]
        hint = "y[k, p, q] is the sum of w[k, c, r, s] x[c, p + r, q + s] over the channels c and over r and s."
        expect(answer(x.copy(), k.copy()), wanted, f"the result for x {x.shape}, w {k.shape}", hint)


def _check_input(answer: Any) -> None:
    rng = np.random.default_rng(5)
    for (h, w), (r, s) in (((1, 1), (1, 1)), ((6, 6), (3, 3)), ((5, 7), (3, 3)), ((4, 6), (2, 3))):
        k, gy = rng.standard_normal((r, s)), rng.standard_normal((h - r + 1, w - s + 1))
        wanted, _ = _conv_and_gradients(np.zeros((h, w)), k, gy)
        hint = f"gy gets {r - 1} rows and {s - 1} columns of zeros on each side; the kernel is turned both ways."
        expect(answer(gy.copy(), k.copy()), wanted, f"gx for gy {gy.shape} and k {k.shape}", hint)


def _check_weight(answer: Any) -> None:
    rng = np.random.default_rng(6)
    for (h, w), (r, s) in (((2, 2), (1, 1)), ((6, 6), (3, 3)), ((5, 7), (3, 3)), ((4, 6), (2, 3))):
        x, gy = rng.standard_normal((h, w)), rng.standard_normal((h - r + 1, w - s + 1))
        _, wanted = _conv_and_gradients(x, np.zeros((r, s)), gy)
        hint = f"gk[0, 0] met the top left {gy.shape[0]} x {gy.shape[1]} pixels of x. Nothing is turned here."
        expect(answer(x.copy(), gy.copy()), wanted, f"gk for x {x.shape} and gy {gy.shape}", hint)


EXERCISES = [
    Exercise(
        name="patch_index",
        question="""patch_index(height, width, kernel, stride): the index of im2col. An image of height x
width pixels is flattened row by row. Return an integer array with a row for each output (row by row) and a
column for each of the kernel x kernel weights: the position in the flat image which that weight reads there.
So flat[patch_index(...)] are the patches.""",
        start="""
def patch_index(height, width, kernel, stride):
    ...
""",
        solution="""
def patch_index(height, width, kernel, stride):
    p = np.arange((height - kernel) // stride + 1)[:, None, None, None]
    q = np.arange((width - kernel) // stride + 1)[:, None, None]
    r = np.arange(kernel)[:, None]
    s = np.arange(kernel)
    return ((p * stride + r) * width + q * stride + s).reshape(-1, kernel * kernel)
""",
        wrong=[
            """
def patch_index(height, width, kernel, stride):  # the stride forgotten
    p, q, r, s = np.ix_(range(height - kernel + 1), range(width - kernel + 1), range(kernel), range(kernel))
    return ((p + r) * width + q + s).reshape(-1, kernel * kernel)
""",
            """
def patch_index(height, width, kernel, stride):  # rows as long as the image is high
    p, q, r, s = np.ix_(range(0, height - kernel + 1, stride), range(0, width - kernel + 1, stride),
                        range(kernel), range(kernel))
    return ((p + r) * height + q + s).reshape(-1, kernel * kernel)
""",
        ],
        check=_check_index,
    ),
    Exercise(
        name="convolve",
        question="""convolve(x, w): the valid convolution with stride 1 of x (C, H, W) with w (K, C, R, S), an
array (K, H - R + 1, W - S + 1). Loops over r and s only, if you can: np.einsum or np.tensordot sum over
channels.""",
        start="""
def convolve(x, w):
    ...
""",
        solution="""
def convolve(x, w):
    filters, channels, rows, columns = w.shape
    height, width = x.shape[1] - rows + 1, x.shape[2] - columns + 1
    y = np.zeros((filters, height, width))
    for r in range(rows):
        for s in range(columns):
            y += np.einsum("kc,chw->khw", w[:, :, r, s], x[:, r : r + height, s : s + width])
    return y
""",
        wrong=[
            """
def convolve(x, w):  # the mathematicians' convolution, with the kernel turned
    w = w[:, :, ::-1, ::-1]
    height, width = x.shape[1] - w.shape[2] + 1, x.shape[2] - w.shape[3] + 1
    return sum(np.einsum("kc,chw->khw", w[:, :, r, s], x[:, r : r + height, s : s + width])
               for r in range(w.shape[2]) for s in range(w.shape[3]))
""",
            """
def convolve(x, w):  # the first channel only
    height, width = x.shape[1] - w.shape[2] + 1, x.shape[2] - w.shape[3] + 1
    return sum(w[:, 0, r, s][:, None, None] * x[0, r : r + height, s : s + width]
               for r in range(w.shape[2]) for s in range(w.shape[3]))
""",
        ],
        check=_check_convolve,
    ),
    Exercise(
        name="input_gradient",
        question="""input_gradient(gy, k): the gradient gx of the image, for one channel: gy (P, Q) is the
gradient of the result, k (R, S) the kernel; gx has shape (P + R - 1, Q + S - 1). Without the engine.""",
        start="""
def input_gradient(gy, k):
    ...
""",
        solution="""
def input_gradient(gy, k):
    gx = np.zeros((gy.shape[0] + k.shape[0] - 1, gy.shape[1] + k.shape[1] - 1))
    for r, s in np.ndindex(k.shape):  # what the forward pass read, shifted, is where the gradient goes
        gx[r : r + gy.shape[0], s : s + gy.shape[1]] += k[r, s] * gy
    return gx
""",
        wrong=[
            """
def input_gradient(gy, k):  # the kernel is not turned
    r, s = k.shape
    padded = np.pad(gy, ((r - 1, r - 1), (s - 1, s - 1)))
    h, w = gy.shape[0] + r - 1, gy.shape[1] + s - 1
    return sum(k[i, j] * padded[i : i + h, j : j + w] for i in range(r) for j in range(s))
""",
            "def input_gradient(gy, k):  # as large as gy\n    return gy * k.sum()\n",
        ],
        check=_check_input,
    ),
    Exercise(
        name="weight_gradient",
        question="""weight_gradient(x, gy): the gradient gk of the kernel, for one channel: x (H, W) is the
image, gy (P, Q) the gradient of the result; gk has shape (H - P + 1, W - Q + 1). Without the engine.""",
        start="""
def weight_gradient(x, gy):
    ...
""",
        solution="""
def weight_gradient(x, gy):
    p, q = gy.shape
    gk = np.zeros((x.shape[0] - p + 1, x.shape[1] - q + 1))
    for r, s in np.ndindex(gk.shape):
        gk[r, s] = (x[r : r + p, s : s + q] * gy).sum()
    return gk
""",
        wrong=[
            """
def weight_gradient(x, gy):  # turned
    p, q = gy.shape
    gk = np.zeros((x.shape[0] - p + 1, x.shape[1] - q + 1))
    for r, s in np.ndindex(gk.shape):
        gk[r, s] = (x[r : r + p, s : s + q] * gy[::-1, ::-1]).sum()
    return gk
""",
            """
def weight_gradient(x, gy):  # the mean over the image, where a sum belongs
    p, q = gy.shape
    gk = np.zeros((x.shape[0] - p + 1, x.shape[1] - q + 1))
    for r, s in np.ndindex(gk.shape):
        gk[r, s] = (x[r : r + p, s : s + q] * gy).mean()
    return gk
""",
        ],
        check=_check_weight,
    ),
]
