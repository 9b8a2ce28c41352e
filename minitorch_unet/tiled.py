"""A network applied to images of any size, tile by tile: which tiles, and what they say. See docs/prediction.md.

Symbol key: C channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from . import functional as F
from .backend import to_device, to_numpy
from .data.tiles import (
    SYMMETRIES,
    Forward,
    Span,
    Window,
    averaged,
    blended_spans,
    extract,
    joined,
    padded_spans,
    predict_strips,
    valid_spans,
)
from .tensor import Tensor, no_grad
from .unet import UNet, UNetSizes

LARGEST_TILE = 572  # input pixels, the paper's; larger tiles waste less on overlap but take memory
ALIKE = 4  # steps of the grid by which tiles move where they can: then Winograd's tiles, too, lie as in the whole image


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles. Raises ValueError for what no network can do.

    tile      largest input size of a tile, pixels a side or (rows, columns); None: at most LARGEST_TILE
    average   over which images of each tile: "none", "flips" (4) or "symmetries" (8)
    overlap   None: tiles that equal the whole. A share from 0 to below 1: neighbours share so much of their side and
              are blended with Gaussian weights, which is not exact
    """

    tile: int | tuple[int, int] | None = None
    average: str = "none"
    overlap: float | None = None

    def __post_init__(self) -> None:
        if self.average not in SYMMETRIES:
            raise ValueError(f"average is {self.average!r}; legal are {', '.join(map(repr, SYMMETRIES))}")
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise ValueError(f"overlap is {self.overlap}; it must be at least 0 and below 1")

    def limits(self, sizes: UNetSizes) -> tuple[int, int]:
        """The largest legal (rows, columns); raises ValueError for a given tile that is not legal."""
        if self.tile is None:
            largest = sizes.nearest_legal(LARGEST_TILE)[0]
            return largest, largest
        rows, columns = (self.tile, self.tile) if isinstance(self.tile, int) else self.tile
        for n in (rows, columns):
            if not sizes.is_legal(n):
                near = " and ".join(map(str, sizes.nearest_legal(n)))
                raise ValueError(f"tile is {n} pixels, which this network cannot take; nearest legal sizes: {near}")
        return rows, columns


EXACT = Tiling()


def margin(network: UNet) -> int:
    """Pixels of scores, from a window's edge inwards, that a padded network's padding there can change; on the grid.

    Found by carrying the interval 0..grid-1 of scores back to the input, through both routes at every level; pooling
    cells begin at multiples of the grid here, so this is what any scores that fill whole cells read beyond them.
    """
    depth, grid = network.sizes.depth, network.sizes.grid
    nearest = network.config["up"] == "nearest"

    def down(level: int, low: int, high: int) -> tuple[int, int]:
        """What of the input the pixels low..high behind block `level` of the contracting path are made of."""
        low, high = low - 2, high + 2
        return down(level - 1, 2 * low, 2 * high + 1) if level else (low, high)

    def merge(level: int, low: int, high: int) -> tuple[int, int]:
        if level == depth:
            return down(level, low, high)
        low, high = low - 2, high + 2
        skip = down(level, low, high)
        up = merge(level + 1, (low - nearest) // 2, (high + nearest) // 2)  # the 2x2 convolution reaches 1 pixel
        return min(skip[0], up[0]), max(skip[1], up[1])

    low, high = merge(0, 0, grid - 1)
    return -(-max(-low, high - grid + 1) // grid) * grid


def is_exact(network: UNet, how: Tiling = EXACT) -> bool:
    """Whether tiles equal the whole. Group and instance normalisation take their statistics from each tile."""
    return how.overlap is None and network.config["norm"] not in ("group", "instance")


def prediction_tile(
    network: UNet, height: int, width: int, how: Tiling = EXACT
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(input size, output size) of the tiles for an image: one tile if that is within the limits, else the limits."""
    sizes = network.sizes
    chosen = [min(sizes.input_size(n), most) for n, most in zip((height, width), how.limits(sizes), strict=True)]
    return (chosen[0], chosen[1]), (sizes.output_size(chosen[0]), sizes.output_size(chosen[1]))


def spans_for(network: UNet, length: int, tile_in: int, tile_out: int, how: Tiling = EXACT) -> list[Span]:
    """The tiles along one axis of `length` pixels. Raises ValueError for tiles too small to leave anything."""
    grid, padded = network.sizes.grid, network.config["padding"] == "same"
    if not padded and tile_out < min(grid, length):
        least = network.sizes.input_size(grid)
        raise ValueError(f"tile is {tile_in} pixels; this network needs at least {least} for an image of {length}")
    if how.overlap is not None:
        return blended_spans(length, tile_in, tile_out, grid, how.overlap)
    edge = margin(network)
    if padded and tile_in < length and tile_in <= 2 * edge:
        raise ValueError(
            f"tile is {tile_in} pixels; with padding at least {2 * edge + grid} are needed for an image of {length} "
            f"pixels, as {edge} at each edge are dropped (or choose an overlap)"
        )
    kept = tile_in - 2 * edge if padded else tile_out
    step = ALIKE * grid if kept >= ALIKE * grid else grid
    if padded:
        return padded_spans(length, tile_in, edge, grid, step)
    return valid_spans(length, tile_in, tile_out, step)


def probabilities_of(network: UNet) -> Forward:
    """Windows (N, C, H, W) to class probabilities, in the type of the network's parameters."""
    weight = network.parameters()[0]
    device, dtype = weight.device, weight.data.dtype

    def forward(window: np.ndarray) -> np.ndarray:
        with no_grad():
            scores = network(Tensor(to_device(np.ascontiguousarray(window, dtype=dtype), device)))
            found: np.ndarray = to_numpy(F.softmax(scores, 1).data)
            return found

    return forward


def strips_of(
    network: UNet,
    window: Window,
    height: int,
    width: int,
    how: Tiling = EXACT,
    progress: Callable[[int, int], None] | None = None,
    start: int = 0,
) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, class probabilities (K, rows, W)) from row `start` to the bottom, of an image read through `window`.

    One strip of tiles is held at a time; tiles that end above `start` are not computed. Raises ValueError for tiles
    that do not suit the network.
    """
    tile_in, tile_out = prediction_tile(network, height, width, how)
    rows, columns = (
        spans_for(network, n, size_in, size_out, how)
        for n, size_in, size_out in zip((height, width), tile_in, tile_out, strict=True)
    )
    left = [row for row in rows if row.end > start]
    before, total = (len(rows) - len(left)) * len(columns), len(rows) * len(columns)
    count = None if progress is None else lambda done, _: progress(before + done, total)
    forward = averaged(probabilities_of(network), how.average)
    blend = how.overlap is not None
    training = network.training
    network.eval()
    try:
        for first, strip in predict_strips(forward, window, left, columns, tile_in, tile_out, blend, count):
            if first + strip.shape[1] > start:  # blended tiles may begin above
                yield max(first, start), strip[:, max(0, start - first) :]
    finally:
        network.train(training)


def predict_probabilities(
    network: UNet,
    image: np.ndarray,
    progress: Callable[[int, int], None] | None = None,
    how: Tiling = EXACT,
) -> np.ndarray:
    """Class probabilities (K, H, W), in the network's type, of a normalised image (C, H, W) of any size."""
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"predict_probabilities: image has shape {image.shape}, legal is a non-empty (C, H, W)")
    reader: Any = partial(extract, image)
    height, width = image.shape[1:]
    return joined(strips_of(network, reader, height, width, how, progress), height)
