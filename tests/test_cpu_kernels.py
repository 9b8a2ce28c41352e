"""The compiled CPU kernels against the NumPy reference in float64: values, errors, layouts, memory, NaN, threads.

Symbols: N batch, C input channels, K filters, H W input rows columns, P Q output rows columns.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cpu_kernel_cases import (
    CASES,
    CONVOLUTIONS,
    IN_PLACE,
    LAYOUTS,
    OVERRIDES,
    GuardedKernels,
    Guards,
    converted,
    draw,
    flat,
    image,
    outcome,
    relative_error,
    rms,
)

from minitorch_unet import Tensor, get_num_threads, set_num_threads
from minitorch_unet import functional as F
from minitorch_unet.backend import compiled, cpu, direct, tiled
from minitorch_unet.backend.cpu import ALGORITHMS, CpuKernels
from minitorch_unet.backend.devices import kernels_of
from minitorch_unet.backend.reference import Kernels

pytestmark = pytest.mark.skipif(not compiled.available(), reason=f"compiled kernels: {compiled.status()}")

SEEDS = 40
# Errors as relative_error measures them. The convolutions' are about three times the largest seen with AVX2 and SSE2;
# an update and x - mean may cancel, and the reference itself is no better there.
BOUNDS = {"naive": 3e-7, "im2col": 3e-7, "direct": 3e-7, "winograd2": 5e-7, "winograd4": 8e-7, "auto": 8e-7}
OTHER_BOUNDS = {
    "pad": 0.0, "max_pool2d": 0.0, "sgd_update": 5e-6, "adam_update": 5e-6,
    "channel_moments": 1e-6, "scale_shift": 1e-6, "batch_norm_backward": 2e-6,
}  # fmt: skip
ONE = (1, 1)
METHODS = [
    (name, algorithm)
    for name in OVERRIDES
    for algorithm in (ALGORITHMS if name in CONVOLUTIONS else ("auto",))
]  # fmt: skip
every_method = pytest.mark.parametrize(("name", "algorithm"), METHODS)


@pytest.fixture(autouse=True)
def _many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut also the small arrays of these tests into pieces."""
    monkeypatch.setattr(cpu, "PIECE_VALUES", 16)


@pytest.fixture
def guards(monkeypatch: pytest.MonkeyPatch) -> Guards:
    """Return guards that also stand around the kernels' scratch memory."""
    guards = Guards()
    for module in (cpu, tiled, direct):
        monkeypatch.setattr(module, "scratch", guards.scratch)
    return guards


@pytest.fixture
def restored_threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def kernels_with(algorithm: str) -> CpuKernels:
    kernels = CpuKernels()
    kernels.algorithm = algorithm
    return kernels


def equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    """Whether all bits are the same."""
    return len(first) == len(second) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()
        for a, b in zip(first, second, strict=True)
    )


# --------------------------------------------------------------------- parity


def test_every_override_has_a_case_and_a_reference() -> None:
    assert sorted(CASES) == OVERRIDES
    assert [name for name in OVERRIDES if not hasattr(Kernels, name)] == []


@every_method
def test_values(name: str, algorithm: str, guards: Guards) -> None:
    kernels = GuardedKernels(guards)
    kernels.algorithm = algorithm
    bound = BOUNDS[algorithm] if name in CONVOLUTIONS else OTHER_BOUNDS.get(name, 3e-7)
    errors = {}
    for seed in range(SEEDS):
        errors[seed] = relative_error(name, seed, outcome(kernels, name, draw(name, seed)))
        guards.check()
    assert {seed: error for seed, error in errors.items() if not error <= bound} == {}


@every_method
def test_arguments_are_not_changed(name: str, algorithm: str) -> None:
    kernels = kernels_with(algorithm)
    for seed in range(SEEDS // 2):
        arguments = draw(name, seed)
        outcome(kernels, name, arguments)
        changed = set(IN_PLACE.get(name, ()))
        if name in ("relu_bias_backward", "batch_norm_backward") and arguments[-1]:  # the gradient was given away
            changed = {0}
        for i, (after, before) in enumerate(zip(arguments, draw(name, seed), strict=True)):
            assert i in changed or equal(flat(after), flat(before))


@pytest.mark.parametrize("layout", range(LAYOUTS))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_layout_gives_the_same_bits(algorithm: str, layout: int) -> None:
    kernels = kernels_with(algorithm)

    def results(layout: int) -> list[np.ndarray]:
        # The layout with strides of 0 has other values: compared with a copy of them.
        x, gy = (image(np.random.default_rng(5), 2, c, 11, 9, layout=layout) for c in (9, 6))
        copies = [np.ascontiguousarray(a) for a in (x, gy)]
        weight = np.random.default_rng(6).standard_normal((6, 9, 3, 3), dtype=np.float32)
        how = (ONE, ONE, ONE, 1)
        return [
            result
            for x, gy in ((x, gy), copies)
            for result in (
                kernels.conv2d(x, weight, None, *how),
                kernels.conv2d_input_grad(gy, weight, (11, 9), *how),
                kernels.conv2d_weight_grad(x, gy, (3, 3), *how),
            )
        ]

    found = results(layout)
    assert equal(found[:3], found[3:])


@every_method
def test_float64_is_served_by_the_reference_exactly(name: str, algorithm: str) -> None:
    kernels = kernels_with(algorithm)
    for seed in range(12):
        mine, reference = (
            outcome(served, name, converted(draw(name, seed), np.float64)) for served in (kernels, Kernels(np))
        )
        assert equal(mine, reference)


@every_method
def test_float16_is_that_of_the_reference_to_one_rounding(name: str, algorithm: str) -> None:
    """What the reference computes in float32 and rounds at the end may use the compiled kernels on the way."""
    kernels = kernels_with(algorithm)
    for seed in range(12):
        mine, reference = (
            outcome(served, name, converted(draw(name, seed), np.float16)) for served in (kernels, Kernels(np))
        )
        for found, expected in zip(mine, reference, strict=True):
            assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
            small = np.abs(expected).max(initial=0) * 1e-4
            np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=2.0**-10, atol=small)


def test_mixed_types_are_served_by_the_reference_exactly() -> None:
    for seed in range(12):
        x, weight, *rest = draw("conv2d", seed)
        arguments = (x, weight.astype(np.float64), *rest)
        assert equal(*(outcome(kernels, "conv2d", arguments) for kernels in (kernels_of(np), Kernels(np))))


@every_method
def test_empty_batch(name: str, algorithm: str) -> None:
    kernels = kernels_with(algorithm)
    for seed in range(8):
        mine, reference = (outcome(served, name, draw(name, seed, n=0)) for served in (kernels, Kernels(np)))
        assert equal(mine, reference)


# ------------------------------------------------------------- accuracy, modes


def layer(channels: int, count: int, size: int, padding: int) -> dict[str, tuple[Any, ...]]:
    """The three calls of a 3x3 layer, with ReLU's sparse input and He's weights, as in the U-Net."""
    rng = np.random.default_rng(channels)
    out = size + 2 * padding - 2
    x = np.maximum(image(rng, 1, channels, size, size, layout=LAYOUTS - 1), 0)
    gy = image(rng, 1, count, out, out, layout=LAYOUTS - 1)
    weight = rng.standard_normal((count, channels, 3, 3), dtype=np.float32) * np.float32((2 / 9 / channels) ** 0.5)
    how = (ONE, (padding, padding), ONE, 1)
    return {
        "conv2d": (x, weight, None, *how),
        "conv2d_input_grad": (gy, weight, (size, size), *how),
        "conv2d_weight_grad": (x, gy, (3, 3), *how),
    }


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize(("channels", "count", "size"), [(64, 64, 40), (256, 64, 20)])
def test_winograd_is_at_most_six_times_as_inexact_as_direct(name: str, channels: int, count: int, size: int) -> None:
    arguments = layer(channels, count, size, 0)[name]
    (truth,) = outcome(Kernels(np), name, converted(arguments, np.float64))
    error = {
        algorithm: rms(outcome(kernels_with(algorithm), name, arguments)[0] - truth)
        for algorithm in ("direct", "winograd2", "winograd4")
    }
    assert error["winograd2"] <= 3 * error["direct"]
    assert error["winograd4"] <= 6 * error["direct"]
    assert error["direct"] <= 1e-6 * rms(truth)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[Any, ...]]]:
    """Return the list into which every call of a compiled function is written."""
    made: list[tuple[str, tuple[Any, ...]]] = []
    original = compiled.function

    def function(name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            made.append((name, arguments))
            return original(name)(*arguments)

        return call

    for module in (tiled, direct):
        monkeypatch.setattr(module, "function", function)
    return made


ALWAYS = {"SOME_TILES": 0, "LARGE_WEIGHT": 10**12}
NEVER = {"SOME_TILES": 10**9}
BY_CHANNELS = {"MANY_TILES": 10**9, "BLOCK_BYTES": 0}
MODES = {
    "conv2d by tiles": ("conv2d", ALWAYS, "by_tiles"),
    "conv2d in small blocks": ("conv2d", {**ALWAYS, "BLOCK_BYTES": 1}, "by_tiles"),
    "conv2d streamed": ("conv2d", {**ALWAYS, "STREAM_BYTES": 1}, "by_tiles"),
    "input by tiles": ("conv2d_input_grad", ALWAYS, "by_tiles"),
    "conv2d by filters": ("conv2d", NEVER, "by_filters"),
    "conv2d by filters in groups": ("conv2d", {**NEVER, "SHARED_BYTES": 40_000}, "by_filters"),
    "conv2d by filters, few weights at a time": ("conv2d", {**NEVER, "WEIGHT_BYTES": 200_000}, "by_filters"),
    "input by filters in groups": ("conv2d_input_grad", {**NEVER, "SHARED_BYTES": 40_000}, "by_filters"),
    "gradient by tiles": ("conv2d_weight_grad", {"MANY_TILES": 0}, "gradient_by_tiles"),
    "gradient by channels": ("conv2d_weight_grad", BY_CHANNELS, "gradient_by_channels"),
    "gradient by channels in groups": (
        "conv2d_weight_grad", {**BY_CHANNELS, "GRADIENT_SHARED_BYTES": 1, "PIECE_CHANNELS": 16}, "gradient_by_channels",
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", ["winograd2", "winograd4", "patches"])
@pytest.mark.parametrize("mode", MODES)
def test_every_way_through_tiles(
    mode: str, form: str, guards: Guards, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, constants, function = MODES[mode]
    for constant, value in constants.items():
        monkeypatch.setattr(tiled, constant, value)
    kernels = GuardedKernels(guards)
    monkeypatch.setattr(kernels, "_form", lambda *_: form)
    for channels, count, size, padding in ((37, 35, 46, 1), (130, 9, 42, 0), (3, 70, 43, 2)):
        calls.clear()
        arguments = layer(channels, count, size, padding)[name]
        (found,) = outcome(kernels, name, arguments)
        (truth,) = outcome(Kernels(np), name, converted(arguments, np.float64))
        guards.check()
        assert rms(found - truth) <= 2e-6 * rms(truth)
        (used,) = (made for called, made in calls if called == f"{form}_{function}")
        if "in groups" in mode and channels > 64 and name != "conv2d_input_grad":
            amount = used[2] if "gradient" in mode else used[2] * channels
            assert amount < (channels if "gradient" in mode else channels * 100)  # more than one round


@pytest.mark.parametrize("bytes_", [0, 10**12])
def test_direct_gradient_in_one_and_in_many_sums(
    bytes_: int, guards: Guards, calls: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "SUM_BYTES", bytes_)
    kernels = GuardedKernels(guards)
    kernels.algorithm = "direct"
    arguments = layer(37, 35, 39, 1)["conv2d_weight_grad"]
    (found,) = outcome(kernels, "conv2d_weight_grad", arguments)
    (truth,) = outcome(Kernels(np), "conv2d_weight_grad", converted(arguments, np.float64))
    guards.check()
    assert rms(found - truth) <= 2e-6 * rms(truth)
    (parts,) = (made[2] for called, made in calls if called == "direct_gradient")
    assert (parts > 1) == (bytes_ > 0)


# ------------------------------------------------------------------ NaN, ties


@pytest.mark.filterwarnings("ignore:invalid value encountered in matmul")  # by some of OpenBLAS's kernels
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_not_finite_stays_so(algorithm: str, bad: float) -> None:
    """Direct arithmetic: where the definition says. Winograd: there, and elsewhere in the same 4x4 tile at most."""
    x = image(np.random.default_rng(2), 2, 12, 21, 19, layout=0)
    weight = np.random.default_rng(3).standard_normal((10, 12, 3, 3), dtype=np.float32)
    x[1, 7, 9, 10] = bad
    kernels = kernels_with(algorithm)
    y = kernels.conv2d(x, weight, None, ONE, ONE, ONE, 1)
    gx = kernels.conv2d_input_grad(x, weight.transpose(1, 0, 2, 3).copy(), (21, 19), ONE, ONE, ONE, 1)
    gw = kernels.conv2d_weight_grad(x, np.ones((2, 10, 21, 19), np.float32), (3, 3), ONE, ONE, ONE, 1)
    for result in (y, gx):
        wrong = ~np.isfinite(result)
        assert wrong[1, :, 8:11, 9:12].all()
        if algorithm in ("naive", "im2col", "direct"):
            assert wrong.sum() == 10 * 9
        else:  # the tiles, of 4 or 2, that touch those nine pixels
            assert not wrong[0].any()
            assert not wrong[1, :, :8].any()
            assert not wrong[1, :, 12:].any()
            assert not wrong[1, :, :, :8].any()
            assert not wrong[1, :, :, 12:].any()
    wrong = ~np.isfinite(gw)
    assert wrong[:, 7].all()
    assert wrong.sum() == 10 * 9


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_relu_keeps_nan(algorithm: str) -> None:
    x = image(np.random.default_rng(2), 1, 8, 10, 10, layout=0)
    x[0, 3, 4, 5] = np.nan
    weight = -np.ones((9, 8, 3, 3), np.float32)
    y = kernels_with(algorithm).conv2d(x, weight, None, ONE, (0, 0), ONE, 1, True)
    assert np.isnan(y[0, :, 2:5, 3:6]).all()
    assert (y[~np.isnan(y)] >= 0).all()


def test_ties_and_nan_of_max_pooling() -> None:
    """Few different values: nearly every window has a tie, many have several NaN."""
    rng = np.random.default_rng(4)
    values = np.array([-np.inf, -1.0, -0.0, 0.0, 2.0, np.inf, np.nan], np.float32)
    for channels in (1, 7, 32, 35):
        x = rng.choice(values, (2, channels, 22, 23))
        pool = (x, (11, 11), (2, 2), (2, 2), (0, 0), ONE)
        assert equal(outcome(CpuKernels(), "max_pool2d", pool), outcome(Kernels(np), "max_pool2d", pool))


# -------------------------------------------------------------------- threads


@pytest.mark.usefixtures("restored_threads")
@every_method
def test_the_same_bits_with_any_number_of_threads_and_again(name: str, algorithm: str) -> None:
    kernels = kernels_with(algorithm)
    results = []
    for threads in (1, 2, 3, 3):
        set_num_threads(threads)
        found = [outcome(kernels, name, draw(name, seed)) for seed in range(8)]
        results.append([array for arrays in found for array in arrays])
    assert all(equal(results[0], other) for other in results[1:])


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("algorithm", ["auto", "direct", "winograd2"])
def test_the_same_bits_when_the_pieces_are_many(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for constant, value in {**NEVER, **BY_CHANNELS, "SHARED_BYTES": 40_000, "PIECE_CHANNELS": 16}.items():
        monkeypatch.setattr(tiled, constant, value)
    results = []
    for threads in (1, 2, 3):
        set_num_threads(threads)
        made = layer(37, 70, 39, 1).items()
        results.append([outcome(kernels_with(algorithm), name, arguments)[0] for name, arguments in made])
    assert all(equal(results[0], other) for other in results[1:])


# -------------------------------------------------------------- recorded graph


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("padding", [0, 1])
def test_recorded_conv2d_relu_is_the_fast_one(two: bool, padding: int) -> None:
    """Gradients with create_graph come from recorded operations, others from the fused kernels."""
    gradients = []
    for create_graph in (False, True):
        rng = np.random.default_rng(8)
        skip = Tensor(rng.standard_normal((2, 9, 15, 16), dtype=np.float32), requires_grad=True)
        up = Tensor(rng.standard_normal((2, 8, 11, 12), dtype=np.float32), requires_grad=True)
        channels = 17 if two else 9
        weight = Tensor(rng.standard_normal((10, channels, 3, 3), dtype=np.float32), requires_grad=True)
        bias = Tensor(rng.standard_normal(10, dtype=np.float32), requires_grad=True)
        cropped = F.crop(skip, (11, 12))
        y = F.conv2d_relu((cropped, up) if two else cropped, weight, bias, padding)
        gy = rng.standard_normal(y.shape, dtype=np.float32)
        y.backward(Tensor(gy), create_graph=create_graph)
        inputs = [skip, weight, bias, *([up] if two else [])]
        gradients.append([y.data, *(t.grad.data for t in inputs)])
    for fast, recorded in zip(*gradients, strict=True):
        assert rms(fast - recorded) <= 3e-7 * rms(recorded)
