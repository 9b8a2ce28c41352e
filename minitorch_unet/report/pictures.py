"""Pictures of example tiles as arrays of uint8: image, label, prediction, errors, weights. H rows, W columns."""

from __future__ import annotations

import numpy as np

from ..data import IGNORE
from ..shades import IGNORED_COLOUR, class_colours
from .examples import Tile

# Right, missed foreground, false foreground or another class, not judged. The first is seen in light and in dark.
ERRORS = np.array([(226, 229, 232), (26, 90, 204), (217, 51, 38), IGNORED_COLOUR], np.uint8)
# From low to high: dark violet, blue, teal, green, yellow; lightness rises evenly.
SCALE = np.array([(52, 20, 92), (58, 78, 140), (34, 132, 142), (82, 186, 106), (250, 228, 60)], np.float64)


def shaded(values: np.ndarray) -> np.ndarray:
    """Values 0..1 (H, W) as colours of SCALE (H, W, 3); what is not finite becomes grey."""
    finite = np.isfinite(values)
    place = np.clip(np.where(finite, values, 0), 0, 1) * (len(SCALE) - 1)
    low = np.minimum(place.astype(int), len(SCALE) - 2)
    part = (place - low)[..., None]
    colours = SCALE[low] * (1 - part) + SCALE[low + 1] * part
    colours[~finite] = 150
    return np.rint(colours).astype(np.uint8)


def image(tile: Tile) -> np.ndarray:
    """The image, grey (H, W) or in colour (H, W, 3); normalised values beyond 0..1 are cut."""
    values = np.rint(np.clip(tile.image, 0, 1) * 255).astype(np.uint8)
    return np.moveaxis(values, 0, -1) if len(values) == 3 else values[0]


def classes(numbers: np.ndarray, count: int) -> np.ndarray:
    """Class numbers (H, W) in the colours of `count` classes (H, W, 3); ignored pixels grey."""
    return np.concatenate([class_colours(count), ERRORS[3:]])[np.where(numbers == IGNORE, count, numbers)]


def prediction(tile: Tile, epoch: int, count: int) -> np.ndarray:
    """The probability of the foreground as grey for two classes, else the classes."""
    numbers, probability = tile.predictions[epoch]
    return classes(numbers.astype(np.int64), count) if count > 2 else probability


def errors(tile: Tile, epoch: int) -> np.ndarray:
    """Where label and prediction differ, in the colours of ERRORS."""
    label, guess = tile.label, tile.predictions[epoch][0]
    wrong = guess != label
    kind = np.where(wrong & (guess == 0), 1, np.where(wrong, 2, 0))
    return ERRORS[np.where(label == IGNORE, 3, kind)]


def right_share(tile: Tile, epoch: int) -> float:
    """Share of the judged pixels whose class is right."""
    judged = tile.label != IGNORE
    return float((tile.predictions[epoch][0] == tile.label)[judged].mean()) if judged.any() else 1.0


def weights(tile: Tile) -> np.ndarray | None:
    """The loss weights from 0 (dark) to the largest (bright), or None without."""
    if tile.weights is None:
        return None
    values = tile.weights.astype(np.float64)
    return shaded(values / max(1e-12, float(values.max())))


def strip(tile: Tile, epoch: int, count: int) -> np.ndarray:
    """Image, label, prediction and errors of `count` classes beside one another (H, 4 W + gaps, 3)."""
    label = classes(tile.label.astype(np.int64), count)
    parts = [image(tile), label, prediction(tile, epoch, count), errors(tile, epoch)]
    coloured = [part if part.ndim == 3 else np.repeat(part[..., None], 3, axis=2) for part in parts]
    gap = np.full((coloured[0].shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([piece for part in coloured for piece in (part, gap)][:-1], axis=1)
