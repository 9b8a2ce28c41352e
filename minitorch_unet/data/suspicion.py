"""What looks wrong in a data set although it can be read. Symbol key: C channels, H rows, W columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from minitorch_unet.data.entries import Entry
from minitorch_unet.data.labels import LabelRule
from minitorch_unet.data.weights import IGNORE

ALMOST_EMPTY = 0.001  # share of the pixels that count, below which a class is almost absent from an image
ALMOST_EQUAL = 0.995  # correlation of thumbnails from which on two images are almost the same
_SMALL_OBJECT = 10  # pixels
_CLEAR = 0.3  # standard deviations, contrast from which on a foreground stands out
_THUMBNAIL = 24  # pixels a side
_MASK_PAIRS = 3  # files looked at


def are_fields_of_view(
    pairs: Sequence[tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]], rule: LabelRule
) -> bool:
    """Whether binary labels are masks of a camera's round field of view; `pairs` of functions (image, label).

    Looks at the first, the middle and the last file. All must look like one, and lie in nearly the same place.
    """
    masks: list[np.ndarray] = []
    for index in dict.fromkeys((0, len(pairs) // 2, len(pairs) - 1)):
        image, label = (part() for part in pairs[index])
        mask = rule.apply(label, "")[0] == 1
        if not is_field_of_view(image, mask):
            return False
        masks.append(mask)
    return all(
        a.shape == b.shape and (a & b).sum() > 0.9 * (a | b).sum() for a, b in combinations(masks[:_MASK_PAIRS], 2)
    )


def is_field_of_view(image: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a mask (H, W) bool looks like the field of view of an image (H, W) or (H, W, C).

    One piece without notches (a single run in each row and each column, but for a few) that reaches nearly from side to
    side, is rounder than its bounding box, and outside of which the image is dark.
    """
    if image.shape[:2] != mask.shape or not 0.4 < mask.mean() < 0.97:
        return False
    for lines in (mask, mask.T):
        runs = (np.diff(np.pad(lines, ((0, 0), (1, 0))).astype(np.int8), axis=1) == 1).sum(axis=1)
        if (runs > 0).mean() < 0.85 or (runs > 1).mean() > 0.02:
            return False
    box = mask.any(axis=1).sum() * mask.any(axis=0).sum()
    grey = image if image.ndim == 2 else image.max(axis=2)
    outside, inside = np.percentile(grey[~mask], 95), np.median(grey[mask])
    return bool(mask.sum() < 0.97 * box and outside < 0.25 * inside)


Remark = tuple[str, str]  # what kind it is of, and the particulars


@dataclass(frozen=True)
class Finding:
    """What is remembered of a sample when its arrays are gone."""

    name: str
    image_file: str
    label_file: str
    size: tuple[int, int]
    grey: bool  # three channels that are equal
    objects: int | None  # None where the labels know classes only
    counts: np.ndarray  # pixels of each class
    ignored: int
    digest: str  # of the image's pixels
    thumbnail: np.ndarray  # mean 0 and length 1; zeros for a constant image
    remarks: tuple[Remark, ...]
    contrast: float = 0.0  # mean grey inside the foreground less that outside, in standard deviations of the image

    @property
    def share(self) -> float:
        """Share of the foreground, the classes above 0, among the pixels that count."""
        return float(self.counts[1:].sum() / max(1, self.counts.sum()))


def examine(
    entry: Entry, image: np.ndarray, label: np.ndarray, instances: np.ndarray | None, classes: int
) -> Finding:
    """Look at one sample: image (C, H, W) before normalisation, label (H, W), instances (H, W) or None."""
    counted = label[label != IGNORE]
    counts = np.bincount(counted, minlength=classes)
    foreground = int(counts[1:].sum())
    remarks: list[Remark] = []
    if (image == image[:, :1, :1]).all():
        remarks.append(("constant image", ""))
    if not counted.size:
        remarks.append(("all pixels of the label are ignored", ""))
    elif foreground < ALMOST_EMPTY * counted.size:
        remarks.append(("almost empty label", f"{foreground} foreground pixels of {counted.size}"))
    elif counts[0] < ALMOST_EMPTY * counted.size:
        remarks.append(("almost full label", f"{int(counts[0])} background pixels of {counted.size}"))
    objects = None
    if instances is not None:
        objects, more = _of_instances(instances)
        remarks += more
    grey = len(image) == 3 and bool((image == image[:1]).all())
    digest = hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + np.ascontiguousarray(image).tobytes())
    return Finding(
        entry.name, entry.image_file, entry.label_file, (label.shape[0], label.shape[1]), grey, objects, counts,
        label.size - counted.size, digest.hexdigest(), thumbnail(image), tuple(remarks), contrast(image, label),
    )  # fmt: skip


def _of_instances(instances: np.ndarray) -> tuple[int, list[Remark]]:
    """How many objects the ids (H, W) have; remarks on specks, and on ids of several separate pieces."""
    from scipy import ndimage

    numbers, compact = np.unique(np.append(instances, 0), return_inverse=True)
    compact = compact[:-1].reshape(instances.shape)  # 0 is the background, the ids are 1, 2, ...
    count = len(numbers) - 1
    specks = int((np.bincount(compact.ravel(), minlength=count + 1)[1:] < _SMALL_OBJECT).sum())
    torn = sum(
        ndimage.label(compact[box] == number, np.ones((3, 3)))[1] > 1
        for number, box in enumerate(ndimage.find_objects(compact), start=1)
    )
    remarks = []
    if specks:
        remarks.append((f"objects of less than {_SMALL_OBJECT} pixels", f"{specks} of {count}"))
    if torn:
        remarks.append(("ids that lie in several separate pieces", f"{torn} of {count}"))
    return count, remarks


def contrast(image: np.ndarray, label: np.ndarray) -> float:
    """Mean of an image (C, H, W) where its label (H, W) is above 0 less that where it is 0, over its deviation."""
    grey = image.mean(axis=0, dtype=np.float64)
    inside, outside = label > 0, label == 0
    deviation = float(grey.std())
    if not (inside.any() and outside.any() and deviation > 0):
        return 0.0
    return float(grey[inside].mean() - grey[outside].mean()) / deviation


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Block means (24 * 24) of the mean channel of an image (C, H, W), less their mean, scaled to length 1."""
    grey = image.mean(axis=0, dtype=np.float64)
    rows, columns = (np.arange(_THUMBNAIL) * n // _THUMBNAIL for n in grey.shape)
    sums = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1)
    heights, widths = np.diff(np.append(rows, grey.shape[0])), np.diff(np.append(columns, grey.shape[1]))
    means = (sums / np.outer(np.maximum(1, heights), np.maximum(1, widths))).ravel()
    means -= means.mean()
    length = float(np.sqrt(means @ means))
    return means / length if length > 1e-9 * max(1.0, float(np.abs(grey).max())) else np.zeros_like(means)


def look_inverted(findings: Sequence[Finding]) -> list[Finding]:
    """Samples whose foreground share is nearer to the others' background share than to their foreground share.

    Not those whose foreground stands out from the image as the others' does, brighter or darker: they only hold more
    of it, or less.
    """
    shares, contrasts = (np.array([getattr(f, name) for f in findings]) for name in ("share", "contrast"))
    if len(shares) < 3:
        return []
    typical, usual = float(np.median(shares)), float(np.median(contrasts))
    if abs(typical - 0.5) < 0.1:  # then a share says nothing
        return []
    suspects = np.abs(shares - (1 - typical)) < np.abs(shares - typical)
    if abs(usual) > _CLEAR:
        suspects &= contrasts * np.sign(usual) < _CLEAR / 2
    return [f for f, suspect in zip(findings, suspects, strict=True) if suspect]


def look_alike(
    one: Sequence[Finding], other: Sequence[Finding] | None = None, least: float = ALMOST_EQUAL
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs of names (equal pixel by pixel, almost equal) within one part or, with `other`, across two."""
    if not one or (other is not None and not other):
        return [], []
    second = one if other is None else other
    alike = np.stack([f.thumbnail for f in one]) @ np.stack([f.thumbnail for f in second]).T
    equal, almost = [], []
    for i, a in enumerate(one):
        for j, b in enumerate(second):
            if other is None and j <= i:
                continue
            if a.digest == b.digest:
                equal.append((a.name, b.name))
            elif alike[i, j] >= least:
                almost.append((a.name, b.name))
    return equal, almost
