"""The mask of the field of view is used as the label

DRIVE's folders hold, beside each retina and its vessels, a mask of the camera's round window, and it is the one that
is called `mask`. Trained on it a network quickly reaches a wonderful score, and draws a disc. Readers look whether
labels are such discs, and refuse them; `minitorch-unet doctor` names it `field-of-view`.
"""

import tempfile
from pathlib import Path

import numpy as np

from minitorch_unet.data import open_dataset, write_image

rows, columns = np.mgrid[:96, :96] - 47.5
disc = np.hypot(rows, columns) < 45
vessels = disc & ((np.abs(rows) % 24 < 3) | (np.abs(columns) % 31 < 3))
noise = np.random.default_rng(0).integers(0, 30, disc.shape)
retina = np.where(disc, 120 + noise - 60 * vessels, noise // 10).astype(np.uint8)
with tempfile.TemporaryDirectory() as scratch:
    for name, label in (("mask", disc), ("manual", vessels)):
        for part, picture in (("image", retina), ("label", (255 * label).astype(np.uint8))):
            folder = Path(scratch, name, part)
            folder.mkdir(parents=True)
            write_image(folder / "01.png", picture)
    try:
        open_dataset(Path(scratch, "mask"))
    except ValueError as error:
        print("the engine says:", str(error).replace(scratch, "..."))
    dataset = open_dataset(Path(scratch, "manual"))
    print(f"right: vessels are {dataset[0].label.mean():.0%} of the picture")
