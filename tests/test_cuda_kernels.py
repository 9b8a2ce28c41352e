"""The CUDA kernels against the reference in float64: random shapes, layouts and types, in the simulator or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cuda_kernel_cases import (
    CASES,
    DEVICE,
    OVERRIDES,
    Placed,
    exactly,
    find_cases,
    flat,
    mapped,
    new_kernels,
    on_device,
    overrides_of,
    problems,
)

from minitorch_unet import simulator
from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import optim
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.reference import Kernels

pytest.importorskip("ml_dtypes")
simulated = DEVICE == "simulate"
pytestmark = pytest.mark.skipif(
    simulated and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)

find_cases()
DRAWS = {"fast": 200, "check": 30}
# Overrides whose results are no arrays that could be compared, and the tests that they have instead.
TESTED_ELSEWHERE = {
    "check": "test_cuda_loss.py::test_illegal_labels_are_raised_when_a_value_is_read",
    "new_clock": "test_cuda_optim.py::test_a_recorded_step_takes_another_learning_rate",
    "record_draws": "test_cuda_dropout.py::test_a_recorded_step_draws_new_numbers",
}


@pytest.fixture(scope="module")
def kernels() -> CudaKernels:
    return new_kernels()


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut also the small parameters of these tests into several blocks' work."""
    monkeypatch.setattr(optim, "CHUNK", 256)


@pytest.fixture(params=["fast", "check"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    """How the simulator builds kernels; a GPU knows only one way."""
    if not simulated and request.param == "check":
        pytest.skip("of the simulator only")
    simulator.set_mode(request.param)
    yield request.param
    simulator.set_mode(None)


@pytest.mark.parametrize("name", sorted(CASES))
def test_values(name: str, mode: str, kernels: CudaKernels) -> None:
    found = []
    for seed in range(max(3, int(DRAWS[mode] * CASES[name].share))):
        if not simulated:
            found += problems(name, seed, kernels)
            continue
        with kernels.xp.counting() as seen:
            found += problems(name, seed, kernels)
        assert seen.raw_launches, f"seed {seed}: no kernel was launched"
    assert found == []


def test_every_override_has_a_case() -> None:
    assert sorted([*CASES, *TESTED_ELSEWHERE]) == OVERRIDES
    for place in TESTED_ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (Path(__file__).parent / file).read_text(encoding="utf-8")


def test_overrides_are_found_by_introspection() -> None:
    """The list would be worth nothing if an override could be missing in it."""

    class WithOneMore(CudaKernels):
        def sum_pool2d(self, *arguments: object) -> None:
            """Another override."""

    assert sorted(set(overrides_of(WithOneMore)) - set(OVERRIDES)) == ["sum_pool2d"]
    assert {"max_pool2d", "softmax_cross_entropy", "sgd_update_all", "join"} <= set(OVERRIDES)


def test_a_wrong_result_is_noticed(kernels: CudaKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(*arguments: object) -> object:
        result = Kernels.channel_sums(kernels, *arguments)
        return result * (1 + 1e-5)

    assert problems("channel_sums", 3, kernels) == []
    monkeypatch.setattr(kernels, "channel_sums", spoilt)
    assert len(problems("channel_sums", 3, kernels)) == 1


# ------------------------------------------------- what the kernels leave to CuPy

IN_FLOAT64 = sorted(set(CASES) - {"count_step", "adjust_scale"})


@pytest.mark.skipif(not simulated, reason="launches are counted by the simulator only")
@pytest.mark.parametrize("name", IN_FLOAT64)
def test_float64_is_served_by_the_reference(name: str, kernels: CudaKernels) -> None:
    for seed in range(3):
        arguments = CASES[name].make(np.random.default_rng(seed))

        def in_float64(placed: Placed) -> Placed:
            x = placed.values
            return placed if x.dtype.kind in "iub" else placed._replace(values=x.astype(np.float64))

        given = on_device(kernels.xp, mapped(in_float64, arguments))
        with kernels.xp.counting() as seen:
            found = flat(CASES[name].run(kernels, given))
        expected = flat(CASES[name].run(Kernels(np), exactly(arguments)))
        assert not set(seen.raw_launches) - {"count_step"}
        for mine, right in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine.get(), right, rtol=1e-9, atol=1e-9)


MAPS = ["relu_bias_backward", "channel_sums", "add_into", "pad", "join", "relu", "cast", "max_pool2d",
        "max_pool2d_scatter", "max_pool2d_gather", "channel_moments", "scale_shift"]  # fmt: skip


@pytest.mark.parametrize("name", MAPS)
def test_empty_batch(name: str, kernels: CudaKernels) -> None:
    for seed in range(4):
        arguments = CASES[name].make(np.random.default_rng(seed))
        empty = mapped(lambda p: Placed(p.values[:0] if p.values.ndim == 4 else p.values, "first"), arguments)
        found = flat(CASES[name].run(kernels, on_device(kernels.xp, empty)))
        expected = flat(CASES[name].run(Kernels(np), exactly(empty)))
        assert [a.shape for a in found] == [a.shape for a in expected]


@pytest.mark.parametrize("name", ["channel_sums", "relu_bias_backward", "channel_moments", "batch_norm_backward",
                                  "softmax_cross_entropy"])  # fmt: skip
def test_sums_are_the_same_bits_every_time(name: str, kernels: CudaKernels) -> None:
    def results() -> list[bytes]:
        arguments = CASES[name].make(np.random.default_rng(7))
        return [a.get().tobytes() for a in flat(CASES[name].run(kernels, on_device(kernels.xp, arguments)))]

    assert results() == results()
