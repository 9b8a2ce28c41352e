"""One training step: its arithmetic, loss and update, and what is said when the loss is not finite."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from . import functional as F
from . import optim
from .backend import autocast, get_float32_matmul_precision, set_float32_matmul_precision, to_device, to_numpy
from .config import TrainConfig
from .data.weights import IGNORE
from .graphs import GraphedStep
from .nn import Module
from .runs import Run
from .tensor import NonFiniteError, Tensor, detect_anomaly


def train_step(
    run: Run, images: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, lr: float,
    graph: GraphedStep | None = None,
) -> float:  # fmt: skip
    """One update on a batch: images (N, C, H, W), labels and weights (N, P, Q). Returns the loss before it.

    `graph`: what `graphed_step` gave for this run. On a GPU the loss is read when the whole step is under way, so that
    the device is never left without work. Raises NonFiniteError, naming the operation, for a loss that is NaN or
    infinite; on the CPU before the weights are changed.
    """
    network, optimizer = run.network.train(), run.optimizer
    device = network.parameters()[0].device
    given = [images, labels] if weights is None else [images, labels, weights]
    seed_of_step(run)
    optimizer.lr = lr
    if graph is not None:
        loss = graph(*given, device=device)
    else:
        arrays = [to_device(array, device) for array in given]
        with arithmetic(run.config.precision):
            loss = forward(run, *arrays)
        if device == "cpu":
            _check(run, loss, arrays)
        with arithmetic(run.config.precision):
            _update(run, loss)
    if device != "cpu":
        _check(run, loss, given)
    return loss.item()


def graphed_step(run: Run) -> GraphedStep:
    """The run's step for `train_step`, to be recorded and replayed as one CUDA graph.

    Raises ValueError for settings that need the host within a step.
    """
    if run.config.clip:
        raise ValueError("a recorded step cannot clip gradients (clip): the host would have to read their norm")

    def step(*arrays: Any) -> Tensor:
        with arithmetic(run.config.precision):
            loss = forward(run, *arrays)
            _update(run, loss)
        return loss

    return GraphedStep(step)


def seed_of_step(run: Run) -> None:
    """Dropout's numbers depend on seed and step alone."""
    F.manual_seed((run.config.seed << 40) + run.step)


def forward(run: Run, images: Any, labels: Any, weights: Any = None) -> Tensor:
    """The loss of a batch that is on the network's device."""
    return _loss(run.config, run.network(Tensor(images)), labels, weights)


@contextlib.contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Compute in the precision of TrainConfig: "float32", "tf32", "bfloat16" or "float16"."""
    before = get_float32_matmul_precision()
    set_float32_matmul_precision("high" if precision == "tf32" else before)
    short = precision in ("bfloat16", "float16")
    try:
        with autocast(precision) if short else contextlib.nullcontext():
            yield
    finally:
        set_float32_matmul_precision(before)


def _update(run: Run, loss: Tensor) -> None:
    """Backward pass and update."""
    optimizer, scaler, limit = run.optimizer, run.scaler, run.config.clip
    if scaler is None and not limit:
        optimizer.backward_and_step(loss)
        return
    (loss if scaler is None else scaler.scale(loss)).backward()
    if limit:
        if scaler is not None:
            scaler.unscale_(optimizer)
        optim.clip_grad_norm_(optimizer.params, limit)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
    optimizer.zero_grad()


def _check(run: Run, loss: Tensor, arrays: list[Any]) -> None:
    if math.isfinite(loss.item()):
        return
    device = run.network.parameters()[0].device

    def again() -> Tensor:
        seed_of_step(run)
        with arithmetic(run.config.precision):
            return forward(run, *(to_device(array, device) for array in arrays))

    raise NonFiniteError(
        f"the loss is {loss.item()} at step {run.step}: {_first_non_finite(run.network, again)}; "
        "a lower learning rate, --warm-up or --clip may help"
    )


def _first_non_finite(network: Module, forward: Callable[[], Tensor]) -> str:
    """Where the loss's NaN or infinity comes from: a weight, or an operation found by computing it once more."""
    for name, p in network.named_parameters():
        if not np.isfinite(to_numpy(p.data)).all():
            return f"the last update made values of {name} infinite or NaN"
    try:
        with detect_anomaly():
            forward()
    except NonFiniteError as error:
        return str(error)
    return "the images hold values that are not finite"


def _loss(config: TrainConfig, scores: Tensor, target: Any, pixel_weight: Any) -> Tensor:
    if config.loss == "binary_cross_entropy":
        return _binary_cross_entropy(scores, target, pixel_weight)
    if config.loss == "focal":
        return F.focal_loss(scores, target)
    total = None
    if "cross_entropy" in config.loss:
        total = F.cross_entropy(scores, target, pixel_weight=pixel_weight)
    if "dice" in config.loss:
        dice = F.dice_loss(scores, target)
        total = dice if total is None else total + dice
    return total  # type: ignore[return-value]


def _binary_cross_entropy(scores: Tensor, target: Any, pixel_weight: Any) -> Tensor:
    """The weighted mean over the pixels that count, as in `F.cross_entropy`, of one map of scores (N, 1, P, Q)."""
    counts = target != IGNORE
    weight = counts * 1.0 if pixel_weight is None else counts * pixel_weight
    energy = F.binary_cross_entropy_with_logits(scores.reshape(target.shape), target * counts, weight, reduction="sum")
    return energy / Tensor(weight.sum(), dtype=energy.dtype)
