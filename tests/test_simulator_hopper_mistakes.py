"""Does the simulator find mistakes planted in the Hopper kernels? Each is found in check mode, on one small problem."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minitorch_unet import simulator
from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import hopper
from minitorch_unet.backend.cuda.conv_shapes import Window
from minitorch_unet.backend.cuda.hopper_plan import SMALL, Plan, WeightPlan
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.precision import named_dtype
from minitorch_unet.backend.reference import Kernels
from minitorch_unet.simulator import KernelError, raw, standin

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))

NUMBERS = "wrong numbers"
REFERENCE = Kernels(np)

# What stands in the source; what takes its place; what is found: the error's kind, or that the numbers are wrong.
Mistake = tuple[str, str, str]
BOTH: list[Mistake] = [
    ("barrier_wait(full + at.stage, at.parity);", ";", "race"),  # the loads have not been waited for
    ("barrier_wait(full + at.stage, at.parity);", "barrier_wait(full + at.stage, at.parity ^ 1);", "race|hang"),
    ("barrier_wait(empty + at.stage, at.parity ^ 1);", "barrier_wait(empty + at.stage, at.parity);", "hang"),
    ("barrier_wait(empty + at.stage, at.parity ^ 1);", ";", "race|mbarrier"),
    ("wgmma_wait<1>();", "wgmma_wait<2>();", "race"),  # the stage is handed back too early
    ("if (previous >= 0 && lane == 0) barrier_arrive(empty + previous);", ";", "hang"),
    ("wgmma_fence();", ";", "wgmma"),
    ("wgmma_commit();", ";", "race|wgmma"),
    ("wgmma_wait<0>();", ";", "race|wgmma"),
    ("barrier_init(empty + i, 8);", "barrier_init(empty + i, 4);", "race|mbarrier"),
    ("barrier_init(empty + i, 8);", "barrier_init(empty + i, 9);", "hang"),
    ("(1024 - ((shared_address(raw) + BARRIER_BYTES) & 1023)) % 1024", "0", "misaligned"),
]
FORWARD: list[Mistake] = [
    *BOTH,
    ("barrier_expect(arrival, FILTER_BYTES);", "barrier_expect(arrival, FILTER_BYTES + 128);", "hang"),
    ("barrier_expect(arrival, FILTER_BYTES);", "barrier_expect(arrival, FILTER_BYTES / 2);", "hang"),
    ("barrier_wait(full_boxes + box.stage, box.parity);", ";", "race"),
    ("previous_box = i == share - 1 ? box.stage : -1;", "previous_box = i == 1 ? box.stage : -1;", "race|mbarrier"),
    ("rows_down < 0 ? (i + 1 - share) * rows_down : i * rows_down", "0", NUMBERS),
    ("(at >> 4 ^ (row & 7))", "at >> 4", NUMBERS),  # not swizzled
    ("proxy_fence();", ";", "race"),
    ("if (threadIdx.x % 128 == 0) store_wait<PIECES - 1>();", ";", NUMBERS),
    ("if (threadIdx.x % 128 == 0) store_wait<0>();", ";", "tma"),
    ("(share > 1 ? member : member % s) * step_w", "(share > 1 ? member : member % s) * step_w + 1", NUMBERS),
]
TURNED: list[Mistake] = [
    ("min(0, (share - 1) * rows_down)", "0", NUMBERS),  # turned taps begin at the box's other end
    ("(i + 1 - share) * rows_down", "-i * rows_down", NUMBERS),  # and go up in it
    ("mn_major(tile, 64 * 128)", "mn_major(tile, 32 * 128)", NUMBERS),
    ("z * (TURNED ? 16 * 128 : 32)", "z * 32", NUMBERS),
]
WEIGHTS: list[Mistake] = [
    *BOTH,
    ("(8 + 2 * step_h) * 8 * 128", "8 * 8 * 128", "hang|race|mbarrier"),
    ("of_taps * step_w", "of_taps * step_w + 1", NUMBERS),
    ("share ? step_h * 8 * 128 : TILE_BYTES", "TILE_BYTES", NUMBERS),
    ("advanced(pixels, z * 16 * 128)", "advanced(pixels, z * 8 * 128)", NUMBERS),
]


def with_mistakes(code: str, mistakes: list[Mistake]) -> str:
    """The source with all of them in it: number i (from 1) is made while the variable `planted` is i."""
    for old in dict.fromkeys(old for old, *_ in mistakes):
        assert old in code, f"{old} no longer stands in the source"
        now = f"({old})" if not old.endswith(";") else old
        for i, (place, new, _) in enumerate(mistakes, 1):
            if place == old and old.endswith(";"):
                now = f"if (planted == {i}) {{ {new} }} else {{ {now} }}"
            elif place == old:
                now = f"(planted == {i} ? ({new}) : {now})"
        code = code.replace(old, now)
    return 'extern "C" { int planted; }\n' + code


class Planted:
    """Runs a pass in check mode with one of a source's mistakes made, and tells what was found."""

    def __init__(self) -> None:
        self.mistakes: dict[str, list[Mistake]] = {}
        self.number = 0
        self.build = raw._module

    def module(self, code: str, *rest: Any) -> Any:
        file = code.partition('#line 1 "')[2].partition('"')[0]
        if file not in self.mistakes:
            return self.build(code, *rest)
        module = self.build(with_mistakes(code, self.mistakes[file]), *rest)
        ctypes.c_int.in_dll(module.library, "planted").value = self.number
        return module

    def found(self, run: Any, expected: np.ndarray) -> str:
        try:
            result = run().get().astype("float64")
        except KernelError as error:
            return error.kind
        return "nothing" if np.allclose(result, expected, rtol=2**-7, atol=2**-7) else NUMBERS


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Planted]:
    planted = Planted()
    monkeypatch.setattr(raw, "_module", planted.module)
    monkeypatch.setattr(hopper, "conv_plan", lambda *_: Plan(SMALL, 1, 1))
    monkeypatch.setattr(hopper, "weight_plan", lambda *_: WeightPlan(128, 1))
    raw._function.cache_clear()
    simulator.set_mode("check")
    simulator.set_seed(11)
    yield planted
    simulator.set_mode(None)
    simulator.set_seed(None)
    raw._function.cache_clear()


def drawn(shape: tuple[int, ...], dtype: Any) -> Any:
    """(N, C, H, W) or (K, C, R, S) on the device, channels innermost."""
    n, c, h, w = shape
    values = np.random.default_rng(c).standard_normal((n, h, w, c)).astype(dtype)
    return standin.asarray(values).transpose(0, 3, 1, 2)


PASSES = {"forward": FORWARD, "input_grad": TURNED, "weight_grad": WEIGHTS}


@pytest.mark.parametrize(
    ("which", "number"), [(which, i) for which, mistakes in PASSES.items() for i in range(len(mistakes) + 1)]
)
def test_planted_mistake_is_found(planted: Planted, which: str, number: int) -> None:
    """A block that makes several tiles, each of more steps than the ring has stages; number 0: nothing is wrong."""
    kernels, window, half = CudaKernels(standin), Window((3, 3)), named_dtype("float16")
    rest = ((1, 1), (0, 0), (1, 1), 1)
    x, gy, weight = (drawn(s, half) for s in ((1, 128, 20, 18), (1, 64, 18, 16), (64, 128, 3, 3)))
    weight = weight / 24
    x_, gy_, weight_ = (array.get().astype("float64") for array in (x, gy, weight))
    run: Any
    if which == "forward":
        run = lambda: hopper.forward(kernels, [x], weight, None, window)  # noqa: E731
        expected = REFERENCE.conv2d(x_, weight_, None, *rest)
    elif which == "input_grad":
        run = lambda: hopper.input_grad(kernels, gy, weight, (20, 18), window)  # noqa: E731
        expected = REFERENCE.conv2d_input_grad(gy_, weight_, (20, 18), *rest)
    else:
        run = lambda: hopper.weight_grad(kernels, [x], gy, window)  # noqa: E731
        expected = REFERENCE.conv2d_weight_grad(x_, gy_, (3, 3), *rest)
    file = "conv_hopper_weights.cu" if which == "weight_grad" else "conv_hopper.cu"
    planted.mistakes, planted.number = {file: PASSES[which]}, number
    wanted = PASSES[which][number - 1][2] if number else "nothing"
    assert re.fullmatch(wanted, planted.found(run, expected))
