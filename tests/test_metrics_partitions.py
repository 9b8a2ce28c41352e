"""Rand and information scores of two divisions: hand-made cases, pair counting, entropies, scikit-image."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitorch_unet.metrics import information_scores, rand_scores
from minitorch_unet.metrics.partitions import overlaps, rand_sums

TRUTH = np.array([[1, 1, 1, 1, 0, 2, 2]])  # two objects of 4 and 2 pixels


def drawn(seed: int, first: int = 0, most: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A prediction (ids from `first`) and a truth (ids from 0 with at least one pixel of foreground)."""
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 7, 2))
    prediction = rng.integers(first, rng.integers(first + 1, most + 1), shape)
    truth = rng.integers(0, rng.integers(2, most + 1), shape)
    truth[0, 0] = 1
    return prediction, truth


def counted_pairs(prediction: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    """Ordered pairs of foreground pixels, each with itself too, together in truth, prediction and both."""
    pixels = [(i, p, t) for i, (p, t) in enumerate(zip(prediction.flat, truth.flat, strict=True)) if t > 0]
    sums = np.zeros(3, int)
    for (i, p, t), (j, q, u) in itertools.product(pixels, pixels):
        together = (p == q and p > 0) or i == j
        sums += (t == u, together, t == u and together)
    return tuple(sums.tolist())


def test_the_same_division_scores_one() -> None:
    assert rand_scores(TRUTH, TRUTH) == (1, 1, 1)
    assert information_scores(TRUTH, TRUTH) == pytest.approx((0, 0, 1, 1, 1))


def test_a_merge_lowers_precision_alone() -> None:
    merged = np.array([[3, 3, 3, 3, 3, 3, 3]])
    scores = rand_scores(merged, TRUTH)
    assert scores == pytest.approx((20 / 36, 1, 2 * 20 / (36 + 20)))
    entropy = -(4 / 6 * math.log(4 / 6) + 2 / 6 * math.log(2 / 6))
    # One object holds no information: nothing is shared, and the merge loses all of it.
    assert information_scores(merged, TRUTH) == pytest.approx((entropy, 0, 1, 0, 0))


def test_a_split_lowers_recall_alone() -> None:
    split = np.array([[5, 5, 6, 6, 0, 7, 7]])
    assert rand_scores(split, TRUTH) == pytest.approx((1, 12 / 20, 2 * 12 / (12 + 20)))
    true, own = math.log(6) - (4 * math.log(4) + 2 * math.log(2)) / 6, math.log(3)
    scores = information_scores(split, TRUTH)
    assert scores == pytest.approx((0, own - true, 1, true / own, 2 * true / (true + own)))


def test_foreground_that_is_called_background_is_one_object_a_pixel() -> None:
    holes = np.array([[9, 9, 0, 0, 0, 4, 4]])
    alone = np.array([[9, 9, 7, 8, 0, 4, 4]])
    assert rand_scores(holes, TRUTH) == rand_scores(alone, TRUTH) == pytest.approx((1, 10 / 20, 2 * 10 / 30))
    assert information_scores(holes, TRUTH) == pytest.approx(information_scores(alone, TRUTH))


def test_true_background_counts_nowhere() -> None:
    for value in (0, 1, 2, 77):
        prediction = TRUTH.copy()
        prediction[0, 4] = value
        assert rand_scores(prediction, TRUTH) == (1, 1, 1)
        assert information_scores(prediction, TRUTH).f_score == pytest.approx(1)


def test_nothing_to_judge_is_right() -> None:
    nothing = np.zeros((3, 2), int)
    for prediction in (nothing, nothing + 4):
        assert rand_scores(prediction, nothing) == (1, 1, 1)
        assert information_scores(prediction, nothing) == (0, 0, 1, 1, 1)


def test_nothing_predicted() -> None:
    nothing = np.zeros_like(TRUTH)
    assert rand_scores(nothing, TRUTH) == pytest.approx((1, 6 / 20, 2 * 6 / 26))


def test_a_single_object_on_either_side() -> None:
    one, two = np.array([[1, 1]]), np.array([[1, 2]])
    assert information_scores(one, one) == (0, 0, 1, 1, 1)
    assert information_scores(two, one) == pytest.approx((0, math.log(2), 0, 1, 0))
    assert information_scores(one, two) == pytest.approx((math.log(2), 0, 1, 0, 0))


def test_large_and_scattered_ids_and_types() -> None:
    prediction = np.array([[10**12, 10**12, 3]])
    truth = np.array([[1, 1, 65535]], np.uint16)
    assert rand_scores(prediction, truth) == (1, 1, 1)
    assert rand_scores(np.array([[True, True, False]]), truth) == (1, 1, 1)
    many = np.arange(1, 40_001).reshape(200, 200)  # too many pairs for a table of all
    assert rand_sums(overlaps(many, many.T)) == (40_000, 40_000, 40_000)


@pytest.mark.parametrize(
    ("prediction", "truth", "error", "words"),
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int), ValueError, r"prediction has shape \(2, 2\), truth has shape"),
        (np.zeros(3, int), np.zeros(3, int), ValueError, r"legal are equal shapes \(H, W\)"),
        (np.zeros((2, 2)), np.zeros((2, 2), int), TypeError, "prediction has dtype float64"),
        (np.zeros((2, 2), int), np.full((2, 2), -1), ValueError, "truth holds the id -1"),
    ],
)
def test_refusals(prediction, truth, error, words) -> None:
    with pytest.raises(error, match=words):
        rand_scores(prediction, truth)


@given(st.integers(0, 10_000))
def test_against_counting_all_pairs(seed: int) -> None:
    prediction, truth = drawn(seed)
    in_truth, in_prediction, both = counted_pairs(prediction, truth)
    assert rand_sums(overlaps(prediction, truth)) == (in_truth, in_prediction, both)
    precision, recall = both / in_prediction, both / in_truth
    expected = (precision, recall, 2 * precision * recall / (precision + recall))
    assert rand_scores(prediction, truth) == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_against_entropies_of_lists(seed: int) -> None:
    prediction, truth = drawn(seed)
    names = [
        (t, p if p else ("alone", i))
        for i, (p, t) in enumerate(zip(prediction.flat, truth.flat, strict=True))
        if t > 0
    ]

    def entropy(values) -> float:
        return -sum(k / len(names) * math.log(k / len(names)) for k in Counter(values).values())

    a, b, both = entropy(t for t, _ in names), entropy(p for _, p in names), entropy(names)
    scores = information_scores(prediction, truth)
    assert (scores.merge, scores.split) == pytest.approx((both - b, both - a), abs=1e-12)
    if a > 1e-9 and b > 1e-9:
        shared = a + b - both
        assert scores[2:] == pytest.approx((shared / a, shared / b, 2 * shared / (a + b)), abs=1e-12)


@given(st.integers(0, 10_000))
def test_renaming_objects_changes_nothing_and_bounds_hold(seed: int) -> None:
    prediction, truth = drawn(seed)
    names = np.random.default_rng(seed).permutation(np.arange(1, 9))
    renamed = [np.append(0, names)[ids] for ids in (prediction, truth)]
    assert rand_scores(*renamed) == rand_scores(prediction, truth)
    assert information_scores(*renamed) == pytest.approx(information_scores(prediction, truth), abs=1e-12)
    assert all(0 <= v <= 1 for v in rand_scores(prediction, truth))
    scores = information_scores(prediction, truth)
    assert all(0 <= v <= 1 for v in scores[2:]) and scores.merge >= 0 and scores.split >= 0


@given(st.integers(0, 10_000))
def test_without_background_the_roles_may_be_exchanged(seed: int) -> None:
    prediction, truth = drawn(seed, first=1)
    truth = truth + 1
    there, back = rand_scores(prediction, truth), rand_scores(truth, prediction)
    assert (there.precision, there.recall, there.f_score) == pytest.approx((back.recall, back.precision, back.f_score))
    there, back = information_scores(prediction, truth), information_scores(truth, prediction)
    assert (there.merge, there.split) == pytest.approx((back.split, back.merge), abs=1e-12)
    assert there.f_score == pytest.approx(back.f_score, abs=1e-12)


@given(st.integers(0, 10_000))
def test_scikit_image_agrees_where_definitions_meet(seed: int) -> None:
    """Without predicted background; scikit-image leaves out pairs of a pixel with itself and counts in bits."""
    from skimage.metrics import adapted_rand_error, variation_of_information

    prediction, truth = drawn(seed, first=1)
    n = int((truth > 0).sum())
    in_truth, in_prediction, both = rand_sums(overlaps(prediction, truth))
    if in_truth > n and in_prediction > n:
        error, recall, precision = adapted_rand_error(truth, prediction)  # there the two names are exchanged
        assert precision == pytest.approx((both - n) / (in_prediction - n))
        assert recall == pytest.approx((both - n) / (in_truth - n))
        assert error == pytest.approx(1 - 2 * (both - n) / (in_truth + in_prediction - 2 * n))
    split, merge = variation_of_information(truth, prediction, ignore_labels=[0])
    scores = information_scores(prediction, truth)
    assert (scores.split, scores.merge) == pytest.approx((split * math.log(2), merge * math.log(2)), abs=1e-9)
