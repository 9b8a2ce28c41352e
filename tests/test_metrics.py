"""Overlap scores on cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitorch_unet.metrics import confusion_matrix, dice, iou, per_class_scores, pixel_accuracy

TRUTH = np.array([[0, 0, 1], [1, 1, -100]])
GUESS = np.array([[0, 1, 1], [1, 0, 7]])  # the 7 lies under an ignored pixel


def test_confusion_by_hand():
    matrix = confusion_matrix(GUESS, TRUTH, 2)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == [[1, 1], [1, 2]]  # rows are the truth


def test_confusion_rows_are_truth():
    assert confusion_matrix(np.array([1, 1, 1]), np.array([0, 0, 1]), 2).tolist() == [[0, 2], [0, 1]]


def test_scores_by_hand():
    matrix = np.array([[1, 1], [1, 2]])
    assert dice(matrix).tolist() == pytest.approx([2 / 4, 4 / 6])
    assert iou(matrix).tolist() == pytest.approx([1 / 3, 2 / 4])
    assert pixel_accuracy(matrix) == pytest.approx(3 / 5)
    scores = per_class_scores(matrix)
    assert scores["pixels"] == [2, 3]
    assert scores["iou"] == pytest.approx([1 / 3, 1 / 2])
    assert scores["dice"] == pytest.approx([1 / 2, 2 / 3])
    assert scores["pixel_accuracy"] == pytest.approx(0.6)


def test_empty_class_counts_as_right_and_false_alarm_as_wrong():
    never = np.array([[4, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert iou(never).tolist() == dice(never).tolist() == [1.0, 1.0, 1.0]
    false_alarm = np.array([[3, 1], [0, 0]])
    assert iou(false_alarm).tolist() == [0.75, 0.0]
    assert dice(false_alarm)[1] == 0.0
    missed = np.array([[3, 0], [2, 0]])
    assert iou(missed)[1] == dice(missed)[1] == 0.0


def test_all_ignored():
    matrix = confusion_matrix(np.zeros((2, 2), int), np.full((2, 2), -100), 3)
    assert matrix.shape == (3, 3) and matrix.sum() == 0
    assert pixel_accuracy(matrix) == 1.0


def test_own_ignore_index_and_bool():
    assert confusion_matrix(np.array([1, 0]), np.array([1, 255]), 2, ignore_index=255).tolist() == [
        [0, 0],
        [0, 1],
    ]
    assert confusion_matrix(np.array([True, False]), np.array([1, 1]), 2).tolist() == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("guess", "truth", "words"),
    [
        ([0, 2], [0, 1], "prediction holds 0..2, legal are 0..1"),
        ([0, 1], [0, 2], "label holds 0..2, legal are 0..1 and -100"),
        ([0, -1], [0, 1], "prediction holds -1..0"),
        ([0, 1, 1], [0, 1], "shape"),
    ],
)
def test_refusals(guess, truth, words):
    with pytest.raises(ValueError, match=words):
        confusion_matrix(np.array(guess), np.array(truth), 2)


def test_probabilities_are_no_classes():
    with pytest.raises(TypeError, match="float"):
        confusion_matrix(np.array([0.5]), np.array([1]), 2)


def test_scores_want_a_square_matrix():
    with pytest.raises(ValueError, match="iou: confusion has shape"):
        iou(np.ones((2, 3)))


@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from([np.uint8, np.int16, np.int64]))
def test_against_sets_of_pixels(seed, classes, dtype):
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, classes, (2, 5, 6)).astype(dtype)
    matrix = confusion_matrix(guess, truth, classes)
    for number in range(classes):
        a = {tuple(p) for p in np.argwhere(truth == number)}
        b = {tuple(p) for p in np.argwhere(guess == number)}
        assert iou(matrix)[number] == pytest.approx(len(a & b) / len(a | b) if a | b else 1.0)
        assert dice(matrix)[number] == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a | b else 1.0)
        assert matrix[number].sum() == len(a) and matrix[:, number].sum() == len(b)
    assert pixel_accuracy(matrix) == pytest.approx(float((truth == guess).mean()))
