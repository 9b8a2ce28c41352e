"""A trained U-Net on one image, opened up: every stage, a pixel's way through them, one training step on tape.

`examine` reads the files, runs the step (record.py) and returns the page (building.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from ..data import SyntheticCells
from ..predict import load_network
from ..unet import UNet
from .building import build
from .record import record
from .window import LARGEST, cut, place, read_inputs

__all__ = ["LARGEST", "examine"]

CELLS_SEED = 3_000_000  # of the drawn cells: none that the demonstration has trained on


def examine(
    checkpoint: str | os.PathLike[str], image: str | os.PathLike[str] | None = None,
    label: str | os.PathLike[str] | None = None, pixel: tuple[int, int] | None = None, size: int = LARGEST,
) -> str:  # fmt: skip
    """The page, HTML in one piece, of a checkpoint's network on an image; without one, on drawn cells and their label.

    label: of the image; without one, gradients are those of the loss against the network's own prediction. pixel: row
    and column of the image, to be worked out in full. size: pixels a side of the part that is shown, at most. Raises
    DataError for files that cannot be used, ValueError for a pixel or a size that is not legal.
    """
    network, metadata = load_network(checkpoint)
    given = {"checkpoint": checkpoint, "image": image, "label": label}
    names = {what: Path(path).name for what, path in given.items() if path is not None}
    classes: np.ndarray | None
    if image is None:
        if label is not None:
            raise ValueError("inspect: a label needs its image")
        pixels, classes = drawn_cells(network, size)
        names["image"] = f"drawn cells, {size} × {size}"
    else:
        files = Path(image), None if label is None else Path(label)
        pixels, classes = read_inputs(*files, network, metadata.get("source") or {})
    window = place(network.sizes, (pixels.shape[1], pixels.shape[2]), size, pixel)
    part, target = cut(pixels, classes, window)
    chosen = None
    if pixel is not None:
        chosen = (pixel[0] - window.start[0] - window.halo, pixel[1] - window.start[1] - window.halo)
    return build(record(network, part, target, chosen), window, names)


def drawn_cells(network: UNet, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Touching cells as the demonstration draws them, and their label."""
    channels = network.config["in_channels"]
    if channels not in (1, 3):
        raise ValueError(f"inspect: the network takes images of {channels} channels; name one, cells are drawn in grey")
    sample = SyntheticCells(1, size, seed=CELLS_SEED)[0]
    return np.repeat(sample.image, channels, axis=0), sample.label
