"""Mistakes planted in the convolution kernels: each must be found, by the simulator's checks or by a wrong result.

A line of a source is replaced, and the draws of test_cuda_conv.py are run with what comes out. A mistake that nobody
finds means that the tests of the kernels prove less than they seem to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from cuda_conv_draws import PASSES, Draws, Spied, one_tile

from minitorch_unet import simulator
from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import conv_plan
from minitorch_unet.backend.cuda.launcher import Launcher
from minitorch_unet.backend.cuda.sources import source
from minitorch_unet.backend.precision import set_float32_matmul_precision
from minitorch_unet.simulator import KernelError, standin
from minitorch_unet.simulator.module import loaded

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))


class Bug(NamedTuple):
    rung: str
    direction: str
    file: str
    right: str
    wrong: str
    found: str  # the kind of a KernelError, or "value": a wrong result
    dtype: str = "float32"


BUGS = {
    "no barrier before a tile is overwritten": Bug(
        "tiled", "forward", "conv_tiled.cu", "    __syncthreads();  // nobody may", "    // nobody may", "race"
    ),
    "no barrier before a tile is read": Bug(
        "tiled", "weight_grad", "conv_tiled.cu", "    __syncthreads();\n#pragma", "\n#pragma", "race"
    ),
    "one tap too many": Bug(
        "tiled", "forward", "conv_operands.cuh", "inside = tap < conv.taps();", "inside = tap <= conv.taps();",
        "out of bounds",
    ),
    "no end of the filters": Bug(
        "tiled", "forward", "conv_operands.cuh", "return inside && j + i * STRIDE < conv.columns;", "return inside;",
        "out of bounds",
    ),
    "no end of the pixels": Bug(
        "tiled", "weight_grad", "conv_operands.cuh", "return z0 + i * STRIDE < pixels && k < conv.rows;",
        "return k < conv.rows;", "out of bounds",
    ),
    "no border": Bug(
        "tiled", "forward", "conv_operands.cuh", "return inside && meets[i] >> tap & 1;",
        "return inside;", "out of bounds",
    ),
    "the taps not turned": Bug(
        "tiled", "input_grad", "conv_operands.cuh", "turned = conv.taps() - 1 - tap;",
        "turned = tap < conv.taps() ? tap : -1;", "value",
    ),
    "the mask lets zeros through": Bug(
        "tiled", "input_grad", "conv_shapes.cuh", "if (!(to_float(gate.value[i]) > 0)) v[i] = 0;",
        "if (to_float(gate.value[i]) < -0.5f) v[i] = 0;", "value",
    ),
    "a row too many is written": Bug(
        "naive", "forward", "conv_naive.cu", "if (m >= conv.rows) return;\n  const int np = (int)m / conv.q,",
        "if (m > conv.rows) return;\n  const int np = (int)m / conv.q,", "out of bounds",
    ),
    "no barrier between two buffers": Bug(
        "gemm", "forward", "conv_gemm.cu", "    __syncthreads();\n  }", "  }", "race"
    ),
    "a buffer read that is being filled": Bug(
        "gemm", "forward", "conv_gemm.cu", "left[buffer ^ 1][z][part", "left[buffer][z][part", "race"
    ),
    "a part left out": Bug(
        "gemm", "weight_grad", "conv_finish.cu", "split < splits; split++", "split + 1 < splits; split++", "value"
    ),
    "too few copies waited for": Bug(
        "mma", "forward", "conv_mma.cuh", "cp_async_wait<STAGES - 2>();", "cp_async_wait<STAGES>();", "async",
        "bfloat16",
    ),
    "a stage filled that is still read": Bug(
        "mma", "input_grad", "conv_mma.cuh", "    __syncthreads();              // and", "    // and", "race",
        "bfloat16",
    ),
    "the stages overwritten by the sums": Bug(
        "mma", "weight_grad", "conv_mma.cuh", "  __syncthreads();  // the stages' memory is free", "", "race",
        "bfloat16",
    ),
    "the halves of a fragment exchanged": Bug(
        "mma", "forward", "conv_mma.cuh", "quarter * 2 + lane / 8 % 2", "quarter * 2 + (lane / 8 + 1) % 2", "value",
        "bfloat16",
    ),
    "chunks exchanged when written only": Bug(
        "mma", "forward", "conv_mma.cuh", "unsigned char* to = tile + chunk_at<Operand>(operand.line, operand.lane);",
        "unsigned char* to = tile + operand.line * 128 + operand.lane * 16;", "value", "bfloat16",
    ),
}  # fmt: skip


class Spoilt(Launcher):
    """A launcher whose sources have a mistake in them."""

    def __init__(self, bug: Bug) -> None:
        super().__init__(standin)
        self.bug = bug

    def _module(self, file: str, variant: tuple[tuple[str, str], ...]) -> Any:
        if (file, variant) not in self._modules:
            macros = "".join(f"#define {name} {value}\n" for name, value in variant)
            code = macros + self.whole(file, set())
            self._modules[file, variant] = standin.RawModule(code=code, options=("-std=c++17",))
        return self._modules[file, variant]

    def whole(self, file: str, seen: set[str]) -> str:
        """The text of a source with all that it includes, and the mistake: no file is needed for it."""
        if file in seen:
            return ""
        seen.add(file)
        text = source(file).replace("#pragma once", "")
        if file == self.bug.file:
            text = text.replace(self.bug.right, self.bug.wrong)
        return re.sub(r'#include "([^"]+)"', lambda found: self.whole(found[1], seen), text)


@pytest.fixture(autouse=True)
def _check_mode(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(conv_plan, "ENGINES", one_tile((128, 64)))
    conv_plan.tiling.cache_clear()
    simulator.set_mode("check")
    yield
    simulator.set_mode(None)
    conv_plan.tiling.cache_clear()


@pytest.mark.parametrize("name", BUGS)
def test_is_found(name: str) -> None:
    bug = BUGS[name]
    times = source(bug.file).count(bug.right)
    assert times == 1, f"{bug.file} has {bug.right!r} {times} times"
    kernels = Spied(standin)
    kernels.launch = Spoilt(bug).launch
    kernels.algorithm, kernels.splits = bug.rung, 2 if bug.file == "conv_finish.cu" else 1
    found = None
    for seed in range(12):
        draws = Draws(standin, bug.dtype, [seed, 5], 10)
        draws.vector = 16 // draws.dtype.itemsize
        try:
            found = "value" if PASSES[bug.direction](kernels, draws) else None
        except KernelError as error:
            found = error.kind
        if found:
            break
    assert found == bug.found


# What is slow but not wrong: values of shared memory that lie in the same bank and are read together.
CLASH = Bug("mma", "forward", "conv_mma.cuh", "(chunk ^ exchange)", "(chunk + 0 * exchange)", "slow", "bfloat16")


@pytest.mark.parametrize(
    ("rung", "dtype", "precision"),
    [("gemm", "float32", "highest"), ("mma", "float32", "high"), ("mma", "bfloat16", "highest")],
)
def test_no_bank_is_asked_twice(rung: str, dtype: str, precision: str) -> None:
    set_float32_matmul_precision(precision)
    try:
        assert passes_of_loads(Spied(standin), rung, dtype) == 1
    finally:
        set_float32_matmul_precision("highest")


def test_clashes_are_counted() -> None:
    kernels = Spied(standin)
    kernels.launch = Spoilt(CLASH).launch
    assert passes_of_loads(kernels, "mma", "bfloat16") > 1.5


def passes_of_loads(kernels: Spied, rung: str, dtype: str) -> float:
    """How many passes loads from shared memory took, as a multiple of the fewest that would do; of all three passes."""
    simulator.set_mode("count")
    kernels.algorithm, kernels.splits = rung, 1
    draws = Draws(standin, dtype, 0)
    x, gy = draws.map(1, 64, (10, 18), whole=True), draws.map(1, 64, (8, 16), whole=True)
    weight = draws.map(64, 64, (3, 3), whole=True).astype("float32")
    rest = ((1, 1), (0, 0), (1, 1), 1)
    for module in loaded():
        module.stats()
    kernels.conv2d(x, weight, None, *rest)
    kernels.conv2d_input_grad(gy, weight, (10, 18), *rest)
    kernels.conv2d_weight_grad(x, gy, (3, 3), *rest)
    rows = []
    for module in loaded():
        module.stats()
        rows += [row for row in module.traffic if (row.space, row.kind) == ("shared", "load")]
    return sum(row.units for row in rows) / sum(row.least for row in rows)
