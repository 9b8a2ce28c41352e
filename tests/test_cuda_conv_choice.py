"""Which rung serves a convolution on CUDA, how its product is cut up, and what is left to the reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cuda_conv_draws import DEVICE, REFERENCE, Draws, Spied, host, new_kernels

from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import conv_launch
from minitorch_unet.backend.cuda.conv_launch import Pass
from minitorch_unet.backend.cuda.conv_plan import ENGINES, MOST_PARTS, tiling
from minitorch_unet.backend.cuda.conv_shapes import Divider, Window, describe
from minitorch_unet.backend.precision import set_float32_matmul_precision

pytest.importorskip("ml_dtypes")
simulated = DEVICE == "simulate"
pytestmark = pytest.mark.skipif(
    simulated and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
PLAIN = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}


@pytest.fixture(scope="module")
def kernels() -> Spied:
    kernels = new_kernels()
    kernels.algorithm = "mma"  # whatever the device: rung 5 has tests of its own
    return kernels


def maps(kernels: Spied, *shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """A channels-last map (or a weight in the order that kernels want) without gaps."""
    n, c, h, w = shape
    draws = Draws(kernels.xp, dtype, seed)
    return draws.map(n, c, (h, w), whole=True)


# ---------------------------------------------------------------------------------------------- choice of the rung


@pytest.mark.parametrize(
    ("dtype", "precision", "c", "k", "kernel", "engine"),
    [
        ("float32", "highest", 16, 16, (3, 3), "3xtf32"),
        ("float32", "high", 16, 16, (3, 3), "tf32"),
        ("bfloat16", "highest", 16, 16, (3, 3), "16 bits"),
        ("float16", "highest", 16, 5, (3, 3), "16 bits"),  # any number of filters
        ("float32", "highest", 1, 16, (3, 3), "gemm"),  # the first layer
        ("bfloat16", "highest", 12, 16, (3, 3), "gemm"),  # 24 bytes of channels
        ("float32", "highest", 16, 16, (7, 7), "naive"),  # 49 taps
    ],
)
def test_rung_of_a_forward_pass(
    dtype: str, precision: str, c: int, k: int, kernel: tuple[int, int], engine: str, kernels: Spied
) -> None:
    set_float32_matmul_precision(precision)
    try:
        x, weight = maps(kernels, 1, c, 9, 9, dtype=dtype), maps(kernels, k, c, *kernel)
        kernels.conv2d(x, weight, None, **PLAIN)
    finally:
        set_float32_matmul_precision("highest")
    assert kernels.served[-1] == engine


def test_rung_of_an_input_gradient(kernels: Spied) -> None:
    weight = maps(kernels, 8, 16, 2, 2)
    gy = maps(kernels, 1, 8, 4, 4)
    how = PLAIN | {"stride": (2, 2)}
    kernels.conv2d_input_grad(gy, weight, (8, 8), **how)
    assert kernels.served[-1] == "3xtf32"  # windows that touch: a product
    kernels.conv2d_input_grad(gy, weight, (9, 8), **how)
    assert kernels.served[-1] == "naive"  # a row more than they reach
    kernels.conv2d_input_grad(gy, maps(kernels, 8, 3, 2, 2), (8, 8), **how)
    assert kernels.served[-1] == "gemm"  # three channels


def test_auto_is_the_quickest_by_estimate(kernels: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "algorithm", "auto")
    for c, k, kernel, size, engine in (
        (64, 64, (3, 3), 100, "3xtf32"), (1024, 1024, (3, 3), 30, "3xtf32"), (64, 2, (1, 1), 388, "3xtf32"),
        (4, 64, (1, 1), 388, "gemm"),  # 4 products a value: a step of rung 4 has 32
    ):  # fmt: skip
        x = kernels.xp.empty((1, 1, 1, c), "float32").transpose(0, 3, 1, 2)
        window = Window(kernel)
        conv = describe([x], window, window.output_size((size, size)), k)
        assert conv is not None
        assert kernels.choose_rung(Pass("forward", "float", conv, conv, [window.taps * c], 16))[0] == engine


def test_a_wrong_name_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(conv_launch.VARIABLE, "fastest")
    with pytest.raises(ValueError, match="is 'fastest'; legal are auto, naive, tiled, gemm, mma"):
        new_kernels()
    monkeypatch.setenv(conv_launch.VARIABLE, "tiled")
    assert new_kernels().algorithm == "tiled"


# ---------------------------------------------------------------------------------------------- the reference's share


@pytest.mark.parametrize("what", ["float64", "groups", "mixed types", "no images"])
def test_left_to_the_reference(what: str, kernels: Spied) -> None:
    xp, rng, before = kernels.xp, np.random.default_rng(3), len(kernels.served)
    n, groups, dtype = (0 if what == "no images" else 2), (2 if what == "groups" else 1), "float32"
    x, weight = rng.standard_normal((n, 4, 6, 7)), rng.standard_normal((6, 4 // groups, 3, 3))
    gy = rng.standard_normal((n, 6, 4, 5))
    if what == "float64":
        dtype = "float64"
    types = (dtype, "float64" if what == "mixed types" else dtype)
    dx, dw, dgy = (xp.asarray(a.astype(t)) for a, t in ((x, types[0]), (weight, dtype), (gy, types[1])))
    how = PLAIN | {"groups": groups}
    if what == "mixed types":
        found = [kernels.conv2d_weight_grad(dx, dgy, (3, 3), **how)]
        expected = [REFERENCE.conv2d_weight_grad(x, gy, (3, 3), **how)]
    else:
        found = [kernels.conv2d(dx, dw, None, **how), kernels.conv2d_input_grad(dgy, dw, (6, 7), **how),
                 kernels.conv2d_weight_grad(dx, dgy, (3, 3), **how)]  # fmt: skip
        expected = [REFERENCE.conv2d(x, weight, None, **how), REFERENCE.conv2d_input_grad(gy, weight, (6, 7), **how),
                    REFERENCE.conv2d_weight_grad(x, gy, (3, 3), **how)]  # fmt: skip
    assert len(kernels.served) == before
    for mine, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(host(mine), right, rtol=1e-4, atol=1e-4)


def test_three_sources_are_joined(kernels: Spied) -> None:
    sources = tuple(maps(kernels, 1, c, 6, 6, seed=c) for c in (4, 8, 4))
    weight = maps(kernels, 8, 16, 3, 3, seed=9)
    y = kernels.conv2d(sources, weight, None, **PLAIN)
    assert kernels.served[-1] == "3xtf32"
    right = REFERENCE.conv2d(host(sources), host(weight), None, **PLAIN)
    np.testing.assert_allclose(host(y), right, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------- weights, sums, NaN


@pytest.mark.skipif(not simulated, reason="launches are counted by the simulator only")
def test_weights_are_read_where_they_lie(kernels: Spied) -> None:
    x, bf16 = maps(kernels, 1, 16, 6, 6), maps(kernels, 1, 16, 6, 6, dtype="bfloat16")
    weight = maps(kernels, 8, 16, 3, 3)
    first = kernels.xp.asarray(np.ascontiguousarray(weight.get()))  # (K, C, R, S) in memory
    wider = maps(kernels, 8, 24, 3, 3)
    for source, given, packed in (
        (x, weight, False), (x, wider[:, 8:], False), (x, first, True), (x, wider[:, 2:18], True), (bf16, weight, True),
    ):  # fmt: skip
        with kernels.xp.counting() as seen:
            kernels.conv2d(source, given, None, **PLAIN)
        assert ("conv_pack_weight" in seen.raw_launches) is packed


@pytest.mark.parametrize("splits", [1, 2, 5])
def test_sums_repeat_to_the_last_bit(splits: int, kernels: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "splits", splits)
    x, gy = maps(kernels, 2, 16, 12, 12), maps(kernels, 2, 8, 10, 10, seed=1)
    first, second = (host(kernels.conv2d_weight_grad(x, gy, (3, 3), **PLAIN)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("algorithm", ["naive", "tiled", "gemm", "mma"])
def test_nan_and_infinity(algorithm: str, kernels: Spied, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN stays NaN through the ReLU, in its own outputs only; a mask that is NaN lets nothing through."""
    monkeypatch.setattr(kernels, "algorithm", algorithm)
    x = maps(kernels, 1, 8, 6, 6)
    x[0, 3, 2, 2] = math.nan
    weight = maps(kernels, 8, 8, 3, 3)
    y = host(kernels.conv2d(x, weight, None, **PLAIN, relu=True))
    expected = np.zeros((4, 4), bool)
    expected[:3, :3] = True
    assert (np.isnan(y) == expected).all()
    mask = maps(kernels, 1, 8, 6, 6, seed=5)
    mask[0, 0, 0, 0], mask[0, 1, 0, 0], mask[0, 2, 0, 0] = math.nan, 0, math.inf
    gx = host(kernels.conv2d_input_grad(maps(kernels, 1, 8, 4, 4), weight, (6, 6), **PLAIN, mask=mask))
    assert gx[0, 0, 0, 0] == gx[0, 1, 0, 0] == 0 != gx[0, 2, 0, 0]


# ---------------------------------------------------------------------------------------------- how products are cut up


def test_divider() -> None:
    """The kernels' division by multiplication, in 64-bit whole numbers as there, over divisors of all sizes."""
    rng = np.random.default_rng(0)
    small, powers = np.arange(1, 300), 2 ** np.arange(31)
    some = rng.integers(1, 2**31, 500)
    for d in np.concatenate([small, powers, powers[2:] - 1, powers[:-1] + 1, some, [2**31 - 1]]).tolist():
        made = Divider.of(d)
        quotients = rng.integers(0, 2**31 // d + 1, 30)
        x = np.clip(np.concatenate([quotients * d - 1, quotients * d, [0, d - 1, d, 2**31 - 1]]), 0, 2**31 - 1)
        high = (2 * x.astype(np.uint64) * np.uint64(made.multiplier)) >> np.uint64(32)
        np.testing.assert_array_equal(high >> np.uint64(made.l), x // d)


@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_tiling_of_the_network(engine: str) -> None:
    """Deep layers and weight gradients are shared between blocks, until these fill the device; others are not."""
    depth, can_split = ENGINES[engine].depth, ENGINES[engine].splits
    for rows, columns, length, shared in (
        (568 * 568, 64, 9 * 64, False), (28 * 28, 1024, 9 * 1024, True), (64, 9 * 64, 568 * 568, True),
        (1024, 9 * 1024, 28 * 28, False),
    ):  # fmt: skip
        plan = tiling(engine, rows, columns, -(-length // depth), 132)
        tiles = math.ceil(rows / plan.m) * math.ceil(columns / plan.n)
        assert (plan.splits > 1) == (shared and can_split)
        if can_split:
            assert tiles * plan.splits > 132
            assert plan.splits * rows * columns * 4 <= MOST_PARTS


def test_forced_splits_are_at_most_the_steps() -> None:
    assert tiling("gemm", 64, 64, 3, 132, 5).splits == 3
    assert tiling("tiled", 64, 64, 3, 132, 5).splits == 1


def test_what_32_bits_cannot_count() -> None:
    """Sizes that the kernels' numbers cannot hold are refused, not cut off. Views of one value: they take no memory."""

    def one(*shape: int) -> Any:
        return np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, (0, 4, 0, 0))

    window = Window((3, 3))
    assert describe([one(1, 4, 40000, 40000)], window, (39998, 39998), 8) is not None
    assert describe([one(2, 4, 40000, 40000)], window, (39998, 39998), 8) is None  # 3.2e9 pixels
    assert describe([one(1, 1 << 28, 5, 5)], window, (3, 3), 8) is None  # 2.4e9 products a value
    wide = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1, 1, 3, 3), (0, 4, 2**33, 4))
    assert describe([wide], window, (1, 1), 8) is None  # a row is 2^31 elements
