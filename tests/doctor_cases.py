"""Data sets, runs and predictions with one planted fault each, for the doctor. Symbol key: H rows, W columns."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitorch_unet import NonFiniteError
from minitorch_unet.checkpoint import load_checkpoint, save_checkpoint
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import open_dataset, split_dataset, write_image
from minitorch_unet.train import LAST, LOG, start, train

Change = Callable[[np.ndarray, int], np.ndarray]
SIDE, COUNT = 48, 6


def mask(seed: int, shape: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """A few bright rectangles (H, W) bool, a fifth to a third of the picture."""
    rng = np.random.default_rng(seed)
    inside = np.zeros(shape, bool)
    while inside.mean() < 0.2:
        row, column = rng.integers(0, shape[0] - 10), rng.integers(0, shape[1] - 10)
        inside[row : row + rng.integers(6, 11), column : column + rng.integers(6, 11)] = True
    return inside


def picture(inside: np.ndarray, seed: int) -> np.ndarray:
    """Grey values (H, W) uint8 of a mask, with noise."""
    return (60 + 120 * inside + np.random.default_rng(seed).integers(0, 30, inside.shape)).astype(np.uint8)


def same(array: np.ndarray, number: int) -> np.ndarray:
    return array


def write_pairs(
    folder: Path, label: Change = same, image: Change = same, seed: int = 0, count: int = COUNT,
    shapes: Sequence[tuple[int, int]] = (),
) -> Path:  # fmt: skip
    """image/ and label/ of `count` pairs; `label` and `image` change the arrays of pair number i."""
    for part in ("image", "label"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        inside = mask(100 * seed + i, shapes[i] if shapes else (SIDE, SIDE))
        write_image(folder / "image" / f"{i}.png", image(picture(inside, 100 * seed + i), i))
        write_image(folder / "label" / f"{i}.png", label(np.where(inside, 255, 0).astype(np.uint8), i))
    return folder


def write_fields_of_view(folder: Path) -> Path:
    """Round fields on black, as a camera for the eye gives them, with their masks as labels."""
    rows, columns = np.mgrid[:64, :64] - 31.5
    disc = np.hypot(rows, columns) < 30

    def field(array: np.ndarray, number: int) -> np.ndarray:
        return np.where(disc, 90 + number + np.random.default_rng(number).integers(0, 60, disc.shape), 2).astype(
            np.uint8
        )

    return write_pairs(
        folder, lambda *_: np.where(disc, 255, 0).astype(np.uint8), field, shapes=[(64, 64)] * COUNT
    )


SETTINGS: dict[str, Any] = {
    "base": 4, "depth": 1, "tile": 40, "epochs": 8, "optimizer": "adam", "lr": 0.01, "weights": "balanced",
}  # fmt: skip


def write_run(folder: Path, data: Path, **changed: Any) -> Path:
    """A true run on a folder of pairs, two thirds of them for training; one that ends in NaN is left as it is."""
    training, validation = split_dataset(open_dataset(data), "33%")
    run = start(
        TrainConfig(**(SETTINGS | changed)), training, {"data": str(data), "validation": "33%", "labels": "auto"}
    )
    with contextlib.suppress(NonFiniteError):
        train(run, training, validation, folder)
    return folder


def with_log(folder: Path, trained: Sequence[float], held_out: Sequence[float]) -> Path:
    """Another log in a run's folder: epochs of ten steps with these mean losses in training and validation."""
    events: list[dict[str, Any]] = []
    noise = np.random.default_rng(0).uniform(0.95, 1.05, (len(trained), 10))
    for epoch, (loss, judged) in enumerate(zip(trained, held_out, strict=True)):
        for i in range(10):
            step = 10 * epoch + i + 1
            events.append({"step": step, "event": "step", "loss": loss * noise[epoch, i], "lr": 0.01})
        events.append(
            {"step": 10 * epoch + 10, "event": "epoch", "loss": judged, "iou": [0.9, 0.7], "pixels": [9, 9]}
        )
    (folder / LOG).write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    return folder


def with_weights(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
    """A run whose checkpoints' arrays were changed in place."""
    for path in folder.glob("*.safetensors"):
        arrays, metadata = load_checkpoint(path)
        arrays = {name: array.copy() for name, array in arrays.items()}
        change(arrays)
        save_checkpoint(path, arrays, metadata)
    assert (folder / LAST).exists()
    return folder
