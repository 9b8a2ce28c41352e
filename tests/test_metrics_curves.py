"""Areas under curves and counts at a threshold: hand-made cases, brute force over pairs and thresholds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitorch_unet.metrics import pr_auc, roc_auc, threshold_scores


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities with many ties, truth with both classes inside the field of view, the field of view."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(2, 8, 2))
    probability = np.round(rng.random(shape), int(rng.integers(0, 3)))
    truth, inside = rng.random(shape) < 0.4, rng.random(shape) < 0.8
    truth[0, :2], inside[0, :2] = (True, False), True
    return probability, truth, inside


def pairs(probability: np.ndarray, truth: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order, equal ones counting half."""
    positive, negative = probability[truth], probability[~truth]
    wins = (positive[:, None] > negative).sum() + 0.5 * (positive[:, None] == negative).sum()
    return wins / (positive.size * negative.size)


def steps(probability: np.ndarray, truth: np.ndarray) -> float:
    """sum over falling thresholds of (recall gained) times precision."""
    area = before = 0.0
    for t in sorted(set(probability.ravel().tolist()), reverse=True):
        called = probability >= t
        recall = (called & truth).sum() / truth.sum()
        area += (recall - before) * (called & truth).sum() / called.sum()
        before = recall
    return area


def test_areas_by_hand() -> None:
    truth = np.array([0, 0, 1, 1])
    assert roc_auc(np.array([0.1, 0.4, 0.35, 0.8]), truth) == 3 / 4  # one pair of four is the wrong way round
    # Falling: hit (P 1, R 1/2), miss, hit (P 2/3, R 1).
    assert pr_auc(np.array([0.1, 0.4, 0.35, 0.8]), truth) == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_perfect_reversed_and_constant() -> None:
    truth = np.array([[0, 0, 1], [1, 0, 0]])
    assert roc_auc(truth * 0.5, truth) == pr_auc(truth * 0.5, truth) == 1
    assert roc_auc(1 - truth.astype(float), truth) == 0
    assert pr_auc(1 - truth.astype(float), truth) == pytest.approx(2 / 6)
    flat = np.full((2, 3), 0.3)
    assert roc_auc(flat, truth) == 0.5 and pr_auc(flat, truth) == pytest.approx(2 / 6)


def test_only_the_field_of_view_counts() -> None:
    truth = np.array([0, 1, 1, 0])
    probability = np.array([0.2, 0.9, 0.1, 0.8])
    inside = np.array([True, True, False, False])
    assert roc_auc(probability, truth, inside) == pr_auc(probability, truth, inside) == 1
    assert roc_auc(probability, truth) < 1
    scores = threshold_scores(probability, truth, inside)
    assert set(scores.values()) == {1.0}


def test_counts_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    probability = np.array([0.9, 0.6, 0.5, 0.7, 0.1, 0.2, 0.5, 0.3])  # 0.5 is not above 0.5
    # TP 2, FN 1, FP 1, TN 4
    assert threshold_scores(probability, truth) == pytest.approx(
        {"f1": 4 / 6, "accuracy": 6 / 8, "sensitivity": 2 / 3, "specificity": 4 / 5, "precision": 2 / 3}
    )
    lower = threshold_scores(probability, truth, threshold=0.4)  # TP 3, FP 2, TN 3
    assert lower["sensitivity"] == 1 and lower["specificity"] == 3 / 5


def test_counts_of_nothing() -> None:
    nothing = np.zeros(4, bool)
    assert set(threshold_scores(np.zeros(4), nothing).values()) == {1.0}
    assert set(threshold_scores(np.ones(4), nothing, nothing).values()) == {1.0}  # an empty field of view
    wrong = threshold_scores(np.ones(4), nothing)
    assert (wrong["f1"], wrong["precision"], wrong["specificity"], wrong["sensitivity"]) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("probability", "truth", "inside", "error", "words"),
    [
        ([0.1, 0.2], [0, 0], None, ValueError, "roc_auc: truth holds one class only"),
        ([0.1, 0.2], [1, 0], [True, False], ValueError, "one class only"),
        ([0.1, 1.2], [0, 1], None, ValueError, "holds 0.1..1.2, legal are values from 0 to 1"),
        ([0.1, 0.2], [0, 255], None, ValueError, "truth holds 0..255, legal are 0 and 1"),
        ([0.1, 0.2], [0, 1, 1], None, ValueError, r"probability has shape \(2,\), truth \(3,\)"),
        ([0.1, 0.2], [0, 1], [0, 255], TypeError, "field_of_view has dtype int64, legal is bool"),
        ([1, 2], [0, 1], None, TypeError, "probability has dtype int64"),
    ],
)
def test_refusals(probability, truth, inside, error, words) -> None:
    with pytest.raises(error, match=words):
        roc_auc(np.array(probability), np.array(truth), None if inside is None else np.array(inside))


def test_no_positive_pixel() -> None:
    with pytest.raises(ValueError, match="pr_auc: truth holds no positive pixel"):
        pr_auc(np.zeros(3), np.zeros(3, bool))
    assert pr_auc(np.zeros(3), np.ones(3, bool)) == 1


@given(st.integers(0, 10_000))
def test_against_pairs_and_thresholds(seed: int) -> None:
    probability, truth, inside = drawn(seed)
    assert roc_auc(probability, truth, inside) == pytest.approx(pairs(probability[inside], truth[inside]))
    assert pr_auc(probability, truth, inside) == pytest.approx(steps(probability[inside], truth[inside]))
    for t in (0.0, 0.5, 0.9):
        found = threshold_scores(probability, truth, inside, t)
        called, true = probability[inside] > t, truth[inside]
        assert found["accuracy"] == pytest.approx((called == true).mean())
        assert found["sensitivity"] == pytest.approx(called[true].mean())
        assert found["specificity"] == pytest.approx((~called[~true]).mean())
        if called.any():
            assert found["precision"] == pytest.approx(true[called].mean())
        assert found["f1"] == pytest.approx(2 * (called & true).sum() / (called.sum() + true.sum()))


@given(st.integers(0, 10_000))
def test_order_alone_matters_and_complements(seed: int) -> None:
    probability, truth, inside = drawn(seed)
    area = roc_auc(probability, truth, inside)
    assert roc_auc(probability**2 / 2, truth, inside) == pytest.approx(area)
    assert pr_auc(probability**2 / 2, truth, inside) == pytest.approx(pr_auc(probability, truth, inside))
    assert roc_auc(1 - probability, truth, inside) == pytest.approx(1 - area)
    assert roc_auc(1 - probability, ~truth, inside) == pytest.approx(area)
    assert 0 <= area <= 1 and 0 < pr_auc(probability, truth, inside) <= 1 + 1e-12
