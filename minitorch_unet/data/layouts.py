"""Where data sets keep their images and labels on disk: plain folders, stacks, and the list of all layouts.

A layout is a function that looks at a folder and returns its entries, an empty list where the folder is not
of that layout, and raises `DataError` where it is but a part is missing.
"""

import re
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from minitorch_unet.data.challenges import chase, ctc, drive, dsb
from minitorch_unet.data.entries import Entry, file_entry, files_by_stem, natural_key, one_plane, subfolders
from minitorch_unet.data.images import IMAGE_SUFFIXES, read_stack
from minitorch_unet.errors import DataError

IMAGE_FOLDERS = ("image", "images", "imgs")
LABEL_FOLDERS = ("label", "labels", "mask", "masks")

_LABEL_ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg", "_gt", "_manual1")


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
        for name in _AUTO if layout == "auto" else (layout,):
            entries = LAYOUTS[name](path)
            if entries:
                return name, sorted(entries, key=lambda entry: natural_key(entry.name))
        inside = [child.name for child in datasets_inside(path)]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    if inside:
        raise DataError(f"{path}: holds {len(inside)} data sets, choose one of: {', '.join(inside)}")
    wanted = [text for name, text in _LOOKED_FOR.items() if name in (_AUTO if layout == "auto" else (layout,))]
    raise DataError(f"{path}: no data set found; looked for {'; '.join(wanted)}")


def datasets_inside(path: Path) -> list[Path]:
    """The folders in a folder that are data sets of some layout, perhaps with a part missing."""
    return sorted(child for child in path.iterdir() if child.is_dir() and holds_entries(child))


def holds_entries(folder: Path) -> bool:
    """Whether the folder itself, not one inside, is a data set of some layout, perhaps with a part missing."""
    for name in _AUTO:
        try:
            if LAYOUTS[name](folder):
                return True
        except DataError:  # it has the layout, though a part is missing
            return True
    return False


def _pairs(path: Path) -> list[Entry]:
    folders = subfolders(path)
    image_folders = [folders[name] for name in IMAGE_FOLDERS if name in folders]
    label_folders = [folders[name] for name in LABEL_FOLDERS if name in folders]
    if not image_folders:
        return []
    if not label_folders:
        raise DataError(f"{path}: has {image_folders[0].name}/ but none of {', '.join(LABEL_FOLDERS)}")
    if len(image_folders) > 1 or len(label_folders) > 1:
        several = ", ".join(folder.name for folder in image_folders + label_folders)
        raise DataError(f"{path}: has the folders {several}, one of images and one of labels are expected")
    images, labels = files_by_stem(image_folders[0]), files_by_stem(label_folders[0])
    entries = []
    for stem, image in images.items():
        fitting = [
            labels[name] for name in (stem, *(stem + ending for ending in _LABEL_ENDINGS)) if name in labels
        ]
        if not fitting:
            hint = ""
            if len(images) == 1 and len(labels) > 1:
                hint = f"; one image with many masks is one sample of dsb: open {path.resolve().parent}"
            raise DataError(
                f"{image}: has no label; looked for {stem}.* and {stem}{_LABEL_ENDINGS[0]}.* "
                f"(and similar) in {label_folders[0]}{hint}"
            )
        entries.append(file_entry(stem, image, labels.pop(fitting[0].stem)))
    if labels:
        raise DataError(f"{next(iter(labels.values()))}: is a label without an image in {image_folders[0]}")
    if not entries:
        raise DataError(f"{image_folders[0]}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return entries


def _flat(path: Path) -> list[Entry]:
    """Images and labels side by side: NAME.png with NAME_mask.png."""
    if not any(_is_label_file(child) for child in path.iterdir()):
        return []
    files = files_by_stem(path)
    labels = {stem: file for stem, file in files.items() if _is_label_file(file)}
    entries = []
    for stem, image in files.items():
        fitting = [labels.pop(name) for name in (stem + ending for ending in _LABEL_ENDINGS) if name in labels]
        if len(fitting) > 1:
            raise DataError(f"{image}: has {len(fitting)} labels, {fitting[0].name} and {fitting[1].name}")
        if fitting:
            entries.append(file_entry(stem, image, fitting[0]))
        elif not _is_label_file(image):
            raise DataError(f"{image}: has no label; looked for {stem}{_LABEL_ENDINGS[0]}.* (and similar) beside it")
    if labels:
        raise DataError(f"{next(iter(labels.values()))}: is a label without an image beside it")
    return entries


def _is_label_file(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES and file.stem.lower().endswith(_LABEL_ENDINGS)


def _stack(path: Path) -> list[Entry]:
    """PREFIXvolume.tif with PREFIXlabels.tif; the ISBI 2012 challenge has train-volume.tif and train-labels.tif."""
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(path.iterdir()):
        parts = re.fullmatch(r"(.*?)(volume|label)s?", file.stem.lower())
        if parts and file.suffix.lower() in (".tif", ".tiff", ".npy"):
            found.setdefault(parts[1], {}).setdefault(parts[2], file)
    whole = {prefix: files for prefix, files in found.items() if len(files) == 2}
    if not whole and found:
        prefix, files = next(iter(found.items()))
        missing = f"{prefix}labels" if "volume" in files else f"{prefix}volume"
        raise DataError(f"{path}: has {next(iter(files.values())).name} but no {missing}.tif")
    entries = []
    for prefix, files in whole.items():
        image, label = files["volume"], files["label"]
        counts = [len(_pages(file)) for file in (image, label)]
        if counts[0] != counts[1]:
            raise DataError(f"{label}: has {counts[1]} pages, {image.name} has {counts[0]}")
        for page in range(counts[0]):
            name = str(page) if len(whole) == 1 else f"{prefix}{page}"
            entries.append(
                Entry(
                    name, f"{image} page {page}", f"{label} page {page}", partial(_page, image, page),
                    partial(_label_page, label, page), series=image.stem,
                )
            )  # fmt: skip
    return entries


LAYOUTS: dict[str, Callable[[Path], list[Entry]]] = {
    "pairs": _pairs,
    "flat": _flat,
    "stack": _stack,
    "chase": chase,
    "ctc": ctc,
    "ctc-gt": partial(ctc, truths=("GT",)),
    "ctc-st": partial(ctc, truths=("ST",)),
    "drive": drive,
    "dsb": dsb,
}
# In this order, the particular before the general: DRIVE has image and mask folders too, but no labels in the latter.
_AUTO = ("drive", "dsb", "pairs", "stack", "chase", "ctc", "flat")

_LOOKED_FOR = {
    "pairs": f"pairs: {'|'.join(IMAGE_FOLDERS)}/ with {'|'.join(LABEL_FOLDERS)}/",
    "stack": "stack: train-volume.tif with train-labels.tif",
    "chase": "chase: Image_NN[LR].jpg with Image_NN[LR]_1stHO.png",
    "ctc": "ctc: NN/tNNN.tif with NN_ST/SEG/man_segNNN.tif or NN_GT/SEG",
    "ctc-gt": "ctc-gt: NN/tNNN.tif with NN_GT/SEG/man_segNNN.tif",
    "ctc-st": "ctc-st: NN/tNNN.tif with NN_ST/SEG/man_segNNN.tif",
    "drive": "drive: images/ with 1st_manual/ and mask/",
    "dsb": "dsb: NAME/images/ with NAME/masks/, one file for each nucleus",
    "flat": f"flat: NAME.png with NAME{_LABEL_ENDINGS[0]}.png",
}


@lru_cache(maxsize=4)
def _pages(path: Path) -> np.ndarray:
    """A whole stack, kept while its pages are read one by one."""
    return read_stack(path)


def _page(path: Path, index: int) -> np.ndarray:
    return _pages(path)[index]


def _label_page(path: Path, index: int) -> np.ndarray:
    return one_plane(_pages(path)[index], path)
