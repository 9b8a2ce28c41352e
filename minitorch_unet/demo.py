"""The demonstration: a narrow valid U-Net learns to separate touching cells, drawn by a deterministic generator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .config import TrainConfig
from .data import SyntheticCells
from .evaluate import evaluate
from .plots import loss_curve, matplotlib_missing, panel
from .predict import load_network, predict_probabilities
from .report import train_with_report
from .train import BEST, LOG, Event, start

IMAGE_SIZE = 256


def demo_config(quick: bool, seed: int) -> TrainConfig:
    """One to two minutes on two cores; `quick` a tenth of it, enough to see that everything works.

    Adam rather than the paper's SGD with momentum 0.99, which needs many more steps before it shows what it can do.
    """
    return TrainConfig(
        base=12, depth=3, epochs=2 if quick else 7, tile=172, optimizer="adam", lr=0.002, schedule="cosine", seed=seed
    )


def run_demo(
    folder: Path, quick: bool = False, seed: int = 0, report: Callable[[Event], None] = lambda event: None,
    device: str = "cpu",
) -> dict[str, Any]:  # fmt: skip
    """Train, judge on cells that were not trained on, draw; returns the scores. `folder` gets everything."""
    config = demo_config(quick, seed)
    dataset = SyntheticCells(8 if quick else 24, IMAGE_SIZE, seed=seed)
    validation = SyntheticCells(2, IMAGE_SIZE, seed=seed + 1_000_000)
    held_out = SyntheticCells(2 if quick else 6, IMAGE_SIZE, seed=seed + 2_000_000)
    source = {"data": "demo", **({"quick": True} if quick else {})}
    train_with_report(start(config, dataset, source, device), dataset, validation, folder, report)
    network, _ = load_network(folder / BEST, device)
    scores = evaluate(network, held_out)
    if not matplotlib_missing():
        loss_curve(folder / LOG, folder / "loss.png")
        samples = [held_out[i] for i in range(min(3, len(held_out)))]
        panel(samples, [predict_probabilities(network, s.image) for s in samples], folder / "panel.png")
    return scores
