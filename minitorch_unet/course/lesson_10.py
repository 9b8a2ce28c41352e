"""Overlap-tile: pieces that equal the whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from minitorch_unet import UNetSizes
from minitorch_unet.data import reflect_index, tile_origins

from . import Exercise, WrongAnswer, expect


def _check_mirror(answer: Any) -> None:
    for n in (2, 5, 8):
        wanted = reflect_index(-3 * n, 4 * n, n)
        for i, index in zip(range(-3 * n, 4 * n), wanted.tolist(), strict=True):
            hint = f"Behind {n - 1} comes {n - 2} again, and all of it repeats every {2 * (n - 1)} pixels."
            expect(answer(i, n), index, f"mirror({i}, {n})", hint)


def _check_origins(answer: Any) -> None:
    for length, tile, grid in ((512, 388, 16), (172, 44, 8), (164, 44, 8), (165, 44, 8), (30, 44, 8), (1000, 64, 16)):
        found, call = answer(length, tile, grid), f"origins({length}, {tile}, {grid})"
        wanted = tile_origins(length, tile, grid)
        if not isinstance(found, list | tuple):
            raise WrongAnswer(f"{call} is a {type(found).__name__}; it must be a list")
        off = [origin for origin in found if origin % grid]
        if off:
            raise WrongAnswer(f"{call}: {off[0]} is no multiple of {grid}: that tile is pooled in another phase.")
        gaps = [a for a, b in pairwise(found) if b - a > tile]
        if gaps:
            raise WrongAnswer(f"{call}: pixels behind {gaps[0] + tile - 1} are in no tile.")
        if found and found[-1] + tile < length:
            raise WrongAnswer(f"{call}: the last tile ends at {found[-1] + tile}, the image at {length}.")
        expect(list(found), wanted, call, f"{len(wanted)} tiles are enough.")


def _check_halo(answer: Any) -> None:
    for depth in range(7):
        wanted = UNetSizes(depth).halo
        hint = (
            "A convolution at level k takes off 2^k pixels of the input on each side. There are two at each level "
            f"going down, two at each going up, and two at the bottom, level {depth}."
        )
        expect(answer(depth), wanted, f"halo({depth})", hint)


EXERCISES = [
    Exercise(
        name="mirror",
        question="""mirror(i, n): a row of n pixels (n at least 2), numbered 0 to n - 1, is mirrored at both ends
without repeating the end pixel, again and again. Which pixel stands at coordinate i? i is any whole number, also
far outside.""",
        start="""
def mirror(i, n):
    ...
""",
        solution="""
def mirror(i, n):
    period = 2 * (n - 1)
    i %= period
    return min(i, period - i)
""",
        wrong=[
            "def mirror(i, n):\n    return abs(i) if i < n else 2 * (n - 1) - i\n",
            "def mirror(i, n):\n    return i % n\n",
            """
def mirror(i, n):  # the end pixels are repeated
    i %= 2 * n
    return min(i, 2 * n - 1 - i)
""",
        ],
        check=_check_mirror,
    ),
    Exercise(
        name="origins",
        question="""origins(length, tile, grid): the first pixels, in order, of tiles that give `tile` scores each
and together cover 0 to length - 1. All must be multiples of `grid`; the stride is as large as possible, and there
are no more tiles than needed. The last may stick out. An image that fits into one tile has [0].""",
        start="""
def origins(length, tile, grid):
    ...
""",
        solution="""
def origins(length, tile, grid):
    stride = tile // grid * grid
    found = [0]
    while found[-1] + tile < length:
        found.append(found[-1] + stride)
    return found
""",
        wrong=[
            "def origins(length, tile, grid):\n    return list(range(0, length, tile))\n",
            "def origins(length, tile, grid):\n    return list(range(0, length, tile // grid * grid))\n",
            "def origins(length, tile, grid):\n    return list(range(0, max(1, length - tile), tile // grid * grid))\n",
            """
def origins(length, tile, grid):  # the last tile is pushed back to end with the image
    stride = tile // grid * grid
    return [*range(0, max(0, length - tile), stride), max(0, length - tile)]
""",
        ],
        check=_check_origins,
    ),
    Exercise(
        name="halo",
        question="""halo(depth): how many pixels of the input a U-Net of `depth` poolings, with two valid 3 x 3
convolutions a block, needs on each side of its scores. (The paper's, depth 4: 92, since 572 - 2 * 92 = 388.)""",
        start="""
def halo(depth):
    ...
""",
        solution="""
def halo(depth):
    bottom = 2 * 2**depth
    return bottom + sum(4 * 2**level for level in range(depth))
""",
        wrong=[
            "def halo(depth):\n    return 2 * 2**depth + sum(2 * 2**level for level in range(depth))\n",
            "def halo(depth):\n    return 2 + 4 * depth\n",
            "def halo(depth):\n    return 4 * 2**depth + sum(8 * 2**level for level in range(depth))\n",
            "def halo(depth):\n    return 23 * 2**depth // 4\n",
        ],
        check=_check_halo,
    ),
]
