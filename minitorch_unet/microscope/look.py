"""Maps and weights as numbers and small pictures. Symbol key: C channels, H rows, W columns, K filters, R S kernel."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from ..pages import png_uri
from ..shades import SIGNED, signed8

SHOWN = 12  # maps of a stage that are shown, the ones that vary most
SIDE = 72  # pixels a side of a map's picture at most
KERNELS = 16  # filters and channels whose kernels are shown
BINS = 41  # of a histogram; odd, so that one of them has 0 in its middle
LISTED = 40  # dead channels that are listed by number


def packed(values: np.ndarray) -> dict[str, Any]:
    """An array for the page: its shape, and its float32 or uint8 values, little-endian, in base64."""
    kind = "u8" if values.dtype == np.uint8 else "f32"
    plain = np.ascontiguousarray(values, np.uint8 if kind == "u8" else "<f4")
    return {"shape": list(values.shape), kind: base64.b64encode(plain.tobytes()).decode("ascii")}


def statistics(maps: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, smallest, largest value and share of zeros of an array."""
    flat = _pixels(maps)
    mean = float(flat.mean(dtype=np.float64))
    return {
        "mean": mean,
        "sd": math.sqrt(max(0.0, float(np.square(flat, dtype=np.float64).mean()) - mean * mean)),
        "min": float(flat.min()),
        "max": float(flat.max()),
        "zeros": 1 - float(np.count_nonzero(flat)) / flat.size,
    }


def _pixels(maps: np.ndarray) -> np.ndarray:
    """Maps (C, H, W) as (H W, C), without a copy where they lie channels-last."""
    return np.moveaxis(maps, 0, -1).reshape(-1, len(maps)) if maps.ndim == 3 else maps


def shrunk(plane: np.ndarray, side: int = SIDE) -> np.ndarray:
    """A map (H, W) as float32, at most `side` pixels a side: each pixel the mean of those it stands for."""
    from PIL import Image

    h, w = plane.shape
    scale = min(1.0, side / max(h, w))
    size = max(1, round(w * scale)), max(1, round(h * scale))
    plain = np.ascontiguousarray(plane, np.float32)
    return plain if size == (w, h) else np.asarray(Image.fromarray(plain).resize(size, Image.Resampling.BOX))


def choose(maps: np.ndarray, count: int = SHOWN) -> list[int]:
    """The numbers of the `count` maps that vary most, in order."""
    flat = _pixels(maps)
    mean = flat.mean(axis=0, dtype=np.float64)
    spread = np.square(flat, dtype=np.float64).mean(axis=0) - mean * mean
    return sorted(np.argsort(-spread, kind="stable")[:count].tolist())


def sprite(maps: np.ndarray, chosen: list[int], signed: bool) -> dict[str, Any]:
    """The chosen maps below one another in one picture, with the values that their darkest and lightest greys mean.

    signed: colours, from -r to r with r the 99th percentile of the map's sizes; otherwise each map from its own
    smallest value, black, to its largest, white.
    """
    tiles, ranges = [], []
    for number in chosen:
        plane = shrunk(maps[number])
        if signed:
            reach = float(np.percentile(np.abs(plane), 99)) or float(np.abs(plane).max())
            tiles.append(signed8(plane, reach))
            ranges.append([-reach, reach])
        else:
            low, high = float(plane.min()), float(plane.max())
            tiles.append(np.rint((plane - low) / ((high - low) or 1.0) * 255).astype(np.uint8))
            ranges.append([low, high])
    picture = np.concatenate(tiles)
    uri = png_uri(picture, SIGNED) if signed else png_uri(picture)
    return {"src": uri, "size": list(tiles[0].shape), "ranges": ranges}


def look_at(maps: np.ndarray, relu: bool, chosen: list[int] | None = None) -> dict[str, Any]:
    """What the page shows of a stage's maps (C, H, W): statistics, dead channels, pictures. `chosen`: which maps.

    Where the stage ends with a ReLU, dead channels are those that are 0 everywhere; elsewhere there are none.
    """
    signed = chosen is not None
    found: dict[str, Any] = {"statistics": statistics(maps)}
    if relu:
        dead = np.flatnonzero(~_pixels(maps).any(axis=0)).tolist()
        found |= {"dead": dead[:LISTED], "dead_count": len(dead)}
    numbers = choose(maps) if chosen is None else chosen
    return found | {"channels": numbers, "of": len(maps), "maps": sprite(maps, numbers, signed)}


def look_at_weights(weight: np.ndarray, bias: np.ndarray | None, transposed: bool) -> dict[str, Any]:
    """What the page shows of a convolution's weight (K, C, R, S), `transposed`: (C, K, R, S); and of its bias (K)."""
    kernels = np.swapaxes(weight, 0, 1) if transposed else weight
    r, s = kernels.shape[2:]
    shown = kernels[:KERNELS, :KERNELS]
    reach = float(np.abs(shown).max())
    # Each kernel r x s with a line of one pixel, colour number 255, to its right and below it.
    board = np.full((len(shown) * (r + 1), shown.shape[1] * (s + 1)), 255, np.uint8)
    for k in range(len(shown)):
        for c in range(shown.shape[1]):
            board[k * (r + 1) : k * (r + 1) + r, c * (s + 1) : c * (s + 1) + s] = signed8(shown[k, c], reach)
    colours = np.concatenate([SIGNED, [[205, 205, 200]]])
    most = float(np.abs(weight).max())
    counts, _ = np.histogram(weight, BINS, (-most or -1.0, most or 1.0))
    return {
        "shape": list(kernels.shape),
        "shown": [len(shown), shown.shape[1]],
        "count": int(weight.size + (0 if bias is None else bias.size)),
        "statistics": statistics(weight),
        "bias": None if bias is None else statistics(bias),
        "picture": {"src": png_uri(board, colours), "size": list(board.shape), "reach": reach},
        "histogram": {"reach": most, "counts": counts.tolist()},
    }
