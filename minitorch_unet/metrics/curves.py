"""Scores of probabilities of one class inside a field of view: areas under curves, counts at a threshold.

Symbol key: H rows, W columns, M judged pixels; TP, FP, TN, FN counts of true and false positives and negatives.
"""

import numpy as np

from minitorch_unet.metrics.checks import check_probability


def judged_pixels(
    function: str, probability: np.ndarray, truth: np.ndarray, field_of_view: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (M,) and truth (M,) bool of the pixels inside the field of view; raises TypeError, ValueError."""
    probability, truth = np.asarray(probability), np.asarray(truth)
    inside = np.ones(truth.shape, bool) if field_of_view is None else np.asarray(field_of_view)
    if probability.shape != truth.shape or inside.shape != truth.shape:
        raise ValueError(
            f"{function}: probability has shape {probability.shape}, truth {truth.shape}, field_of_view "
            f"{inside.shape}; legal are equal shapes"
        )
    if inside.dtype != bool:  # a picture of 0 and 255, or of a palette's 3 and 253, is better not guessed at
        raise TypeError(f"{function}: field_of_view has dtype {inside.dtype}, legal is bool")
    probability, truth = probability[inside], truth[inside]
    check_probability(function, probability)
    if truth.dtype != bool and not ((truth == 0) | (truth == 1)).all():
        raise ValueError(f"{function}: truth holds {truth.min()}..{truth.max()}, legal are 0 and 1")
    return probability, truth.astype(bool)


def roc_auc(probability: np.ndarray, truth: np.ndarray, field_of_view: np.ndarray | None = None) -> float:
    """Area under the receiver operating characteristic: the share of (positive, negative) pairs in the right order.

    A pair of equal probabilities counts half, which is what the trapezoidal rule gives. Arrays of any one shape;
    truth is 0 and 1; pixels outside `field_of_view` (bool) are left out. Raises ValueError where one class is absent.
    """
    positive, negative = _by_value("roc_auc", probability, truth, field_of_view)
    if not positive.sum() or not negative.sum():
        raise ValueError("roc_auc: truth holds one class only, the area is not defined")
    below = np.cumsum(negative) - negative  # negatives with a smaller probability
    ordered = int((positive * (2 * below + negative)).sum())  # twice the pairs
    return ordered / (2 * int(positive.sum()) * int(negative.sum()))


def pr_auc(probability: np.ndarray, truth: np.ndarray, field_of_view: np.ndarray | None = None) -> float:
    """Area under the precision-recall curve as a sum of steps: sum (R_k - R_k-1) P_k over falling thresholds.

    Also called average precision; a straight line between the points would be too high. Pixels of equal probability
    enter together. Raises ValueError where there is no positive pixel.
    """
    positive, negative = (counts[::-1] for counts in _by_value("pr_auc", probability, truth, field_of_view))
    if not positive.sum():
        raise ValueError("pr_auc: truth holds no positive pixel, the area is not defined")
    hits = np.cumsum(positive)
    return float((positive * (hits / (hits + np.cumsum(negative)))).sum() / hits[-1])


def _by_value(
    function: str, probability: np.ndarray, truth: np.ndarray, field_of_view: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """How many positives, and negatives, have each of the different probabilities, in rising order."""
    probability, truth = judged_pixels(function, probability, truth, field_of_view)
    values, place = np.unique(probability, return_inverse=True)
    positive = np.bincount(place[truth], minlength=len(values))
    return positive, np.bincount(place, minlength=len(values)) - positive


def threshold_scores(
    probability: np.ndarray, truth: np.ndarray, field_of_view: np.ndarray | None = None, threshold: float = 0.5
) -> dict[str, float]:
    """`f1`, `accuracy`, `sensitivity`, `specificity`, `precision` of probability > threshold inside the field of view.

    f1 = 2 TP / (2 TP + FP + FN), accuracy = (TP + TN) / M, sensitivity = TP / (TP + FN), specificity =
    TN / (TN + FP), precision = TP / (TP + FP); each 1 where nothing is there to be wrong about.
    """
    probability, truth = judged_pixels("threshold_scores", probability, truth, field_of_view)
    called = probability > threshold
    tp, fp, fn = (int(np.count_nonzero(part)) for part in (called & truth, called & ~truth, ~called & truth))
    tn = truth.size - tp - fp - fn
    parts = {
        "f1": (2 * tp, 2 * tp + fp + fn),
        "accuracy": (tp + tn, truth.size),
        "sensitivity": (tp, tp + fn),
        "specificity": (tn, tn + fp),
        "precision": (tp, tp + fp),
    }
    return {name: part / whole if whole else 1.0 for name, (part, whole) in parts.items()}
