"""Tensor maps: how Hopper's copy engine (TMA) is told of an array, so that a kernel can fetch boxes of it.

A kernel gets a map by value, 128 bytes that only the driver can make (cuTensorMapEncodeTiled). In the simulator the
same bytes are a record that kernels/simulator/tma.cpp reads.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

Array = Any

# Numbers of cuda.h: CUtensorMapDataType ("tf32": float32 in memory, rounded as it is fetched); a swizzle of 128 bytes;
# 128 bytes for the L2 cache to fetch at a time.
DATA_TYPES = {"float16": 6, "float32": 7, "bfloat16": 9, "tf32": 11}
SWIZZLE_128B, PROMOTION_128B = 3, 2
SWIZZLE_SPAN = 128  # bytes: the longest innermost row of a box

SIMULATED = np.dtype(
    [("mark", "u8"), ("base", "u8"), ("rank", "u4"), ("element", "u4"), ("rounds", "u4"), ("swizzle", "u4"),
     ("size", "u4", 5), ("box", "u4", 5), ("stride", "u8", 5), ("unused", "u4", 4)]
)  # fmt: skip
MARK = 0x70616D726F736E65


class Axis(NamedTuple):
    """One axis of an array as a map sees it: its length, the bytes from one element to the next, the box's length."""

    length: int
    stride: int
    box: int


class TensorMap:
    """A map of a device array: boxes of it travel to and from shared memory, in the 128-byte swizzle.

    `axes` from the innermost on, whose elements must be neighbours in memory: any view can be described whose other
    strides are multiples of 16 bytes. What a box reaches beyond an axis is read as 0 and not written. With `tf32`,
    float32 values are rounded to TF32 on the way. Raises ValueError, with `name`, for what the copy engine cannot do.
    """

    def __init__(self, xp: Any, array: Array, axes: Sequence[Axis], name: str, tf32: bool = False) -> None:
        kind = "tf32" if tf32 else array.dtype.name
        if kind not in DATA_TYPES or (tf32 and array.dtype != np.float32):
            raise ValueError(f"TensorMap: {name} has dtype {array.dtype.name}; legal are float16, bfloat16, float32")
        axes = tuple(_with_legal_stride(axes, i, array.itemsize) for i in range(len(axes)))
        _check(name, int(array.data.ptr), array.itemsize, axes)
        make = _simulated if xp.__name__.endswith("simulator.standin") else _encoded
        self.bytes = make(int(array.data.ptr), kind, array.itemsize, axes)

    def __bytes__(self) -> bytes:
        return self.bytes


def _with_legal_stride(axes: Sequence[Axis], i: int, itemsize: int) -> Axis:
    """The axis; where it has one element, whose stride says nothing, with a stride that the copy engine accepts."""
    if axes[i].length != 1:
        return axes[i]
    inner = itemsize if i == 0 else -(-axes[i - 1].length * abs(axes[i - 1].stride) // 16) * 16
    return axes[i]._replace(stride=inner)


def _check(name: str, address: int, itemsize: int, axes: Sequence[Axis]) -> None:
    where = f"TensorMap: {name}"
    if not 1 <= len(axes) <= 5:
        raise ValueError(f"{where} has {len(axes)} axes; legal are 1 to 5")
    if address % 16:
        raise ValueError(f"{where} starts {address % 16} bytes past a multiple of 16, which its address must be")
    if axes[0].stride != itemsize:
        raise ValueError(f"{where} has {axes[0].stride} bytes between neighbours of axis 0; they must be {itemsize}")
    for i, axis in enumerate(axes):
        if not 1 <= axis.length <= 2**32 - 1:
            raise ValueError(f"{where} has length {axis.length} in axis {i}; legal are 1 to 2^32 - 1")
        if not 1 <= axis.box <= 256:
            raise ValueError(f"{where} has boxes of {axis.box} in axis {i}; legal are 1 to 256")
        if i and (axis.stride % 16 or not 0 < axis.stride < 2**40):
            legal = "multiples of 16 below 2^40"
            raise ValueError(f"{where} has a stride of {axis.stride} bytes in axis {i}; legal are {legal}")
    row = axes[0].box * itemsize
    if row % 16 or row > SWIZZLE_SPAN:
        raise ValueError(f"{where} has boxes with rows of {row} bytes; legal are multiples of 16 up to {SWIZZLE_SPAN}")


def _simulated(address: int, kind: str, itemsize: int, axes: tuple[Axis, ...]) -> bytes:
    record = np.zeros((), SIMULATED)
    record["mark"], record["base"], record["rank"], record["element"] = MARK, address, len(axes), itemsize
    record["rounds"], record["swizzle"] = kind == "tf32", SWIZZLE_SPAN
    for i, axis in enumerate(axes):
        record["size"][i], record["stride"][i], record["box"][i] = axis
    return record.tobytes()


@functools.lru_cache(maxsize=8192)
def _encoded(address: int, kind: str, itemsize: int, axes: tuple[Axis, ...]) -> bytes:
    """The driver's 128 bytes. It needs no device for it, and they depend on nothing but the arguments."""
    rank = len(axes)
    room = ctypes.create_string_buffer(128 + 64)
    aligned = ctypes.addressof(room) + -ctypes.addressof(room) % 64
    sizes = (ctypes.c_uint64 * rank)(*(axis.length for axis in axes))
    strides = (ctypes.c_uint64 * max(1, rank - 1))(*(axis.stride for axis in axes[1:]))
    box = (ctypes.c_uint32 * rank)(*(axis.box for axis in axes))
    steps = (ctypes.c_uint32 * rank)(*[1] * rank)
    error = _driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(aligned), DATA_TYPES[kind], rank, ctypes.c_void_p(address), sizes, strides, box, steps,
        0, SWIZZLE_128B, PROMOTION_128B, 0,
    )  # fmt: skip
    if error:
        raise RuntimeError(f"cuTensorMapEncodeTiled: error {error} for a map at address {address:#x} with axes {axes}")
    return ctypes.string_at(aligned, 128)


@functools.cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def of_map(xp: Any, x: Array, box: tuple[int, int, int], name: str, tf32: bool = False) -> TensorMap:
    """The map of (N, C, H, W) whose channels are neighbours in memory, for boxes of (channels, columns, rows)."""
    (n, c, h, w), (image, channel, row, column) = x.shape, x.strides
    channels, columns, rows = box
    axes = (Axis(c, channel, channels), Axis(w, column, columns), Axis(h, row, rows), Axis(n, image, 1))
    return TensorMap(xp, x, axes, name, tf32)


def of_weight(xp: Any, weight: Array, box: tuple[int, int], name: str, tf32: bool = False) -> TensorMap:
    """The map (channel, tap, filter) of a weight (K, C, R, S) in (K, R, S, C) memory, for boxes of (channels, filters).

    Taps must follow one another at one distance: the strides along R are S times those along S.
    """
    (k, c, r, s), (filter_, channel, row, column) = weight.shape, weight.strides
    tap = column if s > 1 else row
    if r > 1 and s > 1 and row != s * column:
        legal = f"the rows of its kernels must lie {s} taps apart"
        raise ValueError(f"TensorMap: {name} has strides {weight.strides}; {legal}")
    axes = (Axis(c, channel, box[0]), Axis(r * s, tap, 1), Axis(k, filter_, box[1]))
    return TensorMap(xp, weight, axes, name, tf32)
