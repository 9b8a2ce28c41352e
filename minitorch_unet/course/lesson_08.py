"""The loss: softmax, cross-entropy and weights."""

from __future__ import annotations

from typing import Any

import numpy as np

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.data import weight_map

from . import Exercise, expect


def _check_start(answer: Any) -> None:
    for classes in (2, 3, 10):
        wanted = F.cross_entropy(mt.Tensor(np.zeros((1, classes, 2, 2))), np.zeros((1, 2, 2), int)).item()
        hint = f"Equal scores give each of the {classes} classes the probability 1/{classes}."
        expect(answer(classes), wanted, f"the loss for {classes} classes", hint)


def _check_log_softmax(answer: Any) -> None:
    rng = np.random.default_rng(8)
    moderate = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    high = np.array([1000.0, 0.0], np.float32).reshape(1, 2, 1, 1)
    uneven = np.array([[500.0, -500.0], [499.0, -502.0]], np.float32).reshape(1, 2, 1, 2)
    with np.errstate(all="ignore"):
        for name, scores, hint in (
            ("for moderate scores", moderate, "The classes are axis 1; each pixel is normalised by itself."),
            ("for the scores 1000 and 0", high, "exp(1000) is infinite: subtract the largest score first."),
            ("for pixels with scores near 500 and near -500", uneven, "Subtract the largest score of each pixel."),
        ):
            expect(answer(scores.copy()), F.log_softmax(mt.Tensor(scores), 1), f"log_softmax {name}", hint, 1e-5)


def _check_gradient(answer: Any) -> None:
    rng = np.random.default_rng(9)
    scores = mt.Tensor(rng.standard_normal((2, 3, 2, 4)), requires_grad=True)
    labels, weights = rng.integers(0, 3, (2, 2, 4)), rng.uniform(0.5, 9, (2, 2, 4))
    labels[0, 0, 1] = labels[1, 1, 2] = -100
    F.cross_entropy(scores, labels, pixel_weight=weights).backward()
    used = weights[labels != -100].sum()
    hint = (
        f"The weights of the pixels that count add up to {used:.4g} (of all pixels: {weights.sum():.4g}); "
        "a pixel labelled -100 has gradient 0."
    )
    found = answer(F.softmax(scores.detach(), 1).numpy().copy(), labels.copy(), weights.copy())
    expect(found, scores.grad, "the gradient", hint)


def _check_gap(answer: Any) -> None:
    for width, w0, sigma in ((1, 10.0, 5.0), (5, 10.0, 5.0), (9, 4.0, 8.0)):
        cells = np.zeros((60, 40 + width), int)
        cells[:, :20], cells[:, 20 + width :] = 1, 2
        wanted = weight_map(cells, w0, sigma)[30, 20 + width // 2] - 1
        distance = (width + 1) // 2
        hint = f"From the middle pixel it is {distance} to the nearest pixel of either cell: d1 + d2 = {2 * distance}."
        expect(answer(width, w0, sigma), wanted, f"the weight in a gap of {width}, w0 {w0:g}, sigma {sigma:g}", hint)


EXERCISES = [
    Exercise(
        name="loss_at_start",
        question="""loss_at_start(classes): the loss of a network that gives all classes the same score in every
pixel. (A training that begins far from this number has a mistake in it.)""",
        start="""
def loss_at_start(classes):
    ...
""",
        solution="""
def loss_at_start(classes):
    return np.log(classes)
""",
        wrong=[
            "def loss_at_start(classes):\n    return np.log2(classes)\n",
            "def loss_at_start(classes):\n    return np.log(1 / classes)\n",
            "def loss_at_start(classes):\n    return 1 - 1 / classes\n",
        ],
        check=_check_start,
    ),
    Exercise(
        name="log_softmax",
        question="""log_softmax(scores): for scores (N, C, H, W), the logarithms of the softmax over the classes, in
the same shape. Any finite score is legal, also 1000 in float32. Use NumPy only.""",
        start="""
def log_softmax(scores):
    ...
""",
        solution="""
def log_softmax(scores):
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
""",
        wrong=[
            """
def log_softmax(scores):  # overflows
    e = np.exp(scores)
    return np.log(e / e.sum(axis=1, keepdims=True))
""",
            """
def log_softmax(scores):  # the largest of all pixels
    shifted = scores - scores.max()
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
""",
            """
def log_softmax(scores):  # the wrong axis
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
""",
            """
def log_softmax(scores):  # no overflow, but the logarithm of 0
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.log(e / e.sum(axis=1, keepdims=True))
""",
        ],
        check=_check_log_softmax,
    ),
    Exercise(
        name="loss_gradient",
        question="""loss_gradient(p, labels, weights): the gradient of the mean weighted cross-entropy with respect
to the scores. p (N, C, H, W) are the probabilities, labels (N, H, W) the classes, -100 where a pixel is ignored,
weights (N, H, W). "Mean" divides by the sum of the weights of the pixels that count. Use NumPy only.""",
        start="""
def loss_gradient(p, labels, weights):
    ...
""",
        solution="""
def loss_gradient(p, labels, weights):
    w = np.where(labels == -100, 0, weights)
    one_hot = labels[:, None] == np.arange(p.shape[1]).reshape(1, -1, 1, 1)
    return w[:, None] * (p - one_hot) / w.sum()
""",
        wrong=[
            """
def loss_gradient(p, labels, weights):  # the ignored pixels' weights are in the mean
    w = np.where(labels == -100, 0, weights)
    one_hot = labels[:, None] == np.arange(p.shape[1]).reshape(1, -1, 1, 1)
    return w[:, None] * (p - one_hot) / weights.sum()
""",
            """
def loss_gradient(p, labels, weights):  # ignored pixels are pulled, too
    one_hot = labels[:, None] == np.arange(p.shape[1]).reshape(1, -1, 1, 1)
    return weights[:, None] * (p - one_hot) / weights.sum()
""",
            """
def loss_gradient(p, labels, weights):  # the number of pixels instead of the sum of weights
    w = np.where(labels == -100, 0, weights)
    one_hot = labels[:, None] == np.arange(p.shape[1]).reshape(1, -1, 1, 1)
    return w[:, None] * (p - one_hot) / (labels != -100).sum()
""",
            """
def loss_gradient(p, labels, weights):  # uphill
    w = np.where(labels == -100, 0, weights)
    one_hot = labels[:, None] == np.arange(p.shape[1]).reshape(1, -1, 1, 1)
    return w[:, None] * (one_hot - p) / w.sum()
""",
        ],
        check=_check_gradient,
    ),
    Exercise(
        name="gap_weight",
        question="""gap_weight(width, w0, sigma): two large cells face each other across a straight gap of `width`
pixels, an odd number. What does the second term of equation 2 give the pixel in the middle? Distances are from
pixel to pixel: the neighbour of a cell has distance 1.""",
        start="""
def gap_weight(width, w0, sigma):
    ...
""",
        solution="""
def gap_weight(width, w0, sigma):
    d1 = d2 = (width + 1) / 2
    return w0 * np.exp(-((d1 + d2) ** 2) / (2 * sigma**2))
""",
        wrong=[
            "def gap_weight(width, w0, sigma):\n    return w0 * np.exp(-(width**2) / (2 * sigma**2))\n",
            "def gap_weight(width, w0, sigma):\n    return w0 * np.exp(-((width + 1) ** 2) / sigma**2)\n",
            """
def gap_weight(width, w0, sigma):  # the sum of squares is not the square of the sum
    d1 = d2 = (width + 1) / 2
    return w0 * np.exp(-(d1**2 + d2**2) / (2 * sigma**2))
""",
        ],
        check=_check_gap,
    ),
]
