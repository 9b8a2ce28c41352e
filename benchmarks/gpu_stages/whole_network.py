"""This engine's forward pass and training step: times, called and as one CUDA graph; memory; agreement with float64.

Precisions as in rival.py: "float32" (as accurate as float32), "tf32" (factors of products rounded to TF32), "bfloat16"
(maps in bfloat16, weights in float32). A step is the loss (softmax cross-entropy), backward and SGD with momentum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gpu_child import Failed, Item
from gpu_device import Device, network_of, on_host, relative_error

import minitorch_unet as mt
from minitorch_unet import functional as F

from .rival import BATCHES, BLOCK, PRECISIONS

# Largest relative rms error of the scores and of the first and last weight's gradient against float64, small network.
TOLERANCES = {"float32": 1e-5, "tf32": 1e-2, "bfloat16": 6e-2}


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


def small_network() -> tuple[mt.UNet, np.ndarray, np.ndarray]:
    """A network of two levels, an image and labels, the same at every call; on the processor."""
    mt.manual_seed(0)
    network = mt.UNet(base=16, depth=1)
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 1, 36, 36), dtype=np.float32)
    out = network.sizes.output_size(36)
    return network, image, rng.integers(0, 2, (2, out, out))


def gradients(network: mt.UNet, image: np.ndarray, label: np.ndarray, device: str) -> list[np.ndarray]:
    """Scores, and the gradients of all parameters, on the host."""
    scores = network(mt.Tensor(image).to(device))
    F.cross_entropy(scores, mt.Tensor(label).to(device).data).backward()
    return [on_host(scores.data), *(on_host(p.grad.data) for p in network.parameters())]


def agreement(d: Device, precision: str) -> dict[str, Any]:
    """Errors of the scores and gradients of a small network against the reference in float64 on the processor."""
    network, image, label = small_network()
    exact = gradients(small_network()[0].to(np.float64), image.astype(np.float64), label, "cpu")
    with precision_set(precision):
        found = gradients(network.to(d.name), image, label, d.name)
    errors = [relative_error(a, b) for a, b in zip(found, exact, strict=True)]
    row = {"scores_error": errors[0], "largest_gradient_error": max(errors[1:])}
    if not max(errors) < TOLERANCES[precision]:  # NaN as well
        raise Failed(f"errors {errors[0]:.1e}, {max(errors[1:]):.1e} exceed {TOLERANCES[precision]:.0e}", **row)
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

    def step() -> mt.Tensor:
        loss = F.cross_entropy(network(image), label)
        optimizer.backward_and_step(loss)
        return loss

    with precision_set(precision):
        for name, work in (("forward", forward), ("step", step)):
            row |= {f"{name}_{key}": value for key, value in both_ways(d, work).items()}
        row |= peak_memory(d, step)
        row["loss"] = float(on_host(step().data))
    if not np.isfinite(row["loss"]):
        raise Failed(f"the loss is {row['loss']}", **row)
    return row


def both_ways(d: Device, work: Callable[[], Any]) -> dict[str, Any]:
    """{"s", "graph_s"}: seconds of a call, one after another as in training, and of a replay."""
    called = d.called_seconds(work, BLOCK)
    found = d.seconds([work])
    if found["timed"] != "graph":
        return {"s": called, "graph_failed": found["timed"]}
    return {"s": called, "graph_s": found["seconds"]}


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
