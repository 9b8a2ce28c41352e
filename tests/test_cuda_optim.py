"""Optimisers on a GPU: one launch for all parameters, the same bits as NumPy's, and steps that are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cuda_kernel_cases import DEVICE, new_kernels

from minitorch_unet import Tensor, amp, optim
from minitorch_unet.backend import devices, simulator_unavailable_reason, to_device, to_numpy
from minitorch_unet.backend.cuda import optim as cuda_optim
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.reference import Kernels
from minitorch_unet.backend.updates import Clock
from minitorch_unet.graphs import GraphedStep
from minitorch_unet.nn import Parameter

pytestmark = pytest.mark.skipif(
    DEVICE == "simulate" and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
counted = pytest.mark.skipif(DEVICE != "simulate", reason="launches are counted by the simulator only")
SHAPES = [(6, 5, 3, 3), (6,), (5, 6, 2, 2), (1,), (1000,), (3, 1, 1, 1), (2, 7, 3, 3)]


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[CudaKernels]:
    """The kernels that serve Tensors on the device; blocks serve little, so that parameters need several."""
    monkeypatch.setattr(cuda_optim, "CHUNK", 64)
    xp = devices.library(DEVICE)
    before = devices._kernels.get(xp)
    devices._kernels[xp] = kernels = new_kernels()
    yield kernels
    devices._kernels.pop(xp)
    if before is not None:
        devices._kernels[xp] = before


@pytest.fixture
def numpy_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy's arithmetic on the CPU, not the compiled kernels'."""
    monkeypatch.setitem(devices._kernels, np, Kernels(np))


def arrays(seed: int, shapes: list[tuple[int, ...]] = SHAPES) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]


def parameters(device: str, shapes: list[tuple[int, ...]] = SHAPES) -> list[Parameter]:
    """Parameters in the kernels' memory order, (K, R, S, C)."""
    order = (0, 2, 3, 1)
    made = []
    for a in arrays(0, shapes):
        a = np.ascontiguousarray(a.transpose(order)).transpose(0, 3, 1, 2) if a.ndim == 4 else a
        made.append(Parameter(to_device(a, device)))
    return made


def trained(
    device: str, make: Callable[[list[Parameter]], optim.Optimizer], steps: int = 4
) -> tuple[list[np.ndarray], optim.Optimizer]:
    params = parameters(device)
    optimizer = make(params)
    for step in range(steps):
        for p, g in zip(params, arrays(step + 1), strict=True):
            p.grad = Tensor(to_device(g, device))
        optimizer.lr = 0.1 / (step + 1)
        optimizer.step()
    return [to_numpy(p.data) for p in params], optimizer


OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda params: optim.SGD(params, lr=0.1),
    "sgd with momentum": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.25, weight_decay=0.01),
    "sgd with nesterov": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "adam": lambda params: optim.Adam(params, lr=0.1, weight_decay=0.01),
    "adamw": lambda params: optim.AdamW(params, lr=0.1, weight_decay=0.01),
    "rmsprop": lambda params: optim.RMSprop(params, lr=0.1, momentum=0.5),
}


@pytest.mark.usefixtures("numpy_reference")
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_the_bits_are_those_of_numpy(name: str) -> None:
    """Every operation is rounded as NumPy rounds it: nothing is fused, roots and quotients are exact."""
    (right, _), (found, optimizer) = (trained(device, OPTIMIZERS[name]) for device in ("cpu", DEVICE))
    assert optimizer.steps == 4
    for mine, truth in zip(found, right, strict=True):
        np.testing.assert_array_equal(mine, truth)


@counted
def test_all_parameters_are_updated_in_one_launch(kernels: CudaKernels) -> None:
    for name, kernel in (("sgd with momentum", "sgd"), ("adamw", "adam")):
        params = parameters(DEVICE)
        optimizer = OPTIMIZERS[name](params)
        for p, g in zip(params, arrays(1), strict=True):
            p.grad = Tensor(to_device(np.ascontiguousarray(g), DEVICE))
        with kernels.xp.counting() as seen:
            optimizer.step()
        assert dict(seen.raw_launches) == {"count_step": 1, kernel: 1}
        assert not seen.syncs and not seen.uploads


@counted
def test_more_parameters_than_one_launch_takes(kernels: CudaKernels) -> None:
    params = [Parameter(to_device(np.full(1 + i % 3, i, np.float32), DEVICE)) for i in range(170)]
    optimizer = optim.SGD(params, lr=0.5)
    for i, p in enumerate(params):
        p.grad = Tensor(to_device(np.full(1 + i % 3, i, np.float32), DEVICE))
    with kernels.xp.counting() as seen:
        optimizer.step()
    assert seen.raw_launches["sgd"] == 3
    assert all((to_numpy(p.data) == i / 2).all() for i, p in enumerate(params))


@pytest.mark.parametrize("name", ["sgd with momentum", "adam"])
def test_backward_and_step_is_backward_and_step(name: str) -> None:
    found = []
    for at_once in (False, True):
        params = parameters(DEVICE)
        optimizer = OPTIMIZERS[name](params)
        for step in range(3):
            factors = [Tensor(to_device(a, DEVICE)) for a in arrays(step + 1)]
            loss = sum(((p * p * f).sum() for p, f in zip(params, factors, strict=True)), Tensor(0.0, device=DEVICE))
            if at_once:
                optimizer.backward_and_step(loss)
            else:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found.append([to_numpy(p.data) for p in params])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_parameters_that_the_kernel_cannot_serve(kernels: CudaKernels) -> None:
    """float64, a view with gaps, a gradient in another order, nothing at all: each is updated as it should be."""
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(4), rng.standard_normal((3, 8)).astype(np.float32), np.zeros((0, 3), np.float32)]
    gradients = [rng.standard_normal(a.shape).astype(a.dtype) for a in values]
    xp = kernels.xp
    on_device = [xp.asarray(values[0]), xp.asarray(np.repeat(values[1], 2, 1))[:, ::2], xp.asarray(values[2])]
    velocities = [xp.zeros_like(a) for a in on_device]
    given = [xp.asarray(gradients[0]), xp.asarray(np.asfortranarray(gradients[1])), xp.asarray(gradients[2])]
    clock = kernels.new_clock(0.1, 1)
    kernels.sgd_update_all(on_device, given, velocities, clock, 0.9, 0.0, 0.0, False)
    for found, p, g in zip(on_device, values, gradients, strict=True):
        np.testing.assert_allclose(found.get(), p - 0.1 * g, rtol=1e-6)


def test_a_clock_of_the_cpu_is_refused(kernels: CudaKernels) -> None:
    with pytest.raises(TypeError, match="clock is a Clock; updates on a GPU need the kernels' own"):
        kernels.sgd_update_all([], [], [], Clock(0.1), 0.0, 0.0, 0.0, False)


def test_parameters_on_two_devices_are_refused() -> None:
    params = [Parameter(np.zeros(2, np.float32)), Parameter(to_device(np.zeros(2, np.float32), DEVICE))]
    with pytest.raises(ValueError, match=r"SGD: params are on the devices .*cpu.*; they must be on one"):
        optim.SGD(params)


@pytest.mark.parametrize("name", ["sgd with momentum", "adam"])
def test_state_goes_from_device_to_device(name: str) -> None:
    """Saved on the GPU after two steps, continued on the CPU, and the other way round."""
    whole, _ = trained("cpu", OPTIMIZERS[name])
    for first, second in ((DEVICE, "cpu"), ("cpu", DEVICE)):
        values, optimizer = trained(first, OPTIMIZERS[name], steps=2)
        state = optimizer.state_dict()
        assert state["steps"] == 2 and state["lr"] == 0.05
        params = [Parameter(to_device(a, second)) for a in values]
        again = OPTIMIZERS[name](params)
        again.load_state_dict(state)
        for step in (2, 3):
            for p, g in zip(params, arrays(step + 1), strict=True):
                p.grad = Tensor(to_device(g, second))
            again.lr = 0.1 / (step + 1)
            again.step()
        for found, right in zip(params, whole, strict=True):
            np.testing.assert_allclose(to_numpy(found.data), right, atol=1e-5)


# -------------------------------------------------------------- recorded steps


@pytest.mark.parametrize("name", ["sgd with momentum", "adam"])
def test_a_recorded_step_takes_another_learning_rate(name: str) -> None:
    """Played as a graph with a rate of its own in each step: what the same steps give that are called."""
    found = []
    for recorded in (False, True):
        params = parameters(DEVICE)
        optimizer = OPTIMIZERS[name](params)
        factors = [Tensor(to_device(a, DEVICE)) for a in arrays(1)]

        def step(x: Any, params: Any = params, optimizer: Any = optimizer, factors: Any = factors) -> Tensor:
            terms = ((p * p * f).sum() for p, f in zip(params, factors, strict=True))
            loss = sum(terms, Tensor(x).sum())
            optimizer.backward_and_step(loss)
            return loss

        rates = iter([0.1, 0.05, 0.02, 0.01, 0.03, 0.04])

        def before(optimizer: Any = optimizer, rates: Any = rates) -> None:
            optimizer.lr = next(rates)

        graphed = GraphedStep(step, before)
        losses = []
        for i in range(6):
            x = to_device(np.full(2, i, np.float32), DEVICE)
            if recorded:
                losses.append(graphed(x).item())
            else:
                before()
                losses.append(step(x).item())
        assert graphed.captured == recorded
        assert optimizer.steps == 6
        found.append((losses, [to_numpy(p.data) for p in params]))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------ loss scaling


def scaled_steps(device: str, spoil: int | None, unscale: bool, make: Callable[[Any], optim.Optimizer]) -> Any:
    """Five steps with a scaled loss, the gradients of step `spoil` infinite."""
    params = parameters(device)
    optimizer, scaler = make(params), amp.GradScaler(init_scale=64, growth_interval=2)
    scales = []
    for step in range(5):
        optimizer.zero_grad()
        factors = arrays(step + 1)
        if step == spoil:
            factors[2].flat[3] = np.inf
        terms = ((p * Tensor(to_device(f, device))).sum() for p, f in zip(params, factors, strict=True))
        scaler.scale(sum(terms, Tensor(0.0, device=device))).backward()
        if unscale:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return [to_numpy(p.data) for p in params], scales, optimizer.steps, scaler.state_dict()


@pytest.mark.parametrize("unscale", [False, True])
@pytest.mark.parametrize("spoil", [None, 0, 3])
@pytest.mark.parametrize("name", ["sgd with momentum", "adam", "rmsprop"])
@pytest.mark.usefixtures("numpy_reference")
def test_scaled_steps_are_those_of_numpy(name: str, spoil: int | None, unscale: bool) -> None:
    right, found = (scaled_steps(device, spoil, unscale, OPTIMIZERS[name]) for device in ("cpu", DEVICE))
    assert found[1:] == right[1:]
    assert found[2] == (5 if spoil is None else 4)  # a step that was left out is not counted
    for mine, truth in zip(found[0], right[0], strict=True):
        assert np.isfinite(mine).all()
        np.testing.assert_array_equal(mine, truth)


@counted
def test_a_scaled_step_never_waits_for_the_device(kernels: CudaKernels) -> None:
    params = parameters(DEVICE)
    optimizer, scaler = optim.SGD(params, lr=0.1, momentum=0.9), amp.GradScaler()
    factors = [Tensor(to_device(np.ascontiguousarray(a), DEVICE)) for a in arrays(1)]

    def step() -> bool | None:
        optimizer.zero_grad()
        scaler.scale(sum((p * f).sum() for p, f in zip(params, factors, strict=True))).backward()
        done = scaler.step(optimizer)
        scaler.update()
        return done

    step()
    with kernels.xp.counting() as seen:
        assert step() is None  # not known yet
    assert not seen.syncs and not seen.uploads
    assert dict(seen.raw_launches) == {"check_gradients": 1, "count_step": 1, "sgd": 1, "adjust_scale": 1}
