"""One pair of image and label on disk, before anything is read. Symbol key: H rows, W columns, C channels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from minitorch_unet.data.images import IMAGE_SUFFIXES, read_image
from minitorch_unet.errors import DataError


@dataclass(frozen=True)
class Entry:
    """One pair: `image()` gives (H, W) or (H, W, C), `label()` (H, W); the file names are for messages.

    group       entries of one group (both eyes of a child) look alike: they stay on one side of a split
    series      entries of one series (a stack, a film) follow each other, and neighbours look alike: a split cuts
                it into pieces, never at random
    valid       gives (H, W) bool, False where nothing is known (outside a field of view); None: known everywhere
    valid_from  where that comes from, for people
    """

    name: str
    image_file: str
    label_file: str
    image: Callable[[], np.ndarray]
    label: Callable[[], np.ndarray]
    group: str | None = None
    series: str | None = None
    valid: Callable[[], np.ndarray] | None = None
    valid_from: str = ""


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts 2 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def file_entry(name: str, image: Path, label: Path, group: str | None = None, series: str | None = None) -> Entry:
    """An entry of one image file and one label file."""
    return Entry(name, str(image), str(label), partial(read_image, image), partial(read_label, label), group, series)


def files_by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by their names without suffix; two of one name raise `DataError`."""
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise DataError(f"{file}: {found[file.stem].name} has the same name, images are paired by name")
            found[file.stem] = file
    return found


def subfolders(path: Path) -> dict[str, Path]:
    """The folders in a folder by their names in lower case."""
    return {child.name.lower(): child for child in sorted(path.iterdir()) if child.is_dir()}


def read_label(path: Path) -> np.ndarray:
    """A raw label file (H, W) of integers."""
    _refuse_jpeg(path)
    return one_plane(read_image(path, palette_indices=True), path)


def read_coloured_label(path: Path) -> np.ndarray:
    """A label file painted in colours, (H, W, 3) uint8; a palette counts as its colours, a grey as that colour."""
    _refuse_jpeg(path)
    array = read_image(path)
    if array.dtype != np.uint8:
        raise DataError(f"{path}: holds {array.dtype} values, a label in colours has 8 bits for each of them")
    return np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array


def one_plane(array: np.ndarray, path: Path) -> np.ndarray:
    """A raw label (H, W) of integers; a grey one stored as RGB is accepted."""
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise DataError(
                f"{path}: is a colour image, a label has one value per pixel; say what its colours mean "
                f"(colours='NAME=#RRGGBB,...'); most frequent are {', '.join(_frequent_colours(array))}"
            )
        array = array[..., 0]
    if array.dtype.kind not in "iu":
        raise DataError(f"{path}: holds {array.dtype} values, labels are integers")
    return array


def two_values(array: np.ndarray, path: Path) -> np.ndarray:
    """A mask (H, W) bool of a picture with two greys, whatever the greys are: 0 and 1, 0 and 255, 3 and 253.

    Raises `DataError` for more than two.
    """
    plane = one_plane(array, path)
    greys = np.unique(plane)
    if len(greys) > 2:
        raise DataError(f"{path}: holds {len(greys)} grey values ({greys[0]}..{greys[-1]}), a mask has two")
    return plane > (0 if greys[-1] <= 1 else 127)


def _refuse_jpeg(path: Path) -> None:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"{path}: JPEG changes label values; store labels as PNG or TIFF")


def _frequent_colours(array: np.ndarray, count: int = 6) -> list[str]:
    rows = array.reshape(-1, array.shape[-1])[:, :3]
    found = Counter(map(tuple, rows[:: max(1, len(rows) // 20000)].tolist()))
    return ["#" + "".join(f"{int(part) & 255:02x}" for part in colour) for colour, _ in found.most_common(count)]
