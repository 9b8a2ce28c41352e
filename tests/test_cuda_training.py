"""A narrow U-Net trained through the CUDA kernels: the same losses as NumPy's, nothing that waits for the device.

Without a GPU the kernels run in the simulator; MINITORCH_UNET_TEST_DEVICE=cuda takes a real one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from minitorch_unet import NonFiniteError, Tensor, UNet, autocast, optim, set_float32_matmul_precision
from minitorch_unet import functional as F
from minitorch_unet.backend import kernels_for, simulator_unavailable_reason, to_device
from minitorch_unet.backend.cuda import CudaKernels
from minitorch_unet.config import TrainConfig
from minitorch_unet.gradients import GradientNorms
from minitorch_unet.graphs import GraphedStep
from minitorch_unet.runs import Run
from minitorch_unet.steps import graphed_step, train_step

DEVICE = os.environ.get("MINITORCH_UNET_TEST_DEVICE", "simulate")
pytestmark = pytest.mark.skipif(
    DEVICE == "simulate" and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
only_simulated = pytest.mark.skipif(DEVICE != "simulate", reason="counts are the stand-in's")
STEPS = 20
SIZE, BASE, DEPTH = 44, 4, 2


def batch(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, labels (a disc: bright inside) and weights of one step."""
    rng = np.random.default_rng([7, seed])
    size = UNet(base=1, depth=DEPTH).sizes.output_size(SIZE)
    border = (SIZE - size) // 2
    row, column = np.mgrid[:SIZE, :SIZE]
    centre = rng.uniform(border, SIZE - border, 2)
    inside = np.hypot(row - centre[0], column - centre[1]) < 3
    image = (inside + 0.3 * rng.standard_normal((SIZE, SIZE))).astype(np.float32)
    labels = inside[border : border + size, border : border + size].astype(np.int64)
    labels[0, :2] = -100  # ignored
    return image[None, None], labels[None], np.where(labels == 1, 4, 1).astype(np.float32)[None]


class Training:
    """A network, its optimiser, and one step on the batch with a number."""

    def __init__(self, device: str, kind: str, norm: str = "none", dropout: float = 0.0, short: str = "") -> None:
        F.manual_seed(3)
        self.network = UNet(base=BASE, depth=DEPTH, norm=norm, dropout=dropout)
        self.network.to(device)
        self.device, self.short = device, short
        parameters = self.network.parameters()
        self.optimizer: optim.Optimizer = (
            optim.SGD(parameters, lr=0.02, momentum=0.9) if kind == "sgd" else optim.Adam(parameters, lr=0.01)
        )

    def step(self, images: Any, labels: Any, weights: Any) -> Tensor:
        with autocast(self.short or "float16", enabled=bool(self.short)):
            scores = self.network(Tensor(images))
        loss = F.cross_entropy(scores, labels, pixel_weight=weights, ignore_index=-100)
        self.optimizer.backward_and_step(loss)
        return loss

    def losses(self, steps: int = STEPS) -> np.ndarray:
        F.manual_seed(11)  # dropout's
        values = [self.step(*(to_device(a, self.device) for a in batch(i))).item() for i in range(steps)]
        return np.array(values)


@contextlib.contextmanager
def kernels_set(algorithm: str = "auto", precision: str = "highest") -> Iterator[CudaKernels]:
    kernels = kernels_for(to_device(np.zeros(1, np.float32), DEVICE))
    assert isinstance(kernels, CudaKernels)
    before, kernels.algorithm = kernels.algorithm, algorithm
    set_float32_matmul_precision(precision)
    try:
        yield kernels
    finally:
        kernels.algorithm = before
        set_float32_matmul_precision("highest")


# ------------------------------------------------------------------------------------------------ the same losses


@pytest.mark.parametrize(
    ("kind", "norm", "dropout"), [("sgd", "none", 0.0), ("sgd", "batch", 0.0), ("adam", "none", 0.3)]
)
def test_twenty_steps_are_numpys(kind: str, norm: str, dropout: float) -> None:
    """In float32, losses within 1e-4 relative of those computed with NumPy on the CPU; weights, too (Adam: 1e-3).

    Not Adam behind normalisation: there the gradients of the biases are nothing but rounding, and Adam, which divides
    by their size, makes whole steps of them.
    """
    bound = 1e-3 if kind == "adam" else 1e-4
    host, there = (Training(device, kind, norm, dropout) for device in ("cpu", DEVICE))
    expected = host.losses()
    np.testing.assert_allclose(there.losses(), expected, rtol=1e-4)
    assert expected[-5:].mean() < 0.8 * expected[:5].mean()
    for (name, p), q in zip(host.network.named_parameters(), there.network.parameters(), strict=True):
        error = np.linalg.norm(q.detach().to("cpu").numpy() - p.data)
        assert error < bound * max(np.linalg.norm(p.data), 0.01), name


@pytest.mark.parametrize("algorithm", ["naive", "tiled", "gemm", "mma"])
def test_every_rung_trains_alike(algorithm: str) -> None:
    """Also three TF32 products for one ("mma") count as float32."""
    expected = Training("cpu", "sgd").losses(5)
    with kernels_set(algorithm):
        np.testing.assert_allclose(Training(DEVICE, "sgd").losses(5), expected, rtol=1e-4)


# Factors of 11 bits (TF32, float16) or 8 (bfloat16), rounded at every layer: what 20 steps make of it at the least
# favourable, with a margin of two over what was seen.
@pytest.mark.parametrize(("precision", "short", "bound"), [
    ("high", "", 4e-3), ("highest", "float16", 6e-3), ("highest", "bfloat16", 5e-2),
])  # fmt: skip
def test_shorter_factors_stay_near(precision: str, short: str, bound: float) -> None:
    expected = Training("cpu", "sgd").losses()
    with kernels_set("mma", precision):
        found = Training(DEVICE, "sgd", short=short).losses()
    error = np.abs(found - expected) / expected
    assert error.max() < bound
    assert error.max() > 1e-6  # it is not float32 after all
    assert found[-5:].mean() < 0.8 * found[:5].mean()


# ------------------------------------------------------------------------------------------------------ gradients


FUNCTIONS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b), [(2, 4, 6, 7), (8, 4, 3, 3), (8,)]),
    "conv2d strided": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), [(1, 3, 7, 8), (5, 3, 3, 3)]),
    "conv2d_relu": (lambda x, w, b: F.conv2d_relu(x, w, b, padding=1), [(1, 4, 5, 6), (4, 4, 3, 3), (4,)]),
    "conv2d_relu of two": (lambda x, z, w: F.conv2d_relu((x, z), w), [(1, 4, 5, 6), (1, 4, 5, 6), (4, 8, 3, 3)]),
    "double_conv2d_relu": (
        lambda x, w, v: F.double_conv2d_relu(x, w, None, v, None), [(1, 4, 8, 7), (4, 4, 3, 3), (4, 4, 3, 3)]
    ),
    "conv_transpose2d": (lambda x, w, b: F.conv_transpose2d(x, w, b, 2), [(1, 8, 3, 4), (8, 4, 2, 2), (4,)]),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), [(2, 4, 6, 4)]),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True, relu=True), [(2, 4, 5, 5), (4,), (4,)]
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, to_device(np.arange(30).reshape(1, 6, 5) % 3, DEVICE)),
                      [(1, 3, 6, 5)]),
    "relu": (lambda x: F.relu(x), [(2, 3, 4, 5)]),
    "dropout": (lambda x: _dropped(x), [(2, 3, 4, 5)]),
}  # fmt: skip


def _dropped(x: Tensor) -> Tensor:
    F.manual_seed(5)
    return F.dropout(x, 0.4)


@pytest.mark.parametrize("algorithm", ["naive", "tiled", "gemm", "mma"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradients_against_finite_differences(name: str, algorithm: str) -> None:
    """Of the float32 kernels: each input moved along a direction in which the gradient has a share.

    `gradcheck` wants float64. In float32 a difference over 2e-3 has some four digits, if no ReLU bends on the way.
    """
    function, shapes = FUNCTIONS[name]
    if "conv" not in name and algorithm != "gemm":
        pytest.skip("has no ladder")
    rng = np.random.default_rng(1)
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]

    def outputs(moved: list[np.ndarray]) -> Tensor:
        return function(*(Tensor(to_device(value, DEVICE), requires_grad=True) for value in moved))

    with kernels_set(algorithm):
        weights = rng.standard_normal(outputs(values).shape)
        inputs = [Tensor(to_device(value, DEVICE), requires_grad=True) for value in values]
        (function(*inputs) * Tensor(to_device(weights.astype(np.float32), DEVICE))).sum().backward()
        for i, tensor in enumerate(inputs):
            assert tensor.grad is not None
            gradient = tensor.grad.to("cpu").numpy().astype(float)
            direction = rng.standard_normal(gradient.shape)
            direction = direction / np.linalg.norm(direction) + gradient / np.linalg.norm(gradient)
            direction /= np.linalg.norm(direction)
            ends = []
            for step in (1e-3, -1e-3):
                moved = [v + (step * direction).astype(np.float32) if j == i else v for j, v in enumerate(values)]
                ends.append((outputs(moved).detach().to("cpu").numpy() * weights).sum(dtype=np.float64))
            slope = (ends[0] - ends[1]) / 2e-3
            assert slope == pytest.approx((gradient * direction).sum(), rel=1e-2), (name, i)


# --------------------------------------------------------------------------------------- launches, waits, transfers


@only_simulated
@pytest.mark.parametrize(("kind", "norm", "dropout"), [("sgd", "none", 0.0), ("adam", "batch", 0.3)])
def test_a_step_waits_for_nothing_and_transfers_the_batch_alone(kind: str, norm: str, dropout: float) -> None:
    from minitorch_unet.simulator import standin

    training = Training(DEVICE, kind, norm, dropout)
    training.losses(1)
    arrays = batch(1)
    with standin.counting() as seen:
        training.step(*(to_device(a, DEVICE) for a in arrays))
    assert not seen.syncs
    assert not seen.downloads
    assert seen.uploads == len(arrays) and seen.upload_bytes == sum(a.nbytes for a in arrays)
    # Everything that touches maps is a kernel of this project. What remains for CuPy's own are fills, and of batch
    # normalisation the arithmetic on one number a channel.
    layers = 2 * (2 * DEPTH + 1)
    assert sum(seen.launches.values()) <= 2 + (25 * layers if norm == "batch" else 0)


@only_simulated
def test_launches_of_a_step_are_counted() -> None:
    """What a step of the paper's network launches grows with its layers, not with its pixels or channels."""
    from minitorch_unet.simulator import standin

    training = Training(DEVICE, "sgd")
    with standin.counting() as seen:
        training.step(*(to_device(a, DEVICE) for a in batch(0)))
    convolutions = 2 * (2 * DEPTH + 1) + 1
    raw = seen.raw_launches
    assert sum(n for name, n in raw.items() if name.startswith("conv_") and name.endswith("weight_grad")) \
        == convolutions + DEPTH  # fmt: skip
    assert raw["sgd"] == 1
    assert sum(raw.values()) < 12 * convolutions


# ------------------------------------------------------------------------------------------------ runs of training


def run_of(device: str, **settings: Any) -> Run:
    config = TrainConfig(base=BASE, depth=DEPTH, lr=0.02, momentum=0.9, **settings)
    F.manual_seed(config.seed)
    network = UNet(**config.network(1, 2))
    network.to(device)
    optimizer = optim.SGD(network.parameters(), config.lr, momentum=config.momentum)
    return Run(config, network, optimizer, None, {})


def losses_of(run: Run, steps: int = 6, graph: bool = False) -> list[float]:
    recorded = graphed_step(run) if graph else None
    found = []
    for i in range(steps):
        found.append(train_step(run, *batch(i), 0.02, recorded))
        run.step += 1
    return found


@pytest.mark.parametrize(("settings", "bound"), [
    ({}, 1e-4), ({"dropout": 0.3}, 1e-4), ({"clip": 0.5}, 1e-4), ({"precision": "tf32"}, 4e-3),
    ({"precision": "bfloat16"}, 5e-2), ({"precision": "float16"}, 6e-3), ({"precision": "float16", "clip": 0.5}, 6e-3),
])  # fmt: skip
def test_a_runs_steps_are_those_of_the_cpu(settings: dict[str, Any], bound: float) -> None:
    expected = losses_of(run_of("cpu", **settings | {"precision": "float32"}))
    np.testing.assert_allclose(losses_of(run_of(DEVICE, **settings)), expected, rtol=bound, atol=bound / 10)


@pytest.mark.parametrize("settings", [{"dropout": 0.3}, {"precision": "float16"}])
def test_a_runs_steps_recorded(settings: dict[str, Any]) -> None:
    plain, recorded = run_of(DEVICE, **settings), run_of(DEVICE, **settings)
    assert losses_of(recorded, graph=True) == losses_of(plain)
    if plain.scaler is not None and recorded.scaler is not None:
        assert recorded.scaler.state_dict() == plain.scaler.state_dict()


def norms_of(run: Run, steps: int = 5, graph: bool = False) -> list[dict[str, float | None]]:
    recorded, found = graphed_step(run) if graph else None, []
    with GradientNorms(run.network, run.scaler) as norms:
        norms.watching = True
        for i in range(steps):
            train_step(run, *batch(i), 0.02, recorded)
            found.append(norms.read())
            run.step += 1
    return found


@pytest.mark.parametrize("settings", [{}, {"precision": "float16"}])
def test_a_recorded_step_carries_the_norms_of_its_gradients_along(settings: dict[str, Any]) -> None:
    plain, recorded = run_of(DEVICE, **settings), run_of(DEVICE, **settings)
    found = norms_of(plain)
    assert norms_of(recorded, graph=True) == found and len({tuple(each.values()) for each in found}) == 5
    if not settings:
        here = norms_of(run_of("cpu"))
        for ours, theirs in zip(found, here, strict=True):
            assert ours == pytest.approx(theirs, rel=5e-3)


@only_simulated
def test_noting_norms_waits_for_nothing() -> None:
    from minitorch_unet.simulator import standin

    run = run_of(DEVICE)
    with GradientNorms(run.network) as norms, standin.counting() as seen:
        train_step(run, *batch(0), 0.02)
        before = seen.syncs.total()
        norms.watching = True
        train_step(run, *batch(1), 0.02)
        assert seen.syncs.total() == 2 * before
        norms.read()
        assert seen.syncs.total() == 2 * before + 1


def test_a_recorded_run_refuses_what_needs_the_host() -> None:
    with pytest.raises(ValueError, match="cannot clip"):
        graphed_step(run_of(DEVICE, clip=1.0))


def test_a_loss_that_is_not_finite_is_explained() -> None:
    run = run_of(DEVICE)
    images, labels, weights = batch(0)
    with pytest.raises(NonFiniteError, match="the loss is nan at step 0"):
        train_step(run, np.full_like(images, np.nan), labels, weights, 0.02)


# ---------------------------------------------------------------------------------------------------------- graphs


@pytest.mark.parametrize(("kind", "norm", "dropout"), [("sgd", "none", 0.3), ("adam", "batch", 0.0)])
def test_a_graph_replays_steps(kind: str, norm: str, dropout: float) -> None:
    """Recorded once and replayed, a step computes what it would have: also new batches, dropout, another rate."""
    plain, recorded = (Training(DEVICE, kind, norm, dropout) for _ in range(2))
    graphed = GraphedStep(recorded.step)
    F.manual_seed(11)
    expected = []
    for i in range(6):
        plain.optimizer.lr = 0.02 / (1 + i)
        expected.append(plain.step(*(to_device(a, DEVICE) for a in batch(i))).item())
    F.manual_seed(11)
    found = []
    for i in range(6):
        recorded.optimizer.lr = 0.02 / (1 + i)
        found.append(graphed(*batch(i), device=DEVICE).item())
    assert graphed.captured
    np.testing.assert_array_equal(found, expected)
    assert recorded.optimizer.steps == plain.optimizer.steps == 6
    for p, q in zip(plain.network.parameters(), recorded.network.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().to("cpu").numpy(), q.detach().to("cpu").numpy())


def test_a_graph_names_what_does_not_fit() -> None:
    training = Training(DEVICE, "sgd")
    with pytest.raises(ValueError, match="on the CPU, which has no graphs"):
        GraphedStep(training.step)(*batch(0))
    graphed = GraphedStep(training.step)
    graphed(*batch(0), device=DEVICE)
    images, labels, weights = batch(1)
    with pytest.raises(ValueError, match="array 0 is float64"):
        graphed(images.astype(float), labels, weights)
    with pytest.raises(ValueError, match="2 arrays given; the first call had 3"):
        graphed(images, labels)
