"""Evaluation: predictions against labels, as overlap scores per class and whatever families of scores are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .data import Dataset
from .data.weights import IGNORE
from .metrics import confusion_matrix, per_class_scores
from .scoring import Family
from .tiled import EXACT, Tiling, predict_probabilities
from .unet import UNet


def evaluate(
    network: UNet,
    dataset: Dataset,
    progress: Callable[[int, int], None] | None = None,
    families: Sequence[Family] = (),
    how: Tiling = EXACT,
    see: Callable[[int, np.ndarray], None] | None = None,
) -> dict[str, Any]:
    """Scores over all images: `loss` (mean -log p of the true class), `pixel_accuracy`, and per class `dice`, `iou`.

    `mean_iou` and `mean_dice` average the foreground classes 1..K-1. Pixel counts are added over the images before a
    score is taken; ignored pixels count nowhere. Every family of `families` (see `scoring`) is shown each image too,
    and its result stands under its name. `how` says how images are tiled and predictions averaged. `see(i,
    probability)` is called with the prediction (K, H, W) of each. Raises ValueError when the classes of data and
    network differ.
    """
    classes = network.classes
    if dataset.classes > classes:
        raise ValueError(f"evaluate: the labels have {dataset.classes} classes, the network knows {classes}")
    if dataset.classes < classes and dataset.rule.kind in ("binary", "instances"):
        raise ValueError(
            f"evaluate: the labels were taken for {dataset.rule.kind} ones, the network knows {classes} classes; if "
            "their values are class numbers, say labels='indices' (--labels indices)"
        )
    confusion = np.zeros((classes, classes), np.int64)
    energy, pixels = 0.0, 0
    for i, sample in enumerate(dataset):
        probability = predict_probabilities(network, sample.image, how=how)
        confusion += confusion_matrix(probability.argmax(0), sample.label, classes)
        counted = sample.label != IGNORE
        of_truth = np.take_along_axis(probability, np.where(counted, sample.label, 0)[None], axis=0)[0]
        energy -= float(np.log(np.maximum(of_truth[counted], 1e-12), dtype=np.float64).sum())
        pixels += int(counted.sum())
        for family in families:
            family.add(sample, probability)
        if see is not None:
            see(i, probability)
        if progress is not None:
            progress(i + 1, len(dataset))
    scores = per_class_scores(confusion)
    return {
        "loss": energy / max(1, pixels),
        **scores,
        "mean_iou": float(np.mean(scores["iou"][1:])),
        "mean_dice": float(np.mean(scores["dice"][1:])),
        **{family.name: family.result() for family in families},
    }


def format_scores(scores: dict[str, Any], names: Sequence[str] | None = None) -> str:
    """The scores as a table for people."""
    names = names or [f"class {k}" + (" (background)" if k == 0 else "") for k in range(len(scores["iou"]))]
    width = max(len(name) for name in (*names, "mean of foreground"))
    lines = [f"{'':{width}}   Dice     IoU      pixels"]
    for name, d, j, n in zip(names, scores["dice"], scores["iou"], scores["pixels"], strict=True):
        lines.append(f"{name:{width}}   {d:.4f}   {j:.4f}   {n}")
    lines.append(f"{'mean of foreground':{width}}   {scores['mean_dice']:.4f}   {scores['mean_iou']:.4f}")
    lines.append(f"pixel accuracy {scores['pixel_accuracy']:.4f}, cross-entropy {scores['loss']:.4f}")
    return "\n".join(lines)
