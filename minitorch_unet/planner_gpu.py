"""How much memory of a GPU a U-Net will need, found without one.

As in planner.py the engine's own code runs dry: on the stand-in for CuPy, with the CUDA kernels' own workspaces, with
all arrays asked for and none touched, while a memory pool counts them in pieces of 512 bytes as CuPy's does. Two things
are not counted: what the pool cannot use because of gaps, and the context that CUDA itself keeps (some hundred MiB).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from . import functional as F
from . import optim
from .backend import dry_gpu, dry_run
from .tensor import Tensor, no_grad
from .unet import UNet, UNetSizes

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda params: optim.SGD(params, momentum=0.9),
    "adam": optim.Adam,
}


class GpuPlan(NamedTuple):
    """What `plan_gpu` found, in bytes."""

    parameters: int
    state: int
    inputs: int
    total: int  # of a training step, at its fullest
    prediction: int  # of a forward pass alone, network and image included


def plan_gpu(
    size: int, base: int = 64, batch: int = 1, depth: int = 4, recompute: bool = False, optimizer: str = "sgd",
    in_channels: int = 1, num_classes: int = 2,
) -> GpuPlan:  # fmt: skip
    """Memory of one training step, and of a prediction, on images of size x size pixels, in float32 on a GPU.

    Raises ValueError for an illegal size or setting.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"plan: optimizer is {optimizer!r}; legal are {', '.join(map(repr, OPTIMIZERS))}")
    output = UNetSizes(depth).output_size(size)
    with dry_gpu() as pool:
        with dry_run():  # initial weights that take no memory
            network = UNet(in_channels, num_classes, base, depth, recompute=recompute)
        network.to("simulate")
        parameters = pool.used_bytes()
        image = Tensor(np.zeros((batch, in_channels, size, size), np.float32), device="simulate")
        inputs = pool.used_bytes() - parameters
        pool.free_all_blocks()
        with no_grad():
            network(image)
        prediction = pool.total_bytes()

        updates = OPTIMIZERS[optimizer](network.parameters())
        state = pool.used_bytes() - parameters - inputs
        label = Tensor(np.zeros((batch, output, output), np.int64), device="simulate")
        inputs = pool.used_bytes() - parameters - state
        pool.free_all_blocks()
        for _ in range(2):  # workspaces that are kept are there in the second
            updates.backward_and_step(F.cross_entropy(network(image), label))
        return GpuPlan(parameters, state, inputs, pool.total_bytes(), prediction)


def format_gpu_plan(plan: GpuPlan) -> str:
    """The plan as a table, in MiB."""
    rows = [
        ("parameters", plan.parameters),
        ("optimiser's state", plan.state),
        ("image and labels", plan.inputs),
        ("maps, gradients, workspaces at the fullest", plan.total - plan.parameters - plan.state - plan.inputs),
        ("training step on a GPU", plan.total),
        ("prediction alone", plan.prediction),
    ]
    return "\n".join(f"{what:50}{size / 2**20:9.1f} MiB" for what, size in rows)
