"""Families of scores over a data set: one class a family that adds up images. Which fit: `score_choice`.

A family has `add(sample, probability)`, called for each image with the network's probabilities (K, H, W), `result()`,
plain numbers for JSON (None where a score is not defined), and `lines()`, the same for people.
Symbol key: K classes, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .data import Sample, read_image
from .data.weights import IGNORE
from .errors import DataError
from .instances import label_objects
from .metrics import (
    MembraneScores,
    ObjectCounts,
    count_objects,
    pr_auc,
    roc_auc,
    seg_scores,
    surface_distances,
    threshold_scores,
)
from .metrics.objects import IOU_THRESHOLDS
from .metrics.surface import average_distance, percentile_distance


class Family(Protocol):
    """What `evaluate` needs of a family of scores."""

    name: str

    def add(self, sample: Sample, probability: np.ndarray) -> None:
        """Judge one image."""

    def result(self) -> dict[str, Any]:
        """Plain numbers."""

    def lines(self) -> list[str]:
        """The numbers for people."""


class MembraneFamily:
    """Scores of the ISBI 2012 challenge."""

    name = "membranes"

    def __init__(self, interior: int = 1) -> None:
        self.interior = interior
        self.scores = MembraneScores()

    def add(self, sample: Sample, probability: np.ndarray) -> None:
        """The map is the probability of the interior's class."""
        truth = np.where(sample.label == IGNORE, IGNORE, sample.label == self.interior)
        self.scores.add(np.clip(probability[self.interior], 0, 1), truth)  # a sum of softmax may pass 1 by a rounding

    def result(self) -> dict[str, Any]:
        """See `MembraneScores.result`; and the class of the interior."""
        return {**self.scores.result(), "interior_class": self.interior}

    def lines(self) -> list[str]:
        """A table of value and best threshold."""
        found = self.scores.result()
        rows = (
            ("V_rand (thinned)", "v_rand"), ("V_info (thinned)", "v_info"), ("Rand error", "rand_error"),
            ("warping error", "warping_error"), ("pixel error", "pixel_error"),
        )  # fmt: skip
        head = [f"{'membranes':20}{'value':>10}{'best threshold':>18}"]
        return head + [f"{text:20}{found[key]:>10.6f}{found[f'{key}_threshold']:>18.1f}" for text, key in rows]


class InstanceFamily:
    """SEG, average precision, and counts of objects; `objects` are the options of `label_objects`."""

    name = "instances"

    def __init__(self, objects: dict[str, Any]) -> None:
        self.objects = objects
        self.seg: list[np.ndarray] = []
        self.precisions: list[float] = []
        self.counts = [ObjectCounts(0, 0, 0)] * len(IOU_THRESHOLDS)

    def add(self, sample: Sample, probability: np.ndarray) -> None:
        """Objects are found in the probability of all classes but 0; ignored pixels hold none against the network."""
        from scipy import ndimage

        predicted = label_objects(1 - probability[0], **self.objects)
        known = sample.instances
        reference = ndimage.label(sample.label > 0)[0] if known is None else known
        counts = count_objects(predicted, reference, ignored=(sample.label == IGNORE) & (reference == 0))
        self.seg.append(seg_scores(predicted, reference))
        self.precisions.append(float(np.mean([c.average_precision for c in counts])))
        self.counts = [a.plus(b) for a, b in zip(self.counts, counts, strict=True)]

    def result(self) -> dict[str, Any]:
        """`seg`, `mean_average_precision`, and under `at` the counts and scores at each IoU."""
        seg = np.concatenate(self.seg)
        return {
            "seg": float(seg.mean()) if seg.size else None,
            "mean_average_precision": float(np.mean(self.precisions)),
            "at": [
                {
                    "iou": t, **c._asdict(), "precision": c.precision, "recall": c.recall, "f1": c.f1,
                    "average_precision": c.average_precision,
                }
                for t, c in zip(IOU_THRESHOLDS, self.counts, strict=True)
            ],
            "options": self.objects,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """SEG, mean average precision, and a table for three thresholds."""
        found = self.result()
        first = self.counts[0]
        lines = [
            f"instances: {first.hits + first.missed} in the labels, {first.hits + first.extra} predicted",
            f"SEG {_number(found['seg'])}, mean average precision {found['mean_average_precision']:.4f}",
            f"{'':10}precision   recall       F1   matched    extra   missed",
        ]
        for t, c in list(zip(IOU_THRESHOLDS, self.counts, strict=True))[::4]:
            lines.append(
                f"IoU > {t:.1f} {c.precision:>9.4f}{c.recall:>9.4f}{c.f1:>9.4f}{c.hits:>10}{c.extra:>9}{c.missed:>9}"
            )
        return lines


class VesselFamily:
    """Areas under curves, and counts at 0.5, of class 1 inside the field of view, all images together.

    Outside is what the labels ignore, and, with `folder`, what the image's mask there (NAME, NAME_mask or NAME_fov) has
    no brighter than half of its maximum.
    """

    name = "vessels"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = folder
        self.probabilities: list[np.ndarray] = []
        self.truths: list[np.ndarray] = []

    def add(self, sample: Sample, probability: np.ndarray) -> None:
        """Keeps the judged pixels: 5 bytes each."""
        inside = sample.label != IGNORE
        if self.folder is not None:
            inside = inside & read_mask(self.folder, sample.name, inside.shape)
        self.probabilities.append(np.clip(probability[1][inside], 0, 1))
        self.truths.append(sample.label[inside] == 1)

    def result(self) -> dict[str, Any]:
        """`roc_auc`, `pr_auc`, and f1, accuracy, sensitivity, specificity, precision at 0.5."""
        probability, truth = np.concatenate(self.probabilities), np.concatenate(self.truths)
        both = bool(truth.any()) and not truth.all()
        return {
            "roc_auc": roc_auc(probability, truth) if both else None,
            "pr_auc": pr_auc(probability, truth) if truth.any() else None,
            **threshold_scores(probability, truth),
            "pixels": int(truth.size),
        }

    def lines(self) -> list[str]:
        """All in two lines."""
        found = self.result()
        counts = ", ".join(f"{k} {found[k]:.4f}" for k in ("f1", "accuracy", "sensitivity", "specificity"))
        areas = f"ROC AUC {_number(found['roc_auc'])}, PR AUC {_number(found['pr_auc'])}"
        return [f"vessels: {areas} ({found['pixels']} pixels in the field of view)", f"at 0.5: {counts}"]


class SurfaceFamily:
    """Average surface distance and 95 % Hausdorff distance of each class but 0, in pixels, averaged over images.

    Images in which a class is neither true nor predicted do not count; those in which it is only one of both have no
    finite distance and are counted as `unmatched`.
    """

    name = "surface"

    def __init__(self) -> None:
        self.distances: list[list[tuple[float, float]]] = []

    def add(self, sample: Sample, probability: np.ndarray) -> None:
        """Predicted is the likeliest class; ignored pixels belong to none."""
        judged = sample.label != IGNORE
        predicted = probability.argmax(0)
        for k in range(1, len(probability)):
            if len(self.distances) < k:
                self.distances.append([])
            regions = (predicted == k) & judged, sample.label == k
            if regions[0].any() or regions[1].any():
                there, back = surface_distances(*regions)
                self.distances[k - 1].append((average_distance(there, back), percentile_distance(there, back)))

    def result(self) -> dict[str, Any]:
        """Under `classes`, from class 1: `average_surface_distance`, `hausdorff_95`, `images`, `unmatched`."""
        found = []
        for rows in self.distances:
            finite = [row for row in rows if math.isfinite(row[0])]
            means = np.mean(finite, axis=0).tolist() if finite else [None, None]
            found.append(
                {
                    "average_surface_distance": means[0], "hausdorff_95": means[1],
                    "images": len(rows), "unmatched": len(rows) - len(finite),
                }
            )  # fmt: skip
        return {"classes": found}

    def lines(self) -> list[str]:
        """A line for each class."""
        return [
            f"class {k}: average surface distance {_number(row['average_surface_distance'], 2)} pixels, Hausdorff 95 % "
            f"{_number(row['hausdorff_95'], 2)} ({row['images']} images, {row['unmatched']} of them without a partner)"
            for k, row in enumerate(self.result()["classes"], start=1)
        ]


def read_mask(folder: str | os.PathLike[str], name: str, shape: Sequence[int]) -> np.ndarray:
    """The mask (H, W) bool of the image `name` in `folder`; raises DataError where it is missing or does not fit."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of fields of view")
    fitting = [p for p in sorted(folder.iterdir()) if p.stem in (name, f"{name}_mask", f"{name}_fov")]
    if len(fitting) != 1:
        raise DataError(f"{folder}: holds {len(fitting)} files {name}.*, {name}_mask.* or {name}_fov.*, 1 is expected")
    picture = read_image(fitting[0])
    grey = picture if picture.ndim == 2 else picture.max(axis=2)
    if grey.shape != tuple(shape):
        raise DataError(f"{fitting[0]}: is {grey.shape[0]}x{grey.shape[1]}, the image {shape[0]}x{shape[1]}")
    return grey > grey.max() / 2


def _number(value: float | None, digits: int = 4) -> str:
    return "not defined" if value is None else f"{value:.{digits}f}"
