"""Pairs of image and label, ready for training. Symbol key: C channels, H rows, W columns, K classes."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minitorch_unet.data.labels import LabelRule, decide_rule
from minitorch_unet.data.layouts import Entry, find_entries
from minitorch_unet.errors import DataError

# Field of interest of the Cell Tracking Challenge for DIC-C2DH-HeLa: objects within E = 50 pixels of the
# border need not be annotated and are not scored ("Annotation procedure" and SEG measure,
# celltrackingchallenge.net).
CTC_BORDER = 50

_CACHE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Sample:
    """One image with its label; arrays are read-only because a data set may hand them out again.

    name       unique in the data set
    image      (C, H, W) float32, normalised
    label      (H, W) int64 class ids, -100 = ignored
    instances  (H, W) int32 object ids, 0 = background; None where the label files know classes only
    group      samples of one group (two eyes of a child) belong on one side of a split; None = on its own
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    instances: np.ndarray | None
    group: str | None

    @property
    def nbytes(self) -> int:
        """Memory that the arrays take."""
        return (
            self.image.nbytes + self.label.nbytes + (0 if self.instances is None else self.instances.nbytes)
        )


class Dataset:
    """A sequence of `Sample`s, read when asked for and kept while they fit into a small cache.

    Made by `open_dataset` for files and by `SyntheticCells`; `channels` is C of every image, `classes` is K.
    """

    def __init__(self, entries: Sequence[Entry], rule: LabelRule, channels: int, source: str) -> None:
        self.entries = tuple(entries)
        self.rule = rule
        self.channels = channels
        self.source = source
        self._cache: dict[int, Sample] = {}
        self._cached_bytes = 0

    @property
    def names(self) -> list[str]:
        """Names of the samples, in order."""
        return [entry.name for entry in self.entries]

    @property
    def groups(self) -> list[str | None]:
        """Group of each sample, in order."""
        return [entry.group for entry in self.entries]

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return self.rule.classes

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index` (negative: from the end); `DataError` names a file that cannot be used."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"Dataset: index {index} is out of range, there are {len(self)} samples")
        index %= len(self)
        if index not in self._cache:
            sample = self._load(self.entries[index])
            if self._cached_bytes + sample.nbytes > _CACHE_BYTES:
                return sample
            self._cache[index] = sample
            self._cached_bytes += sample.nbytes
        return self._cache[index]

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def subset(self, indices: Sequence[int]) -> "Dataset":
        """The samples at `indices`, in that order, under the same label rule."""
        return Dataset([self.entries[index] for index in indices], self.rule, self.channels, self.source)

    def describe(self) -> list[str]:
        """Where the samples come from and what their labels mean, in lines for people."""
        head = f"{self.source}: {len(self)} pairs, {self.channels} channels, {self.classes} classes"
        return [head, *self.rule.describe()]

    def _load(self, entry: Entry) -> Sample:
        image = normalise(to_channels(entry.image(), self.channels, entry.image_file))
        label, instances = self.rule.apply(entry.label(), entry.label_file)
        if image.shape[1:] != label.shape:
            raise DataError(
                f"{entry.label_file}: the label is {_size(label.shape)}, the image {_size(image.shape[1:])}"
            )
        for array in (image, label, instances):
            if array is not None:
                array.flags.writeable = False
        return Sample(entry.name, image, label, instances, entry.group)


def open_dataset(
    path: str | os.PathLike[str],
    layout: str = "auto",
    foreground: int | None = None,
    channels: int | None = None,
    labels: str = "auto",
    ignore_border: int | None = None,
) -> Dataset:
    """Open a folder of images and labels.

    layout         "pairs" (image/ and label/ folders, paired by file name), "stack" (train-volume.tif and
                   train-labels.tif), "chase" (CHASE_DB1), "ctc" (Cell Tracking Challenge), or "auto"
    foreground     the label value that is class 1, all others are class 0; default: the larger of two values.
                   `Dataset.describe()` says what was taken and how to swap it
    channels       1 (colour becomes grey, ITU-R 601) or 3 (grey is repeated); default: as in the first image
    labels         "binary", "indices", "instances" or "auto"; decided once for all files
    ignore_border  instance labels: unlabelled pixels this close to the border are ignored; default 50 for
    ctc, else 0

    All label files are read once unless `labels` is "instances". Raises `DataError` for anything wrong with
    the files.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"open_dataset: channels is {channels}, legal are 1, 3 and None")
    path = Path(path)
    layout, entries = find_entries(path, layout)
    if layout == "ctc" and labels == "auto" and foreground is None:
        labels = "instances"
    if ignore_border is None:
        ignore_border = CTC_BORDER if layout == "ctc" else 0
    rule = decide_rule((entry.label() for entry in entries), labels, foreground, ignore_border, str(path))
    if channels is None:
        first = entries[0].image()
        channels = 1 if first.ndim == 2 else first.shape[2]
    return Dataset(entries, rule, channels, f"{path} ({layout})")


def split_dataset(dataset: Dataset, validation: str | float) -> tuple[Dataset, Dataset]:
    """Split into (training, validation), never at random: neighbouring slices and frames are near-duplicates.

    A fraction (0.2, "0.2" or "20%") takes the last part in natural order of names and keeps groups whole, so
    the part may come out larger. Otherwise a comma-separated list: an index or an inclusive range of indices
    in natural order ("20-23"), or a name ("t054"). Raises `ValueError` where a part would be empty, an item
    is unknown, or a group would stand on both sides.
    """
    fraction = _fraction(validation)
    chosen = _last_part(dataset, fraction) if fraction is not None else _listed(dataset, str(validation))
    rest = [index for index in range(len(dataset)) if index not in chosen]
    if not rest or not chosen:
        raise ValueError(
            f"split_dataset: validation={validation!r} leaves {len(rest)} samples to train on and "
            f"{len(chosen)} to validate on, of {len(dataset)}"
        )
    groups = dataset.groups
    torn = {groups[i] for i in rest} & {groups[i] for i in chosen} - {None}
    if torn:
        raise ValueError(
            f"split_dataset: group {min(map(str, torn))} would stand on both sides of {validation!r}"
        )
    return dataset.subset(rest), dataset.subset(sorted(chosen))


def select(dataset: Dataset, items: str) -> Dataset:
    """The samples listed by index, range of indices ("20-23") or name, with commas, in natural order.

    Raises `ValueError` for an unknown item or an empty list.
    """
    chosen = _listed(dataset, items)
    if not chosen:
        raise ValueError(f"select: {items!r} names no sample")
    return dataset.subset(sorted(chosen))


def normalise(image: np.ndarray, low: float = 1.0, high: float = 99.0) -> np.ndarray:
    """Scale every channel of an image (C, H, W) so that its percentiles `low`, `high` become 0, 1; float32.

    Values are limited to -1..2, so that a few hot pixels do no harm. Where the two percentiles are equal (a
    mostly empty image) the minimum and maximum take their place; a constant channel becomes zeros.
    """
    if image.ndim != 3:
        raise ValueError(f"normalise: image has shape {image.shape}, legal is (C, H, W)")
    pixels: np.ndarray = image.astype(np.float64 if image.dtype.itemsize > 2 else np.float32)
    bottom, top = np.percentile(pixels, (low, high), axis=(1, 2), keepdims=True)
    flat = top <= bottom
    bottom = np.where(flat, pixels.min(axis=(1, 2), keepdims=True), bottom)
    top = np.where(flat, pixels.max(axis=(1, 2), keepdims=True), top)
    scale = np.where(top > bottom, top - bottom, 1.0)
    return np.clip((pixels - bottom) / scale, -1.0, 2.0).astype(np.float32)


def to_channels(image: np.ndarray, channels: int, file: str) -> np.ndarray:
    """An image (H, W) or (H, W, C) as (channels, H, W); between 1 and 3 channels it is converted.

    Raises `DataError` naming `file` for another number of channels or values that are not finite.
    """
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise DataError(f"{file}: holds values that are not finite")
    if len(planes) == channels:
        return planes
    if len(planes) == 1 and channels == 3:
        return np.repeat(planes, 3, axis=0)
    if len(planes) == 3 and channels == 1:
        return np.tensordot([0.299, 0.587, 0.114], planes, axes=1)[None]
    raise DataError(f"{file}: has {len(planes)} channels where {channels} are expected")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _fraction(validation: str | float) -> float | None:
    """0.2, "0.2" and "20%" as 0.2; None for a list of samples."""
    text = str(validation).strip()
    if not re.fullmatch(r"[0-9.]+%|[0-9]*\.[0-9]+(e-[0-9]+)?", text) and isinstance(validation, str):
        return None
    try:
        fraction = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None
    if not 0 < fraction < 1:
        raise ValueError(f"split_dataset: validation={validation!r} is no fraction between 0 and 1")
    return fraction


def _last_part(dataset: Dataset, fraction: float) -> set[int]:
    """Indices of the last whole groups that make up at least `fraction` of the samples, rounded."""
    units: dict[str | tuple[int], list[int]] = {}
    for index, group in enumerate(dataset.groups):
        units.setdefault((index,) if group is None else group, []).append(index)
    wanted = max(1, math.floor(fraction * len(dataset) + 0.5))
    chosen: set[int] = set()
    for members in reversed(list(units.values())):
        if len(chosen) >= wanted:
            break
        chosen.update(members)
    return chosen


def _listed(dataset: Dataset, text: str) -> set[int]:
    names = {name: index for index, name in enumerate(dataset.names)}
    chosen: set[int] = set()
    for item in filter(None, (part.strip() for part in text.split(","))):
        indices = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", item)
        if (
            indices
            and int(indices[2] or indices[1]) < len(dataset)
            and int(indices[1]) <= int(indices[2] or indices[1])
        ):
            chosen.update(range(int(indices[1]), int(indices[2] or indices[1]) + 1))
        elif item in names:
            chosen.add(names[item])
        else:
            raise ValueError(
                f"{dataset.source}: {item!r} is neither a name nor a range of indices 0-{len(dataset) - 1}"
            )
    return chosen
