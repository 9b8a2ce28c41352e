"""Edge cases of the CUDA kernels that go once through maps. Random draws: test_cuda_kernels.py.

Symbols: N batch, C channels, H W rows columns.
"""

from __future__ import annotations

import numpy as np
import pytest
from cuda_kernel_cases import DEVICE, LAYOUTS, Placed, new_kernels

from minitorch_unet.backend import named_dtype, simulator_unavailable_reason
from minitorch_unet.backend.cuda import streaming
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.reference import Kernels

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(
    DEVICE == "simulate" and simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason())
)
TYPES = ["float32", "float16", "bfloat16"]
REFERENCE = Kernels(np)
HALVING = ((2, 2), (2, 2), (0, 0), (1, 1))


@pytest.fixture(scope="module")
def kernels() -> CudaKernels:
    return new_kernels()


def normal(*shape: int, seed: int = 0, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32).astype(named_dtype(dtype))


def placed(kernels: CudaKernels, values: np.ndarray, layout: str = "last") -> object:
    return Placed(values, layout).on(kernels.xp)


# -------------------------------------------------------------------- pooling


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("how", [HALVING, ((3, 3), (2, 2), (1, 1), (1, 1))])
def test_pool_keeps_the_rules_for_ties_nan_and_infinities(kernels: CudaKernels, dtype: str, how: tuple) -> None:
    """The first of equal values wins, NaN beats all, the last NaN the others; all -infinity is a tie."""
    rng = np.random.default_rng(1)
    x = rng.choice(np.array([0, 1, np.nan, -np.inf, np.inf], np.float32), (2, 8, 9, 10), p=[0.3, 0.3, 0.1, 0.2, 0.1])
    x = x.astype(named_dtype(dtype))
    out = tuple((x.shape[2 + i] + 2 * how[2][i] - how[0][i]) // how[1][i] + 1 for i in (0, 1))
    expected = REFERENCE.max_pool2d(x.astype(np.float64), out, *how)
    for layout in LAYOUTS:
        y, winners = kernels.max_pool2d(placed(kernels, x, layout), out, *how)
        np.testing.assert_array_equal(y.get().astype(np.float64), expected[0])
        np.testing.assert_array_equal(winners.get(), expected[1])
        assert winners.dtype == np.uint8


def test_pool_of_one_pixel_and_of_one_window(kernels: CudaKernels) -> None:
    x = normal(1, 3, 1, 1)
    y, winners = kernels.max_pool2d(placed(kernels, x), (1, 1), (1, 1), (1, 1), (0, 0), (1, 1))
    assert y.get() == pytest.approx(x) and not winners.get().any()
    x = normal(2, 4, 2, 2)
    y, winners = kernels.max_pool2d(placed(kernels, x), (1, 1), *HALVING)
    np.testing.assert_array_equal(y.get()[:, :, 0, 0], x.max((2, 3)))
    np.testing.assert_array_equal(winners.get()[:, :, 0, 0], x.reshape(2, 4, 4).argmax(2))


def test_a_window_of_256_taps_and_one_more(kernels: CudaKernels) -> None:
    """A winner is one byte; larger windows are the reference's."""
    for kernel in ((16, 16), (16, 17)):
        x = normal(1, 2, 17, 18)
        out = (17 - kernel[0] + 1, 18 - kernel[1] + 1)
        how = (kernel, (1, 1), (0, 0), (1, 1))
        found = kernels.max_pool2d(placed(kernels, x), out, *how)
        for mine, right in zip(found, REFERENCE.max_pool2d(x, out, *how), strict=True):
            np.testing.assert_array_equal(mine.get(), right)
            assert mine.dtype == right.dtype


def test_a_gradient_that_is_infinite_stays_with_its_winner(kernels: CudaKernels) -> None:
    x, gy = normal(1, 4, 4, 4), normal(1, 4, 2, 2)
    gy[0, 1, 0, 1] = np.inf
    winners = kernels.max_pool2d(placed(kernels, x), (2, 2), *HALVING)[1]
    gx = kernels.max_pool2d_scatter(placed(kernels, gy), winners, (4, 4), *HALVING).get()
    assert np.isinf(gx).sum() == 1
    np.testing.assert_array_equal(gx.reshape(4, 2, 2, 2, 2).sum((2, 4)), gy[0])


# ------------------------------------------------------------ sums and moments


def test_moments_of_values_far_from_zero(kernels: CudaKernels) -> None:
    """The variance of values around a million, in float32: as exact as the reference, which looks twice."""
    x = (1e6 + normal(2, 8, 30, 31)).astype(np.float32)
    mean, variance = kernels.channel_moments(placed(kernels, x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean.get(), exact.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(variance.get(), exact.var((0, 2, 3)), rtol=1e-10)


def test_moments_with_a_first_value_far_from_the_others(kernels: CudaKernels) -> None:
    """What is taken off before the sums are formed is only one value, and may be a bad one."""
    x = normal(1, 4, 40, 40)
    x[0, :, 0, 0] = 1e4
    mean, variance = kernels.channel_moments(placed(kernels, x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean.get(), exact.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(variance.get(), exact.var((0, 2, 3)), rtol=1e-9)


def test_sums_that_cancel_are_kept_in_double_precision(kernels: CudaKernels) -> None:
    x = np.full((1, 4, 64, 64), 1e8, np.float32)
    x[:, :, ::2] *= -1
    x[0, 1, 0, 0] += 64  # float32 can add 8 to 1e8, not 1
    assert kernels.channel_sums(placed(kernels, x)).get().tolist() == [0, 64, 0, 0]


def test_sums_of_many_pieces(kernels: CudaKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """More pieces than one warp adds up in a round, and several images."""
    monkeypatch.setattr(streaming, "SUM_ROUNDS", 1)
    x = normal(3, 5, 40, 33)
    cropped = placed(kernels, x, "cropped")
    stream = kernels.stream(x=cropped, sums=True)
    assert stream.pieces > 32 and stream.grid[2] == 3
    np.testing.assert_allclose(kernels.channel_sums(cropped).get(), x.sum((0, 2, 3), np.float64), rtol=1e-5)


def test_batch_norm_backward_of_a_large_mean(kernels: CudaKernels) -> None:
    """The mean in float32 differs from the mean: the difference must not be lost."""
    x, gy = (1e5 + normal(2, 4, 9, 9)).astype(np.float32), normal(2, 4, 9, 9, seed=1)
    exact = x.astype(np.float64)
    mean, inverse = exact.mean((0, 2, 3)), 1 / exact.std((0, 2, 3))
    vectors = (mean, inverse, np.ones(4))
    right = REFERENCE.batch_norm_backward(gy.astype(np.float64), exact, None, *vectors, True)
    on_device = [kernels.xp.asarray(v) for v in vectors]
    found = kernels.batch_norm_backward(placed(kernels, gy), placed(kernels, x), None, *on_device, True)
    for mine, truth in zip(found, right, strict=True):
        np.testing.assert_allclose(mine.get(), truth, atol=2e-5 * abs(truth).max())


# ---------------------------------------------------------- maps that are views


def test_unaligned_views_are_served_where_they_lie(kernels: CudaKernels) -> None:
    """One value past a multiple of 16 bytes, in a map whose rows are as odd: one channel at a time, without a copy."""
    whole = kernels.xp.asarray(normal(1, 5, 7, 9))  # as (N, H, W, C)
    view = whole.transpose(0, 3, 1, 2)[:, 1:]
    stream = kernels.stream(x=view)
    assert not stream.arguments["wide"] and view.data.ptr % 16
    assert stream.arguments["x"].array is view
    np.testing.assert_allclose(kernels.channel_sums(view).get(), view.get().sum((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("layout", ["last", "crop aligned"])
def test_aligned_maps_are_read_16_bytes_at_a_time(kernels: CudaKernels, layout: str) -> None:
    for dtype, width in (("float32", 4), ("float16", 8)):
        x = placed(kernels, normal(2, 16, 5, 6, dtype=dtype), layout)
        stream = kernels.stream(x=x)
        assert stream.arguments["wide"]
        assert stream.arguments["lane_bits"] == (16 // width - 1).bit_length()


def test_a_dense_map_of_odd_channels_is_copied_as_one_row(kernels: CudaKernels) -> None:
    x = placed(kernels, normal(2, 3, 4, 6))
    stream = kernels.stream(x=x, mixed=True)
    assert stream.arguments["wide"] and (stream.arguments["channels"], stream.arguments["columns"]) == (4, 36)
    assert not kernels.stream(x=x).arguments["wide"]


def test_a_map_of_more_images_than_a_grid_has_is_the_references(kernels: CudaKernels) -> None:
    assert not streaming.streamable(kernels.xp.zeros((65536, 1, 1, 1), np.float32))
    assert streaming.streamable(kernels.xp.zeros((65535, 1, 1, 1), np.float32))


def test_results_are_channels_last(kernels: CudaKernels) -> None:
    """CuPy's own results are in C order, and every kernel behind them would have to copy."""
    x = placed(kernels, normal(2, 5, 4, 6))
    others = placed(kernels, normal(2, 5, 4, 6))
    vector = kernels.xp.ones(5, np.float32)
    for made in (
        kernels.relu(x),
        kernels.cast(x, np.float16),
        kernels.pad(x, 1, 1, 1, 1),
        kernels.join((x, others)),
        kernels.max_pool2d(x, (2, 3), *HALVING)[0],
        kernels.scale_shift(x, vector, vector, vector),
        kernels.relu_bias_backward(x, others)[0],
    ):
        assert made.transpose(0, 2, 3, 1).flags.c_contiguous


def test_filters_keep_their_order_when_they_are_cast(kernels: CudaKernels) -> None:
    """Weights (K, C, R, S) lie as (K, R, S, C); a part of their channels is a view."""
    weight = normal(6, 8, 3, 3)
    on_device = placed(kernels, weight)
    for part in (slice(None), slice(2, 7)):
        made = kernels.cast(on_device[:, part], np.float16)
        np.testing.assert_array_equal(made.get(), weight[:, part].astype(np.float16))
        assert made.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("dtype", TYPES)
def test_relu_keeps_nan(kernels: CudaKernels, dtype: str) -> None:
    x = np.array([[-1, 0, 2, np.nan, -np.inf, np.inf]], np.float32).astype(named_dtype(dtype))
    found = kernels.relu(kernels.xp.asarray(x)).get().astype(np.float32)
    np.testing.assert_array_equal(found, np.array([[0, 0, 2, np.nan, 0, np.inf]], np.float32))


def test_pad_crops_and_fills(kernels: CudaKernels) -> None:
    x = normal(1, 4, 3, 3)
    for widths in ((-3, 5, 0, 0), (2, -3, 1, -1), (0, 0, 0, 1)):
        found = kernels.pad(placed(kernels, x), *widths, 7.0).get()
        np.testing.assert_array_equal(found, REFERENCE.pad(x, *widths, 7.0))


def test_add_into_a_part_of_a_map_leaves_the_rest(kernels: CudaKernels) -> None:
    whole, x = normal(2, 8, 6, 7), normal(2, 4, 3, 2, seed=1)
    total = placed(kernels, whole)
    kernels.add_into(total[:, 4:, 1:4, 3:5], placed(kernels, x))
    expected = whole.copy()
    expected[:, 4:, 1:4, 3:5] += x
    np.testing.assert_array_equal(total.get(), expected)
