"""The training run that both libraries make: sizes, initial weights and batches, all drawn by NumPy from one seed.

The network is the paper's, valid and four levels deep, but two channels wide (31 thousand weights); 204 x 204 pixels
give 20 x 20 scores. Weights are named and laid out as in both libraries' state dictionaries.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SEED = 1505_04597
BASE, DEPTH, SIZE, OUTPUT = 2, 4, 204, 20
STEPS, LEARNING_RATE, MOMENTUM = 20, 0.01, 0.99


class Batch(NamedTuple):
    """One image (1, 1, SIZE, SIZE) and its class numbers (1, OUTPUT, OUTPUT)."""

    image: np.ndarray
    labels: np.ndarray


def initial_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Gaussian float64 weights, sqrt(2 / incoming values) wide, and small biases, drawn in the order of the names."""
    rng = np.random.default_rng([SEED, 0])
    weights = {}
    for name in sorted(shapes):
        shape = shapes[name]
        incoming = shape[0] if name.startswith("up.") else int(np.prod(shape[1:]))
        width = 0.05 if len(shape) == 1 else np.sqrt(2 / incoming)
        weights[name] = rng.standard_normal(shape) * width
    return weights


def batches() -> list[Batch]:
    """For each step noise with a bright disc somewhere in the scored centre, and the disc as the label."""
    rng = np.random.default_rng([SEED, 1])
    margin = (SIZE - OUTPUT) // 2
    rows, columns = np.ogrid[:SIZE, :SIZE]
    drawn = []
    for _ in range(STEPS):
        row, column = rng.uniform(margin, SIZE - margin, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < rng.uniform(4, 9) ** 2
        image = disc + 0.5 * rng.standard_normal((SIZE, SIZE))
        drawn.append(Batch(image[None, None], disc[None, margin:-margin, margin:-margin].astype(np.int64)))
    return drawn


def magnitude(weights: dict[str, np.ndarray]) -> float:
    """One number that tells whether two NumPy versions drew the same weights and batches."""
    drawn = [*weights.values(), *(array for batch in batches() for array in batch)]
    return float(sum(np.abs(array).sum() for array in drawn))
