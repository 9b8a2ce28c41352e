"""Pairs of image and label, ready for training. Symbol key: C channels, H rows, W columns, K classes."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from minitorch_unet.data.colours import IGNORE_NAME, read_colours
from minitorch_unet.data.entries import Entry, read_coloured_label
from minitorch_unet.data.labels import LabelRule, decide_rule
from minitorch_unet.data.layouts import find_entries
from minitorch_unet.data.suspicion import are_fields_of_view
from minitorch_unet.data.weights import IGNORE
from minitorch_unet.errors import DataError, FieldOfViewError

SURROUNDINGS = ("ignored", "background")
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
    def series(self) -> list[str | None]:
        """Series (stack, film) of each sample, in order."""
        return [entry.series for entry in self.entries]

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
            sample = self._load(index)
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
        lines = [head, *self.rule.describe()]
        if self.entries and self.entries[0].valid is not None:
            lines.append(f"ignored: pixels outside the field of view ({self.entries[0].valid_from})")
        return lines

    def raw(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Image (C, H, W) before normalisation, label and instances of sample `index`, sizes compared; not kept."""
        entry = self.entries[index]
        image = to_channels(entry.image(), self.channels, entry.image_file)
        label, instances = self.rule.apply(entry.label(), entry.label_file)
        if image.shape[1:] != label.shape:
            raise DataError(
                f"{entry.label_file}: the label is {_size(label.shape)}, the image {_size(image.shape[1:])}"
            )
        if entry.valid is not None:
            valid = entry.valid()
            if valid.shape != label.shape:
                raise DataError(
                    f"{entry.image_file}: its field of view is {_size(valid.shape)}, the image {_size(label.shape)}"
                )
            label[~valid] = IGNORE
        return image, label, instances

    def _load(self, index: int) -> Sample:
        entry = self.entries[index]
        pixels, label, instances = self.raw(index)
        image = normalise(pixels)
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
    colours: str | None = None,
    surroundings: str = "ignored",
) -> Dataset:
    """Open a folder of images and labels.

    layout         "auto", or: "pairs" (image/ and label/ folders, paired by file name), "flat" (NAME.png beside
                   NAME_mask.png), "stack" (train-volume.tif and train-labels.tif), "chase" (CHASE_DB1), "ctc" (Cell
                   Tracking Challenge; "ctc-gt", "ctc-st": this truth only), "drive" (DRIVE), "dsb" (Data Science Bowl
                   2018, one mask for each nucleus)
    foreground     the label value that is class 1, all others are class 0; default: the larger of two values.
                   `Dataset.describe()` says what was taken and how to swap it
    channels       1 (colour becomes grey, ITU-R 601) or 3 (grey is repeated); default: as in the first image
    labels         "binary", "indices", "instances", "colours" or "auto"; decided once for all files
    ignore_border  instance labels: unlabelled pixels this close to the border are ignored; default 50 for
                   ctc, else 0
    colours        what the colours of labels mean, see `read_colours`; sets labels to "colours"
    surroundings   of a field of view: "ignored", or "background": what the labels say there

    Label files are read once unless `labels` is "instances" or "colours". Raises `DataError` for anything wrong with
    the files, and for masks of a field of view in the place of labels.
    """
    if channels not in (None, 1, 3):
        raise ValueError(f"open_dataset: channels is {channels}, legal are 1, 3 and None")
    if (labels == "colours" and colours is None) or (colours is not None and labels not in ("auto", "colours")):
        raise ValueError(f"open_dataset: labels is {labels!r} and colours {colours!r}, they only go together")
    if surroundings not in SURROUNDINGS:
        raise ValueError(f"open_dataset: surroundings is {surroundings!r}, legal are {', '.join(SURROUNDINGS)}")
    path = Path(path)
    table = None if colours is None else read_colours(colours)
    layout, entries = find_entries(path, layout)
    if surroundings == "background":
        entries = [replace(entry, valid=None) for entry in entries]
    if layout.startswith("ctc") or layout == "dsb":
        labels = "instances" if labels == "auto" and foreground is None and table is None else labels
    if ignore_border is None:
        ignore_border = CTC_BORDER if layout.startswith("ctc") else 0
    if table is None:
        rule = decide_rule((entry.label() for entry in entries), labels, foreground, ignore_border, str(path))
    elif foreground is not None:
        raise ValueError(f"open_dataset: foreground={foreground} does not go with a table of colours")
    else:
        entries = [_coloured(entry) for entry in entries]
        rule = LabelRule("colours", None, sum(name != IGNORE_NAME for name, _ in table), colours=table)
    if channels is None:
        first = entries[0].image()
        channels = 1 if first.ndim == 2 else first.shape[2]
    guessed = rule.kind == "binary" and foreground is None
    if guessed and are_fields_of_view([(entry.image, entry.label) for entry in entries], rule):
        raise FieldOfViewError(
            f"{entries[0].label_file}: marks the field of view, like the other label files, and is no label; if it is "
            f"meant, say so with foreground={rule.foreground}"
        )
    return Dataset(entries, rule, channels, f"{path} ({layout})")


def _coloured(entry: Entry) -> Entry:
    file = Path(entry.label_file)
    if not file.is_file():
        raise DataError(f"{entry.label_file}: a table of colours needs one label file for each image")
    return replace(entry, label=partial(read_coloured_label, file))


def normalise(image: np.ndarray, low: float = 1.0, high: float = 99.0) -> np.ndarray:
    """Scale every channel of an image (C, H, W) so that its percentiles `low`, `high` become 0, 1; float32.

    Values are limited to -1..2, so that a few hot pixels do no harm. Where the two percentiles are equal (a
    mostly empty image) the minimum and maximum take their place; a constant channel becomes zeros.
    """
    if image.ndim != 3:
        raise ValueError(f"normalise: image has shape {image.shape}, legal is (C, H, W)")
    pixels = as_pixels(image)
    bottom, top = np.percentile(pixels, (low, high), axis=(1, 2))
    return rescale(pixels, bottom, top, pixels.min(axis=(1, 2)), pixels.max(axis=(1, 2)))


def as_pixels(image: np.ndarray) -> np.ndarray:
    """An image as floats that hold its values: float64 for values of more than two bytes, else float32."""
    return image.astype(np.float64 if image.dtype.itemsize > 2 else np.float32)


def rescale(
    pixels: np.ndarray, bottom: np.ndarray, top: np.ndarray, least: np.ndarray, most: np.ndarray
) -> np.ndarray:
    """What `normalise` makes of pixels (C, H, W) with these percentiles, minima and maxima (C,)."""
    flat = top <= bottom
    bottom, top = np.where(flat, least, bottom), np.where(flat, most, top)
    scale = np.where(top > bottom, top - bottom, 1.0)
    return np.clip((pixels - bottom[:, None, None]) / scale[:, None, None], -1.0, 2.0).astype(np.float32)


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
