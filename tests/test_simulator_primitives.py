"""The primitives of kernels/cuda/primitives.cuh in the simulator, against NumPy: conversions by the bit, layouts."""

import functools
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from minitorch_unet.simulator import Module, build

pytestmark = pytest.mark.skipif(build.unavailable_reason() is not None, reason=str(build.unavailable_reason()))
SOURCE = Path(__file__).parent / "simulator_kernels" / "primitives.cu"
DTYPES = {"half": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
F, I = np.float32, np.int32  # noqa: E741


@functools.cache
def module(name: str, mode: str = "check") -> Module:
    return Module(SOURCE, mode, defines=(f"T={name}",))


def launch(name: str, kernel: str, *args: object, n: int = 32, mode: str = "check", shared: int = 0) -> None:
    blocks = -(-n // 256)
    module(name, mode).get_function(kernel)((blocks,), (min(n, 256),), args, shared_mem=shared)


def floats_of_all_kinds(rng: np.random.Generator) -> np.ndarray:
    """Random bit patterns, random numbers, ties of both formats and their neighbours, and the special values."""
    bits = rng.integers(0, 2**32, 40_000, dtype=np.uint32).view(F)
    numbers = (rng.standard_normal(20_000) * 2.0 ** rng.integers(-30, 20, 20_000)).astype(F)
    halves = np.arange(2**15, dtype=np.uint16)
    between = [(a.astype(F) + b.astype(F)) / 2 for d in DTYPES.values() for a, b in [pairs(halves.view(d))]]
    ties = np.concatenate(between)
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 65504, 65519.99, 65520, 65536, 3.4e38, 1e-45], F)
    beside = [np.nextafter(ties, F(np.inf)), np.nextafter(ties, F(0))]
    return np.concatenate([bits, numbers, ties, -ties, *beside, special])


def pairs(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = x[np.isfinite(x)]
    return finite[:-1], finite[1:]


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_conversion_from_float_rounds_to_nearest_even(name: str, mode: str) -> None:
    with np.errstate(all="ignore"):
        x = floats_of_all_kinds(np.random.default_rng(1))
        if mode == "check":
            x = x[:5000]
        expected = x.astype(DTYPES[name])
    packed, back = np.zeros(x.size, DTYPES[name]), np.zeros(x.size, F)
    launch(name, "convert", x, packed, back, I(x.size), n=x.size, mode=mode)
    number = ~np.isnan(x)
    np.testing.assert_array_equal(packed.view(np.uint16)[number], expected.view(np.uint16)[number])
    assert (packed.view(np.uint16)[~number] == 0x7FFF).all()
    np.testing.assert_array_equal(back[number], expected.astype(F)[number])
    assert np.isnan(back[~number]).all() and (~number).sum() > 10


@pytest.mark.parametrize("name", DTYPES)
def test_conversion_to_float_of_all_65536_values(name: str) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(DTYPES[name])
    y = np.zeros(x.size, F)
    launch(name, "widen", x, y, I(x.size), n=x.size, mode="fast")
    with np.errstate(invalid="ignore"):
        expected = x.astype(F)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(y.view(np.uint32)[number], expected.view(np.uint32)[number])
    assert np.isnan(y[~number]).all()
    # and back again: nothing is lost
    packed, back = np.zeros(x.size, DTYPES[name]), np.zeros(x.size, F)
    launch(name, "convert", y, packed, back, I(x.size), n=x.size, mode="fast")
    np.testing.assert_array_equal(packed.view(np.uint16)[number], x.view(np.uint16)[number])


@pytest.mark.parametrize("name", DTYPES)
def test_two_elements_of_a_register(name: str) -> None:
    x = np.random.default_rng(2).standard_normal(64).astype(F)
    packed, back = np.zeros(32, np.uint32), np.zeros(64, F)
    launch(name, "pack", x, packed, back)
    expected = x.astype(DTYPES[name])
    np.testing.assert_array_equal(packed, expected.view(np.uint32))
    np.testing.assert_array_equal(back, expected.astype(F))


def tf32(x: np.ndarray) -> np.ndarray:
    """10 bits behind the point, nearest, ties away from zero, by arithmetic on the value."""
    fraction, exponent = np.frexp(np.asarray(x, np.float64))  # 0.5 <= |fraction| < 1: 11 bits of it are kept
    scaled = np.abs(fraction) * 2**11
    with np.errstate(over="ignore"):  # the largest numbers round to infinity
        return (np.sign(fraction) * np.floor(scaled + 0.5) * 2.0 ** (exponent - 11)).astype(F)


def test_rounding_to_tf32() -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(20_000) * 2.0 ** rng.integers(-100, 100, 20_000)).astype(F)
    ties = (rng.integers(2**23, 2**24, 2000, dtype=np.int64) >> 13 << 13 | 1 << 12).astype(F)
    special = np.array([np.finfo(F).max, 0, np.inf, -np.inf, np.nan], F)
    x = np.concatenate([x, ties, -ties, np.nextafter(ties, F(0)), special])
    y = np.zeros(x.size, np.uint32)
    launch("half", "round_tf32", x, y, I(x.size), n=x.size, mode="fast")
    assert not (y & 0x1FFF).any()
    np.testing.assert_array_equal(y.view(F)[:-3], tf32(x[:-3]))
    assert y.view(F)[-3] == np.inf and y.view(F)[-2] == -np.inf and np.isnan(y.view(F)[-1])


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("mode", ["fast", "check"])
def test_product_of_16_bit_fragments(name: str, mode: str) -> None:
    rng = np.random.default_rng(4)
    a, b = (rng.standard_normal(shape).astype(DTYPES[name]) for shape in ((16, 16), (16, 8)))
    c = rng.standard_normal((16, 8)).astype(F)
    expected = c + a.astype(np.float64) @ b.astype(np.float64)
    launch(name, "product", a, b, c, mode=mode)
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rounded", [0, 1])
def test_product_of_tf32_fragments(rounded: int) -> None:
    """Without rounding the unit cuts the last 13 bits off."""
    rng = np.random.default_rng(5)
    a, b, c = (rng.standard_normal(shape).astype(F) for shape in ((16, 8), (8, 8), (16, 8)))
    seen = [tf32(x) if rounded else (x.view(np.uint32) & 0xFFFFE000).view(F) for x in (a, b)]
    expected = c + seen[0].astype(np.float64) @ seen[1].astype(np.float64)
    launch("half", "product_tf32", a, b, c, I(rounded))
    np.testing.assert_allclose(c, expected, rtol=1e-5, atol=1e-6)
    assert abs(expected - (c + a @ b)).max() > 1e-4


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("transposed", [0, 1])
def test_matrix_fragments(count: int, transposed: int) -> None:
    x = np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8)
    out = np.full((32, 4), 7, np.uint32)
    launch("half", "matrices", x, out, I(count), I(transposed), shared=count * 128)
    given = x.transpose(0, 2, 1) if transposed else x
    for lane in range(32):
        for i in range(count):
            first, second = given[i, lane // 4, lane % 4 * 2], given[i, lane // 4, lane % 4 * 2 + 1]
            assert out[lane, i] == int(first) | int(second) << 16
    assert (out[:, count:] == 0).all()


@pytest.mark.parametrize("mode", ["fast", "check"])
def test_asynchronous_copies(mode: str) -> None:
    whole = np.arange(1, 241, dtype=F)
    x = whole[-whole.ctypes.data % 64 // 4 :][:224]
    y = np.zeros(224, F)
    launch("half", "copies", x, y, shared=224 * 4, mode=mode)
    expected = x.copy()
    for first, width in ((0, 1), (32, 2), (96, 4)):
        expected[first : first + 32 * width].reshape(32, width)[1::2] = 0
    np.testing.assert_array_equal(y, expected)
