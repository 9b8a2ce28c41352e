"""One training step of a network on one image, really run, and everything that the page shows of it.

The step is run without the optimiser's update and with the network as it predicts: dropout off, batch normalisation by
its running statistics. Symbol key: C channels, H W size of the input, K classes, P Q size of the scores.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from .. import functional as F
from ..backend import get_num_threads
from ..data import IGNORE
from ..tensor import Tensor, no_grad
from ..unet import UNet
from .look import look_at, look_at_weights, statistics
from .pixels import Windows, receptive_fields
from .stages import Stage, run_through, stages_of
from .tape import Moment, Tape

Pair = tuple[int, int]


@dataclasses.dataclass
class StageRecord:
    """A stage and what was seen of it. `maps`, `gradients`, `weights` are as look.py makes them, or None."""

    stage: Stage
    shape: tuple[int, ...]  # (C, H, W)
    maps: dict[str, Any] | None = None
    gradients: dict[str, Any] | None = None
    weights: dict[str, Any] | None = None
    weight_gradient: dict[str, float] | None = None
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: {"forward": 0.0, "backward": 0.0})
    bytes: int = 0


@dataclasses.dataclass
class Recording:
    """Everything of one step. scores (K, P, Q), target (P, Q) with IGNORE, loss their mean cross-entropy."""

    network: UNet
    image: np.ndarray
    scores: np.ndarray
    target: np.ndarray
    labelled: bool  # whether the target is a label; else it is the network's own prediction
    loss: float
    stages: list[StageRecord]
    moments: list[Moment]
    constant: int  # bytes of what is always there: parameters, image, target
    pixels: list[dict[str, Any]]
    windows: dict[str, Any]
    threads: int


def prepared_pixels(out: Pair, chosen: Pair | None) -> list[Pair]:
    """The pixels of the scores for which everything is worked out: the chosen one, then a grid of three by three."""
    rows, columns = (sorted({n // 6, n // 2, n - 1 - n // 6}) for n in out)
    grid = list(itertools.product(rows, columns))
    middle = (out[0] // 2, out[1] // 2)
    first = middle if chosen is None else chosen
    return [first, *(pixel for pixel in grid if pixel != first)]


def record(network: UNet, image: np.ndarray, label: np.ndarray | None = None, pixel: Pair | None = None) -> Recording:
    """Run one step on image (C, H, W) float32 and look at all of it.

    label (P, Q) classes, IGNORE where nothing counts; without one the loss is that against the network's own
    prediction. pixel: a place in the scores that is worked out, besides a grid of nine. Raises ValueError for sizes
    that the network cannot take, and FloatingPointError for scores that are not finite.
    """
    network.eval()
    x = Tensor(np.ascontiguousarray(image[None]))
    with no_grad():  # also warms up: memory, threads, buffers of the kernels
        predicted = network.class_scores(network(x)).numpy()[0]
    if not np.isfinite(predicted).all():
        raise FloatingPointError("inspect: the network's scores are not finite; see `minitorch-unet doctor`")
    out = (predicted.shape[1], predicted.shape[2])
    target = predicted.argmax(0).astype(np.int64) if label is None else np.asarray(label, np.int64)
    if target.shape != out:
        raise ValueError(f"record: label has shape {target.shape}; the scores are {out[0]} x {out[1]}")

    records = {stage.name: StageRecord(stage, ()) for stage in stages_of(network)}
    chosen = prepared_pixels(out, pixel)
    windows = Windows(network, [r.stage for r in records.values()], (image.shape[1], image.shape[2]), chosen)
    records["input"].shape, records["input"].bytes = image.shape, image.nbytes
    records["input"].maps = look_at(image, relu=False)
    windows.seen("input", image)

    def seen(name: str, result: Tensor) -> None:
        if name in records:
            maps, entry = result.data[0], records[name]
            entry.shape = maps.shape
            entry.bytes = 0 if entry.stage.kind == "crop" else maps.nbytes
            windows.seen(name, maps)
            if entry.stage.kind != "crop":
                entry.maps = look_at(maps, entry.stage.relu)

    def arrived(name: str, gradient: Any) -> None:
        entry = records.get(name)
        if entry is not None and entry.maps is not None:
            entry.gradients = look_at(gradient[0], relu=False, chosen=entry.maps["channels"])

    parameters = network.parameters()
    for p in parameters:
        p.grad = None
    tape = Tape(seen, arrived)
    with tape.running():
        scores = run_through(network, x, tape.step)
        by_class = network.class_scores(scores)
        loss = tape.step("loss", lambda: F.cross_entropy(by_class, target[None], ignore_index=IGNORE))
        loss.backward()
    for entry in records.values():
        _look_at_parameters(entry)
    for moment in tape.moments:
        if moment.stage in records:
            records[moment.stage].seconds[moment.phase] += moment.seconds
    for p in parameters:
        p.grad = None
    constant = sum(p.data.nbytes for p in parameters) + x.data.nbytes + target.nbytes
    return Recording(
        network, image, by_class.detach().numpy()[0], target, label is not None, loss.item(), list(records.values()),
        tape.moments, constant, receptive_fields(network, image, chosen), windows.found(), get_num_threads(),
    )  # fmt: skip


def _look_at_parameters(entry: StageRecord) -> None:
    conv = entry.stage.conv
    if conv is not None:
        transposed = type(conv).__name__ == "ConvTranspose2d"
        entry.weights = look_at_weights(conv.weight.data, None if conv.bias is None else conv.bias.data, transposed)
        if conv.weight.grad is not None:
            entry.weight_gradient = statistics(conv.weight.grad.data)
