"""How a kernel that goes once through maps is launched: grid, strides, and the shape that all its maps share.

The counterpart of kernels/cuda/streaming.cuh, which says what the arguments mean.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..reference import Array
from .base import CudaBase, map_strides
from .launcher import Strided

THREADS = 256  # of a block, as in streaming.cuh
BLOCKS = 4096  # of a grid at most: several for every multiprocessor, so that all end at about the same time
SUM_BLOCKS = 512  # of a grid whose blocks each leave sums, which a second pass must add up
SUM_ROUNDS = 4  # how often such a block should at least go through its pixels
MOST_PIXELS = 2**31 - 1
MOST_BLOCKS = 65535  # along the grid's second and third axis


class Stream(NamedTuple):
    """A launch: its grid, the arguments that say what is where, and how many pieces leave sums."""

    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    pieces: int


class StreamBase(CudaBase):
    """What the families of kernels that go once through maps share."""

    def as_map(self, x: Array) -> Array:
        """x (N, C, H, W) itself if kernels can read it where it lies, else a channels-last copy."""
        strides = map_strides(x)
        return self.channels_last(x) if strides is None or abs(strides[2]) > MOST_PIXELS else x

    def stream(
        self, width: int | None = None, sums: bool = False, mixed: bool = False, merge: bool = True,
        **maps: Array | None,
    ) -> Stream:  # fmt: skip
        """How to launch a kernel over maps (N, C, H, W), given as `as_map` gives them, or None.

        All are of the first one's shape, or (with merge False) of its N and C. `width`: how many channels a thread
        serves where all maps allow it; by itself what fills 16 bytes. `mixed`: the kernel does not care which channel a
        value belongs to. `sums`: its blocks leave sums.
        """
        given = {name: x for name, x in maps.items() if x is not None}
        width = width or 16 // max(x.itemsize for x in given.values())
        n, channels, h, w = next(iter(given.values())).shape
        strides = [steps for x in given.values() if (steps := map_strides(x))]
        rows, columns, images = h, w, n
        if merge:
            rows, columns, images, strides = _merged((n, h, w), strides)
        dense = images == rows == 1 and all(step[2] == channels for step in strides)
        if mixed and channels % width and dense and columns * channels % width == 0:
            columns, channels = columns * channels // width, width
            strides = [(0, 0, width) for _ in strides]
        wide = channels % width == 0 and all(
            x.data.ptr % (width * x.itemsize) == 0 and all(step % width == 0 for step in own)
            for x, own in zip(given.values(), strides, strict=True)
        )
        grid, shape = _shared_out(images, rows * columns, channels // width if wide else channels, sums)
        places = dict.fromkeys(given, (0, 0, 0)) | dict(zip(given, strides, strict=True))
        arguments: dict[str, Any] = {"columns": columns, "channels": channels, "wide": wide, **shape}
        for name, x in maps.items():
            image, row, pixel = places.get(name, (0, 0, 0))
            arguments[name] = None if x is None else Strided(x)
            arguments |= {f"{name}_image": image, f"{name}_row": row, f"{name}_pixel": pixel}
        return Stream(grid, arguments, grid[0] * grid[2])


def streamable(*maps: Array | None) -> bool:
    """Whether these are maps (N, C, H, W) of a size that `StreamBase.stream` can launch a kernel over."""
    for x in maps:
        if x is not None and (x.ndim != 4 or not x.size > 0 or x.shape[0] > MOST_BLOCKS or _pixels(x) > MOST_PIXELS):
            return False
    return True


def _pixels(x: Array) -> int:
    return x.shape[0] * x.shape[2] * x.shape[3]


def _merged(
    sizes: tuple[int, int, int], steps: list[tuple[int, int, int]]
) -> tuple[int, int, int, list[tuple[int, int, int]]]:
    """(rows, columns, images) and strides with the axes merged that follow one another in the memory of all maps."""
    axes: list[tuple[int, list[int]]] = []  # from the last: (size, steps of the maps)
    for i in (2, 1, 0):
        if sizes[i] == 1:
            continue
        own = [step[i] for step in steps]
        if axes and own == [axes[-1][0] * step for step in axes[-1][1]]:
            axes[-1] = (axes[-1][0] * sizes[i], axes[-1][1])
        else:
            axes.append((sizes[i], own))
    axes += [(1, [0] * len(steps))] * (3 - len(axes))
    (columns, pixel), (rows, row), (images, image) = axes
    return rows, columns, images, list(zip(image, row, pixel, strict=True))


def _shared_out(images: int, pixels: int, groups: int, sums: bool) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The grid (pieces of the pixels, tiles of the channels, images), and how a block's threads are dealt out."""
    lane_bits = min(5, (groups - 1).bit_length())
    tiles = -(-groups >> lane_bits)
    at_once = THREADS >> lane_bits  # pixels that a block serves side by side
    blocks = max(1, (SUM_BLOCKS if sums else BLOCKS) // (tiles * images))
    rounds = max(SUM_ROUNDS if sums else 1, math.ceil(pixels / (at_once * blocks)))
    per_block = rounds * at_once
    grid = (-(-pixels // per_block), tiles, images)
    return grid, {"lane_bits": lane_bits, "pixels_per_block": per_block, "pixels": pixels}
