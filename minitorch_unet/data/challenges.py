"""The layouts of public data sets: CHASE_DB1, Cell Tracking Challenge, DRIVE, Data Science Bowl 2018.

Symbol key: H rows, W columns, C channels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from minitorch_unet.data.entries import Entry, file_entry, files_by_stem, subfolders, two_values
from minitorch_unet.data.images import read_image
from minitorch_unet.errors import DataError

_MANUAL_FOLDERS = ("1st_manual", "1st_manuals", "manual", "manual1")
_BLACK = 15  # of 255; what surrounds a camera's round field of view is darker in every channel


def chase(path: Path) -> list[Entry]:
    """CHASE_DB1: Image_NN[LR].jpg with Image_NN[LR]_1stHO.png; both eyes of a child are one group.

    There are no masks of the field of view: it is found in the image.
    """
    entries = []
    for image in sorted(path.glob("Image_*.jpg")):
        label = image.with_name(f"{image.stem}_1stHO.png")
        if not label.is_file():
            raise DataError(f"{image}: has no label {label.name}")
        group = image.stem.removeprefix("Image_").rstrip("LR")
        entry = file_entry(image.stem, image, label, group)
        entries.append(replace(entry, valid=partial(_seen, image), valid_from="found in each image"))
    return entries


def ctc(path: Path, truths: Sequence[str] = ("ST", "GT")) -> list[Entry]:
    """Cell Tracking Challenge: NN/tNNN.tif with NN_ST/SEG/man_segNNN.tif, or NN_GT/SEG; each NN is a series.

    The silver truth (ST) is preferred for it has every cell of every frame, the gold truth (GT) of some frames only.
    """
    sequences = [child for child in sorted(path.iterdir()) if child.is_dir() and re.fullmatch("[0-9]{2}", child.name)]
    labelled = []
    for sequence in sequences:
        folders = [path / f"{sequence.name}_{truth}" / "SEG" for truth in truths]
        labelled += [(sequence, folder) for folder in folders if folder.is_dir()][:1]
    entries = []
    for sequence, folder in labelled:
        for label in sorted(folder.glob("man_seg*.tif")):
            number = label.stem.removeprefix("man_seg")
            if not re.fullmatch("[0-9]+", number):
                raise DataError(f"{label}: is one slice of a three-dimensional image; only flat sequences can be read")
            image = sequence / f"t{number}.tif"
            if not image.is_file():
                raise DataError(f"{label}: has no image {sequence.name}/{image.name}")
            name = image.stem if len(labelled) == 1 else f"{sequence.name}_{image.stem}"
            entries.append(file_entry(name, image, label, series=sequence.name))
    if labelled and not entries:
        raise DataError(f"{labelled[0][1]}: holds no man_segNNN.tif")
    return entries


def drive(path: Path) -> list[Entry]:
    """DRIVE: images/NN_*.tif with 1st_manual/NN_manual1.gif and, if there, the fields of view mask/NN_*_mask.gif.

    The files are palette GIFs, some of them with the greys 3 and 253, so they are cut at 127 rather than at 0. The
    masks are never taken for labels.
    """
    folders = subfolders(path)
    manual = next((folders[name] for name in _MANUAL_FOLDERS if name in folders), None)
    fields = files_by_stem(folders["mask"]) if "mask" in folders else {}
    if "images" not in folders or (manual is None and not _are_drive_masks(fields)):
        return []
    if manual is None:
        raise DataError(
            f"{path}: has images/ and mask/, whose files mark the field of view and are no labels; the labels are "
            "missing, DRIVE keeps them in 1st_manual/"
        )
    labels, masks = _by_number(files_by_stem(manual)), _by_number(fields)
    entries = []
    for number, image in _by_number(files_by_stem(folders["images"])).items():
        if number not in labels:
            raise DataError(f"{image}: has no label; looked for {number}_manual1.* in {manual}")
        entry = file_entry(number, image, labels.pop(number))
        entry = replace(entry, label=partial(_manual, Path(entry.label_file)))
        if not masks:
            entry = replace(entry, valid=partial(_seen, image), valid_from="found in each image, as there is no mask/")
        elif number not in masks:
            raise DataError(f"{image}: has no field of view; looked for {number}_*mask.* in {folders['mask']}")
        else:
            entry = replace(entry, valid=partial(_mask, masks[number]), valid_from=f"from {folders['mask']}")
        entries.append(entry)
    if labels:
        raise DataError(f"{next(iter(labels.values()))}: is a label without an image in {folders['images']}")
    return entries


def _are_drive_masks(fields: dict[str, Path]) -> bool:
    return bool(fields) and all(re.fullmatch(r"[0-9]+_(training|test)(_mask)?", stem) for stem in fields)


def _by_number(files: dict[str, Path]) -> dict[str, Path]:
    """Files by the number that their names begin with; those without one are no part of the data set."""
    found: dict[str, Path] = {}
    for stem, file in files.items():
        number = re.match("[0-9]+", stem)
        if number and number[0] in found:
            raise DataError(f"{file}: {found[number[0]].name} has the same number, files are paired by number")
        if number:
            found[number[0]] = file
    return found


def _mask(path: Path) -> np.ndarray:
    return two_values(read_image(path), path)


def _manual(path: Path) -> np.ndarray:
    return _mask(path).astype(np.uint8)


def _seen(path: Path) -> np.ndarray:
    return field_of_view(read_image(path))


def field_of_view(image: np.ndarray) -> np.ndarray:
    """Where a fundus camera saw something, (H, W) bool, in an 8-bit image (H, W) or (H, W, C).

    The largest connected part in which some channel is above black, its holes filled.
    """
    from scipy import ndimage

    bright = image > _BLACK if image.ndim == 2 else (image > _BLACK).any(axis=2)
    parts, count = ndimage.label(bright)
    if not count:
        return np.ones(bright.shape, bool)
    largest = parts == 1 + int(np.bincount(parts.ravel())[1:].argmax())
    filled: np.ndarray = ndimage.binary_fill_holes(largest)
    return filled


def dsb(path: Path) -> list[Entry]:
    """Data Science Bowl 2018: NAME/images/NAME.png with NAME/masks/*.png, one file for each nucleus."""
    entries = []
    for sample in sorted(child for child in path.iterdir() if child.is_dir()):
        folders = subfolders(sample)
        if "images" not in folders:
            continue
        images = list(files_by_stem(folders["images"]).values())
        if len(images) != 1 or images[0].stem != sample.name:  # the mark of this layout, which no other has
            continue
        if "masks" not in folders:
            raise DataError(f"{sample}: has images/ but no masks/; the test part of the set has no labels")
        masks = sorted(files_by_stem(folders["masks"]).values())
        if not masks:
            raise DataError(f"{folders['masks']}: holds no mask")
        entry = file_entry(sample.name, images[0], folders["masks"])
        entries.append(replace(entry, label=partial(_joined, tuple(masks))))
    return entries


def _joined(masks: tuple[Path, ...]) -> np.ndarray:
    """Instance ids (H, W) int32 of one mask for each object; a pixel of two masks belongs to the first."""
    ids: np.ndarray | None = None
    for number, path in enumerate(masks, start=1):
        mask = _mask(path)
        if ids is None:
            ids = np.zeros(mask.shape, np.int32)
        if mask.shape != ids.shape:
            raise DataError(
                f"{path}: is {mask.shape[0]}x{mask.shape[1]}, the masks before it {ids.shape[0]}x{ids.shape[1]}"
            )
        ids[mask & (ids == 0)] = number
    assert ids is not None  # there is at least one mask
    return ids
