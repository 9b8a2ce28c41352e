"""Prediction: a trained network applied to images of any size, tile by tile, and written as pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import fingerprint, load_checkpoint
from .data import normalise, read_image, write_image
from .data.dataset import to_channels
from .data.images import read_stack
from .data.mapped import NormalisedPage, Page, pages_of
from .data.strips import STRIP_SUFFIXES, write_in_strips
from .errors import DataError
from .instances import check_mask_ids, label_objects
from .planner import largest_size, plan_prediction
from .tiled import EXACT, Tiling, spans_for, strips_of
from .tiled import predict_probabilities as predict_probabilities
from .unet import UNet

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".npy", ".npz"}
IN_MEMORY = 2 << 30  # bytes that an image may take by default before it is read and written in strips


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
    suffix: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    masks: Path | None = None,
    objects: dict[str, Any] | None = None,
    how: Tiling = EXACT,
    memory: int | None = None,
) -> Iterator[Path]:
    """Segment each file; write NAME_label and NAME_probability pictures to `output`; yield the paths written.

    The label picture spreads the classes over 0..255, so that it can be seen (two classes: 0 and 255). The
    probability picture is that of class 1 on 0..255; with more classes there is one a class, NAME_probability_K.

    An image that would take more than `memory` bytes (default: IN_MEMORY) is mapped, and read and written in strips.
    suffix: .png, .tif or .npy; None: .png, and .tif for an image in strips, for which there is no .png.
    memory: the most that the process may take; tiles are made as large as it allows, unless `how` has a tile.

    With `masks`, that folder gets the objects that `label_objects` finds with the options `objects` in the
    probability of all classes but 0, as the Cell Tracking Challenge wants them: maskNNN.tif, uint16 ids, NNN from the
    names if all are tNNN, else counted from 000; such images are always whole in memory.

    Raises ValueError for more than 65,535 objects in an image, and where memory does not suffice; DataError for a large
    file that cannot be mapped.
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

    def targets(path: Path, number: int, count: int, ending: str) -> list[Path]:
        name = path.stem if count == 1 else f"{path.stem}_{number}"
        found = [output / f"{title}{ending}" for title in picture_names(name, classes)]
        for target in found:
            if target in written:
                raise ValueError(f"predict: {path} would overwrite {target}, written for another image just now")
            written.add(target)
        return found

    for path in paths:
        mapped = pages_of(path)
        if in_strips(path, mapped, network, memory, masks is not None):
            ending = suffix or ".tif"
            for number, page in enumerate(mapped):
                tiling = within(network, page.shape[0], page.shape[1], how, memory, 0)
                files = targets(path, number, len(mapped), ending)
                predict_in_strips(network, page, files, tiling, progress)
                yield from files
            continue
        fixed = bytes_in_memory(mapped, channels, classes)
        pages = read_pages(path)
        for number, array in enumerate(pages):
            tiling = within(network, array.shape[0], array.shape[1], how, memory, fixed)
            image = normalise(to_channels(array, channels, str(path)))
            probability = predict_probabilities(network, image, progress, tiling)
            files = targets(path, number, len(pages), suffix or ".png")
            for target, picture in zip(files, pictures_of(probability), strict=True):
                write_image(target, picture)
                yield target
            if masks is not None:
                try:
                    ids = check_mask_ids(label_objects(1 - probability[0], **objects or {}))
                except ValueError as error:
                    raise ValueError(f"predict: {path}: {error}") from None
                target = masks / next(frames)
                write_image(target, ids)
                yield target


def picture_names(name: str, classes: int) -> list[str]:
    """What the pictures of `pictures_of` are called."""
    return [f"{name}_label", *(f"{name}_probability" + (f"_{k}" if classes > 2 else "") for k in range(1, classes))]


def pictures_of(probability: np.ndarray) -> Iterator[np.ndarray]:
    """Of probabilities (K, H, W): the labels, then each class but 0, as pictures (H, W) uint8."""
    classes = len(probability)
    yield (probability.argmax(0) * (255 // (classes - 1) if classes > 1 else 1)).astype(np.uint8)
    for plane in probability[1:]:
        yield np.rint(255 * plane).astype(np.uint8)


def predict_in_strips(
    network: UNet, page: Page, files: list[Path], how: Tiling, progress: Callable[[int, int], None] | None = None
) -> None:
    """The pictures of a mapped page, written strip by strip to `files` (.tif or .npy).

    After an interrupt or a kill the same call goes on where the last one stopped: same image (by path, size and time
    of change), same network, same tiles.
    """
    height, width = page.shape[:2]
    if files[0].suffix.lower() not in STRIP_SUFFIXES:
        raise ValueError(
            f"predict: {page.path} ({height} x {width} pixels) is written in strips, as "
            f"{' or '.join(STRIP_SUFFIXES)}, not as {files[0].suffix}; or allow more memory"
        )
    image = NormalisedPage(page, network.config["in_channels"])

    def produce(write: Callable[..., None], done: int) -> None:
        for _, strip in strips_of(network, image.window, height, width, how, progress, done):
            write(*pictures_of(strip))

    about = page.path.stat()
    origin = f"{page.path.resolve()} {about.st_size} {about.st_mtime_ns} {how} "
    origin += fingerprint(network.state_dict(), network.config)
    write_in_strips(files, (height, width), np.uint8, produce, origin)


# ---------------------------------------------------------------------------------------------------- memory


def in_strips(path: Path, pages: list[Page], network: UNet, memory: int | None, whole: bool) -> bool:
    """Whether an image is too large to be whole in memory. Raises ValueError and DataError if it then has to be.

    Of a given `memory` one that can be mapped may take half, so that the other half is left for its tiles.
    """
    limit = IN_MEMORY if memory is None else memory - resident_bytes()
    needed = bytes_in_memory(pages, network.config["in_channels"], network.config["num_classes"])
    reason = next((page.reason for page in pages if page.open is None), None)
    share = limit if whole or reason or memory is None else limit // 2
    if needed <= share or (whole and memory is None):
        return False
    rows, columns = pages[0].shape[:2]
    size = f"{rows} x {columns} pixels need {needed >> 20} MiB of memory and may take {max(limit, 0) >> 20} MiB"
    if whole:
        raise ValueError(f"predict: {path}: {size}; objects can only be found in the whole of an image")
    if reason:
        raise DataError(f"{path}: {size}; the file {reason}")
    return True


def bytes_in_memory(pages: list[Page], channels: int, classes: int) -> int:
    """Memory that a file's pages take besides the network's: as they are (stacks twice), and one while it is normalised
    (its floats, up to five times) or, later, predicted (image, probabilities, labels)."""
    if not pages:
        return 0
    stored = sum(int(np.prod(page.shape)) * page.dtype.itemsize for page in pages)
    rows, columns, *colours = pages[0].shape
    converted = (colours or [1])[0] != channels
    wide = 8 if converted or pages[0].dtype.itemsize > 2 else 4
    normalising = 5 * wide * channels + (8 * (colours or [1])[0] if converted else 0)
    return 2 * stored + rows * columns * max(normalising, 4 * channels + 4 * classes + 20)


def resident_bytes() -> int:
    """Memory that this process has now, or had at most where the system does not tell; 0 where it tells nothing."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@functools.cache
def _pass_bytes(settings: tuple[tuple[str, Any], ...], size: int) -> int:
    return plan_prediction(dict(settings), size, size)


def within(network: UNet, height: int, width: int, how: Tiling, memory: int | None, fixed: int) -> Tiling:
    """`how` with the largest square tile with which the process stays within `memory` bytes; `fixed` are spoken for.

    Raises ValueError, with what the smallest possible tile needs, if there is none, or if the network is on a GPU.
    """
    if memory is None or how.tile is not None:
        return how
    if network.parameters()[0].device != "cpu":
        raise ValueError("predict: tiles for an amount of memory are planned for the processor only; choose a tile")
    sizes, config = network.sizes, network.config
    settings = tuple(sorted(config.items()))
    there = resident_bytes() + fixed - sum(p.data.nbytes for p in network.parameters())

    def needed(size: int) -> int:
        output = sizes.output_size(size)
        tile = 12 * (config["in_channels"] * size**2 + config["num_classes"] * output**2)
        # A strip and the next one, or what is blended with it; labels as whole numbers, twice; probabilities as greys.
        held = (8 if how.overlap is None else 12) * config["num_classes"] + 24
        strip = held * min(output, height) * width
        least = there + tile + strip + 4 * size**2 * config["base"]
        return least if least > memory else there + tile + strip + _pass_bytes(settings, size)

    enough = sizes.input_size(max(height, width))
    found = largest_size(memory, needed, sizes.depth, sizes.padding, enough)
    size = found or sizes.nearest_legal(1)[0]
    while True:  # a tile may be too small to leave anything between its margins
        tiling = dataclasses.replace(how, tile=min(size, enough))
        try:
            for length in (height, width):
                size_in = min(size, sizes.input_size(length))
                spans_for(network, length, size_in, sizes.output_size(size_in), tiling)
            break
        except ValueError:
            size += sizes.grid
    if size != found:
        raise ValueError(
            f"predict: {memory >> 20} MiB of memory are too little: with the smallest tile, of {size} pixels, "
            f"{-(-needed(size) >> 20)} MiB are needed"
        )
    return tiling


def mask_names(paths: Sequence[Path]) -> Iterator[str]:
    """Names of the masks of one page after another: tNNN.* gives maskNNN.tif if all are such, else mask000.tif ..."""
    if all(re.fullmatch("t[0-9]{3,4}", path.stem) for path in paths):
        return (f"mask{path.stem[1:]}.tif" for path in paths)
    return (f"mask{number:03}.tif" for number in itertools.count())
