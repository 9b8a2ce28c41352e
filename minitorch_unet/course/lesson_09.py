"""Training: a U-Net learns touching cells."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet import nn

from . import Exercise, WrongAnswer, expect


def _check_example(answer: Any) -> None:
    rng = np.random.default_rng(9)
    cases = (40, 50, 8, 6, 0, 0), (40, 50, 8, 6, 32, 42), (30, 31, 12, 5, 7, 11)
    for height, width, size_out, halo, top, left in cases:
        image, label = rng.standard_normal((2, height, width)), rng.integers(0, 2, (height, width))
        padded = np.pad(image, ((0, 0), (halo, halo), (halo, halo)), mode="reflect")
        found = answer(padded.copy(), label.copy(), top, left, size_out, halo)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise WrongAnswer(f"example returned a {type(found).__name__}; it must be (image, label)")
        where = f"the tile at ({top}, {left})"
        expect(found[1], label[top : top + size_out, left : left + size_out], f"the label of {where}",
               "The label is not padded: its pixel (top, left) is the first.")  # fmt: skip
        size_in = size_out + 2 * halo
        hint = (
            f"It is {size_in} = {size_out} + 2 * {halo} pixels wide. Row 0 of `padded` is row -{halo} of the image; "
            f"the window begins {halo} above the tile."
        )
        expect(found[0], padded[:, top : top + size_in, left : left + size_in], f"the image of {where}", hint)


def _reference(network: nn.Module, optimizer: Any, image: np.ndarray, label: np.ndarray) -> float:
    loss = F.cross_entropy(network(mt.Tensor(image)), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _check_step(answer: Any) -> None:
    rng = np.random.default_rng(10)
    image, label = rng.standard_normal((1, 1, 9, 9)), rng.integers(0, 2, (1, 7, 7))
    networks = [nn.Conv2d(1, 2, 3, dtype=np.float64) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [mt.optim.SGD(network.parameters(), lr=0.5) for network in networks]
    for step in range(3):
        wanted = _reference(networks[0], optimizers[0], image, label)
        found = answer(networks[1], optimizers[1], image, label)
        expect(found, wanted, f"the loss of step {step + 1}", "It is F.cross_entropy of the scores, before the update.")
        hint = "The order is: loss, zero_grad, backward, step."
        hint += " The first step was right: what is left over from it?" if step else ""
        for (name, p), q in zip(networks[1].named_parameters(), networks[0].parameters(), strict=True):
            expect(p, q, f"the {name} after step {step + 1}", hint)


def _check_iou(answer: Any) -> None:
    rng = np.random.default_rng(11)
    for ignored in (0, 9):
        prediction, label = rng.integers(0, 3, (2, 6, 7))
        label.ravel()[rng.permutation(42)[:ignored]] = -100
        counted = label != -100
        both = int(np.sum((prediction == 1) & (label == 1)))
        either = int(np.sum(counted & ((prediction == 1) | (label == 1))))
        hint = f"{both} pixels are cell in both, {either} in at least one, and {ignored} are ignored (label -100)."
        expect(answer(prediction.copy(), label.copy()), both / either, "the IoU", hint)


EXERCISES = [
    Exercise(
        name="example",
        question="""example(padded, label, top, left, size_out, halo): one training example for the tile whose
scores begin at row `top`, column `left` of the label (H, W) and are `size_out` pixels wide and high. `padded` (C, H
+ 2 halo, W + 2 halo) is the image, mirrored by `halo` pixels on every side already. Return (image window, label
window).""",
        start="""
def example(padded, label, top, left, size_out, halo):
    ...
    return image_window, label_window
""",
        solution="""
def example(padded, label, top, left, size_out, halo):
    size_in = size_out + 2 * halo
    image_window = padded[:, top : top + size_in, left : left + size_in]
    return image_window, label[top : top + size_out, left : left + size_out]
""",
        wrong=[
            """
def example(padded, label, top, left, size_out, halo):  # the window begins where the tile does
    size_in = size_out + 2 * halo
    image_window = padded[:, top + halo : top + halo + size_in, left + halo : left + halo + size_in]
    return image_window, label[top : top + size_out, left : left + size_out]
""",
            """
def example(padded, label, top, left, size_out, halo):  # the label is not padded
    size_in = size_out + 2 * halo
    image_window = padded[:, top : top + size_in, left : left + size_in]
    return image_window, label[top + halo : top + halo + size_out, left + halo : left + halo + size_out]
""",
            """
def example(padded, label, top, left, size_out, halo):  # as many pixels in as out
    image_window = padded[:, top : top + size_out, left : left + size_out]
    return image_window, label[top : top + size_out, left : left + size_out]
""",
        ],
        check=_check_example,
    ),
    Exercise(
        name="train_step",
        question="""train_step(network, optimizer, image, label): one training step with `F.cross_entropy`, for
arrays image (N, C, H, W) and label (N, P, Q). Return the loss before the update, as a number.""",
        start="""
def train_step(network, optimizer, image, label):
    ...
""",
        solution="""
def train_step(network, optimizer, image, label):
    loss = F.cross_entropy(network(mt.Tensor(image)), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
""",
        wrong=[
            """
def train_step(network, optimizer, image, label):  # gradients add up
    loss = F.cross_entropy(network(mt.Tensor(image)), label)
    loss.backward()
    optimizer.step()
    return loss.item()
""",
            """
def train_step(network, optimizer, image, label):  # forgotten before they are used
    loss = F.cross_entropy(network(mt.Tensor(image)), label)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()
""",
            """
def train_step(network, optimizer, image, label):  # the softmax is in the loss already
    loss = F.cross_entropy(F.softmax(network(mt.Tensor(image)), 1), label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
""",
        ],
        check=_check_step,
    ),
    Exercise(
        name="iou",
        question="""iou(prediction, label): intersection over union of class 1, for integers (H, W). Where the label
is -100 the pixel is ignored, whatever was predicted.""",
        start="""
def iou(prediction, label):
    ...
""",
        solution="""
def iou(prediction, label):
    p, t = (a[label != -100] == 1 for a in (prediction, label))
    return (p & t).sum() / (p | t).sum()
""",
        wrong=[
            "def iou(prediction, label):\n    return (prediction == label)[label != -100].mean()\n",
            """
def iou(prediction, label):  # what is predicted on ignored pixels counts
    p, t = prediction == 1, label == 1
    return (p & t).sum() / (p | t).sum()
""",
            """
def iou(prediction, label):  # every class but 0, not class 1
    p, t = (a[label != -100] != 0 for a in (prediction, label))
    return (p & t).sum() / (p | t).sum()
""",
            """
def iou(prediction, label):  # that is the Dice score
    p, t = (a[label != -100] == 1 for a in (prediction, label))
    return 2 * (p & t).sum() / (p.sum() + t.sum())
""",
        ],
        check=_check_iou,
    ),
]
