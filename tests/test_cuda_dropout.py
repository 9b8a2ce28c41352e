"""Dropout's kernel draws what NumPy draws on the host, bit for bit, and draws anew when a recorded step is played."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda_kernel_cases import DEVICE, LAYOUTS, Placed, fresh_kernels

from minitorch_unet import Tensor, grad, manual_seed
from minitorch_unet import functional as F
from minitorch_unet.backend import Draws, named_dtype, simulator_unavailable_reason, to_device, to_numpy
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.reference import Kernels
from minitorch_unet.graphs import GraphedStep

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(
    DEVICE == "simulate" and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
counted = pytest.mark.skipif(DEVICE != "simulate", reason="transfers are counted by the simulator only")
REFERENCE = Kernels(np)


@pytest.fixture(autouse=True)
def kernels() -> Iterator[CudaKernels]:
    """The kernels that serve Tensors on the device."""
    with fresh_kernels() as kernels:
        yield kernels


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bits_are_numpys(kernels: CudaKernels, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for shape in ((1,), (7, 9), (2, 3, 5, 7), (1, 8, 20, 16), (1, 1, 1, 8)):
        x = rng.standard_normal(shape, dtype=np.float32).astype(named_dtype(dtype))
        layouts = list(LAYOUTS) if len(shape) == 4 else ["first"]
        for layout in layouts:
            words = rng.integers(0, 2**64, 6, dtype=np.uint64).tolist()
            draws, p = Draws(tuple(words[:2]), tuple(words[2:])), float(rng.choice([0.1, 0.5, 0.7]))
            found = kernels.dropout(Placed(x, layout).on(kernels.xp), p, draws).get()
            right = REFERENCE.dropout(x, p, draws)
            assert found.dtype == right.dtype
            np.testing.assert_array_equal(found.view(np.uint8), np.ascontiguousarray(right).view(np.uint8))


@pytest.mark.parametrize("low", [2**64 - 1, 2**64 - 2, 2**64 - 5])
def test_the_counter_is_carried_on(kernels: CudaKernels, low: int) -> None:
    """Within one call the lowest word passes 2^64, and the words above it may be full, too."""
    x = np.ones(64, np.float32)
    for others in ((5, 6, 7), (2**64 - 1, 6, 7), (2**64 - 1, 2**64 - 1, 7), (2**64 - 1, 2**64 - 1, 2**64 - 1)):
        draws = Draws((1, 2), (low, *others))
        found = kernels.dropout(kernels.xp.asarray(x), 0.5, draws).get()
        np.testing.assert_array_equal(found, REFERENCE.dropout(x, 0.5, draws))


def test_a_value_that_starts_off_16_bytes(kernels: CudaKernels) -> None:
    x, draws = np.arange(41, dtype=np.float32), Draws((1, 2), (0, 0, 0, 0))
    found = kernels.dropout(kernels.xp.asarray(x)[1:], 0.5, draws).get()
    np.testing.assert_array_equal(found, REFERENCE.dropout(x[1:], 0.5, draws))


@counted
def test_nothing_is_copied_and_nobody_waits(kernels: CudaKernels) -> None:
    x = Tensor(np.ones((2, 3, 4, 5), np.float32), requires_grad=True, device=DEVICE)
    weights = Tensor(np.ones((2, 3, 4, 5), np.float32), device=DEVICE)
    with kernels.xp.counting() as seen:
        grad((F.dropout(x, 0.5) * weights).sum(), x)
    assert seen.raw_launches["dropout"] == 2  # there and back
    assert not seen.syncs and not seen.uploads and not seen.downloads


def test_the_same_on_every_device() -> None:
    found = []
    for device in ("cpu", DEVICE):
        manual_seed(5)
        x = Tensor(np.ones((2, 3, 4, 5), np.float32), device=device)
        found.append([to_numpy(F.dropout(x, 0.3).data) for _ in range(3)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def dropped(x: Any) -> Tensor:
    """Two masks in one step: the second stream begins where the first one ends."""
    return F.dropout(Tensor(x), 0.5) + 10 * F.dropout(Tensor(x), 0.25)


@pytest.mark.parametrize("seed_each_step", [False, True])
def test_a_recorded_step_draws_new_numbers(kernels: CudaKernels, seed_each_step: bool) -> None:
    """Those that it would draw if it were called: the generator goes on, or is set before each step."""
    found = []
    for recorded in (False, True):
        manual_seed(9)
        seeds = iter(range(100, 106))

        def before(seeds: Any = seeds) -> None:
            if seed_each_step:
                manual_seed(next(seeds))

        graphed = GraphedStep(dropped, before)
        x = to_device(np.ones((1, 3, 4, 7), np.float32), DEVICE)
        results = []
        for _ in range(6):
            if not recorded:
                before()
            results.append(to_numpy((graphed(x) if recorded else dropped(x)).data).copy())
        found.append(results)
        assert graphed.captured == recorded
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({a.tobytes() for a in found[1]}) == 6


def test_a_recorded_step_refuses_another_generator(kernels: CudaKernels) -> None:
    generator = np.random.default_rng(0)
    graphed = GraphedStep(lambda x: F.dropout(Tensor(x), 0.5, generator=generator))
    x = to_device(np.ones((1, 3, 4, 7), np.float32), DEVICE)
    graphed(x)
    graphed(x)
    with pytest.raises(ValueError, match="a recorded step draws from the engine's own generator"):
        graphed(x)
