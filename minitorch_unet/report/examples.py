"""A few fixed tiles, and what the network made of them as it learnt: a few hundred KiB in the run's folder.

Symbol key: C channels, H W rows columns of an image, h w of a tile, K classes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from ..data import IGNORE, Dataset, Sample
from ..errors import DataError
from ..files import atomic_write
from ..predict import predict_probabilities
from ..unet import UNet

EXAMPLES = "examples.npz"
COUNT, SIZE = 3, 192
_MARGIN = 128  # pixels around a tile that are predicted along with it


@dataclasses.dataclass
class Tile:
    """A window of one image: image (C, h, w), label (h, w) int, weights (h, w) or None, predictions by epoch.

    predictions: epoch -> (2, h, w) uint8, the class, and the probability of all classes but 0 on 0..255.
    """

    name: str
    index: int  # of the image in its data set
    corner: tuple[int, int]
    image: np.ndarray
    label: np.ndarray
    weights: np.ndarray | None
    predictions: dict[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the image."""
        (row, column), (height, width) = self.corner, self.label.shape
        return slice(row, row + height), slice(column, column + width)


class Examples:
    """Up to three tiles of a data set. Kept are the predictions after epochs 0, 1, 2, 4, 8, ... and after the last one.

    `see` is for `evaluate`, which predicts all images anyway; `keep` closes an epoch.
    """

    def __init__(self, tiles: list[Tile]) -> None:
        self.tiles = tiles
        self._seen: dict[int, np.ndarray] = {}

    @property
    def epochs(self) -> list[int]:
        """The epochs whose predictions are kept."""
        return sorted({epoch for tile in self.tiles for epoch in tile.predictions})

    @classmethod
    def choose(cls, dataset: Dataset, weights: Any = lambda sample: None, count: int = COUNT) -> Examples:
        """Windows where foreground and background are most mixed, of images spread over the data set.

        weights: Sample -> its loss weights (H, W) or None.
        """
        images = sorted({round(i * (len(dataset) - 1) / (count - 1)) for i in range(count)}) if len(dataset) else []
        tiles: list[Tile] = []
        for number in range(count if images else 0):
            index = images[number % len(images)]
            sample = dataset[index]
            taken = [tile.corner for tile in tiles if tile.index == index]
            corner = _corner(sample, taken)
            if corner is not None:
                tiles.append(_tile(sample, index, corner, weights(sample)))
        return cls(sorted(tiles, key=lambda tile: tile.index))

    def see(self, index: int, probability: np.ndarray) -> None:
        """Take what is ours of an image's prediction (K, H, W)."""
        for number, tile in enumerate(self.tiles):
            if tile.index == index:
                self._seen[number] = _shown(probability[(slice(None), *tile.window)])

    def keep(self, epoch: int) -> None:
        """What was seen is the network's work after this epoch; the earlier ones are thinned out."""
        for number, shown in self._seen.items():
            kept = {e: p for e, p in self.tiles[number].predictions.items() if e < epoch and stays(e)}
            self.tiles[number].predictions = kept | {epoch: shown}
        self._seen.clear()

    def predict(self, network: UNet, dataset: Dataset, epoch: int) -> None:
        """Predict the tiles alone, each with what the network sees around it."""
        network.eval()
        grid = network.sizes.grid
        for tile in self.tiles:
            image = dataset[tile.index].image
            low = [max(0, (start - _MARGIN) // grid * grid) for start in tile.corner]  # the same phase of the poolings
            high = [part.stop + _MARGIN for part in tile.window]
            probability = predict_probabilities(network, image[:, low[0] : high[0], low[1] : high[1]])
            inner = [slice(s.start - at, s.stop - at) for s, at in zip(tile.window, low, strict=True)]
            tile.predictions[epoch] = _shown(probability[(slice(None), *inner)])

    def forget_after(self, epoch: int) -> None:
        """Drop later epochs: a run goes on from a checkpoint that is older than they are."""
        for tile in self.tiles:
            tile.predictions = {e: p for e, p in tile.predictions.items() if e <= epoch}

    def save(self, path: Path) -> None:
        """Write all of it to one NPZ file."""
        arrays: dict[str, Any] = {}
        about = [{"name": t.name, "index": t.index, "corner": t.corner} for t in self.tiles]
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        for number, tile in enumerate(self.tiles):
            arrays[f"{number}.image"], arrays[f"{number}.label"] = tile.image.astype(np.float16), tile.label
            if tile.weights is not None:
                arrays[f"{number}.weights"] = tile.weights.astype(np.float16)
            arrays |= {f"{number}.epoch.{epoch}": shown for epoch, shown in tile.predictions.items()}
        atomic_write(path, lambda stream: np.savez_compressed(stream, **arrays))

    @classmethod
    def load(cls, path: Path) -> Examples:
        """What `save` wrote. Raises DataError for a file that is something else."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
            tiles = []
            for number, about in enumerate(json.loads(arrays["about"].tobytes())):
                own = {k.partition(".")[2]: a for k, a in arrays.items() if k.startswith(f"{number}.")}
                predictions = dict(sorted((int(k[6:]), a) for k, a in own.items() if k.startswith("epoch.")))
                corner, image = (about["corner"][0], about["corner"][1]), own["image"].astype(np.float32)
                shown = own["label"], own.get("weights"), predictions
                tiles.append(Tile(about["name"], about["index"], corner, image, *shown))
        except Exception as error:  # zipfile, json and NumPy each have their own
            raise DataError(f"{path}: holds no examples of a run ({type(error).__name__}: {error})") from None
        return cls(tiles)


def stays(epoch: int) -> bool:
    """Whether an epoch's predictions are kept for good: 0, 1, 2, 4, 8, ..."""
    return epoch & (epoch - 1) == 0


def _shown(probability: np.ndarray) -> np.ndarray:
    return np.stack([probability.argmax(0).astype(np.uint8), np.rint(255 * (1 - probability[0])).astype(np.uint8)])


def _tile(sample: Sample, index: int, corner: tuple[int, int], weights: np.ndarray | None) -> Tile:
    label = sample.label[corner[0] : corner[0] + SIZE, corner[1] : corner[1] + SIZE].astype(np.int16)
    tile = Tile(sample.name, index, corner, sample.image, label, None)
    tile.image = sample.image[(slice(None), *tile.window)]
    tile.weights = None if weights is None else weights[tile.window]
    return tile


def _corner(sample: Sample, taken: list[tuple[int, int]]) -> tuple[int, int] | None:
    """Top left of the window of SIZE pixels, apart from those taken, whose foreground's share is nearest to a half."""
    spans = [sorted({*range(0, max(1, n - SIZE + 1), SIZE // 4), max(0, n - SIZE)}) for n in sample.label.shape]
    best, found = np.inf, None
    for corner in ((row, column) for row in spans[0] for column in spans[1]):
        if any(all(abs(a - b) < SIZE for a, b in zip(corner, other, strict=True)) for other in taken):
            continue
        label = sample.label[corner[0] : corner[0] + SIZE, corner[1] : corner[1] + SIZE]
        counted = label[label != IGNORE]
        distance = abs((counted > 0).mean() - 0.5) if counted.size else 1.0
        if distance < best:
            best, found = distance, corner
    return found
