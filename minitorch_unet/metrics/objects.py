"""Scores of object ids: SEG of the Cell Tracking Challenge, average precision of the Data Science Bowl 2018.

An image of object ids (H, W) holds 0 for background and a number for each object, which need not hang together.
Symbol key: H rows, W columns, R a reference object, S a predicted one, t a threshold of IoU = |R and S| / |R or S|.

Sources: Maska et al., Bioinformatics 30:1609 (2014), and celltrackingchallenge.net, "SEG"; Caicedo et al., Nature
Methods 16:1247 (2019), and the evaluation page of the Data Science Bowl 2018.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from minitorch_unet.metrics.checks import check_ids

# Quotients of whole numbers, so that an IoU that equals a threshold is also equal in floating point.
IOU_THRESHOLDS = tuple(k / 20 for k in range(10, 20))


class ObjectCounts(NamedTuple):
    """Objects at one threshold: `hits` (matched), `extra` (predicted, not matched), `missed` (reference, not matched).

    Counts are added over images before precision, recall and F1 are taken; each is 1 where nothing is there.
    """

    hits: int
    extra: int
    missed: int

    @property
    def precision(self) -> float:
        """hits / (hits + extra)."""
        return _share(self.hits, self.hits + self.extra)

    @property
    def recall(self) -> float:
        """hits / (hits + missed)."""
        return _share(self.hits, self.hits + self.missed)

    @property
    def f1(self) -> float:
        """2 hits / (2 hits + extra + missed)."""
        return _share(2 * self.hits, 2 * self.hits + self.extra + self.missed)

    @property
    def average_precision(self) -> float:
        """hits / (hits + extra + missed), as the Data Science Bowl calls it."""
        return _share(self.hits, self.hits + self.extra + self.missed)

    def plus(self, other: "ObjectCounts") -> "ObjectCounts":
        """The counts of two sets of images together."""
        return ObjectCounts(*(a + b for a, b in zip(self, other, strict=True)))


def seg_scores(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Jaccard index of every reference object with the object that matches it, in ascending order of ids (M,).

    S matches R where |R and S| > |R| / 2: at most one does, though one S may match several R. The score is
    |R and S| / |R or S|, and 0 where nothing matches. SEG is the mean over the reference objects of all frames:
    `seg`. Predicted objects without a reference are not punished.
    """
    prediction, reference = check_ids("seg_scores", prediction=prediction, reference=reference)
    pairs = _Pairs(prediction, reference)
    scores = np.zeros(len(pairs.references))
    matched = 2 * pairs.shared > pairs.references[pairs.r]
    scores[pairs.r[matched]] = pairs.iou[matched]
    return scores


def seg(frames: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """SEG of frames (prediction, reference): the mean of `seg_scores` over all objects; 1 without any reference."""
    scores = np.concatenate([np.zeros(0), *(seg_scores(*frame) for frame in frames)])
    return float(scores.mean()) if scores.size else 1.0


def count_objects(
    prediction: np.ndarray,
    reference: np.ndarray,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
    ignored: np.ndarray | None = None,
) -> list[ObjectCounts]:
    """Match the objects of two images (H, W) at each threshold t: R and S are a hit where IoU > t.

    For t >= 0.5 no object can have two partners, so lower ones are refused. `ignored` (H, W) bool marks pixels that
    are taken out of the predicted objects; an unmatched object that loses more than half of its pixels is not extra.
    Raises TypeError and ValueError.
    """
    prediction, reference = check_ids("count_objects", prediction=prediction, reference=reference)
    if not all(0.5 <= t < 1 for t in thresholds):
        raise ValueError(f"count_objects: thresholds are {tuple(thresholds)}, legal are values from 0.5 to below 1")
    found, areas = np.unique(prediction[prediction > 0], return_counts=True)
    if ignored is not None:
        if np.shape(ignored) != prediction.shape:
            raise ValueError(f"count_objects: ignored has shape {np.shape(ignored)}, legal is {prediction.shape}")
        prediction = np.where(ignored, 0, prediction)
    pairs = _Pairs(prediction, reference)
    doubtful = 2 * pairs.predictions < areas[np.searchsorted(found, pairs.prediction_ids)]
    counts = []
    for t in thresholds:
        hit = pairs.iou > t
        hits = int(hit.sum())
        forgiven = int(doubtful.sum() - doubtful[pairs.s[hit]].sum())
        counts.append(ObjectCounts(hits, len(doubtful) - hits - forgiven, len(pairs.references) - hits))
    return counts


def mean_average_precision(images: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Score of the Data Science Bowl 2018 over images (prediction, reference).

    The mean over images of the mean over t = 0.5, 0.55 ... 0.95 of hits / (hits + extra + missed); an image without
    objects in either scores 1. Raises ValueError without images.
    """
    scores = [np.mean([c.average_precision for c in count_objects(*image)]) for image in images]
    if not scores:
        raise ValueError("mean_average_precision: there are no images")
    return float(np.mean(scores))


class _Pairs:
    """All pairs of objects that share pixels: indices `r`, `s`, pixels `shared`, `iou`; areas by index."""

    def __init__(self, prediction: np.ndarray, reference: np.ndarray) -> None:
        self.prediction_ids, s, self.predictions = _numbered(prediction)
        _, r, self.references = _numbered(reference)
        both = (s >= 0) & (r >= 0)
        codes, self.shared = np.unique(r[both] * (len(self.predictions) + 1) + s[both], return_counts=True)
        self.r, self.s = np.divmod(codes, len(self.predictions) + 1)
        self.iou = self.shared / (self.references[self.r] + self.predictions[self.s] - self.shared)


def _numbered(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids above 0 ascending (M,), each pixel's place among them (-1 = background), pixels of each (M,)."""
    found, place, areas = np.unique(np.append(ids, 0), return_inverse=True, return_counts=True)
    return found[1:], place[:-1].astype(np.int64) - 1, areas[1:]


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
