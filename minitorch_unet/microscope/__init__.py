"""A trained U-Net on one image, opened up: every stage, a pixel's way through them, one training step on tape.

`examine` reads the files, runs the step (record.py) and returns the page (building.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from ..predict import load_network
from .building import build
from .record import record
from .window import LARGEST, cut, place, read_inputs

__all__ = ["LARGEST", "examine"]


def examine(
    checkpoint: str | os.PathLike[str], image: str | os.PathLike[str], label: str | os.PathLike[str] | None = None,
    pixel: tuple[int, int] | None = None, size: int = LARGEST,
) -> str:  # fmt: skip
    """The page, HTML in one piece, of a checkpoint's network on an image.

    label: of the image; without one, gradients are those of the loss against the network's own prediction. pixel: row
    and column of the image, to be worked out in full. size: pixels a side of the part that is shown, at most. Raises
    DataError for files that cannot be used, ValueError for a pixel or a size that is not legal.
    """
    checkpoint, image = Path(checkpoint), Path(image)
    label = None if label is None else Path(label)
    network, metadata = load_network(checkpoint)
    pixels, classes = read_inputs(image, label, network, metadata.get("source") or {})
    window = place(network.sizes, (pixels.shape[1], pixels.shape[2]), size, pixel)
    part, target = cut(pixels, classes, window)
    chosen = None
    if pixel is not None:
        chosen = (pixel[0] - window.start[0] - window.halo, pixel[1] - window.start[1] - window.halo)
    names = {"checkpoint": checkpoint.name, "image": image.name} | ({"label": label.name} if label else {})
    return build(record(network, part, target, chosen), window, names)
