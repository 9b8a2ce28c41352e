"""Where data sets keep their images and labels on disk. Symbol key: D pages, H rows, W columns, C channels.

A layout is a function that looks at a folder and returns its entries, an empty list where the folder is not
of that layout, and raises `DataError` where it is but a part is missing.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from minitorch_unet.data.images import IMAGE_SUFFIXES, read_image, read_stack
from minitorch_unet.errors import DataError

IMAGE_FOLDERS = ("image", "images", "imgs")
LABEL_FOLDERS = ("label", "labels", "mask", "masks")

_LABEL_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_manual1")


@dataclass(frozen=True)
class Entry:
    """One pair: `image()` gives (H, W) or (H, W, C), `label()` (H, W); the file names are for messages."""

    name: str
    image_file: str
    label_file: str
    image: Callable[[], np.ndarray]
    label: Callable[[], np.ndarray]
    group: str | None = None


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts 2 before 10."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


def find_entries(path: Path, layout: str) -> tuple[str, list[Entry]]:
    """The layout's name and the entries in natural order of their names.

    Raises `DataError` where nothing, or more than one data set, is found, and `ValueError` for an unknown
    layout.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise ValueError(f"open_dataset: layout is {layout!r}, legal are auto, {', '.join(LAYOUTS)}")
    if not path.is_dir():
        raise DataError(
            f"{path}: is a file, a folder is expected" if path.exists() else f"{path}: no such folder"
        )
    try:
        for name in LAYOUTS if layout == "auto" else (layout,):
            entries = LAYOUTS[name](path)
            if entries:
                return name, sorted(entries, key=lambda entry: natural_key(entry.name))
        inside = sorted(child.name for child in path.iterdir() if child.is_dir() and _is_dataset(child))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if inside:
        raise DataError(f"{path}: holds {len(inside)} data sets, choose one of: {', '.join(inside)}")
    wanted = [_LOOKED_FOR[name] for name in (LAYOUTS if layout == "auto" else (layout,))]
    raise DataError(f"{path}: no data set found; looked for {'; '.join(wanted)}")


def _is_dataset(folder: Path) -> bool:
    for find in LAYOUTS.values():
        try:
            if find(folder):
                return True
        except DataError:  # it has the layout, though a part is missing
            return True
    return False


def _pairs(path: Path) -> list[Entry]:
    folders = {child.name.lower(): child for child in path.iterdir() if child.is_dir()}
    image_folders = [folders[name] for name in IMAGE_FOLDERS if name in folders]
    label_folders = [folders[name] for name in LABEL_FOLDERS if name in folders]
    if not image_folders:
        return []
    if not label_folders:
        raise DataError(f"{path}: has {image_folders[0].name}/ but none of {', '.join(LABEL_FOLDERS)}")
    if len(image_folders) > 1 or len(label_folders) > 1:
        several = ", ".join(folder.name for folder in image_folders + label_folders)
        raise DataError(f"{path}: has the folders {several}, one of images and one of labels are expected")
    images, labels = _by_stem(image_folders[0]), _by_stem(label_folders[0])
    entries = []
    for stem, image in images.items():
        fitting = [
            labels[name] for name in (stem, *(stem + ending for ending in _LABEL_ENDINGS)) if name in labels
        ]
        if not fitting:
            raise DataError(
                f"{image}: has no label; looked for {stem}.* and {stem}{_LABEL_ENDINGS[0]}.* "
                f"(and similar) in {label_folders[0]}"
            )
        entries.append(_entry(stem, image, labels.pop(fitting[0].stem)))
    if labels:
        raise DataError(f"{next(iter(labels.values()))}: is a label without an image in {image_folders[0]}")
    if not entries:
        raise DataError(f"{image_folders[0]}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return entries


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith("."):
            if file.stem in found:
                raise DataError(
                    f"{file}: {found[file.stem].name} has the same name, images are paired by name"
                )
            found[file.stem] = file
    return found


def _stack(path: Path) -> list[Entry]:
    files = {}
    for role in ("volume", "labels"):
        for suffix in (".tif", ".tiff", ".npy"):
            if (file := path / f"train-{role}{suffix}").is_file():
                files[role] = file
    if not files:
        return []
    if len(files) == 1:
        missing = "labels" if "volume" in files else "volume"
        raise DataError(f"{path}: has {next(iter(files.values())).name} but no train-{missing}.tif")
    image, label = files["volume"], files["labels"]
    counts = [len(_pages(file)) for file in (image, label)]
    if counts[0] != counts[1]:
        raise DataError(f"{label}: has {counts[1]} pages, {image.name} has {counts[0]}")
    return [
        Entry(
            str(page),
            f"{image} page {page}",
            f"{label} page {page}",
            partial(_page, image, page),
            partial(_label_page, label, page),
        )
        for page in range(counts[0])
    ]


def _chase(path: Path) -> list[Entry]:
    entries = []
    for image in sorted(path.glob("Image_*.jpg")):
        label = image.with_name(f"{image.stem}_1stHO.png")
        if not label.is_file():
            raise DataError(f"{image}: has no label {label.name}")
        # Both eyes of a child (01L, 01R) look alike, so a split may not part them.
        entries.append(_entry(image.stem, image, label, group=image.stem.removeprefix("Image_").rstrip("LR")))
    return entries


def _ctc(path: Path) -> list[Entry]:
    sequences = [
        child for child in sorted(path.iterdir()) if child.is_dir() and re.fullmatch("[0-9]{2}", child.name)
    ]
    labelled = []
    for sequence in sequences:
        # The silver truth (ST) marks every cell of every frame, the gold truth (GT) only some.
        truths = [path / f"{sequence.name}_{truth}" / "SEG" for truth in ("ST", "GT")]
        labelled += [(sequence, truth) for truth in truths if truth.is_dir()][:1]
    entries = []
    for sequence, folder in labelled:
        for label in sorted(folder.glob("man_seg*.tif")):
            number = label.stem.removeprefix("man_seg")
            image = sequence / f"t{number}.tif"
            if not image.is_file():
                raise DataError(f"{label}: has no image {sequence.name}/{image.name}")
            name = image.stem if len(labelled) == 1 else f"{sequence.name}_{image.stem}"
            entries.append(_entry(name, image, label))
    if labelled and not entries:
        raise DataError(f"{labelled[0][1]}: holds no man_segNNN.tif")
    return entries


LAYOUTS: dict[str, Callable[[Path], list[Entry]]] = {
    "pairs": _pairs,
    "stack": _stack,
    "chase": _chase,
    "ctc": _ctc,
}

_LOOKED_FOR = {
    "pairs": f"pairs: {'|'.join(IMAGE_FOLDERS)}/ with {'|'.join(LABEL_FOLDERS)}/",
    "stack": "stack: train-volume.tif with train-labels.tif",
    "chase": "chase: Image_NN[LR].jpg with Image_NN[LR]_1stHO.png",
    "ctc": "ctc: NN/tNNN.tif with NN_ST/SEG/man_segNNN.tif or NN_GT/SEG",
}


def _entry(name: str, image: Path, label: Path, group: str | None = None) -> Entry:
    return Entry(name, str(image), str(label), partial(read_image, image), partial(_read_label, label), group)


def _read_label(path: Path) -> np.ndarray:
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(f"{path}: JPEG changes label values; store labels as PNG or TIFF")
    return _one_plane(read_image(path, palette_indices=True), path)


def _one_plane(array: np.ndarray, path: Path) -> np.ndarray:
    """A raw label (H, W) of integers; a grey one stored as RGB is accepted."""
    if array.ndim == 3:
        if not (array == array[..., :1]).all():
            raise DataError(f"{path}: is a colour image, a label has one value per pixel")
        array = array[..., 0]
    if array.dtype.kind not in "iu":
        raise DataError(f"{path}: holds {array.dtype} values, labels are integers")
    return array


@lru_cache(maxsize=4)
def _pages(path: Path) -> np.ndarray:
    """A whole stack, kept while its pages are read one by one."""
    return read_stack(path)


def _page(path: Path, index: int) -> np.ndarray:
    return _pages(path)[index]


def _label_page(path: Path, index: int) -> np.ndarray:
    return _one_plane(_pages(path)[index], path)
