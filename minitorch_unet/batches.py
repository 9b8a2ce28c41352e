"""What a training step sees: tiles cut out of a data set, moved and weighted; the next batch is made meanwhile.

Symbols: N tiles a batch, C channels, H W rows columns of a sample.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from .config import TrainConfig
from .data import Dataset, Sample, augment, connected_components, draw_warp, extract, later_weight_map, weight_map
from .data.weights import IGNORE
from .errors import DataError
from .unet import UNet

DEFAULT_TILE = 388
_TRIES = 50  # draws of a tile until one holds a pixel that counts

Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None]


class TileMaker:
    """Cuts the batch of a step out of the data set: same seed and step, same batch.

    A tile's labels cover `out_size` pixels, its image the `in_size` pixels that the network needs to predict them,
    mirrored where they reach over the image's border. Pixels outside the image are ignored in the labels. An epoch
    draws about as many pixels as the data set has, every image equally often (to within one tile), in an order of
    its own.
    """

    def __init__(self, config: TrainConfig, network: UNet, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        sizes = network.sizes
        shapes = [sample.label.shape for sample in dataset]
        wanted = config.tile or min(DEFAULT_TILE, min(map(min, shapes)))
        self.in_size = sizes.input_size(wanted)
        if not config.tile and sizes.output_size(self.in_size) > wanted:  # rather a little smaller than overhanging
            self.in_size = (sizes.nearest_legal(self.in_size - 1) or [self.in_size])[0]
        self.out_size = sizes.output_size(self.in_size)
        pixels = sum(math.prod(shape) for shape in shapes)
        tiles = max(len(dataset), math.ceil(pixels / self.out_size**2))
        self.steps_per_epoch = max(1, math.ceil(tiles / config.batch))
        self.class_weights = class_balance(dataset) if config.weights in ("border", "balanced") else None
        self._weight_maps: dict[int, np.ndarray] = {}

    def batch(self, step: int) -> Batch:
        """images (N, C, in, in) float32, labels (N, out, out) int64, weights (N, out, out) float32 or None."""
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, 1, epoch]).permutation(len(self.dataset))
        parts = []
        for i in range(position * self.config.batch, (position + 1) * self.config.batch):
            rng = np.random.default_rng([self.config.seed, 2, epoch, i])
            index = int(order[i % len(order)])
            for _ in range(_TRIES):
                tile = self._tile(rng, index)
                if (tile[1] != IGNORE).any():
                    break
            parts.append(tile)
        if all((label == IGNORE).all() for _, label, _ in parts):
            raise DataError(
                f"{self.dataset.source}: {_TRIES} tiles of {self.dataset.names[index]} hold ignored pixels only"
                "; larger tiles or a smaller shift may help"
            )
        images, labels, weights = zip(*parts, strict=True)
        return np.stack(images), np.stack(labels), None if weights[0] is None else np.stack(weights)

    def _tile(self, rng: np.random.Generator, index: int) -> Batch:
        sample, config = self.dataset[index], self.config
        height, width = sample.label.shape
        # Where a map is smaller than the tile it is centred, and the overhang ignored.
        top, left = (
            int(rng.integers(0, n - self.out_size + 1)) if n >= self.out_size else -((self.out_size - n) // 2)
            for n in (height, width)
        )
        halo = (self.in_size - self.out_size) // 2
        corner, size = (top - halo, left - halo), (self.in_size, self.in_size)
        whole = None if config.weights == "none" else self._weights(index)
        # The field is drawn for the whole tile and looks up the whole image: what it pulls into the tile from
        # beyond the tile's border is what lies there.
        warp = draw_warp(rng, size, config.elastic, config.elastic_grid, config.shift, config.angle, config.zoom)
        if warp is None:
            image = extract(sample.image, *corner, *size)
            label = extract(sample.label, top, left, self.out_size, self.out_size)
            rows, columns = (np.arange(start, start + self.out_size) for start in (top, left))
            outside = ((rows < 0) | (rows >= height))[:, None] | ((columns < 0) | (columns >= width))
            weights = None if whole is None else extract(whole, top, left, *label.shape)
        else:
            image = warp.image(sample.image, corner)
            inner = slice(halo, halo + self.out_size)
            (label, weights), outside = warp.maps(sample.label, whole, origin=corner, inner=inner)
        label[outside] = IGNORE
        # The maps are framed to the image's size, so that one draw moves all of them alike.
        framed = [None if m is None else np.pad(m, halo) for m in (label, weights)]
        image, label, weights = augment(
            rng, image, *framed, flips=config.flips, rotations=config.rotations, grey=config.grey, blur=config.blur,
            noise=config.noise,
        )  # fmt: skip
        inner = slice(halo, halo + self.out_size)
        return image, label[inner, inner], None if weights is None else weights[inner, inner]

    def _weights(self, index: int) -> np.ndarray:
        """The weight map of a whole image, computed once."""
        if index not in self._weight_maps:
            made = sample_weights(self.config, self.dataset[index], self.class_weights)
            assert made is not None
            self._weight_maps[index] = made
        return self._weight_maps[index]


def sample_weights(config: TrainConfig, sample: Sample, class_weights: np.ndarray | None) -> np.ndarray | None:
    """The loss weights (H, W) of a whole image as `config.weights` has them, None where there are none.

    class_weights: w_c of "border" and "balanced", those of the images trained on (`class_balance`); else None.
    """
    if config.weights == "none":
        return None
    if config.weights == "balanced":
        assert class_weights is not None
        counted = sample.label != IGNORE
        return np.where(counted, class_weights[np.where(counted, sample.label, 0)], 0).astype(np.float32)
    instances = connected_components(sample.label) if sample.instances is None else sample.instances
    if config.weights == "later":
        return later_weight_map(instances, sample.label)
    shares = None if class_weights is None else class_weights.tolist()
    return weight_map(instances, config.border_weight, config.border_sigma, shares, sample.label, background_only=True)


def class_balance(dataset: Dataset) -> np.ndarray:
    """w_c: inverse class shares over the data set, scaled to a mean of 1 over its pixels, at most 10."""
    counts = np.zeros(dataset.classes)
    for sample in dataset:
        counts += np.bincount(sample.label[sample.label != IGNORE], minlength=dataset.classes)
    present = counts > 0
    weights = np.where(present, counts.sum() / np.maximum(counts, 1) / max(1, present.sum()), 0)
    return np.minimum(weights, 10)


class Ahead:
    """Batches in turn, the next of an epoch made on a thread while the present one is used.

    A batch depends on its step alone, so this changes when it is made and nothing else; an error is raised where the
    batch is asked for. Within `with`: at its end the thread has ended. No batch is begun beyond the end of an epoch,
    so that nothing runs beside an evaluation (which may read files as well).
    """

    def __init__(self, tiles: TileMaker) -> None:
        self.tiles = tiles
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        self._next: tuple[int, Future[Batch]] | None = None

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: Any) -> None:
        self._thread.shutdown(cancel_futures=True)

    def batch(self, step: int) -> Batch:
        """The batch of this step; that of the next one is begun."""
        waiting, self._next = self._next, None
        ready = waiting[1].result() if waiting and waiting[0] == step else self.tiles.batch(step)
        if (step + 1) % self.tiles.steps_per_epoch:
            self._next = (step + 1, self._thread.submit(self.tiles.batch, step + 1))
        return ready
