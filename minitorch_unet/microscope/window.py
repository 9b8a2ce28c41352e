"""The part of an image that the network is shown, and what is read from the user's files. Key: H rows, W columns."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..data import IGNORE, extract, normalise
from ..data.colours import IGNORE_NAME, read_colours
from ..data.dataset import to_channels
from ..data.entries import read_coloured_label, read_label
from ..data.labels import LabelRule, decide_rule
from ..errors import DataError
from ..predict import read_pages
from ..unet import UNet, UNetSizes

LARGEST = 572  # pixels a side shown at most by default: the paper's input
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Window:
    """Where the window lies: `size` of the image, `start` and `shape` of the window in it, `halo`, `out` its scores.

    `start` may be negative and the window overhang: there the image is mirrored. Scores begin `halo` pixels inside.
    """

    size: Pair
    start: Pair
    shape: Pair
    halo: int
    out: Pair

    def describe(self) -> str:
        """What is shown, in a sentence for people."""
        (h, w), (rows, columns) = self.size, self.shape
        if self.shape == self.size:
            text = f"the whole image of {h} × {w} pixels"
        else:
            text = f"{rows} × {columns} pixels from row {self.start[0]}, column {self.start[1]} of {h} × {w}"
        if any(a < 0 or a + n > m for a, n, m in zip(self.start, self.shape, self.size, strict=True)):
            text += "; what lies outside the image is mirrored, as for a prediction"
        return text


def place(sizes: UNetSizes, size: Pair, largest: int = LARGEST, pixel: Pair | None = None) -> Window:
    """The window for an image of `size`: along each axis the largest legal size that fits, in the middle.

    It is moved so far that `pixel` (row, column of the image) lies in its scores. An image smaller than the smallest
    legal size is mirrored at its borders. Raises ValueError for a pixel outside the image and a `largest` that is too
    small for this network.
    """
    least = sizes.nearest_legal(1)[0]
    if largest < least:
        raise ValueError(f"inspect: size is {largest}; the smallest that this network takes is {least}")
    if pixel is not None and not all(0 <= p < n for p, n in zip(pixel, size, strict=True)):
        raise ValueError(
            f"inspect: pixel is {pixel[0]},{pixel[1]}; the image has rows 0..{size[0] - 1} and columns 0..{size[1] - 1}"
        )
    shape = tuple(next(n for n in range(max(least, min(m, largest)), 0, -1) if sizes.is_legal(n)) for m in size)
    out = tuple(map(sizes.output_size, shape))
    halo = (shape[0] - out[0]) // 2
    start = [(m - n) // 2 for m, n in zip(size, shape, strict=True)]
    for axis, p in enumerate(pixel or ()):
        start[axis] = min(max(start[axis], p - halo - out[axis] + 1), p - halo)
    return Window(size, (start[0], start[1]), (shape[0], shape[1]), halo, (out[0], out[1]))


def read_inputs(
    image: Path, label: Path | None, network: UNet, source: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The image (C, H, W), normalised as for training, and its label (H, W), IGNORE where nothing counts, or None.

    source: how the labels were opened in training (`labels`, `foreground`, `colours`); anything unknown is guessed.
    Raises DataError for files that cannot be used or do not fit the network or each other.
    """
    pages = read_pages(image)
    if len(pages) > 1:
        raise DataError(f"{image}: holds {len(pages)} pages where one image is expected")
    pixels = normalise(to_channels(pages[0], network.config["in_channels"], str(image)))
    if label is None:
        return pixels, None
    classes = network.classes
    if source.get("colours"):
        table = read_colours(source["colours"])
        raw = read_coloured_label(label)
        rule = LabelRule("colours", None, sum(name != IGNORE_NAME for name, _ in table), colours=table)
    else:
        raw = read_label(label)
        kind, foreground = source.get("labels") or "auto", source.get("foreground")
        rule = decide_rule([raw], kind, foreground, source.get("ignore_border") or 0, str(label))
    found, _ = rule.apply(raw, str(label))
    if found.shape != pixels.shape[1:]:
        raise DataError(
            f"{label}: the label has {found.shape[0]} x {found.shape[1]} pixels, the image {pixels.shape[1]} x "
            f"{pixels.shape[2]}"
        )
    if found.max() >= classes:
        raise DataError(f"{label}: holds class {found.max()}, the network has classes 0..{classes - 1}")
    return pixels, found


def cut(image: np.ndarray, label: np.ndarray | None, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
    """The window's pixels (C, h, w) and its label (p, q), IGNORE outside the image.

    Raises DataError for a label without a single pixel that counts: there would be no loss.
    """
    pixels = np.ascontiguousarray(extract(image, *window.start, *window.shape), np.float32)
    if label is None:
        return pixels, None
    top, left = (s + window.halo for s in window.start)
    part = extract(label, top, left, *window.out).copy()
    rows, columns = (
        (np.arange(n) + a < 0) | (np.arange(n) + a >= m)
        for n, a, m in zip(window.out, (top, left), window.size, strict=True)
    )
    part[rows[:, None] | columns] = IGNORE
    if not (part != IGNORE).any():
        raise DataError("inspect: the label has no pixel that counts in the part of the image that is shown")
    return pixels, part
