"""The warping error: how many pixels would still split or merge objects after the truth was bent towards the map.

Symbol key: H rows, W columns. Objects are 4-connected, background is 8-connected, outside the picture is background.

Source: Jain et al., "Boundary learning by optimization with topological constraints", CVPR 2010, with the order of
visits and the classes of mismatches of the ISBI 2012 challenge's program.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np

# The eight neighbours in a circle: right, then against the clock; the even ones are the 4-neighbours.
_CIRCLE = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


class Warping(NamedTuple):
    """`warped` truth (H, W) bool; `splits`, `merges` and `others` (holes, lost or new objects): mismatches left."""

    warped: np.ndarray
    splits: int
    merges: int
    others: int


@lru_cache(maxsize=1)
def connectivity_numbers() -> np.ndarray:
    """Yokoi's number (256,) int8 of every neighbourhood; bit k of the index is set where neighbour k is foreground.

    sum over the 4-neighbours k of x_k - x_k x_k+1 x_k+2: into how many 4-connected parts of the neighbourhood the
    pixel leads, 0 also where all eight are foreground. 1 says that the pixel is simple: flipping it changes neither
    the number of objects nor that of holes.
    """
    x = np.arange(256)[:, None] >> np.arange(8) & 1
    x = np.concatenate([x, x[:, :2]], axis=1)
    return sum(x[:, k] - x[:, k] * x[:, k + 1] * x[:, k + 2] for k in (0, 2, 4, 6)).astype(np.int8)


def warp(probability: np.ndarray, truth: np.ndarray, threshold: float) -> Warping:
    """Bend `truth` (H, W) bool towards `probability > threshold` (H, W) without changing its topology.

    Mismatching pixels are visited by falling |probability - threshold| (ties: column by column) and flipped where
    they are simple, again and again until nothing changes. What then still differs is classified:

    merge: a membrane pixel, foreground in the map, with two or more objects among its eight neighbours;
    split: an object's pixel, background in the map, that touches another object too, or without which its own
    object would fall into parts.
    """
    state = np.zeros((truth.shape[0] + 2, truth.shape[1] + 2), np.uint8)
    state[1:-1, 1:-1] = truth
    wanted = probability > threshold
    columns, rows = np.nonzero((wanted != truth).T)
    urgency = np.abs(probability[rows, columns] - threshold).astype(np.float32)
    order = np.argsort(-urgency, kind="stable")
    rows, columns = rows[order] + 1, columns[order] + 1
    left = _flip_simple(state, rows * state.shape[1] + columns)
    splits, merges = _classify(state, left)
    return Warping(state[1:-1, 1:-1].astype(bool), splits, merges, left.size - splits - merges)


def _flip_simple(state: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """Flip what is simple in `state` (framed, changed in place); return the flat indices that were never flipped."""
    width = state.shape[1]
    offsets = [down * width + right for down, right in _CIRCLE]
    # code[p] has bit k set where p's neighbour k is foreground; a flip of p toggles the opposite bit of neighbour k.
    code = np.zeros(state.size, np.uint8)
    flat = state.ravel()
    inner = np.arange(width + 1, state.size - width - 1)
    for k, offset in enumerate(offsets):
        code[inner] |= flat[inner + offset] << k
    toggles = [(offset, 1 << (k + 4) % 8) for k, offset in enumerate(offsets)]
    codes, simple, flipped = bytearray(code.tobytes()), (connectivity_numbers() == 1).tolist(), []
    waiting = visits.tolist()
    while True:
        still = []
        for p in waiting:
            if simple[codes[p]]:
                flipped.append(p)
                for offset, bit in toggles:
                    codes[p + offset] ^= bit
            else:
                still.append(p)
        if len(still) == len(waiting):
            break
        waiting = still
    flat[flipped] ^= 1
    return np.array(waiting, np.int64)


def _classify(state: np.ndarray, left: np.ndarray) -> tuple[int, int]:
    """(splits, merges) among the flat indices `left` of a framed picture."""
    from scipy import ndimage

    if left.size == 0:
        return 0, 0
    objects, _ = ndimage.label(state)
    grounds, _ = ndimage.label(state == 0, np.ones((3, 3)))
    around = left[:, None] + [down * state.shape[1] + right for down, right in _CIRCLE]
    white = state.ravel()[left] > 0
    touched = _distinct(objects.ravel()[around])
    # A pixel that leads into m parts separates them unless they hang together elsewhere. Going around it, m parts
    # alternate with m gaps of background; parts hang together around the back of each gap that is closed off, so
    # m parts fall into m - (grounds - 1) objects. More than one are left where two gaps are one background.
    codes = (state.ravel()[around] << np.arange(8)).sum(axis=1)
    parts = connectivity_numbers()[codes]
    falls_apart = parts > _distinct(grounds.ravel()[around])
    splits = white & ((touched >= 2) | ((parts >= 2) & falls_apart))
    return int(splits.sum()), int((~white & (touched >= 2)).sum())


def _distinct(ids: np.ndarray) -> np.ndarray:
    """How many different ids above 0 stand in each row of (M, 8)."""
    ordered = np.sort(ids, axis=1)
    return ((ordered > 0) & (np.diff(ordered, axis=1, prepend=0) != 0)).sum(axis=1)
