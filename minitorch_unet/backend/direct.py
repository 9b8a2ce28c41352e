"""Convolutions by kernels/cpu/direct.h: naive loops, and direct arithmetic blocked in registers; inputs are padded."""

from __future__ import annotations

import numpy as np

from .compiled import function, scratch, width
from .structs import Array, Weight, Window, address, channels_last, maps
from .threads import get_num_threads
from .tiled import streamed

Pair = tuple[int, int]

SUM_BYTES = 20_000_000  # partial weight gradients
PIXELS = 64  # packed at a time, as in direct.h
PARTS = 16  # ranges of rows with a weight gradient of their own, at most


def describe(x: Array, y: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Window:
    """The description of a convolution of channels-last arrays."""
    return Window(
        x=maps(x), y=maps(y), images=y.shape[0], p=y.shape[2], q=y.shape[3], r=kernel[0], s=kernel[1],
        stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1],
    )  # fmt: skip


def convolve(
    x: Array, kernel: Pair, weight: Weight, bias: Array | None, relu: bool, stride: Pair, dilation: Pair, y: Array,
) -> None:  # fmt: skip
    """Convolution of a padded x into y, blocked in registers."""
    x = channels_last(x)
    c, k = x.shape[1], y.shape[1]
    bias = None if bias is None else np.ascontiguousarray(bias)
    window = describe(x, y, kernel, stride, dilation)
    window.bias, window.relu, window.stream = address(bias), relu, streamed(y)
    threads = get_num_threads()
    panel = width("panel_width")
    packed = scratch("shared", -(-k // panel) * panel * kernel[0] * kernel[1] * c)
    function("pack_weights")(weight, kernel[0] * kernel[1], c, k, threads, packed)
    function("direct")(window, packed, threads)


def convolve_naively(
    x: Array, weight: Array, bias: Array | None, relu: bool, stride: Pair, dilation: Pair, y: Array
) -> None:  # fmt: skip
    """The same by the textbook's loops, weight (K, C, R, S)."""
    x = channels_last(x)
    bias = None if bias is None else np.ascontiguousarray(bias)
    window = describe(x, y, weight.shape[2:], stride, dilation)
    window.bias, window.relu = address(bias), relu
    function("naive")(window, np.ascontiguousarray(weight.transpose(2, 3, 1, 0)), get_num_threads())


def weight_gradient(x: Array, gy: Array, kernel: Pair, stride: Pair, dilation: Pair, gw: Array) -> None:
    """gw (R, S, C, K), x padded."""
    if gy.size == 0 or gw.size == 0:
        gw[...] = 0
        return
    x, gy = channels_last(x), channels_last(gy)
    window = describe(x, gy, kernel, stride, dilation)
    threads = get_num_threads()
    panel, vector = width("panel_width"), width("vector_width")
    c, k = -(-x.shape[1] // vector) * vector, -(-gy.shape[1] // panel) * panel
    size = kernel[0] * kernel[1] * c * k
    parts = max(1, min(PARTS, gy.shape[0] * gy.shape[2], SUM_BYTES // (4 * size)))
    sums, rest = scratch("shared", parts * size), scratch("tiles", threads * PIXELS * (c + panel))
    function("direct_gradient")(window, threads, parts, sums, rest, gw)
