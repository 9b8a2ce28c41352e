"""Transposed convolution is the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F

from . import Exercise, WrongAnswer, expect


def _transposed(y: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """The engine's transposed convolution of two-dimensional arrays."""
    return F.conv_transpose2d(mt.Tensor(y[None, None]), mt.Tensor(kernel[None, None]), stride=stride).numpy()[0, 0]


def _check_counts(answer: Any) -> None:
    cases = ((5, 2, 2, 0), (5, 3, 2, 0), (4, 4, 2, 1), (6, 5, 3, 2), (3, 2, 3, 0), (1, 4, 2, 0))
    for n, kernel, stride, padding in cases:
        counts = _transposed(np.ones((1, n)), np.ones((1, kernel)), stride)[0]
        wanted = counts[padding : len(counts) - padding]
        hint = f"Input i stamps {kernel} pixels, from {stride} i - {padding} on; outputs begin at 0."
        expect(answer(n, kernel, stride, padding), wanted, f"stamp_counts({n}, {kernel}, {stride}, {padding})", hint)


def _check_scaling(answer: Any) -> None:
    for kernel, stride in ((2, 2), (3, 2), (4, 2), (5, 2), (3, 3), (4, 3), (7, 4), (3, 1)):
        call = f"exact_scaling({kernel}, {stride})"
        found = answer(kernel, stride)
        if not isinstance(found, tuple) or len(found) != 2 or any(not float(v).is_integer() for v in found):
            raise WrongAnswer(f"{call} is {found!r}; it must be two whole numbers, (padding, output_padding).")
        padding, extra = (int(v) for v in found)
        size = 9 * stride - 2 * padding + kernel + extra
        if padding < 0 or not 0 <= extra < max(2, stride):
            raise WrongAnswer(f"{call} is {found}: neither may be below 0, nor output_padding reach the stride.")
        if size != 10 * stride:
            raise WrongAnswer(
                f"With {call} = {found}, 10 pixels become 9 x {stride} - 2 x {padding} + {kernel} + {extra} = {size}; "
                f"it must be {10 * stride}. Solve 2 padding - output_padding = kernel - stride: what if that is odd?"
            )
        wanted = (kernel - stride) % 2
        expect(extra, wanted, f"the output_padding of {call}", "It is needed only where kernel - stride is odd.")


def _check_output_padding(answer: Any) -> None:
    for kernel, stride, padding in ((3, 2, 0), (3, 2, 1), (2, 2, 0), (5, 3, 2), (4, 4, 1)):
        for size in range(kernel, kernel + 7):
            out = (size + 2 * padding - kernel) // stride + 1
            back = (out - 1) * stride - 2 * padding + kernel
            hint = f"The convolution makes size {out} of size {size}; without output_padding it goes back to {back}."
            call = f"output_padding_for({size}, {kernel}, {stride}, {padding})"
            expect(answer(size, kernel, stride, padding), size - back, call, hint)


def _check_convolution(answer: Any) -> None:
    rng = np.random.default_rng(6)
    for shape, kernel, stride in (((2, 2), (2, 2), 2), ((3, 4), (3, 3), 1), ((3, 4), (3, 3), 2), ((4, 2), (2, 3), 3)):
        y, k = rng.standard_normal(shape), rng.standard_normal(kernel)
        hint = (
            f"Spread y with {stride - 1} zeros between its values, put {kernel[0] - 1} rows and {kernel[1] - 1} "
            "columns of zeros around, and convolve with the kernel turned by 180 degrees."
        )
        what = f"the result for y {shape}, k {kernel}, stride {stride}"
        expect(answer(y.copy(), k.copy(), stride), _transposed(y, k, stride), what, hint)


EXERCISES = [
    Exercise(
        name="stamp_counts",
        question="""stamp_counts(n, kernel, stride, padding): in one dimension, how many of n inputs stamp
each output of a transposed convolution: an array of (n - 1) stride - 2 padding + kernel whole numbers.
Padding takes that many outputs away at both ends.""",
        start="""
def stamp_counts(n, kernel, stride, padding):
    ...
""",
        solution="""
def stamp_counts(n, kernel, stride, padding):
    counts = np.zeros((n - 1) * stride + kernel, int)
    for i in range(n):
        counts[i * stride : i * stride + kernel] += 1
    return counts[padding : len(counts) - padding]
""",
        wrong=[
            """
def stamp_counts(n, kernel, stride, padding):  # padding adds, as in a convolution
    counts = np.zeros((n - 1) * stride + kernel + 2 * padding, int)
    for i in range(n):
        counts[padding + i * stride : padding + i * stride + kernel] += 1
    return counts
""",
            """
def stamp_counts(n, kernel, stride, padding):  # the last stamp hides those below
    counts = np.zeros((n - 1) * stride + kernel, int)
    for i in range(n):
        counts[i * stride : i * stride + kernel] = 1
    return counts[padding : len(counts) - padding]
""",
        ],
        check=_check_counts,
    ),
    Exercise(
        name="exact_scaling",
        question="""exact_scaling(kernel, stride): the pair (padding, output_padding) with which a transposed
convolution makes maps exactly stride times as large, whatever their size, with as little output_padding as
possible. The kernel is at least as large as the stride.""",
        start="""
def exact_scaling(kernel, stride):
    ...
    return padding, output_padding
""",
        solution="""
def exact_scaling(kernel, stride):
    output_padding = (kernel - stride) % 2
    padding = (kernel - stride + output_padding) // 2
    return padding, output_padding
""",
        wrong=[
            "def exact_scaling(kernel, stride):\n    return (kernel - stride) // 2, 0\n",
            "def exact_scaling(kernel, stride):\n    return kernel // 2, 1\n",
            "def exact_scaling(kernel, stride):\n    return (kernel - 1) / 2, stride - 1\n",
        ],
        check=_check_scaling,
    ),
    Exercise(
        name="output_padding_for",
        question="""output_padding_for(size, kernel, stride, padding): a convolution was applied to `size`
pixels. Which output_padding must its transpose get to come back to exactly `size`?""",
        start="""
def output_padding_for(size, kernel, stride, padding):
    ...
""",
        solution="""
def output_padding_for(size, kernel, stride, padding):
    return (size + 2 * padding - kernel) % stride  # the pixels that the last step of the kernel left over
""",
        wrong=[
            "def output_padding_for(size, kernel, stride, padding):\n    return size % stride\n",
            "def output_padding_for(size, kernel, stride, padding):\n    return (size - kernel) % stride\n",
            "def output_padding_for(size, kernel, stride, padding):\n    return stride - 1\n",
        ],
        check=_check_output_padding,
    ),
    Exercise(
        name="transpose_as_convolution",
        question="""transpose_as_convolution(y, k, stride): the transposed convolution (no padding) of y (P,
Q) with the kernel k (R, S), made by an ordinary convolution with stride 1, which may be F.conv2d on arrays of
shape (1, 1, rows, columns). What must happen to y and to k before?""",
        start="""
def transpose_as_convolution(y, k, stride):
    ...
""",
        solution="""
def transpose_as_convolution(y, k, stride):
    rows, columns = k.shape
    spread = np.zeros(((y.shape[0] - 1) * stride + 1, (y.shape[1] - 1) * stride + 1))
    spread[::stride, ::stride] = y
    padded = np.pad(spread, ((rows - 1, rows - 1), (columns - 1, columns - 1)))
    turned = k[::-1, ::-1].copy()
    return F.conv2d(mt.Tensor(padded[None, None]), mt.Tensor(turned[None, None])).numpy()[0, 0]
""",
        wrong=[
            """
def transpose_as_convolution(y, k, stride):  # the kernel is not turned
    spread = np.zeros(((y.shape[0] - 1) * stride + 1, (y.shape[1] - 1) * stride + 1))
    spread[::stride, ::stride] = y
    padded = np.pad(spread, ((k.shape[0] - 1,) * 2, (k.shape[1] - 1,) * 2))
    return F.conv2d(mt.Tensor(padded[None, None]), mt.Tensor(k[None, None])).numpy()[0, 0]
""",
            """
def transpose_as_convolution(y, k, stride):  # values repeated where zeros belong
    spread = y.repeat(stride, 0).repeat(stride, 1)[: (len(y) - 1) * stride + 1, : (y.shape[1] - 1) * stride + 1]
    padded = np.pad(spread, ((k.shape[0] - 1,) * 2, (k.shape[1] - 1,) * 2))
    return F.conv2d(mt.Tensor(padded[None, None]), mt.Tensor(k[::-1, ::-1].copy()[None, None])).numpy()[0, 0]
""",
        ],
        check=_check_convolution,
    ),
]
