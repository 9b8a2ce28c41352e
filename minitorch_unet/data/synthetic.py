"""Built-in pictures of touching cells, the same for the same seed. Symbol key: H rows, W columns."""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np

from minitorch_unet.data.dataset import Dataset
from minitorch_unet.data.entries import Entry
from minitorch_unet.data.labels import LabelRule

_COVER = 0.62  # share of the picture that the cells aim at
_REACH = 44  # pixels, no cell is longer from its centre
_SMALLEST_AREA = 60  # pixels, less is a sliver
_TYPICAL_AREA = 1150.0  # pixels, of a cell among its neighbours


def touching_cells(
    seed: int | Sequence[int], size: int | tuple[int, int] = 256, cells: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw touching cells as under a microscope; returns (image uint8 (H, W), instances int32 (H, W)).

    Deformed ellipses of about 14 to 26 pixels radius, clustered so that most of them touch, with a textured
    inside, a dark seam at the membrane, a faint halo, uneven illumination, blur and noise. Grey values of
    cells and background overlap, so a threshold does not segment them. `cells` is how many are tried for; the
    default covers about half of the picture. Ids run from 1 without gaps. Equal arguments give equal
    pictures. Raises `ValueError` for a size below 32 and for less than one cell.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 32:
        raise ValueError(f"touching_cells: size is {height}x{width}, it must be at least 32x32")
    if cells is not None and cells < 1:
        raise ValueError(f"touching_cells: cells is {cells}, it must be at least 1")
    rng = np.random.default_rng(seed)
    wanted = max(2, round(_COVER * height * width / _TYPICAL_AREA)) if cells is None else cells
    instances = _grow(rng, height, width, wanted)
    return _paint(rng, instances), instances


def _grow(rng: np.random.Generator, height: int, width: int, wanted: int) -> np.ndarray:
    """Instance ids: every pixel belongs to the cell in whose outline it lies deepest."""
    depth = np.ones((height, width))  # distance from the centre in units of the outline's radius; 1 = outline
    ids = np.zeros((height, width), np.int32)
    for number, (row, column) in enumerate(_centres(rng, height, width, wanted), start=1):
        window, down, across = _around(row, column, _REACH, height, width)
        inside = np.hypot(down, across) / _outline(rng, np.arctan2(down, across))
        deeper = inside < depth[window]
        depth[window][deeper] = inside[deeper]
        ids[window][deeper] = number
    return _tidy(ids)


def _around(
    row: float, column: float, reach: int, height: int, width: int
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The window of `reach` pixels around a point, and the offsets of its rows and columns from the point."""
    window = (
        slice(max(int(row) - reach, 0), min(max(int(row) + reach, 0), height)),
        slice(max(int(column) - reach, 0), min(max(int(column) + reach, 0), width)),
    )
    rows, columns = np.mgrid[window]
    return window, rows - row, columns - column


def _centres(rng: np.random.Generator, height: int, width: int, wanted: int) -> list[tuple[float, float]]:
    """Cell centres: most new ones close to an earlier one, none nearer than 27 pixels to any."""
    centres: list[tuple[float, float]] = []
    for _ in range(60 * wanted):
        if len(centres) == wanted:
            break
        if centres and rng.random() < 0.85:
            row, column = centres[rng.integers(len(centres))]
            angle, distance = rng.uniform(0, 2 * np.pi), rng.uniform(28, 40)
            candidate = (row + distance * np.sin(angle), column + distance * np.cos(angle))
        else:
            candidate = (rng.uniform(0, height), rng.uniform(0, width))
        on_picture = -8 < candidate[0] < height + 8 and -8 < candidate[1] < width + 8
        if on_picture and all(np.hypot(candidate[0] - r, candidate[1] - c) >= 27 for r, c in centres):
            centres.append(candidate)
    return centres


def _outline(rng: np.random.Generator, angle: np.ndarray) -> np.ndarray:
    """Radius in pixels of a deformed ellipse in the directions `angle`."""
    radius, stretch, turn = rng.uniform(16, 23), rng.uniform(1.0, 1.35), rng.uniform(0, np.pi)
    long, short = radius * np.sqrt(stretch), radius / np.sqrt(stretch)
    outline = long * short / np.hypot(short * np.cos(angle - turn), long * np.sin(angle - turn))
    for wave in (2, 3, 4, 5):
        outline = outline * (
            1 + rng.normal(0, 0.11 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
        )
    return outline


def _tidy(ids: np.ndarray) -> np.ndarray:
    """Keep the largest piece of every cell, drop slivers at the rim, number from 1."""
    from scipy import ndimage

    tidy = np.zeros_like(ids)
    kept = 0
    for number, box in enumerate(ndimage.find_objects(ids), start=1):
        if box is None:  # another cell covers it all
            continue
        pieces, _ = ndimage.label(ids[box] == number)
        areas = np.bincount(pieces.ravel())[1:]
        if areas.max() >= _SMALLEST_AREA:
            kept += 1
            tidy[box][pieces == 1 + int(areas.argmax())] = kept
    return tidy


def _paint(rng: np.random.Generator, instances: np.ndarray) -> np.ndarray:
    """Grey values uint8 for instance ids."""
    from scipy import ndimage

    shape = instances.shape

    def clouds(scale: float) -> np.ndarray:
        noise = ndimage.gaussian_filter(rng.normal(size=shape), scale, mode="reflect")
        return noise / noise.std()

    count = int(instances.max())
    per_cell = np.concatenate(([0.0], rng.normal(0.17, 0.05, count)))
    inside = instances > 0
    # Pixels from the membrane: distance to the nearest pixel that is not of the same cell.
    ids = np.pad(instances, 1, mode="edge")
    same = [
        ids[1 + r : ids.shape[0] - 1 + r, 1 + c : ids.shape[1] - 1 + c] == instances
        for r, c in ((0, 1), (1, 0), (0, -1), (-1, 0))
    ]
    seam = ~np.logical_and.reduce(same)
    from_seam = ndimage.distance_transform_edt(~seam) if seam.any() else np.full(shape, 99.0)
    grey = 0.36 + per_cell[instances] * (1 - np.exp(-from_seam / 7.0)) * 1.3
    grey += np.where(inside, 0.055 * clouds(1.6) + 0.03 * clouds(4.0), 0.018 * clouds(2.5))
    grey += _nuclei(rng, instances)
    grey -= np.where(inside, 0.17, 0.0) * np.exp(-((from_seam / 1.3) ** 2))
    grey += np.where(inside, 0.0, 0.12) * np.exp(-(((from_seam - 2.0) / 2.2) ** 2))
    grey = ndimage.gaussian_filter(grey, 0.9)
    grey *= 1 + 0.13 * clouds(max(shape) / 4)
    grey += 0.03 * rng.normal(size=shape)
    return np.clip(255 * grey, 0, 255).astype(np.uint8)


def _nuclei(rng: np.random.Generator, instances: np.ndarray) -> np.ndarray:
    """A softly darker nucleus near the middle of every cell."""
    from scipy import ndimage

    shade = np.zeros(instances.shape)
    numbers = range(1, int(instances.max()) + 1)
    for number, centre in zip(
        numbers, ndimage.center_of_mass(instances > 0, instances, numbers), strict=True
    ):
        row, column = np.asarray(centre) + rng.normal(0, 2.0, 2)
        radius, depth = rng.uniform(5, 8), rng.uniform(0.03, 0.12)
        window, down, across = _around(row, column, _REACH, *instances.shape)
        inside = np.hypot(down, across) / radius
        shade[window] -= np.where(instances[window] == number, depth / (1 + inside**6), 0.0)
    return shade


class SyntheticCells(Dataset):
    """`count` pictures of `touching_cells` with instance labels as a `Dataset`; sample i: seed (seed, i)."""

    def __init__(self, count: int, size: int | tuple[int, int] = 256, seed: int = 0) -> None:
        if count < 1:
            raise ValueError(f"SyntheticCells: count is {count}, it must be at least 1")
        shape = (size, size) if isinstance(size, int) else size
        entries = []
        for index in range(count):
            name = f"cells {index}"
            image, label = (partial(_drawn, seed, index, shape, part) for part in (0, 1))
            entries.append(Entry(name, name, name, image, label))
        super().__init__(entries, LabelRule("instances", None, 2), 1, f"synthetic cells, seed {seed}")


@lru_cache(maxsize=2)
def _both(seed: int, index: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return touching_cells((seed, index), size)


def _drawn(seed: int, index: int, size: tuple[int, int], part: int) -> np.ndarray:
    return _both(seed, index, size)[part]
