"""Files of predictions, as far as the diagnoses need them: their range, how they are spread, whether they are masks."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from ..data import read_image
from ..errors import DataError

_MOST_MASK_VALUES = 16
QUANTILES = (0.0, 0.01, 0.5, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class Picture:
    """One file. `quantiles` (see QUANTILES) of the finite values; whole numbers of maps are scaled to 0..1 before."""

    file: str
    mask: bool  # few whole numbers: classes, not probabilities
    exact: bool  # floating point: not rounded to 256 greys
    classes: int  # whose probabilities add up to 1 in the file; else 2
    quantiles: tuple[float, ...]
    not_finite: int
    size: int

    @property
    def low(self) -> float:
        """The least value."""
        return self.quantiles[0]

    @property
    def high(self) -> float:
        """The greatest value."""
        return self.quantiles[-1]


def read_picture(path: Path) -> Picture:
    """Look at a picture, or at an array (NPY, NPZ) of any shape. Raises DataError for what cannot be read."""
    values = _read(path)
    if not values.size or values.dtype.kind not in "buif":
        raise DataError(f"{path}: holds {values.dtype} {values.shape}, legal are numbers")
    finite = np.isfinite(values)
    counted = values[finite].astype(np.float64) if finite.any() else np.zeros(1)
    exact = values.dtype.kind == "f"
    few = np.unique(counted)[: _MOST_MASK_VALUES + 1]
    mask = len(few) <= _MOST_MASK_VALUES and bool((few == np.rint(few)).all()) and (len(few) <= 2 or few[-1] < 16)
    if not exact and not mask:
        counted = counted / np.iinfo(values.dtype).max
    quantiles = tuple(float(q) for q in np.quantile(counted, QUANTILES))
    return Picture(str(path), mask, exact, _classes(values), quantiles, int((~finite).sum()), values.size)


def _read(path: Path) -> np.ndarray:
    if path.suffix.lower() not in (".npy", ".npz"):
        return read_image(path)
    try:
        loaded = np.load(path, allow_pickle=False)
        return np.asarray(loaded if isinstance(loaded, np.ndarray) else loaded[loaded.files[0]])
    except (OSError, ValueError, IndexError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as an array ({' '.join(str(error).split())})") from None


def _classes(values: np.ndarray) -> int:
    """How many classes an array (K, H, W), (N, K, H, W) or (H, W, K) has, if they add up to 1; else 2."""
    if values.dtype.kind == "f" and values.ndim in (3, 4):
        for axis in (values.ndim - 3, values.ndim - 1):
            sums = values.sum(axis=axis, dtype=np.float64)
            if 1 < values.shape[axis] <= 256 and bool((np.abs(sums - 1) < 1e-2).all()):
                return values.shape[axis]
    return 2
