"""How a convolution's product is cut into tiles: the choice between the rungs of the ladder and between tile sizes.

A product of (rows, depth) by (depth, columns) is made in tiles by blocks, each of which walks along the depth in steps.
Where there are fewer tiles than multiprocessors (deep layers: few pixels, many channels; weight gradients: few weights,
many pixels), several blocks share the steps of a tile, and a second pass adds their parts up.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

LATENCY = 2000  # clocks that a block needs to begin and to end: the first loads, the epilogue
ALONE = 1.4  # how much slower a block is that has a multiprocessor to itself: nobody works while it waits
BYTES_PER_CLOCK = 14  # of memory for each multiprocessor (an H100's)
SECOND_PASS = 4000  # clocks of one more launch
LEAST_STEPS = 4  # of a block that shares a tile
MOST_PARTS = 1 << 28  # bytes that parts may take


class Engine(NamedTuple):
    """A way to compute products: its source, the depth of a step, multiply-adds a clock of a multiprocessor, tiles."""

    source: str
    depth: int
    rate: float
    tiles: tuple[tuple[int, int], ...]
    splits: bool = True


WIDE = ((128, 128), (128, 64), (64, 128))
# The rates are estimates that only choices depend on, not results: of the float32 units 80 %, of the tensor cores what
# mma.sync reaches.
ENGINES = {
    "naive": Engine("conv_naive", 1, 2, ((1, 256),), splits=False),
    "tiled": Engine("conv_tiled", 16, 12, ((16, 16),), splits=False),
    "gemm": Engine("conv_gemm", 8, 100, WIDE),
    "3xtf32": Engine("conv_mma", 32, 200, WIDE),
    "tf32": Engine("conv_mma", 32, 600, WIDE),
    "16 bits": Engine("conv_mma", 64, 1200, WIDE),
}


class Tiling(NamedTuple):
    """A product cut up: tiles of m rows by n columns, the blocks that share a tile, and the clocks it should take."""

    m: int
    n: int
    splits: int
    clocks: float


@functools.lru_cache(maxsize=4096)
def tiling(name: str, rows: int, columns: int, steps: int, multiprocessors: int, splits: int | None = None) -> Tiling:
    """The quickest way to cut the product up, by estimate; `splits` asks for a number of blocks a tile."""
    engine = ENGINES[name]
    found = []
    for m, n in engine.tiles:
        tiles = math.ceil(rows / m) * math.ceil(columns / n)
        most = min(steps // LEAST_STEPS, MOST_PARTS // (4 * rows * columns), 4 * multiprocessors // tiles)
        counts = range(1, max(1, most) + 1) if splits is None else [min(splits, steps)]
        for count in counts if engine.splits else [1]:
            clocks = _clocks(engine, m, n, tiles * count, math.ceil(steps / count), multiprocessors)
            if count > 1:  # writing the parts, and the second pass, which reads them
                clocks += SECOND_PASS + 2 * count * rows * columns * 4 / (BYTES_PER_CLOCK * multiprocessors)
            found.append(Tiling(m, n, count, clocks))
    return min(found, key=lambda t: t.clocks)


def _clocks(engine: Engine, m: int, n: int, blocks: int, steps: int, multiprocessors: int) -> float:
    """Until all blocks are done: a multiprocessor has `turns` of them at most, side by side or one after another."""
    turns = math.ceil(blocks / multiprocessors)
    block = LATENCY + steps * engine.depth * m * n / engine.rate
    narrow = 1.0 if (m, n) == engine.tiles[0] else 1.1  # small tiles load more for each product
    return turns * block * narrow * (ALONE if turns == 1 else 1)
