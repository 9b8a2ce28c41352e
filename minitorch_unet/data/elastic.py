"""Elastic deformation, shift, rotation and scale as one field.

Symbol key: C channels, H rows, W columns, G nodes a side of the coarse grid.

A field says for every pixel of a tile where in the source it comes from. It is a sum of products of a function of the
row and a function of the column: bicubic interpolation of the G x G displacements, the linear part, and a constant. So
the whole field is two products of small matrices, (H, G + 2) (G + 2, G + 2) (G + 2, W), for rows and for columns.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np

from minitorch_unet.data.tiles import extract

PAPER_ELASTIC, PAPER_GRID = 10.0, 3  # pixels of standard deviation, nodes a side (Ronneberger et al. 2015, section 3.1)

_KEYS = -0.5  # the free parameter of cubic convolution; this value reproduces parabolas (Keys 1981)
_ROWS = 32  # rows sampled at a time: their temporaries then stay in the processor's cache


@functools.lru_cache(maxsize=8)  # every tile of a run asks for the same
def cubic_weights(n: int, nodes: int) -> np.ndarray:
    """Weights (n, nodes) float64, read-only, of bicubic interpolation from `nodes` equidistant values to n positions.

    The first and the last node lie on the first and the last position; beyond them the outermost value is repeated.
    Keys' cubic convolution with parameter -1/2, what image programs call bicubic. Every row sums to 1.
    """
    if n < 1 or nodes < 2:
        raise ValueError(f"cubic_weights: n is {n} and nodes {nodes}, legal are n >= 1 and nodes >= 2")
    place = np.linspace(0, nodes - 1, n)
    cell = np.minimum(place.astype(int), nodes - 2)
    weights = np.zeros((n, nodes))
    for offset in (-1, 0, 1, 2):  # the four nodes around a position; `s` is the distance to each
        s = np.abs(place - cell - offset)
        near = ((_KEYS + 2) * s - (_KEYS + 3)) * s * s + 1
        far = ((_KEYS * s - 5 * _KEYS) * s + 8 * _KEYS) * s - 4 * _KEYS
        value = np.where(s < 1, near, np.where(s < 2, far, 0.0))
        np.add.at(weights, (np.arange(n), np.clip(cell + offset, 0, nodes - 1)), value)
    weights.flags.writeable = False
    return weights


@dataclasses.dataclass(frozen=True)
class Warp:
    """One drawn field for tiles of `size` (H, W) pixels; the same one moves the image and all its maps.

    displacement  (2, G, G) pixels, of rows and of columns, at nodes from corner to corner of the tile
    linear        (2, 2): offset from the tile's centre -> offset in the source
    shift         (2) pixels
    """

    size: tuple[int, int]
    displacement: np.ndarray
    linear: np.ndarray
    shift: np.ndarray

    def coordinates(self, xp: Any = np, inner: slice = slice(None)) -> tuple[Any, Any]:
        """Source rows and columns (H, W) float32 of each pixel; `inner`: of these rows and columns of the tile only."""
        nodes = self.displacement.shape[1]
        bases = []
        for n in self.size:  # the functions of the row (or column): bicubic weights, offset from the centre, 1
            functions = (cubic_weights(n, nodes), np.arange(n) - (n - 1) / 2, np.ones(n))
            bases.append(xp.asarray(np.column_stack(functions)[inner].astype(np.float32)))
        core = np.zeros((2, nodes + 2, nodes + 2))
        core[:, :nodes, :nodes] = self.displacement
        core[:, nodes, nodes + 1] = self.linear[:, 0]  # times the row's offset, times 1
        core[:, nodes + 1, nodes] = self.linear[:, 1]
        core[:, nodes + 1, nodes + 1] = (np.array(self.size) - 1) / 2 + self.shift

        def product(middle: Any) -> Any:
            # einsum rather than @: a BLAS library's result may depend on how many threads it has at the moment.
            return xp.einsum("hk,kw->hw", bases[0], xp.einsum("kl,wl->kw", middle, bases[1]))

        rows, columns = xp.asarray(core.astype(np.float32))
        return product(rows), product(columns)

    def image(self, array: Any, origin: tuple[int, int] = (0, 0), xp: Any = np) -> Any:
        """Sample an array (..., H', W') at the field, bilinearly, mirrored beyond its border; (..., H, W), same type.

        origin: the row and column of the array on which the tile's pixel (0, 0) would lie without any field.
        """
        real = array.dtype.kind == "f"
        planes = array.reshape(-1, *array.shape[-2:])
        planes = planes if real else planes.astype(np.float32)
        sampled = _bilinear(planes, *self.coordinates(xp), origin) if xp is np else self._by_library(xp, planes, origin)
        sampled = sampled if real else xp.rint(sampled).astype(array.dtype)
        return sampled.reshape(*array.shape[:-2], *self.size)

    def _by_library(self, xp: Any, planes: Any, origin: tuple[int, int]) -> Any:
        """The same by the map_coordinates of SciPy, which CuPy has under the same name: one kernel on a GPU."""
        ndimage = ndimage_of(xp)
        rows, columns = self.coordinates(xp)
        places = xp.stack([rows + origin[0], columns + origin[1]])
        return xp.stack([ndimage.map_coordinates(plane, places, order=1, mode="mirror") for plane in planes])

    def maps(
        self, *arrays: Any, origin: tuple[int, int] = (0, 0), inner: slice = slice(None), xp: Any = np
    ) -> tuple[list[Any], Any]:
        """Take maps (H', W') at the nearest pixel (None stays None); also whether a pixel lay outside, (H, W) bool.

        No value appears that was not there: labels stay labels, ids stay ids, a weight of 0 stays 0. Beyond the
        border maps are mirrored as the image is. All maps need one size.
        """
        shapes = {array.shape for array in arrays if array is not None}
        if len(shapes) != 1:
            raise ValueError(f"Warp.maps: the maps have the shapes {sorted(shapes)}, one shape is legal")
        (height, width) = shapes.pop()
        i, j = (xp.floor(place + np.float32(0.5)).astype(np.int64) for place in self.coordinates(xp, inner))
        i, j = i + origin[0], j + origin[1]
        outside = (i < 0) | (i >= height) | (j < 0) | (j >= width)
        if outside.any():
            i, j = _reflected(xp, i, height), _reflected(xp, j, width)
        flat = i * width + j
        return [None if array is None else array.reshape(-1).take(flat) for array in arrays], outside


def draw_warp(
    rng: np.random.Generator, size: tuple[int, int], elastic: float = PAPER_ELASTIC, grid: int = PAPER_GRID,
    shift: float = 0.0, angle: float = 0.0, zoom: float = 0.0,
) -> Warp | None:  # fmt: skip
    """Draw a field for tiles of `size` (H, W); None, and nothing drawn, where every strength is 0: then nothing moves.

    elastic  Gaussian displacements of this standard deviation in pixels on a coarse grid x grid (the paper: 10, 3 x 3)
    shift    the tile moves by up to this many pixels along rows and columns (uniform)
    angle    and turns by up to this many degrees either way about its centre (uniform)
    zoom     and objects grow or shrink by a factor between 1 / (1 + zoom) and 1 + zoom (log-uniform)

    The paper publishes the displacements alone. Each strength takes its own numbers whatever the other strengths are.
    Raises ValueError for a strength that is negative or not finite, and for fewer than 2 nodes.
    """
    for name, value in (("elastic", elastic), ("shift", shift), ("angle", angle), ("zoom", zoom)):
        if not 0 <= value < math.inf:
            raise ValueError(f"draw_warp: {name} is {value}, it must be a finite number of at least 0")
    if grid < 2:
        raise ValueError(f"draw_warp: grid is {grid}, it must be at least 2")
    if not (elastic or shift or angle or zoom):
        return None
    moved, turn, grow = rng.uniform(-1, 1, 2), rng.uniform(-1, 1), rng.uniform(-1, 1)
    displacement = rng.standard_normal((2, grid, grid))
    radians = math.radians(angle * turn)
    step = (1 + zoom) ** -grow  # source pixels for each pixel of the tile
    cosine, sine = step * math.cos(radians), step * math.sin(radians)
    return Warp(size, elastic * displacement, np.array([[cosine, -sine], [sine, cosine]]), shift * moved)


def ndimage_of(xp: Any) -> Any:
    """The scipy.ndimage that works on the arrays of `xp` (numpy or cupy)."""
    if xp is np:
        from scipy import ndimage
    else:
        from cupyx.scipy import ndimage
    return ndimage


def _reflected(xp: Any, index: Any, n: int) -> Any:
    """Indices folded into 0..n-1 without repeating the edge (see tiles.reflect_index)."""
    period = max(2 * (n - 1), 1)
    inside = index % period
    return xp.minimum(inside, period - inside) if n > 1 else xp.zeros_like(index)


def _bilinear(planes: np.ndarray, rows: np.ndarray, columns: np.ndarray, origin: tuple[int, int]) -> np.ndarray:
    """Planes (C, H', W') sampled at `origin` + (rows, columns), each (H, W); (C, H, W)."""
    # Only the window that the field can reach is looked at; cutting it out mirrors it where it leaves the planes.
    top, left = math.floor(rows.min()), math.floor(columns.min())
    height, width = math.floor(rows.max()) - top + 2, math.floor(columns.max()) - left + 2
    window = extract(planes, origin[0] + top, origin[1] + left, height, width).reshape(len(planes), -1)
    result = np.empty((len(planes), *rows.shape), planes.dtype)
    for begin in range(0, len(rows), _ROWS):
        piece = slice(begin, begin + _ROWS)
        y, x = rows[piece] - np.float32(top), columns[piece] - np.float32(left)
        i, j = y.astype(np.int32), x.astype(np.int32)  # not negative, so this rounds down
        y -= i
        x -= j
        corner = i.astype(np.int64) * width + j
        for plane, out in zip(window, result, strict=True):
            # a b   The corners of the cell, visited in the order a, b, d, c; first along columns, then along rows.
            # c d
            at = corner.copy()
            a = plane.take(at)
            at += 1
            b = plane.take(at)
            at += width
            d = plane.take(at)
            at -= 1
            c = plane.take(at)
            for low, high in ((a, b), (c, d)):
                high -= low
                high *= x
                high += low
            d -= b
            d *= y
            np.add(b, d, out=out[piece])
    return result
