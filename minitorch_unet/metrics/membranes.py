"""The scores of the ISBI 2012 challenge on membranes: pixel, Rand and warping error, V_rand and V_info.

A map gives each pixel's probability of being the interior of a cell (not membrane); it is judged at several
thresholds, `map > threshold` being interior, and the best one counts. The truth is above 0 inside cells. Arrays are
one slice (H, W) or a stack (D, H, W); pixels with the label -100 are ignored: they are membrane in truth and map, and
no pixel that counts.

Source: Arganda-Carreras et al., Frontiers in Neuroanatomy 9:142 (2015), and the challenge's program.
Symbol key: D slices, H rows, W columns, T thresholds.
"""

from itertools import accumulate
from typing import Any

import numpy as np

from minitorch_unet.metrics import checks
from minitorch_unet.metrics.partitions import (
    Overlaps,
    information_from,
    overlaps,
    rand_from_sums,
    rand_sums,
)
from minitorch_unet.metrics.thinning import thin_borders
from minitorch_unet.metrics.warping import warp

# Added up step by step as the challenge's loop does, so that the last one is just below 1 and a map of exactly 1 is
# still above it. The warping error leaves the last one out.
THRESHOLDS = tuple(accumulate([0.0, *[0.1] * 10]))
WARPING_THRESHOLDS = THRESHOLDS[:10]


class MembraneScores:
    """All five scores over slices that are added one by one, as `result` says."""

    def __init__(self, warping: bool = True) -> None:
        self.warping = warping
        self._pixels: list[np.ndarray] = []
        self._rand: list[np.ndarray] = []
        self._thinned: list[np.ndarray] = []
        self._warped: list[np.ndarray] = []
        self._area = 0

    def add(self, probability: np.ndarray, truth: np.ndarray) -> None:
        """Judge a slice (H, W) or a stack (D, H, W); raises TypeError and ValueError for illegal arrays."""
        for plane, label, judged in checks.slices("MembraneScores.add", probability, truth):
            self._pixels.append(_pixel_counts(plane, label, judged))
            self._rand.append(_rand_sums(plane, label))
            self._thinned.append(_thinned_scores(plane, label))
            if self.warping:
                self._warped.append(_warping_counts(plane, label))
            self._area += label.size

    def result(self) -> dict[str, float]:
        """Values and best thresholds: `pixel_error`, `pixel_error_threshold`, `rand_error`, ...

        Names: pixel_error, rand_error, warping_error (if wanted), v_rand, v_info. Raises ValueError before the first
        slice.
        """
        if not self._pixels:
            raise ValueError("MembraneScores.result: no slice was added")
        found = {
            "pixel_error": _pixel_error(self._pixels),
            "rand_error": _rand_error(self._rand),
            "v_rand": _mean_score(self._thinned, 0),
            "v_info": _mean_score(self._thinned, 1),
        }
        if self.warping:
            found["warping_error"] = _warping_error(self._warped, self._area)
        named = {name: value for name, (value, _) in found.items()}
        return named | {f"{name}_threshold": threshold for name, (_, threshold) in found.items()}


def pixel_error(probability: np.ndarray, truth: np.ndarray) -> float:
    """1 - max over thresholds of F = 2 TP / (2 TP + FP + FN), interior being positive; counts added over slices."""
    slices = checks.slices("pixel_error", probability, truth)
    return _pixel_error([_pixel_counts(*parts) for parts in slices])[0]


def rand_error(probability: np.ndarray, truth: np.ndarray) -> float:
    """1 - max over thresholds of the foreground-restricted Rand F, pair counts added over slices.

    Objects are 4-connected components of truth and of map > threshold; see `rand_scores`.
    """
    slices = checks.slices("rand_error", probability, truth)
    return _rand_error([_rand_sums(plane, label) for plane, label, _ in slices])[0]


def warping_error(probability: np.ndarray, truth: np.ndarray) -> float:
    """min over thresholds (without the last) of the share of pixels that split or merge objects; see `warp`."""
    slices = list(checks.slices("warping_error", probability, truth))
    counts = [_warping_counts(plane, label) for plane, label, _ in slices]
    return _warping_error(counts, np.asarray(truth).size)[0]


def v_rand(probability: np.ndarray, truth: np.ndarray) -> float:
    """max over thresholds of the Rand F after thinning (`thin_borders`), averaged over slices that have cells.

    1 where no slice has any.
    """
    slices = checks.slices("v_rand", probability, truth)
    return _mean_score([_thinned_scores(plane, label) for plane, label, _ in slices], 0)[0]


def v_info(probability: np.ndarray, truth: np.ndarray) -> float:
    """max over thresholds of the information F (`information_scores`) after thinning, averaged as in `v_rand`."""
    slices = checks.slices("v_info", probability, truth)
    return _mean_score([_thinned_scores(plane, label) for plane, label, _ in slices], 1)[0]


# ----------------------------------------------------------------------------------- one slice, all thresholds


def _pixel_counts(plane: np.ndarray, label: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """(T, 3): hits TP, pixels called interior, pixels that are interior."""
    above = [(plane > t) & judged for t in THRESHOLDS]
    return np.array([(np.count_nonzero(a & label), np.count_nonzero(a), np.count_nonzero(label)) for a in above])


def _rand_sums(plane: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(T, 3): see `rand_sums`."""
    from scipy import ndimage

    truth, _ = ndimage.label(label)
    return np.array([rand_sums(overlaps(ndimage.label(plane > t)[0], truth)) for t in THRESHOLDS])


def _thinned_scores(plane: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(T, 2): Rand and information F after thinning; an empty (0, 2) where the slice has no cells."""
    from scipy import ndimage

    if not label.any():
        return np.zeros((0, 2))
    truth, _ = ndimage.label(label)
    counts: list[Overlaps] = [overlaps(thin_borders(plane > t), truth) for t in THRESHOLDS]
    return np.array([(rand_from_sums(*rand_sums(c)).f_score, information_from(c).f_score) for c in counts])


def _warping_counts(plane: np.ndarray, label: np.ndarray) -> np.ndarray:
    """(T - 1,): split and merge pixels."""
    bent = (warp(plane, label, t) for t in WARPING_THRESHOLDS)
    return np.array([b.splits + b.merges for b in bent])


# --------------------------------------------------------------------- all slices, best threshold (the first of equals)


def _best(values: Any, thresholds: tuple[float, ...]) -> tuple[float, float]:
    at = int(np.argmax(values))
    return float(values[at]), thresholds[at]


def _pixel_error(counts: list[np.ndarray]) -> tuple[float, float]:
    hits, called, true = np.sum(counts, axis=0).T
    both = called + true
    f_score, threshold = _best(np.where(both == 0, 1.0, 2 * hits / np.maximum(both, 1)), THRESHOLDS)
    return 1 - f_score, threshold


def _rand_error(sums: list[np.ndarray]) -> tuple[float, float]:
    f_scores = [rand_from_sums(*row.tolist()).f_score for row in np.sum(sums, axis=0)]
    f_score, threshold = _best(f_scores, THRESHOLDS)
    return 1 - f_score, threshold


def _mean_score(scores: list[np.ndarray], column: int) -> tuple[float, float]:
    judged = [rows[:, column] for rows in scores if len(rows)]
    return _best(np.mean(judged, axis=0) if judged else [1.0], THRESHOLDS)


def _warping_error(counts: list[np.ndarray], area: int) -> tuple[float, float]:
    share, threshold = _best(-np.sum(counts, axis=0) / max(area, 1), WARPING_THRESHOLDS)
    return 0.0 - share, threshold
