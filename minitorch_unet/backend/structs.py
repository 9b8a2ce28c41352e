"""What the compiled kernels are given: the structures of kernels/cpu/shapes.h, and arrays described by them.

Strides are counted in floats. A structure holds addresses: the arrays it describes must live as long as it is used.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from .memory import empty

Array = Any

class Maps(ctypes.Structure):
    """A batch of channels-last images, see kernels/cpu/shapes.h; strides in floats."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("image", "row", "pixel", "channels")),
    )


class Weight(ctypes.Structure):
    """A convolution's weight, straight or transposed, see kernels/cpu/shapes.h; strides in floats."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("tap", "row", "column", "turned")),
    )


class Conv(ctypes.Structure):
    """A convolution that is computed tile by tile, see kernels/cpu/shapes.h."""

    _fields_ = (
        ("x", Maps * 2),
        ("y", Maps),
        *((name, ctypes.c_int64) for name in ("images", "h", "w", "p", "q")),
        *((name, ctypes.c_int64 * 2) for name in ("pad", "patch_in", "patch_out", "stride", "dilation")),
        ("weight", Weight),
        ("bias", ctypes.c_void_p),
        ("relu", ctypes.c_int64),
        ("mask", Maps),
        ("stream", ctypes.c_int64),
    )


class Window(ctypes.Structure):
    """Any convolution of a padded input, see kernels/cpu/shapes.h."""

    _fields_ = (
        ("x", Maps),
        ("y", Maps),
        *(
            (name, ctypes.c_int64)
            for name in ("images", "p", "q", "r", "s", "stride_h", "stride_w", "dilation_h", "dilation_w")
        ),
        ("bias", ctypes.c_void_p),
        ("relu", ctypes.c_int64),
        ("stream", ctypes.c_int64),
    )


class Scores(ctypes.Structure):
    """Class scores with labels and weights, see kernels/cpu/shapes.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("image", "channel", "pixel", "classes", "pixels")),
        ("labels", ctypes.c_void_p),
        ("label_bytes", ctypes.c_int64),
        ("ignore_index", ctypes.c_int64),
        ("class_weight", ctypes.c_void_p),
        ("pixel_weight", ctypes.c_void_p),
    )


def usable(*arrays: Array | None) -> bool:
    """Whether all given arrays are of the kernels' type."""
    return all(a is None or a.dtype == np.float32 for a in arrays)


def channels_last(x: Array) -> Array:
    """The same (N, C, H, W) values with neighbouring channels and non-negative strides; a copy only if need be."""
    if x.size == 0:
        return x
    fits = (x.shape[1] == 1 or x.strides[1] == 4) and all(s >= 0 and s % 4 == 0 for s in x.strides)
    return x if fits else np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def maps(x: Array) -> Maps:
    """The description of a channels-last (N, C, H, W) array."""
    image, _, row, pixel = (s // 4 for s in x.strides)
    return Maps(x.ctypes.data, image, row, pixel, x.shape[1])


def filters_last(weight: Array) -> Array:
    """A (K, C, R, S) weight with neighbouring filters and evenly spaced taps: parameters lie so, others are copied."""
    strides = weight.strides
    if strides[0] == 4 and strides[1] >= 4 and strides[3] >= 4 and strides[2] == weight.shape[3] * strides[3]:
        return weight
    k, c, r, s = weight.shape
    copy = empty((r, s, c, k), weight.dtype)
    copy[...] = weight.transpose(2, 3, 1, 0)
    return copy.transpose(3, 2, 0, 1)


def straight(weight: Array) -> Weight:
    """The description of a weight with neighbouring filters for a convolution from C to K channels."""
    return Weight(weight.ctypes.data, weight.strides[3] // 4, weight.strides[1] // 4, 1, 0)


def transposed(weight: Array, turned: bool) -> Weight:
    """The same for its transpose, from K to C channels; `turned`: with the taps in reverse order."""
    return Weight(weight.ctypes.data, weight.strides[3] // 4, 1, weight.strides[1] // 4, turned)


def address(x: Array | None) -> int | None:
    """Where an array's values begin; None for None."""
    return None if x is None else x.ctypes.data
