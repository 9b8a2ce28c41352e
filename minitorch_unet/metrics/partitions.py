"""How alike two divisions of a picture into objects are: Rand and information scores, restricted to the foreground.

Symbol key: H rows, W columns; A the true division, B the predicted one; n pixels that are foreground in the truth;
n_ij of them in true object i and predicted object j; a_i = sum_j n_ij with j = 0 (predicted background) included;
b_j = sum_i n_ij for j >= 1; s = the pixels with j = 0, each taken for an object of its own.

Source: Arganda-Carreras et al., "Crowdsourcing the creation of image segmentation algorithms for connectomics",
Frontiers in Neuroanatomy 9:142 (2015), and what the challenge's own program does where the paper leaves a choice.
"""

from typing import NamedTuple

import numpy as np

from minitorch_unet.metrics.checks import check_ids


class Overlaps(NamedTuple):
    """Pixel counts over the true foreground: `pairs` n_ij > 0, `truth` a_i, `prediction` b_j, `single` s, `total` n."""

    pairs: np.ndarray
    truth: np.ndarray
    prediction: np.ndarray
    single: int
    total: int


class RandScores(NamedTuple):
    """Of all pairs of pixels that are together in B (A), the share that is together in A (B); F = harmonic mean."""

    precision: float
    recall: float
    f_score: float


class InformationScores(NamedTuple):
    """`merge` = H(A|B) and `split` = H(B|A) in nats; precision = I/H(A), recall = I/H(B), F = harmonic mean."""

    merge: float
    split: float
    precision: float
    recall: float
    f_score: float


def overlaps(prediction: np.ndarray, truth: np.ndarray) -> Overlaps:
    """Count the overlaps of two images of object ids (H, W); pixels with truth 0 are left out."""
    prediction, truth = check_ids("overlaps", prediction=prediction, truth=truth)
    inside = truth > 0
    i, j = (_compact(ids) for ids in (truth[inside], prediction[inside]))
    columns = int(j.max(initial=0)) + 1
    # The pair (i, j) is the two-digit number i * columns + j.
    code, size = i * columns + j, (int(i.max(initial=0)) + 1) * columns
    if size <= 16 * code.size + 1024:
        counts = np.bincount(code, minlength=size)
        codes = np.flatnonzero(counts)
        counts = counts[codes]
    else:
        codes, counts = np.unique(code, return_counts=True)
    alone = codes % columns == 0
    return Overlaps(
        pairs=counts[~alone],
        truth=np.bincount(i)[1:],
        prediction=np.bincount(j)[1:],
        single=int(counts[alone].sum()),
        total=int(inside.sum()),
    )


def _compact(ids: np.ndarray) -> np.ndarray:
    """The same ids, numbered without large gaps; 0 stays 0."""
    if ids.max(initial=0) <= 4 * ids.size:
        return ids
    compact = np.unique(np.append(ids, 0), return_inverse=True)[1]
    return compact[:-1].astype(np.int64)


def rand_sums(counts: Overlaps) -> tuple[int, int, int]:
    """Ordered pairs of pixels that are together in A, in B, in both: (sum a^2, sum b^2 + s, sum n_ij^2 + s).

    A pixel is paired with itself too, hence the s of the pixels that are objects of their own. The sums may be added
    over slices.
    """
    squares = [int((part * part).sum()) for part in (counts.truth, counts.prediction, counts.pairs)]
    return squares[0], squares[1] + counts.single, squares[2] + counts.single


def rand_from_sums(in_truth: int, in_prediction: int, in_both: int) -> RandScores:
    """Precision, recall and F = 2 both / (truth + prediction) of pair counts; all 1 where there is nothing to judge."""
    if in_truth == 0:
        return RandScores(1.0, 1.0, 1.0)
    return RandScores(in_both / in_prediction, in_both / in_truth, 2 * in_both / (in_truth + in_prediction))


def rand_scores(prediction: np.ndarray, truth: np.ndarray) -> RandScores:
    """Foreground-restricted Rand precision, recall and F of two images of object ids (H, W).

    precision = (sum n_ij^2 + s) / (sum b_j^2 + s), recall = (sum n_ij^2 + s) / sum a_i^2. A truth without foreground
    gives 1. Raises TypeError and ValueError for what are no ids or not of one shape.
    """
    return rand_from_sums(*rand_sums(overlaps(prediction, truth)))


def information_scores(prediction: np.ndarray, truth: np.ndarray) -> InformationScores:
    """Foreground-restricted information scores of two images of object ids (H, W).

    H(A) = -sum a/n ln(a/n), H(B) = -sum b/n ln(b/n) + s/n ln n, H(AB) = -sum n_ij/n ln(n_ij/n) + s/n ln n and
    I = H(A) + H(B) - H(AB). Where one division has a single object, so that its entropy is 0, there is no
    information to share: F = 0 as in the challenge's program, except that two single objects agree and give 1. A
    truth without foreground gives 1.
    """
    return information_from(overlaps(prediction, truth))


def information_from(counts: Overlaps) -> InformationScores:
    """`information_scores` from overlaps that are already counted."""
    n = counts.total
    if n == 0:
        return InformationScores(0.0, 0.0, 1.0, 1.0, 1.0)
    alone = counts.single / n * np.log(n)
    in_truth = _entropy(counts.truth / n)
    in_prediction = _entropy(counts.prediction / n) + alone
    joint = _entropy(counts.pairs / n) + alone
    merge, split = max(0.0, joint - in_prediction), max(0.0, joint - in_truth)
    if in_truth == 0 or in_prediction == 0:
        precision, recall = float(in_prediction == 0), float(in_truth == 0)
        return InformationScores(merge, split, precision, recall, float(in_truth == in_prediction))
    shared = max(0.0, in_truth + in_prediction - joint)
    return InformationScores(
        merge,
        split,
        min(1.0, shared / in_truth),
        min(1.0, shared / in_prediction),
        min(1.0, 2 * shared / (in_truth + in_prediction)),
    )


def _entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return abs(float((shares * np.log(shares)).sum()))
