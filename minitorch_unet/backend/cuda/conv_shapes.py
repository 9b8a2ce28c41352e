"""What the convolution kernels are told about a convolution: `struct Convolution` of kernels/cuda/conv_shapes.cuh.

Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows columns.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from .base import map_strides

Array = Any
Pair = tuple[int, int]

LARGEST = 2**31 - 2**17  # of a count of pixels or columns: the tile that holds the last one must not pass 2^31


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
        l = (divisor - 1).bit_length()
        return cls(divisor, l, -(-(1 << 31 + l) // divisor))


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
