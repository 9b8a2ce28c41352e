"""Colours of classes and of signed values, the same in every picture, page and notebook. H rows, W columns."""

from __future__ import annotations

import numpy as np

# Black for the background, then colours that stay apart for most colour-blind readers (Okabe and Ito).
_CLASSES = np.array(
    [(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
     (204, 121, 167)], np.uint8,
)  # fmt: skip
IGNORED_COLOUR = (150, 154, 158)  # pixels without a class

# Signed values: blue below 0, orange above, number 127 white.
_ENDS = np.array([[24, 78, 140], [255, 255, 255], [176, 74, 0]], np.float64)
_AT = np.linspace(0, 2, 255)
SIGNED = np.stack([np.interp(_AT, [0, 1, 2], _ENDS[:, i]) for i in range(3)], axis=1).round().astype(np.uint8)


def class_colours(count: int) -> np.ndarray:
    """A colour (count, 3) uint8 for each class: black and white for two, else black and colours that come again."""
    if count <= 2:
        return np.array([(0, 0, 0), (255, 255, 255)], np.uint8)[:count]
    numbers = np.arange(count)
    return _CLASSES[np.where(numbers == 0, 0, 1 + (numbers - 1) % (len(_CLASSES) - 1))]


def signed8(values: np.ndarray, reach: float) -> np.ndarray:
    """Values -reach..reach as numbers 0..254 of the colours SIGNED; 0 is exactly white, what is beyond is cut off."""
    return np.rint(np.clip(values / (reach or 1.0), -1, 1) * 127 + 127).astype(np.uint8)
