"""Overlap scores from a confusion matrix. Symbol key: K classes, H rows, W columns.

Counts are added over images before a score is taken: `confusion += confusion_matrix(...)`, then
`iou(confusion)`.
"""

from typing import Any

import numpy as np


def confusion_matrix(
    prediction: np.ndarray, label: np.ndarray, classes: int, ignore_index: int = -100
) -> np.ndarray:
    """Pixel counts (K, K) int64: row = true class, column = predicted class.

    `prediction` and `label` hold class ids in equal shapes; pixels whose label is `ignore_index` are left
    out. Raises `ValueError` for unequal shapes and for ids outside 0..classes-1.
    """
    prediction, label = np.asarray(prediction), np.asarray(label)
    if prediction.shape != label.shape:
        raise ValueError(
            f"confusion_matrix: prediction has shape {prediction.shape}, label has {label.shape}"
        )
    counted = label != ignore_index
    truth, guess = label[counted], prediction[counted]
    for name, ids in (("prediction", guess), ("label", truth)):
        if ids.dtype.kind not in "biu":
            raise TypeError(f"confusion_matrix: {name} has dtype {ids.dtype}, legal are integer class ids")
        if ids.size and not (ids.min() >= 0 and ids.max() < classes):
            raise ValueError(
                f"confusion_matrix: {name} holds {ids.min()}..{ids.max()}, legal are 0..{classes - 1}"
                + (f" and {ignore_index}" if name == "label" else "")
            )
    # The pair (truth, guess) is the two-digit number truth * K + guess in base K.
    pairs = truth.astype(np.int64) * classes + guess
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def dice(confusion: np.ndarray) -> np.ndarray:
    """Dice score (K,) per class: 2 |P and T| / (|P| + |T|).

    A class that is absent from truth and prediction scores 1.0; one that is predicted but absent in truth,
    0.0.
    """
    hits, predicted, true = _counts("dice", confusion)
    return _ratio(2 * hits, predicted + true)


def iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union (K,) per class: |P and T| / |P or T|; empty classes as in `dice`."""
    hits, predicted, true = _counts("iou", confusion)
    return _ratio(hits, predicted + true - hits)


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of pixels whose class is right; 1.0 where no pixel was counted."""
    hits, _, true = _counts("pixel_accuracy", confusion)
    return float(_ratio(hits.sum(), true.sum()))


def per_class_scores(confusion: np.ndarray) -> dict[str, Any]:
    """All scores as plain numbers: "pixel_accuracy" and, per class, lists "dice", "iou", "pixels" (true)."""
    return {
        "pixel_accuracy": pixel_accuracy(confusion),
        "dice": dice(confusion).tolist(),
        "iou": iou(confusion).tolist(),
        "pixels": np.asarray(confusion).sum(axis=1).tolist(),
    }


def _counts(function: str, confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per class: pixels that are right, predicted, true."""
    confusion = np.asarray(confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"{function}: confusion has shape {confusion.shape}, legal is (K, K)")
    return np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and 1 where both are empty."""
    return np.where(whole == 0, 1.0, part / np.maximum(whole, 1))
