"""Prediction: a trained network applied to images of any size, tile by tile, and written as pictures."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import functional as F
from .backend import to_device, to_numpy
from .checkpoint import load_checkpoint
from .data import normalise, predict_tiled, read_image, write_image
from .data.dataset import to_channels
from .data.images import read_stack
from .errors import DataError
from .instances import check_mask_ids, label_objects
from .tensor import Tensor, no_grad
from .unet import UNet

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".npy", ".npz"}
LARGEST_TILE = 600  # input pixels; larger tiles waste less on overlap but take memory


def load_network(path: str | os.PathLike[str], device: str = "cpu") -> tuple[UNet, dict[str, Any]]:
    """The network of a checkpoint, ready to predict, and the checkpoint's metadata.

    `path` is a checkpoint file or a run's folder (then its best.safetensors, or last.safetensors if there is no
    other). Raises DataError for a file that is missing, damaged or holds no network.
    """
    path = Path(path)
    if path.is_dir():
        names = [name for name in ("best.safetensors", "last.safetensors") if (path / name).is_file()]
        if not names:
            raise DataError(f"{path}: holds neither best.safetensors nor last.safetensors")
        path = path / names[0]
    arrays, metadata = load_checkpoint(path)
    try:
        network = UNet(**metadata["network"])
        network.load_state_dict({name[6:]: a for name, a in arrays.items() if name.startswith("model.")})
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: holds no network that this version can build ({error})") from None
    network.to(device).eval()
    return network, metadata


def prediction_tile(network: UNet, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """(input size, output size) of the tiles for an image: one tile if that is small enough, else LARGEST_TILE."""
    sizes = network.sizes
    largest = sizes.nearest_legal(LARGEST_TILE)[0]
    chosen = [min(sizes.input_size(n), largest) for n in (height, width)]
    return (chosen[0], chosen[1]), (sizes.output_size(chosen[0]), sizes.output_size(chosen[1]))


def predict_probabilities(
    network: UNet, image: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> np.ndarray:
    """Class probabilities (K, H, W) float32 of a normalised image (C, H, W) of any size, by overlap-tile."""
    device = network.parameters()[0].device
    tile_in, tile_out = prediction_tile(network, *image.shape[1:])

    def forward(tile: np.ndarray) -> np.ndarray:
        with no_grad():
            scores = network(Tensor(to_device(np.ascontiguousarray(tile, dtype=np.float32), device)))
            return to_numpy(F.softmax(scores, 1).data)

    training = network.training
    network.eval()
    try:
        return predict_tiled(forward, image, tile_in, tile_out, network.sizes.grid, progress)
    finally:
        network.train(training)


def find_images(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The image files named, and those in the folders named, in order; raises DataError when there is none."""
    found: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise DataError(f"{path}: holds no image; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
        found.extend(inside)
    return found


def read_pages(path: Path) -> list[np.ndarray]:
    """The pages of an image file: one for most, several for a multi-page TIFF or a three-dimensional NPY."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return list(read_stack(path))
    try:
        return [read_image(path)]
    except DataError:
        if path.suffix.lower() not in (".npy", ".npz"):
            raise
        return list(read_stack(path))


def predict_files(
    network: UNet,
    paths: Sequence[Path],
    output: Path,
    suffix: str = ".png",
    progress: Callable[[int, int], None] | None = None,
    masks: Path | None = None,
    objects: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """Segment each file; write NAME_label and NAME_probability pictures to `output`; yield the paths written.

    The label picture spreads the classes over 0..255, so that it can be seen (two classes: 0 and 255). The
    probability picture is that of class 1 on 0..255; with more classes there is one a class, NAME_probability_K.

    With `masks`, that folder gets the objects that `label_objects` finds with the options `objects` in the
    probability of all classes but 0, as the Cell Tracking Challenge wants them: maskNNN.tif, uint16 ids, NNN from the
    names if all are tNNN, else counted from 000. Raises ValueError for more than 65,535 objects in an image.
    """
    for folder in (output, masks):
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    channels, classes = network.config["in_channels"], network.config["num_classes"]
    stems = [path.stem for path in paths]
    twice = next((stem for stem in stems if stems.count(stem) > 1), None)
    if twice is not None:
        raise ValueError(f"predict: two images are called {twice!r}, their results would overwrite each other")
    frames = mask_names(paths)
    written: set[Path] = set()
    for path in paths:
        pages = read_pages(path)
        for number, page in enumerate(pages):
            name = path.stem if len(pages) == 1 else f"{path.stem}_{number}"
            image = normalise(to_channels(page, channels, str(path)))
            probability = predict_probabilities(network, image, progress)
            label = probability.argmax(0) * (255 // (classes - 1) if classes > 1 else 1)
            pictures = {f"{name}_label": label}
            for k in range(1, classes):
                pictures[f"{name}_probability" + (f"_{k}" if classes > 2 else "")] = np.rint(255 * probability[k])
            for title, picture in pictures.items():
                target = output / f"{title}{suffix}"
                if target in written:
                    raise ValueError(f"predict: {path} would overwrite {target}, written for another image just now")
                write_image(target, picture.astype(np.uint8))
                written.add(target)
                yield target
            if masks is not None:
                try:
                    ids = check_mask_ids(label_objects(1 - probability[0], **objects or {}))
                except ValueError as error:
                    raise ValueError(f"predict: {path}: {error}") from None
                target = masks / next(frames)
                write_image(target, ids)
                yield target


def mask_names(paths: Sequence[Path]) -> Iterator[str]:
    """Names of the masks of one page after another: tNNN.* gives maskNNN.tif if all are such, else mask000.tif ..."""
    if all(re.fullmatch("t[0-9]{3,4}", path.stem) for path in paths):
        return (f"mask{path.stem[1:]}.tif" for path in paths)
    return (f"mask{number:03}.tif" for number in itertools.count())
