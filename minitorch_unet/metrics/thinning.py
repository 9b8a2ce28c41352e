"""Borders of one pixel from borders of any width: the watershed that V_rand and V_info are taken after.

Symbol key: H rows, W columns. Source: Soille and Vincent, "Determining watersheds in digital pictures via flooding
simulations" (SPIE 1360, 1990), on a picture of two heights, as the ISBI 2012 challenge's program floods it.
"""

import numpy as np

_LINE, _DRY, _QUEUED, _OUTSIDE = 0, -1, -2, -3


def thin_borders(interior: np.ndarray) -> np.ndarray:
    """Object ids (H, W) int32 from 1 of a mask (H, W): background is flooded from all sides, 0 = the lines left.

    The 4-connected components of `interior` grow into the background at equal speed. A background pixel joins the
    object that reaches it, or becomes a line where two different objects meet there. A mask without any object is
    one single object, as is one without background.

    The order in which pixels are visited (first in, first out; columns before rows, then left, up, right, down)
    decides which of two neighbouring pixels becomes the line; it is the challenge's. A whole ring of pixels at equal
    distance is computed at a time: a pixel of the ring that has neighbours in the ring looks at those visited before
    it, and this is repeated until nothing changes, which gives what visiting them one after another gives.
    """
    from scipy import ndimage

    interior = np.asarray(interior, bool)
    if interior.ndim != 2:
        raise ValueError(f"thin_borders: interior has shape {interior.shape}, legal is (H, W)")
    # Transposed, so that flat indices rise down the columns; framed, so that every pixel has four neighbours.
    objects, count = ndimage.label(interior.T)
    if count == 0:
        return np.ones(interior.shape, np.int32)
    framed = np.full((objects.shape[0] + 2, objects.shape[1] + 2), _OUTSIDE, np.int32)
    framed[1:-1, 1:-1] = np.where(interior.T, objects, _DRY)
    flat = framed.ravel()
    around = np.array([-framed.shape[1], -1, framed.shape[1], 1])  # left, up, right, down
    rank = np.full(flat.size, np.iinfo(np.int64).max)

    ring = np.flatnonzero(flat == _DRY)
    ring = ring[(flat[ring[:, None] + around] > 0).any(axis=1)]
    while ring.size:
        flat[ring] = _QUEUED
        neighbours = ring[:, None] + around
        rank[ring] = np.arange(ring.size)
        before = rank[neighbours] < rank[ring][:, None]  # visited earlier in this ring
        flat[ring] = _joined(flat[neighbours])
        rows = np.flatnonzero(before.any(axis=1))
        # Later pixels must not be seen yet: their place is taken by _QUEUED, which counts for nothing.
        seen = before[rows] | (rank[neighbours[rows]] == np.iinfo(np.int64).max)
        while rows.size:
            new = _joined(np.where(seen, flat[neighbours[rows]], _QUEUED))
            if (new == flat[ring[rows]]).all():
                break
            flat[ring[rows]] = new
        rank[ring] = np.iinfo(np.int64).max
        # Dry neighbours form the next ring, in the order in which they are come upon first.
        upon = neighbours[flat[neighbours] == _DRY]
        found, first = np.unique(upon, return_index=True)
        ring = found[np.argsort(first)]
    return np.ascontiguousarray(framed[1:-1, 1:-1].T)


def _joined(neighbours: np.ndarray) -> np.ndarray:
    """What pixels with these four neighbours (M, 4) become: the one object among them, or a line."""
    highest = neighbours.max(axis=1)
    lowest = np.where(neighbours > 0, neighbours, np.iinfo(np.int32).max).min(axis=1)
    return np.where((highest > 0) & (lowest == highest), highest, _LINE)
