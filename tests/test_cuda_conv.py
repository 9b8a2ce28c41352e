"""The rungs of the CUDA convolutions against the reference in float64, in the simulator or on a GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cuda_conv_draws import CHECKED, DEVICE, PASSES, VARIANTS, Draws, Spied, new_kernels, one_tile

from minitorch_unet import simulator
from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import conv_plan
from minitorch_unet.backend.precision import set_float32_matmul_precision

pytest.importorskip("ml_dtypes")
simulated = DEVICE == "simulate"
pytestmark = pytest.mark.skipif(
    simulated and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
DRAWS = {"fast": 200, "check": 30}  # for each rung and pass, shared between its variants


@pytest.fixture(scope="module")
def kernels() -> Spied:
    return new_kernels()


RUNS = [
    (mode, rung, *variant)
    for mode in DRAWS
    for rung, variants in VARIANTS.items()
    for variant in variants[: CHECKED[rung] if mode == "check" else None]
]
ENGINES = {"mma": ("tf32", "3xtf32", "16 bits")}  # where they are not called as the rung


@pytest.fixture(params=RUNS, ids=lambda run: "-".join(run[:4]))
def run(
    request: pytest.FixtureRequest, kernels: Spied, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str, str]]:
    """How the simulator builds kernels (a GPU knows only one way), a rung, and the type of its maps; all set."""
    mode, rung, dtype, precision, tile = request.param
    if not simulated and mode == "check":
        pytest.skip("of the simulator only")
    monkeypatch.setattr(kernels, "algorithm", rung)
    monkeypatch.setattr(conv_plan, "ENGINES", one_tile(tile))
    set_float32_matmul_precision(precision)
    simulator.set_mode(mode)
    conv_plan.tiling.cache_clear()
    yield mode, rung, dtype
    conv_plan.tiling.cache_clear()
    simulator.set_mode(None)
    set_float32_matmul_precision("highest")


@pytest.mark.parametrize("direction", sorted(PASSES))
def test_passes(direction: str, run: tuple[str, str, str], kernels: Spied) -> None:
    mode, rung, dtype = run
    count = -(-DRAWS[mode] // (len(VARIANTS[rung]) if mode == "fast" else CHECKED[rung]))
    wrong, kernels.served = {}, []
    for seed in range(count):
        draws = Draws(kernels.xp, dtype, [seed, *direction.encode(), *rung.encode()], 12 if mode == "fast" else 8)
        kernels.splits = draws.int(1, 3) if draws.chance(0.5) else None
        problem = PASSES[direction](kernels, draws)
        if problem:
            wrong[seed] = (kernels.served[-1], problem)
    kernels.splits = None
    assert not wrong, f"{len(wrong)} of {count} draws: {dict(list(wrong.items())[:3])}"
    assert len(kernels.served) == count
    mine = sum(name in ENGINES.get(rung, (rung,)) for name in kernels.served)
    assert mine > count / 3, f"{rung} served {mine} of {count}"
