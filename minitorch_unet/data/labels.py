"""What label values mean, decided once for a whole data set. Symbol key: H rows, W columns, K classes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from minitorch_unet.data.colours import IGNORE_NAME, Table, as_hex, to_classes
from minitorch_unet.data.weights import IGNORE, separate_touching
from minitorch_unet.errors import DataError

KINDS = ("auto", "binary", "indices", "instances", "colours")

_IGNORED_INDEX = 255  # in files of class indices: the usual mark of a pixel without a class
_MOST_CLASSES = 16


@dataclass(frozen=True)
class LabelRule:
    """How raw label values become classes.

    kind          "binary" (one class and the rest), "indices" (value = class), "instances" (value = object) or
                  "colours" (colour = class)
    foreground    binary: the value that is class 1; None: every value above 0
    classes       K
    values        the values found in the files, ascending (instances: not kept)
    ignore_border instances: width in pixels of the strip in which unlabelled pixels are ignored
    colours       colours: the table of names and colours
    """

    kind: str
    foreground: int | None
    classes: int
    values: tuple[int, ...] = ()
    ignore_border: int = 0
    colours: Table = ()

    def apply(self, raw: np.ndarray, file: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Class label (H, W) int64 and instance ids (H, W) int32, if the files have them, of a raw label.

        Raises `DataError` naming `file` for a value that the rule does not cover.
        """
        if self.kind == "colours":
            return to_classes(raw, self.colours, file), None
        if self.kind == "instances":
            if raw.min() < 0 or raw.max() >= np.iinfo(np.int32).max:
                raise DataError(
                    f"{file}: holds ids {raw.min()}..{raw.max()}, legal instance ids are 0 to 2147483646"
                )
            instances = raw.astype(np.int32)
            label = separate_touching(instances)
            label[_border(raw.shape, self.ignore_border) & (instances == 0)] = IGNORE
            return label, instances
        label = raw.astype(np.int64)
        if self.kind == "binary":
            unknown = label[~np.isin(label, self.values)]
            if unknown.size:
                listed = ", ".join(map(str, self.values[:10]))
                raise DataError(f"{file}: holds the label value {unknown[0]}, legal are {listed}")
            return (label > 0 if self.foreground is None else label == self.foreground).astype(np.int64), None
        label[label == _IGNORED_INDEX] = IGNORE
        illegal = label[((label < 0) | (label >= self.classes)) & (label != IGNORE)]
        if illegal.size:
            raise DataError(
                f"{file}: holds the label value {illegal[0]}, legal are 0..{self.classes - 1}, "
                f"{_IGNORED_INDEX} and {IGNORE} (ignored)"
            )
        return label, None

    def class_names(self) -> list[str]:
        """A name for each class; numbers, where the files have no names."""
        if self.kind == "colours":
            return [name for name, _ in self.colours if name != IGNORE_NAME]
        return [f"class {number}" for number in range(self.classes)]

    def describe(self) -> list[str]:
        """What was decided and how to decide otherwise, in lines for people."""
        if self.kind == "instances":
            lines = [
                "labels: instance ids; class 1 = inside an object, class 0 = background and the border "
                "that separates touching objects (class files instead: labels='indices' or 'binary')"
            ]
            if self.ignore_border:
                lines.append(
                    f"ignored: unlabelled pixels within {self.ignore_border} pixels of the image's border "
                    "(keep them as background: ignore_border=0)"
                )
            return lines
        if self.kind == "colours":
            listed = ", ".join(f"{as_hex(colour)} {name}" for name, colour in self.colours)
            return [f"labels: colours, classes 0..{self.classes - 1} in this order: {listed}"]
        listed = ", ".join(map(str, self.values[:10])) + (", ..." if len(self.values) > 10 else "")
        if self.kind == "indices":
            ignored = f"; {_IGNORED_INDEX} is ignored" if _IGNORED_INDEX in self.values else ""
            return [f"labels: class indices 0..{self.classes - 1} (values found: {listed}){ignored}"]
        if self.foreground is None:
            return [f"labels: values {listed}; every value above 0 is class 1 (choose one: foreground=VALUE)"]
        others = [value for value in self.values if value != self.foreground]
        swap = f" (swap: foreground={others[0]})" if others else ""
        rest = "all others are" if len(others) > 1 else f"{others[0]} is" if others else "the rest is"
        return [f"labels: values {listed}; {self.foreground} is class 1, {rest} class 0{swap}"]


def decide_rule(
    labels: Iterable[np.ndarray], kind: str, foreground: int | None, ignore_border: int, source: str
) -> LabelRule:
    """The one rule for all raw labels (H, W); `source` names the folder in errors.

    "auto" takes: binary where a foreground is given or at most two values occur (the larger one is class 1),
    class indices where 8-bit files hold only small numbers (and perhaps 255), instance ids where files are
    wider than 8 bits or hold more than 16 values. Raises `DataError` where none of these fits.
    """
    if kind not in KINDS:
        raise ValueError(f"open_dataset: labels is {kind!r}, legal are {', '.join(KINDS)}")
    if kind in ("indices", "instances") and foreground is not None:
        raise ValueError(
            f"open_dataset: foreground={foreground} only goes with binary labels, labels is {kind!r}"
        )
    if ignore_border < 0:
        raise ValueError(f"open_dataset: ignore_border is {ignore_border}, it must not be negative")
    if kind == "instances":
        return LabelRule("instances", None, 2, ignore_border=ignore_border)
    counts: Counter[int] = Counter()
    wide = False
    for raw in labels:
        counts.update(dict(zip(*(part.tolist() for part in np.unique(raw, return_counts=True)), strict=True)))
        wide |= raw.dtype.itemsize > 1
    values = tuple(sorted(counts))
    if foreground is not None and foreground not in counts:
        listed = ", ".join(map(str, values[:10]))
        raise DataError(
            f"{source}: no label file holds the foreground value {foreground}; values found: {listed}"
        )
    if kind == "auto":
        kind = _guess(values, wide, foreground, source)
        if kind == "instances" and not wide and 2 * counts[255] > counts.total() - counts[0]:
            raise DataError(
                f"{source}: label values {values[0]}..{values[-1]}, most of them 255 where not 0: masks that were "
                "resized or compressed with loss? labels='binary' takes every value above 0, labels='instances' objects"
            )
    if kind == "instances":
        return LabelRule("instances", None, 2, ignore_border=ignore_border)
    if kind == "indices":
        legal = [value for value in values if value not in (IGNORE, _IGNORED_INDEX)]
        if not legal or legal[0] < 0:
            raise DataError(f"{source}: label values start at {values[0]}, class indices start at 0")
        return LabelRule("indices", None, max(legal[-1] + 1, 2), values)
    if foreground is None and len(values) <= 2:
        foreground = values[-1] or None
    return LabelRule("binary", foreground, 2, values)


def _guess(values: tuple[int, ...], wide: bool, foreground: int | None, source: str) -> str:
    if foreground is not None or len(values) <= 2:
        return "binary"
    small = [value for value in values if value not in (IGNORE, _IGNORED_INDEX)]
    if (not wide or values[0] == IGNORE) and small[0] >= 0 and small[-1] < _MOST_CLASSES:
        return "indices"
    if values[0] >= 0 and (wide or len(values) > _MOST_CLASSES):
        return "instances"
    listed = ", ".join(map(str, values[:10]))
    raise DataError(
        f"{source}: label values {listed} are neither two values nor class indices 0..{_MOST_CLASSES - 1}; "
        "say what they are with labels= or foreground="
    )


def _border(shape: tuple[int, ...], width: int) -> np.ndarray:
    """Boolean (H, W): True in the strip of `width` pixels along the image's border."""
    border = np.ones(shape, bool)
    border[width : max(shape[0] - width, width), width : max(shape[1] - width, width)] = False
    return border
