"""Neighbouring slices on both sides of a random split

Slices of a stack, frames of a film and overlapping tiles look alike. Drawn at random, every validation slice has its
twin in the training part, and even a "network" that only copies the label of the most similar training slice is
judged brilliant. Split in order, with a gap, it is judged as what it is. The engine splits in order unless told
otherwise, and warns of images that look the same on both sides (`minitorch-unet data`, `doctor`: `similar-images`).
"""

import numpy as np
from scipy import ndimage

from minitorch_unet.data import Dataset, split_dataset
from minitorch_unet.data.entries import Entry
from minitorch_unet.data.labels import LabelRule
from minitorch_unet.train import prepare

# A stack of 30 slices, in which things change over some ten slices.
volume = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(30, 64, 64)), (6, 4, 4))
stack = np.rint(255 * (volume - volume.min()) / np.ptp(volume)).astype(np.uint8)
truth = (255 * (volume > 0)).astype(np.uint8)
entries = [Entry(f"{z:02}", f"{z:02}", f"{z:02}", lambda z=z: stack[z], lambda z=z: truth[z]) for z in range(30)]
dataset = Dataset(entries, LabelRule("binary", 255, 2, (0, 255)), 1, "stack")


def score_of_copying(by: str, gap: int) -> float:
    """Mean IoU in validation of the label of the most similar training slice."""
    training, validation = split_dataset(dataset, "20%", by, gap=gap)
    nearest = [min(training, key=lambda t: np.square(t.image - v.image).sum()) for v in validation]
    pairs = [(t.label > 0, v.label > 0) for t, v in zip(nearest, validation, strict=True)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


print(f"mistake: random split, IoU of a copying machine {score_of_copying('random', 0):.2f}")
for line in prepare(dataset, "20%", "random")[2]:
    if line.startswith(("order", "warning")):
        print("the engine says:", line)
print(f"right: in order with a gap of 6, IoU {score_of_copying('order', 6):.2f}")
