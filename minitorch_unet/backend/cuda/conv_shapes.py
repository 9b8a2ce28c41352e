"""What the convolution kernels are told about a convolution: `struct Convolution` of kernels/cuda/conv_shapes.cuh.

Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows
columns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..reference import Pair
from .base import map_strides

Array = Any

LARGEST = 2**31 - 1
MOST_ROWS = LARGEST - 2**16  # of a product: the tile that holds the last one must not pass 2^31
MOST_COLUMNS = 2**20  # their tiles are counted by a grid's second axis, which ends at 65535


class Window(NamedTuple):
    """Which input pixels an output pixel reads."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def taps(self) -> int:
        """R S."""
        return self.kernel[0] * self.kernel[1]

    @property
    def touching(self) -> bool:
        """Whether neighbouring windows touch without overlap."""
        return self.stride == self.kernel and self.padding == (0, 0) and self.dilation == (1, 1)

    def output_size(self, size: Pair) -> Pair:
        """P, Q of an input of H, W."""
        p, q = (
            (size[i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )
        return p, q

    def turned(self) -> Window:
        """The window of the convolution of gy that a stride-1 input gradient is; its taps come in reverse order."""
        before = [self.dilation[i] * (self.kernel[i] - 1) - self.padding[i] for i in (0, 1)]
        return Window(self.kernel, (1, 1), (before[0], before[1]), self.dilation)


class Layout(ctypes.Structure):
    """Where element (n, h, w, c) of a channels-last map lies; strides in elements."""

    _fields_ = (
        ("image", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("row", "pixel", "channels")),
    )


class Divider(ctypes.Structure):
    """A divisor from 1 to 2^31 - 1, prepared: x // divisor = 2 x multiplier >> 32 >> l for 0 <= x < 2^31."""

    _fields_ = (("divisor", ctypes.c_int32), ("l", ctypes.c_int32), ("multiplier", ctypes.c_uint32))

    @classmethod
    def of(cls, divisor: int) -> Divider:
        """The divisor with l = ceil(log2 divisor) and multiplier = ceil(2^(31+l) / divisor)."""
        log2 = (divisor - 1).bit_length()
        return cls(divisor, log2, -(-(1 << 31 + log2) // divisor))


class Convolution(ctypes.Structure):
    """Everything about a convolution but its arrays; the fields are explained in conv_shapes.cuh."""

    _fields_ = (
        ("x", Layout),
        ("x2", Layout),
        *(
            (name, ctypes.c_int32)
            for name in (
                "images", "h", "w", "p", "q", "r", "s", "stride_h", "stride_w", "pad_h", "pad_w", "dilation_h",
                "dilation_w", "filter", "tap", "rows", "columns", "patch_r", "patch_s", "relu",
            )
        ),
        *((name, Divider) for name in ("by_p", "by_q", "by_s", "by_c", "by_c2")),
    )  # fmt: skip


def describe(
    sources: Sequence[Array], window: Window, outer: Pair, columns: int, rows: int | None = None,
    inner: Pair | None = None, **more: int,
) -> Convolution | None:  # fmt: skip
    """The convolution that reads channels-last maps; None if the kernels' 32-bit numbers cannot count it.

    outer: P, Q; inner: H, W, by itself the size of the maps; rows: of the product, by itself the output's pixels;
    more: fields of `Convolution`.
    """
    n, _, *size = sources[0].shape
    h, w = inner or size
    (r, s), (p, q) = window.kernel, outer
    rows = n * p * q if rows is None else rows
    fields = {
        "images": n, "h": h, "w": w, "p": p, "q": q, "r": r, "s": s, "stride_h": window.stride[0],
        "stride_w": window.stride[1], "pad_h": window.padding[0], "pad_w": window.padding[1],
        "dilation_h": window.dilation[0], "dilation_w": window.dilation[1], "rows": rows, "columns": columns,
        "patch_r": 1, "patch_s": 1, **more,
    }  # fmt: skip
    layouts = [_layout(x) for x in sources]
    counted = n * p * q <= MOST_ROWS and rows <= MOST_ROWS and columns <= MOST_COLUMNS
    if None in layouts or not counted or any(abs(value) > LARGEST for value in fields.values()):
        return None
    channels = [x.shape[1] for x in sources]
    if max(channels) * r * s > MOST_ROWS:
        return None
    dividers = zip(("by_p", "by_q", "by_s", "by_c", "by_c2"), (p, q, s, *channels, 1), strict=False)
    return Convolution(
        **dict(zip(("x", "x2"), layouts, strict=False)), **fields, **{name: Divider.of(d) for name, d in dividers}
    )


def _layout(x: Array) -> Layout | None:
    """How a map lies; None if neighbouring values of a pixel are no neighbours, or an image spans too much."""
    strides = map_strides(x)
    if strides is None or min(strides) < 0:
        return None
    _, c, h, w = x.shape
    image, row, pixel = strides
    return Layout(image, row, pixel, c) if (h - 1) * row + (w - 1) * pixel + c <= LARGEST and row <= LARGEST else None


def readable(x: Array) -> bool:
    """Whether the kernels can read a map (N, C, H, W) where it lies."""
    return _layout(x) is not None


def aligned(x: Array, size: int) -> bool:
    """Whether a map's channels fall into whole pieces of `size` bytes, which begin at multiples of that."""
    (n, c, h, w), (image, _, row, pixel) = x.shape, x.strides
    steps = [stride for length, stride in ((n, image), (h, row), (w, pixel)) if length > 1]
    return c * x.itemsize % size == 0 and x.data.ptr % size == 0 and all(stride % size == 0 for stride in steps)
