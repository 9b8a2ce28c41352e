"""This engine's forward pass and training step: times, called and as one CUDA graph; memory; agreement with float64.

Precisions as in rival.py: "float32" (as accurate as float32), "tf32" (factors of products rounded to TF32), "bfloat16"
(maps in bfloat16, weights in float32). A step is the loss (softmax cross-entropy), backward and SGD with momentum.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gpu_child import Failed, Item
from gpu_device import Device, network_of, on_host, relative_error

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.graphs import GraphedStep

from .rival import BATCHES, BLOCK, PRECISIONS

# Relative rms errors against float64 that a small network's scores and weights' gradients may have.
TOLERANCES = {"float32": (1e-5, 1e-5), "tf32": (5e-3, 5e-2), "bfloat16": (3e-2, 0.25)}


def items(settings: dict[str, Any]) -> list[Item]:
    d = Device(settings)
    agree = [(f"agreement, {precision}", lambda p=precision: agreement(d, p)) for precision in PRECISIONS]
    timed = [
        (f"{precision}, batch {batch}", lambda p=precision, b=batch: timed_network(d, settings, p, b))
        for batch in BATCHES[: 1 if d.simulated else None]
        for precision in PRECISIONS
    ]
    return [*agree, *timed]


@contextlib.contextmanager
def precision_set(precision: str) -> Iterator[None]:
    """Inside, products are computed as `precision` says."""
    before = mt.get_float32_matmul_precision()
    mt.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with mt.autocast("bfloat16") if precision == "bfloat16" else contextlib.nullcontext():
            yield
    finally:
        mt.set_float32_matmul_precision(before)


def small_network(seed: int) -> tuple[mt.UNet, np.ndarray, np.ndarray]:
    """A network of one pooling, an image and labels, the same for the same seed; on the processor."""
    mt.manual_seed(seed)
    network = mt.UNet(base=8, depth=1)
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((2, 1, 28, 28), dtype=np.float32)
    out = network.sizes.output_size(28)
    return network, image, rng.integers(0, 2, (2, out, out))


def gradients(network: mt.UNet, image: np.ndarray, label: np.ndarray, device: str) -> list[np.ndarray]:
    """Scores, and the gradients of all parameters, on the host."""
    scores = network(mt.Tensor(image).to(device))
    F.cross_entropy(scores, mt.Tensor(label).to(device).data).backward()
    return [on_host(scores.data), *(on_host(p.grad.data) for p in network.parameters())]


def agreement(d: Device, precision: str) -> dict[str, Any]:
    """Errors of scores and gradients of small networks against the reference in float64 on the processor.

    The median over networks: rounding can turn a ReLU on or off, which is no error but changes all gradients.
    """
    scores, largest = [], []
    for seed in range(3 if d.simulated else 7):
        network, image, label = small_network(seed)
        exact = gradients(small_network(seed)[0].to(np.float64), image.astype(np.float64), label, "cpu")
        with precision_set(precision):
            found = gradients(network.to(d.name), image, label, d.name)
        errors = [relative_error(a, b) for a, b in zip(found, exact, strict=True)]
        scores.append(errors[0])
        largest.append(max(errors[1:]))
    row = {"scores_error": statistics.median(scores), "gradient_error": statistics.median(largest)}
    for (name, value), legal in zip(row.items(), TOLERANCES[precision], strict=True):
        if not value < legal:  # NaN as well
            raise Failed(f"{name} {value:.1e} exceeds {legal:.0e}", **row)
    return row


def timed_network(d: Device, settings: dict[str, Any], precision: str, batch: int) -> dict[str, Any]:
    """Seconds of forward pass and step, each called and replayed as a graph; peaks of memory, in MiB, in a step."""
    size, base, depth = network_of(settings)
    mt.manual_seed(0)
    network = mt.UNet(base=base, depth=depth).to(d.name)
    rng = np.random.default_rng(0)
    image = mt.Tensor(rng.standard_normal((batch, 1, size, size), dtype=np.float32)).to(d.name)
    out = network.sizes.output_size(size)
    label = d.xp.asarray(rng.integers(0, 2, (batch, out, out)))
    optimizer = mt.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99)
    row: dict[str, Any] = {"size": size, "base": base, "depth": depth, "batch": batch, "precision": precision}

    def forward() -> mt.Tensor:
        with mt.no_grad():
            return network(image)

    def step(image: Any = image.data, label: Any = label) -> mt.Tensor:
        loss = F.cross_entropy(network(mt.Tensor(image)), label)
        optimizer.backward_and_step(loss)
        return loss

    def graph_seconds() -> dict[str, Any]:
        graphed = GraphedStep(step)
        for _ in range(GraphedStep.WARM_UP + 1):
            graphed(image.data, label)
        took = d.called_seconds(lambda: graphed(image.data, label), BLOCK)
        return {"step_graph_s": took, "graph_loss": float(on_host(graphed(image.data, label).data))}

    with precision_set(precision):
        row["forward_s"] = d.called_seconds(forward, BLOCK)
        row["step_s"] = d.called_seconds(step, BLOCK)
        row["loss"] = float(on_host(step().data))
        found = d.seconds([forward])
        row |= {"forward_graph_s": found.get("seconds"), "forward_timed": found["timed"]}
        for name, more in (("peak", lambda: peak_memory(d, step)), ("graph", graph_seconds)):
            try:
                row |= more()
            except Exception as error:  # without these figures the others still count
                row[f"{name}_failed"] = f"{type(error).__name__}: {error}"[:300]
    if not np.isfinite(row["loss"]):
        raise Failed(f"the loss is {row['loss']}", **row)
    return row


def peak_memory(d: Device, step: Callable[[], Any]) -> dict[str, float]:
    """MiB in use, and held by the memory pool, at the fullest moment of a step."""
    pool = d.xp.get_default_memory_pool()
    pool.free_all_blocks()
    if d.simulated:
        step()
        return {"reserved_mib": pool.total_bytes() / 2**20}
    from cupy.cuda.memory_hook import MemoryHook

    class Peak(MemoryHook):
        """Follows what is in use."""

        name = "peak"
        now = most = pool.used_bytes()

        def malloc_postprocess(self, **how: Any) -> None:
            self.now += how["mem_size"]
            self.most = max(self.most, self.now)

        def free_postprocess(self, **how: Any) -> None:
            self.now -= how["mem_size"]

    with Peak() as seen:
        step()
    return {"peak_mib": seen.most / 2**20, "reserved_mib": pool.total_bytes() / 2**20}
