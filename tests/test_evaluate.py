"""Evaluation against numbers worked out by hand."""

import math

import numpy as np
import pytest
from small_runs import patterns

from minitorch_unet import UNet, evaluate
from minitorch_unet.data import Dataset
from minitorch_unet.data.labels import LabelRule
from minitorch_unet.data.layouts import Entry
from minitorch_unet.evaluate import evaluate as run_evaluate
from minitorch_unet.evaluate import format_scores
from minitorch_unet.tiled import Tiling

# Two images of unequal size; classes 0..2, 255 is ignored. Probabilities of the predicted class: 0.8, others 0.1.
LABELS = [np.array([[0, 1, 2], [2, 255, 0]], np.uint8), np.array([[1, 1]], np.uint8)]
GUESSES = [np.array([[0, 1, 1], [2, 0, 1]]), np.array([[1, 0]])]


def hand_made(labels, classes: int = 3) -> Dataset:
    entries = [
        Entry(str(i), str(i), str(i), lambda i=i, a=a: np.full(a.shape, i, np.uint8), lambda a=a: a)
        for i, a in enumerate(labels)
    ]
    return Dataset(entries, LabelRule("indices", None, classes), 1, "hand-made")


@pytest.fixture
def scores(monkeypatch) -> dict:
    guesses = iter(GUESSES)

    def predicted(network, image, how=None) -> np.ndarray:
        guess = next(guesses)
        assert image.shape == (1, *guess.shape)
        return np.where(guess == np.arange(3)[:, None, None], 0.8, 0.1).astype(np.float32)

    monkeypatch.setattr(evaluate, "predict_probabilities", predicted)
    calls = []
    result = run_evaluate(UNet(num_classes=3, base=1, depth=1), hand_made(LABELS), lambda *a: calls.append(a))
    assert calls == [(1, 2), (2, 2)]
    return result


def test_numbers_by_hand(scores) -> None:
    # truth 0 1 2 2 0 | 1 1, guess 0 1 1 2 1 | 1 0: right are 0, 1, 2, 1.
    assert scores["pixels"] == [2, 3, 2]
    assert scores["pixel_accuracy"] == pytest.approx(4 / 7)
    assert scores["iou"] == pytest.approx([1 / 3, 2 / 5, 1 / 2])
    assert scores["dice"] == pytest.approx([2 / 4, 4 / 7, 2 / 3])
    assert scores["mean_iou"] == pytest.approx((2 / 5 + 1 / 2) / 2)
    assert scores["mean_dice"] == pytest.approx((4 / 7 + 2 / 3) / 2)
    assert scores["loss"] == pytest.approx(-(4 * math.log(0.8) + 3 * math.log(0.1)) / 7, rel=1e-6)


def test_the_table(scores) -> None:
    assert format_scores(scores).splitlines() == [
        "                       Dice     IoU      pixels",
        "class 0 (background)   0.5000   0.3333   2",
        "class 1                0.5714   0.4000   3",
        "class 2                0.6667   0.5000   2",
        "mean of foreground     0.6190   0.4500",
        f"pixel accuracy 0.5714, cross-entropy {scores['loss']:.4f}",
    ]
    assert "interior   " in format_scores(scores, ["membrane", "interior", "other"])


def test_a_certain_mistake_keeps_the_loss_finite(monkeypatch) -> None:
    certain = lambda n, image, how=None: np.stack([image[0] * 0, image[0] * 0 + 1])  # noqa: E731
    monkeypatch.setattr(evaluate, "predict_probabilities", certain)
    scores = run_evaluate(UNet(base=1, depth=1), hand_made([np.zeros((2, 2), np.uint8)], 2))
    assert scores["loss"] == pytest.approx(-math.log(1e-12))
    assert scores["iou"] == [0.0, 0.0]


def test_a_network_that_knows_more_classes_is_fine_and_fewer_refused(monkeypatch) -> None:
    always_1 = lambda n, image, how=None: np.eye(3)[:, 1][:, None, None] + image * 0  # noqa: E731
    monkeypatch.setattr(evaluate, "predict_probabilities", always_1)
    network = UNet(num_classes=3, base=1, depth=1)
    scores = run_evaluate(network, hand_made([np.ones((6, 6), np.uint8)], 2))
    assert len(scores["iou"]) == 3 and scores["iou"][2] == 1.0  # neither there nor predicted
    with pytest.raises(ValueError, match="taken for binary ones, the network knows 3 classes; if"):
        run_evaluate(network, patterns([(6, 6)]))  # two values: which classes they are nobody said
    with pytest.raises(ValueError, match="evaluate: the labels have 3 classes, the network knows 2"):
        run_evaluate(UNet(base=1, depth=1), hand_made(LABELS))


def test_predictions_are_tiled_and_averaged_as_asked(monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(
        evaluate, "predict_probabilities", lambda n, image, how: asked.append(how) or np.concatenate([1 - image, image])
    )
    flips = Tiling(average="flips")
    run_evaluate(UNet(base=1, depth=1), hand_made([np.zeros((2, 2), np.uint8)], 2), how=flips)
    run_evaluate(UNet(base=1, depth=1), hand_made([np.zeros((2, 2), np.uint8)], 2))
    assert asked == [flips, Tiling()]
