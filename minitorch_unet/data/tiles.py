"""Mirrored tiles and overlap-tile prediction. Symbol key: C channels, H rows, W columns, K classes.

A window is cut from the image, the network maps it to scores, and the tile's part of the result is cut from those. Rows
and columns are planned apart, as lists of `Span`; docs/prediction.md proves that the plans are exact.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Forward = Callable[[np.ndarray], np.ndarray]  # windows (1, C, H, W) -> scores (1, K, P, Q)
Window = Callable[[int, int, int, int], np.ndarray]  # top, left, height, width -> (C, height, width), mirrored outside
Progress = Callable[[int, int], None]  # tiles done, tiles in all


class Span(NamedTuple):
    """A tile along one axis: its window begins at `window`; its scores from index `skip` on are pixels begin..end-1.

    `window` counts pixels of the image and is negative where the window overhangs.
    """

    window: int
    skip: int
    begin: int
    end: int


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
    if length <= tile:
        return [0]
    if tile < grid:
        raise ValueError(
            f"tile_origins: tile is {tile}, it must be at least the grid of {grid}, or the whole length of {length}"
        )
    stride = tile // grid * grid
    return list(range(0, length - tile + stride, stride))


def valid_spans(length: int, tile_in: int, tile_out: int, grid: int) -> list[Span]:
    """Spans for a network without padding, which maps `tile_in` to `tile_out` pixels; every pixel is in one span.

    Scores begin (tile_in - tile_out) / 2 pixels inside their window; windows overhang the image, where it is mirrored.
    """
    halo = (tile_in - tile_out) // 2
    origins = tile_origins(length, tile_out, grid)
    return [Span(begin - halo, 0, begin, end) for begin, end in pairwise([*origins, length])]


def padded_spans(length: int, tile: int, margin: int, grid: int, step: int) -> list[Span]:
    """Spans for a network that pads, so that window and scores are of `tile` pixels; every pixel is in one span.

    The image counts as mirrored up to n, the next multiple of `grid`. A window never overhangs 0..n-1: where it ends
    with the image, the network pads as it would pad the whole image. Where it ends inside, `margin` pixels of scores,
    which depend on the padding there, are dropped. All windows begin on the grid, as `tile`, `margin` and `step` must
    be multiples of it; all but the last at multiples of `step`. Raises ValueError for a tile that is smaller than n and
    leaves less than `step` between its margins.
    """
    n = -(-length // grid) * grid
    if tile % grid or margin % grid or step % grid:
        raise ValueError(f"padded_spans: tile {tile}, margin {margin} and step {step} must be multiples of {grid}")
    if tile >= n:
        return [Span(0, 0, 0, length)]
    stride = (tile - 2 * margin) // step * step
    if stride <= 0:
        raise ValueError(f"padded_spans: tile is {tile}, it must exceed two margins of {margin} pixels by {step}")
    spans: list[Span] = []
    window, begin = 0, 0
    while begin < length:
        end = length if window + tile == n else window + stride + margin
        spans.append(Span(window, begin - window, begin, min(end, length)))
        window, begin = min(window + stride, n - tile), end
    return spans


def blended_spans(length: int, tile_in: int, tile_out: int, grid: int, overlap: float) -> list[Span]:
    """Spans that share at least `overlap` of their length with the next, for tiles that are blended.

    All windows begin on the grid, seen from the first. Padded networks (tile_in = tile_out) get windows inside the
    image, mirrored up to the next multiple of `grid`; others overhang.
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"blended_spans: overlap is {overlap}, it must be at least 0 and below 1")
    halo = (tile_in - tile_out) // 2
    stride = max(grid, int(tile_out * (1 - overlap)) // grid * grid)
    n = -(-length // grid) * grid
    origins = [0]
    while origins[-1] + tile_out < length:
        begin = origins[-1] + stride
        origins.append(begin if halo else min(begin, n - tile_out))
    return [Span(begin - halo, 0, begin, min(begin + tile_out, length)) for begin in origins]


def gaussian(length: int) -> np.ndarray:
    """Weights (length,) float32 of a tile's pixels: a Gaussian about its centre, standard deviation length / 8."""
    distance = np.arange(length) - (length - 1) / 2
    return np.exp(-0.5 * (distance / (length / 8)) ** 2).astype(np.float32)


def predict_strips(
    forward: Forward,
    window: Window,
    rows: Sequence[Span],
    columns: Sequence[Span],
    tile_in: tuple[int, int],
    tile_out: tuple[int, int],
    blend: bool = False,
    progress: Progress | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Segment an image tile by tile; yields (first row, strip (K, rows, W)), which together are the whole result.

    `window` reads from the image, `forward` maps (1, C, *tile_in) to (1, K, *tile_out), rows and columns come from
    one of the functions above. With `blend` tiles that overlap are averaged with the weights of `gaussian`; otherwise
    each pixel is taken from its only tile. No more than one strip of tiles is held. `progress(done, total)` is called
    after each tile. Raises ValueError where `forward` returns another shape.
    """
    width = columns[-1].end
    weights = gaussian(tile_out[0])[:, None] * gaussian(tile_out[1]) if blend else None
    done, first = 0, rows[0].begin
    strip: np.ndarray | None = None  # (K, at most tile_out[0] rows, W) from row `first` on
    total = np.zeros((tile_out[0], width), np.float32) if blend else None  # of the weights
    for row, following in zip(rows, [*(row.begin for row in rows[1:]), rows[-1].end], strict=True):
        for column in columns:
            scores = np.asarray(forward(window(row.window, column.window, *tile_in)[None]))
            if scores.ndim != 4 or scores.shape[0] != 1 or scores.shape[2:] != tuple(tile_out):
                expected = f"(1, K, {tile_out[0]}, {tile_out[1]})"
                raise ValueError(f"predict_tiled: forward returned shape {scores.shape}, expected {expected}")
            here = scores[
                0, :, row.skip : row.skip + row.end - row.begin, column.skip : column.skip + column.end - column.begin
            ]
            if strip is None:
                dtype = np.result_type(scores.dtype, np.float32)
                strip = np.zeros((scores.shape[1], tile_out[0] if blend else row.end - row.begin, width), dtype)
            place = (slice(row.begin - first, row.end - first), slice(column.begin, column.end))
            if weights is None or total is None:
                strip[:, *place] = here
            else:
                used = weights[: here.shape[1], : here.shape[2]]
                strip[:, *place] += here * used
                total[place] += used
            done += 1
            if progress is not None:
                progress(done, len(rows) * len(columns))
        if strip is None:
            raise ValueError("predict_strips: there are no columns")
        ready = following - first
        if total is None:
            yield first, strip
            strip = None
        else:
            yield first, strip[:, :ready] / total[:ready]
            # What the next row of tiles adds to moves up, and zeros follow.
            for held in (strip, total):
                held[..., : held.shape[-2] - ready, :] = held[..., ready:, :].copy()
                held[..., held.shape[-2] - ready :, :] = 0
        first = following


def joined(strips: Iterator[tuple[int, np.ndarray]], height: int) -> np.ndarray:
    """The strips of `predict_strips` as one array (K, H, W)."""
    result: np.ndarray | None = None
    for top, strip in strips:
        if result is None:
            result = np.empty((strip.shape[0], height, strip.shape[2]), strip.dtype)
        result[:, top : top + strip.shape[1]] = strip
    if result is None:
        raise ValueError("joined: there are no strips")
    return result


def predict_tiled(
    forward: Forward,
    image: np.ndarray,
    tile_in: tuple[int, int],
    tile_out: tuple[int, int],
    grid: int = 16,
    progress: Progress | None = None,
) -> np.ndarray:
    """Segment an image (C, H, W) of any size tile by tile; returns (K, H, W), float32 or as wide as scores are.

    `forward` maps (1, C, *tile_in) to (1, K, *tile_out). Each output tile is predicted from its own context
    of (tile_in - tile_out) / 2 pixels on every side, mirrored at the image's border, and every pixel is
    written once: for a valid-convolution network whose poolings multiply to `grid` the result equals one pass
    over the whole image (paper, figure 2). A network with padding (tile_in = tile_out) has no context here;
    `padded_spans` and `blended_spans` are for those. `progress(done, total)` is called after each tile.

    Raises `ValueError` where the tile sizes do not fit or `forward` returns another shape.
    """
    if image.ndim != 3 or 0 in image.shape:
        raise ValueError(f"predict_tiled: image has shape {image.shape}, legal is a non-empty (C, H, W)")
    if any(a < b or (a - b) % 2 for a, b in zip(tile_in, tile_out, strict=True)):
        raise ValueError(f"predict_tiled: tile_in {tile_in} must exceed tile_out {tile_out} by even amounts or none")
    rows, columns = (
        valid_spans(n, size_in, size_out, grid)
        for n, size_in, size_out in zip(image.shape[1:], tile_in, tile_out, strict=True)
    )
    strips = predict_strips(forward, partial(extract, image), rows, columns, tile_in, tile_out, False, progress)
    return joined(strips, image.shape[1])


SYMMETRIES = {"none": 1, "flips": 4, "symmetries": 8}


def averaged(forward: Forward, over: str) -> Forward:
    """`forward` averaged over images of the window, each turned back: "flips" (4), "symmetries" (8) or "none" (1).

    The flips are none, up-down, left-right and both; the other four symmetries of a square are their transposes. Sizes
    that a network takes all have the same remainder by its pooling grid, so a turned window meets the grid in the same
    phase wherever the tile lies, and tiles still equal the whole.
    """
    if over not in SYMMETRIES:
        raise ValueError(f"averaged: over is {over!r}; legal are {', '.join(map(repr, SYMMETRIES))}")
    count = SYMMETRIES[over]

    def mean(x: np.ndarray) -> np.ndarray:
        result = np.zeros(0)
        for number in range(count):
            step = (-1 if number & 1 else 1, -1 if number & 2 else 1)
            turned = x[..., :: step[0], :: step[1]]
            scores = np.asarray(forward(turned.swapaxes(-1, -2) if number & 4 else turned))
            back = (scores.swapaxes(-1, -2) if number & 4 else scores)[..., :: step[0], :: step[1]]
            result = np.add(result, back, out=result) if number else np.array(back)
        result /= count
        return result

    return mean if count > 1 else forward
