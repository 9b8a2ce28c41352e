"""Mirrored tiles and overlap-tile prediction. Symbol key: C channels, H rows, W columns, K classes."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np


def reflect_index(start: int, stop: int, n: int) -> np.ndarray:
    """Indices into 0..n-1 for the coordinates start..stop-1, mirrored without repeating the edge.

    For n = 4: ... 2 1 | 0 1 2 3 | 2 1 0 1 2 ...; any overhang is legal, and n = 1 gives zeros.
    """
    if n < 1:
        raise ValueError(f"reflect_index: n is {n}, it must be at least 1")
    period = max(2 * (n - 1), 1)
    # Within one period the coordinates run 0..n-1 and back; the second half is folded onto the first.
    inside = np.arange(start, stop) % period
    return np.minimum(inside, period - inside) if n > 1 else np.zeros_like(inside)


def extract(array: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Copy the window (..., height, width) of array (..., H, W) at `top`, `left`; outside it is mirrored.

    Offsets may be negative and windows may overhang by any amount.
    """
    if 0 <= top <= array.shape[-2] - height and 0 <= left <= array.shape[-1] - width:  # the quick way where it is legal
        return array[..., top : top + height, left : left + width].copy()
    rows = reflect_index(top, top + height, array.shape[-2])
    columns = reflect_index(left, left + width, array.shape[-1])
    return array[..., rows[:, None], columns]


def tile_origins(length: int, tile: int, grid: int) -> list[int]:
    """Origins of output tiles that cover 0..length-1, all multiples of `grid`.

    The stride is the largest multiple of `grid` that is at most `tile` (388 on a grid of 16: 384), because a
    tile off the grid would be pooled in another phase and predict other values. The last tile may overhang.
    """
    if length < 1 or grid < 1:
        raise ValueError(f"tile_origins: length is {length} and grid {grid}, both must be at least 1")
    if tile < grid:
        raise ValueError(f"tile_origins: tile is {tile}, it must be at least the grid of {grid}")
    stride = tile // grid * grid
    return list(range(0, max(length - tile, 0) + stride, stride))


def predict_tiled(
    forward: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    tile_in: tuple[int, int],
    tile_out: tuple[int, int],
    grid: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Segment an image (C, H, W) of any size tile by tile; returns (K, H, W) float32 (paper, figure 2).

    `forward` maps (1, C, *tile_in) to (1, K, *tile_out). Each output tile is predicted from its own context
    of (tile_in - tile_out) / 2 pixels on every side, mirrored at the image's border, and every pixel is
    written once: for a valid-convolution network whose poolings multiply to `grid` the result equals one pass
    over the whole image. A network with padding (tile_in = tile_out) has no context, so there the seams are
    only as good as its padding. `progress(done, total)` is called after each tile.

    Raises `ValueError` where the tile sizes do not fit or `forward` returns another shape.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"predict_tiled: image has shape {image.shape}, legal is a non-empty (C, H, W)")
    overhang = [a - b for a, b in zip(tile_in, tile_out, strict=True)]
    if any(extra < 0 or extra % 2 for extra in overhang):
        raise ValueError(
            f"predict_tiled: tile_in {tile_in} must exceed tile_out {tile_out} by even amounts or none"
        )
    halo = [extra // 2 for extra in overhang]
    height, width = image.shape[1:]
    rows, columns = (tile_origins(n, tile, grid) for n, tile in zip((height, width), tile_out, strict=True))
    result: np.ndarray | None = None
    done = 0
    # A tile's part of the result ends where the next tile begins; the last one's ends with the image.
    for top, bottom in pairwise([*rows, height]):
        for left, right in pairwise([*columns, width]):
            window = extract(image, top - halo[0], left - halo[1], *tile_in)
            scores = np.asarray(forward(window[None]))
            if scores.ndim != 4 or scores.shape[0] != 1 or scores.shape[2:] != tuple(tile_out):
                expected = f"(1, K, {tile_out[0]}, {tile_out[1]})"
                raise ValueError(f"predict_tiled: forward returned shape {scores.shape}, expected {expected}")
            if result is None:
                result = np.empty((scores.shape[1], height, width), np.float32)
            result[:, top:bottom, left:right] = scores[0, :, : bottom - top, : right - left]
            done += 1
            if progress is not None:
                progress(done, len(rows) * len(columns))
    assert result is not None  # both origin lists hold at least one tile
    return result
