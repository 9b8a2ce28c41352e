"""Small data sets and runs that the tests of training, prediction and the command line share."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitorch_unet import get_num_threads, set_num_threads
from minitorch_unet.config import TrainConfig
from minitorch_unet.data import Dataset, write_image
from minitorch_unet.data.labels import LabelRule
from minitorch_unet.data.layouts import Entry
from minitorch_unet.train import Run, start, train


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """For test files that import it: on maps this small a second thread only costs time."""
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def blobs(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A random picture (H, W) uint8 of 0 and 255 in patches of 3 x 3 pixels or more, about half of each."""
    small = rng.integers(0, 2, (height // 3 + 1, width // 3 + 1))
    small[0, :2] = 0, 1  # never constant
    return (255 * np.kron(small, np.ones((3, 3), int))[:height, :width]).astype(np.uint8)


def patterns(shapes: Sequence[tuple[int, int]], seed: int = 0) -> Dataset:
    """Images of blobs whose label is: brighter than a half. Normalised they are exactly 0 and 1."""
    rng = np.random.default_rng(seed)
    entries = []
    for number, shape in enumerate(shapes):
        image = blobs(rng, *shape)
        name = f"pattern {number}"
        entries.append(Entry(name, name, name, lambda a=image: a, lambda a=image: a))
    return Dataset(entries, LabelRule("binary", 255, 2, (0, 255)), 1, "patterns")


def write_patterns(folder: Path, shapes: Sequence[tuple[int, int]], seed: int = 0) -> Path:
    """The same as PNG files in image/ and label/; returns the folder."""
    rng = np.random.default_rng(seed)
    for part in ("image", "label"):
        (folder / part).mkdir(parents=True)
    for number, shape in enumerate(shapes):
        image = blobs(rng, *shape)
        for part in ("image", "label"):
            write_image(folder / part / f"{number}.png", image)
    return folder


TRAINING = [(24, 24), (30, 24), (24, 33)]


def tiny(**changed: Any) -> TrainConfig:
    """A network of 434 parameters, three or more steps an epoch."""
    settings: dict[str, Any] = {"base": 2, "depth": 1, "tile": 16, "epochs": 2, "momentum": 0.9, "weights": "balanced"}
    return TrainConfig(**(settings | changed))


def run_in(folder: Path, config: TrainConfig, **options: Any) -> Run:
    """A whole run on patterns."""
    dataset = patterns(TRAINING)
    return train(start(config, dataset, {"data": "patterns"}), dataset, patterns([(20, 20)], 9), folder, **options)
