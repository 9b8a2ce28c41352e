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
        *((name, ctypes.c_int64) for name in ("image", "row")),
        *((name, ctypes.c_int32) for name in ("pixel", "channels")),
    )


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
    )  # fmt: skip
