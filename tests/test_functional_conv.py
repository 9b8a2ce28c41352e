"""Convolution, pooling and resizing against nested loops, and what they refuse."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from on_device import Tensor, host

from minitorch_unet import functional as F
from minitorch_unet.tensor import grad

few = settings(max_examples=100)
small = st.integers(1, 3)
pairs = st.tuples(small, small)
seeds = st.integers(0, 1000)
pytestmark = pytest.mark.usefixtures("device")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def image(*shape: int, dtype: Any = np.float64) -> Tensor:
    return Tensor(normal(*shape).astype(dtype))


# ------------------------------------------------------------------- oracles


def conv_oracle(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> np.ndarray:
    (n, _, h, width), (k, c, r, s) = x.shape, w.shape
    p = (h + 2 * padding[0] - dilation[0] * (r - 1) - 1) // stride[0] + 1
    q = (width + 2 * padding[1] - dilation[1] * (s - 1) - 1) // stride[1] + 1
    y = np.zeros((n, k, p, q))
    for image_, filter_, row, column in np.ndindex(y.shape):
        total = 0.0 if b is None else b[filter_]
        first = filter_ // (k // groups) * c
        for channel, i, j in np.ndindex(c, r, s):
            at = (row * stride[0] + i * dilation[0] - padding[0], column * stride[1] + j * dilation[1] - padding[1])
            if 0 <= at[0] < h and 0 <= at[1] < width:
                total += x[(image_, first + channel, *at)] * w[filter_, channel, i, j]
        y[image_, filter_, row, column] = total
    return y


def transposed_oracle(
    x: Any, w: Any, b: Any, stride: Any, padding: Any, extra: Any, groups: int, dilation: Any
) -> np.ndarray:
    (n, k, p, q), (_, c, r, s) = x.shape, w.shape
    size = (
        (p - 1) * stride[0] - 2 * padding[0] + dilation[0] * (r - 1) + extra[0] + 1,
        (q - 1) * stride[1] - 2 * padding[1] + dilation[1] * (s - 1) + extra[1] + 1,
    )
    y = np.zeros((n, c * groups, *size)) + (0 if b is None else b.reshape(1, -1, 1, 1))
    for image_, channel_in, row, column in np.ndindex(x.shape):
        group = channel_in // (k // groups)
        for channel, i, j in np.ndindex(c, r, s):
            at = (row * stride[0] + i * dilation[0] - padding[0], column * stride[1] + j * dilation[1] - padding[1])
            if 0 <= at[0] < size[0] and 0 <= at[1] < size[1]:
                y[(image_, group * c + channel, *at)] += (
                    x[image_, channel_in, row, column] * w[channel_in, channel, i, j]
                )
    return y


def windows(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> tuple[Any, Any]:
    """Output size, and for each output pixel the list of input pixels in its window, row-major."""
    starts = []
    for i in (0, 1):
        last = size[i] + padding[i] - dilation[i] * (kernel[i] - 1) - 1  # the last start at which the window fits
        own = list(range(-padding[i], last + 1, stride[i]))
        # ceil_mode: one more window if some pixel is left over, and if that window starts inside the input.
        if ceil and own[-1] < last and own[-1] + stride[i] < size[i]:
            own.append(own[-1] + stride[i])
        starts.append(own)
    pixels = {
        (p, q): [
            (row + i * dilation[0], column + j * dilation[1])
            for i, j in product(range(kernel[0]), range(kernel[1]))
            if 0 <= row + i * dilation[0] < size[0] and 0 <= column + j * dilation[1] < size[1]
        ]
        for (p, row), (q, column) in product(enumerate(starts[0]), enumerate(starts[1]))
    }
    return tuple(len(s) for s in starts), pixels


# --------------------------------------------------------------------- values


@few
@given(st.data(), st.integers(1, 2), st.integers(1, 3), pairs, pairs, pairs, st.booleans(), seeds)
def test_conv2d(
    data: st.DataObject, n: int, groups: int, kernel: Any, stride: Any, dilation: Any, biased: bool, seed: int
) -> None:
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    c, k = data.draw(pairs)
    size = [max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) + data.draw(st.integers(0, 4)) for i in (0, 1)]
    x, w = normal(n, groups * c, *size, seed=seed), normal(groups * k, c, *kernel, seed=seed + 1)
    b = normal(groups * k, seed=seed + 2) if biased else None
    bias = None if b is None else Tensor(b)
    y = F.conv2d(Tensor(x), Tensor(w), bias, stride, padding, dilation, groups)
    np.testing.assert_allclose(host(y), conv_oracle(x, w, b, stride, padding, dilation, groups), rtol=1e-12, atol=1e-12)


@few
@given(st.data(), st.integers(1, 2), st.integers(1, 3), pairs, pairs, pairs, st.booleans(), seeds)
def test_conv_transpose2d(
    data: st.DataObject, n: int, groups: int, kernel: Any, stride: Any, dilation: Any, biased: bool, seed: int
) -> None:
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    (c, k), size = data.draw(pairs), data.draw(pairs)
    out = [(size[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + extra[i] + 1 for i in (0, 1)]
    assume(min(out) > 0)
    x, w = normal(n, groups * k, *size, seed=seed), normal(groups * k, c, *kernel, seed=seed + 1)
    b = normal(groups * c, seed=seed + 2) if biased else None
    bias = None if b is None else Tensor(b)
    y = F.conv_transpose2d(Tensor(x), Tensor(w), bias, stride, padding, extra, groups, dilation)
    expected = transposed_oracle(x, w, b, stride, padding, extra, groups, dilation)
    np.testing.assert_allclose(host(y), expected, rtol=1e-12, atol=1e-12)


@few
@given(pairs, pairs, pairs, st.tuples(st.integers(3, 7), st.integers(3, 7)), seeds)
def test_transposed_convolution_is_the_transpose(kernel: Any, stride: Any, dilation: Any, size: Any, seed: int) -> None:
    """<conv2d(x, w), y> = <x, conv_transpose2d(y, w)>."""
    assume(all(size[i] >= dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)))
    x, w = Tensor(normal(2, 3, *size, seed=seed)), Tensor(normal(4, 3, *kernel, seed=seed + 1))
    forward = F.conv2d(x, w, stride=stride, dilation=dilation)
    y = Tensor(normal(*forward.shape, seed=seed + 2))
    extra = [(size[i] - dilation[i] * (kernel[i] - 1) - 1) % stride[i] for i in (0, 1)]
    back = F.conv_transpose2d(y, w, stride=stride, dilation=dilation, output_padding=extra)
    assert abs((host(forward) * host(y)).sum() - (host(x) * host(back)).sum()) < 1e-11


def test_slabs_of_large_images_are_put_together_rightly() -> None:
    """More output pixels than one matrix product takes, in every way of cutting."""
    x, w = normal(2, 2, 41, 45), normal(3, 2, 3, 3, seed=1)
    for stride in ((1, 1), (2, 1), (1, 3)):
        y = host(F.conv2d(Tensor(x), Tensor(w), stride=stride))
        expected = np.zeros(y.shape)
        for i, j in np.ndindex(3, 3):
            part = x[:, :, i : i + 39 : stride[0], j : j + 43 : stride[1]]
            expected += np.einsum("nchw,kc->nkhw", part, w[:, :, i, j])
        np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)


def test_worked_example() -> None:
    rows = ("123456", "010101", "654321", "010101", "123456", "010101")
    x = Tensor(np.array([[int(d) for d in row] for row in rows], dtype=np.float64)[None, None])
    w = Tensor(np.array([[[[-1.0, 2, -3], [4, 5, -6], [7, -8, 9]]]]))
    y = F.conv2d(x, w)
    assert host(y)[0, 0].tolist() == [[37, 20, 17, 0], [19, 34, 13, 28], [15, 18, 35, 38], [-10, 11, -4, 17]]
    pooled = F.max_pool2d(F.relu(y), 2)
    assert host(pooled)[0, 0].tolist() == [[37, 28], [18, 38]]


@pytest.mark.parametrize("kernel", [1, 2, 3, (4, 5)])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_puts_the_odd_row_last(kernel: Any, dilation: int) -> None:
    r, s = (kernel, kernel) if isinstance(kernel, int) else kernel
    x, w = normal(1, 2, 6, 7), normal(3, 2, r, s, seed=1)
    y = F.conv2d(Tensor(x), Tensor(w), padding="same", dilation=dilation)
    rows, columns = dilation * (r - 1), dilation * (s - 1)
    padded = np.pad(x, ((0, 0), (0, 0), (rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2)))
    expected = conv_oracle(padded, w, None, (1, 1), (0, 0), (dilation, dilation), 1)
    assert y.shape == (1, 3, 6, 7)
    np.testing.assert_allclose(host(y), expected, rtol=1e-12, atol=1e-12)


@few
@given(st.data(), pairs, pairs, st.tuples(st.integers(1, 2), st.integers(1, 2)), st.booleans(), seeds)
def test_max_pool2d(data: st.DataObject, kernel: Any, stride: Any, dilation: Any, ceil: bool, seed: int) -> None:
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    size = [dilation[i] * (kernel[i] - 1) + 1 + data.draw(st.integers(0, 4)) for i in (0, 1)]
    # Few different values: ties are common, and must go to the first in row-major order.
    x = Tensor(np.random.default_rng(seed).integers(0, 3, (2, 2, *size)).astype(float), requires_grad=True)
    y, index = F.max_pool2d(x, kernel, stride, padding, dilation, ceil, return_indices=True)
    out_size, pixels = windows(size, kernel, stride, padding, dilation, ceil)
    assert y.shape == index.shape == (2, 2, *out_size)
    assert index.dtype == np.int64
    gy = normal(*y.shape, seed=seed)
    expected = np.zeros(x.shape)
    for n, c, p, q in np.ndindex(y.shape):
        first = max(pixels[p, q], key=lambda at: host(x)[(n, c, *at)])  # max keeps the first of equals
        assert host(y)[n, c, p, q] == host(x)[(n, c, *first)]
        assert host(index)[n, c, p, q] == first[0] * size[1] + first[1]
        expected[(n, c, *first)] += gy[n, c, p, q]
    (gx,) = grad(y, x, gy)
    assert gx is not None
    np.testing.assert_allclose(host(gx), expected, rtol=1e-12, atol=1e-12)


@few
@given(st.data(), pairs, pairs, st.booleans(), st.booleans(), st.sampled_from([None, 1, 5, -2]), seeds)
def test_avg_pool2d(
    data: st.DataObject, kernel: Any, stride: Any, ceil: bool, count_pad: bool, divisor: int | None, seed: int
) -> None:
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    size = [kernel[i] + data.draw(st.integers(0, 4)) for i in (0, 1)]
    x = normal(2, 2, *size, seed=seed)
    y = F.avg_pool2d(Tensor(x), kernel, stride, padding, ceil, count_pad, divisor)
    out_size, pixels = windows(size, kernel, stride, padding, (1, 1), ceil)
    assert y.shape == (2, 2, *out_size)
    for p, q in np.ndindex(*out_size):
        total = sum(x[:, :, row, column] for row, column in pixels[p, q])
        inside = [  # window pixels up to the padding; beyond it only ceil_mode reaches
            min(at * stride[i] - padding[i] + kernel[i], size[i] + padding[i]) - (at * stride[i] - padding[i])
            for i, at in ((0, p), (1, q))
        ]
        count = divisor or (inside[0] * inside[1] if count_pad else len(pixels[p, q]))
        np.testing.assert_allclose(host(y)[:, :, p, q], total / count, rtol=1e-12, atol=1e-12)


def test_pool_conventions() -> None:
    x = Tensor(np.array([[[[1.0, 1.0], [1.0, 1.0]]]]), requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert x.grad is not None
    assert host(x.grad).tolist() == [[[[1, 0], [0, 0]]]]
    bad = Tensor(np.array([[[[1.0, np.nan], [2.0, 3.0]]]]))
    assert np.isnan(host(F.max_pool2d(bad, 2))).all()
    lowest = Tensor(np.full((1, 1, 2, 2), -1e300))
    assert (host(F.max_pool2d(lowest, 2, 1, 1)) == -1e300).all()  # padding never wins


@pytest.mark.parametrize("out", [(1, 1), (2, 3), (5, 4), (6, 8), (9, 2)])
@pytest.mark.parametrize("corners", [False, True])
def test_bilinear(out: tuple[int, int], corners: bool) -> None:
    x = normal(1, 2, 3, 4)
    y = F.interpolate(Tensor(x), out, mode="bilinear", align_corners=corners)
    for p, q in np.ndindex(*out):
        weights = []
        for i, at in ((0, p), (1, q)):
            n, m = (3, 4)[i], out[i]
            position = at * (n - 1) / max(m - 1, 1) if corners else (at + 0.5) * n / m - 0.5
            position = min(max(position, 0), n - 1)
            weights.append(np.maximum(0, 1 - abs(np.arange(n) - position)))  # a tent around the position
        expected = np.einsum("nchw,h,w->nc", x, *weights)
        np.testing.assert_allclose(host(y)[:, :, p, q], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("out", [(1, 1), (2, 3), (5, 4), (6, 8), (9, 2)])
def test_nearest(out: tuple[int, int]) -> None:
    x = normal(1, 2, 3, 4)
    y = F.interpolate(Tensor(x), out)
    expected = x[:, :, [i * 3 // out[0] for i in range(out[0])]][:, :, :, [j * 4 // out[1] for j in range(out[1])]]
    assert np.array_equal(host(y), expected)


def test_nearest_doubling_repeats() -> None:
    x = normal(2, 3, 2, 3)
    expected = np.repeat(np.repeat(x, 2, 2), 3, 3)
    assert np.array_equal(host(F.interpolate(Tensor(x), scale_factor=(2, 3))), expected)
    assert F.interpolate(Tensor(x), scale_factor=1.7).shape == (2, 3, 3, 5)


def test_bilinear_keeps_constants_and_lines() -> None:
    line = np.broadcast_to(np.arange(6.0), (1, 1, 4, 6))
    y = F.interpolate(Tensor(line), (9, 11), mode="bilinear", align_corners=True)
    np.testing.assert_allclose(host(y), np.broadcast_to(np.linspace(0, 5, 11), (1, 1, 9, 11)), atol=1e-13)
    ones = F.interpolate(Tensor(np.ones((1, 1, 5, 3))), scale_factor=2.3, mode="bilinear")
    np.testing.assert_allclose(host(ones), 1, atol=1e-14)


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x, w: F.conv2d(x, w[:, :2]), ValueError, r"conv2d: input has 3 channels, weight .* expects 2"),
        (lambda x, w: F.conv2d(x[0], w), ValueError, r"conv2d: input has shape \(3, 5, 6\).*four axes \(N, C, H, W\)"),
        (lambda x, w: F.conv2d(x, w[0]), ValueError, r"conv2d: weight has shape"),
        (lambda x, w: F.conv2d(host(x), w), TypeError, r"conv2d: input must be a Tensor, found ndarray"),
        (lambda x, w: F.conv2d(x, w, Tensor(np.ones(3))), ValueError, r"conv2d: bias has shape \(3,\).*expects \(4,\)"),
        (lambda x, w: F.conv2d(x, w, stride=0), ValueError, r"conv2d: stride is 0; .*at least 1"),
        (lambda x, w: F.conv2d(x, w, stride=(1, 2, 3)), ValueError, r"conv2d: stride is \(1, 2, 3\)"),
        (lambda x, w: F.conv2d(x, w, stride=1.5), ValueError, r"conv2d: stride is 1.5"),
        (lambda x, w: F.conv2d(x, w, padding=-1), ValueError, r"conv2d: padding is -1; .*at least 0"),
        (lambda x, w: F.conv2d(x, w, padding="full"), ValueError, r"conv2d: padding is 'full'; legal are"),
        (lambda x, w: F.conv2d(x, w, stride=2, padding="same"), ValueError, r"'same' needs stride 1, found 2"),
        (lambda x, w: F.conv2d(x, w, dilation=0), ValueError, r"conv2d: dilation is 0"),
        (lambda x, w: F.conv2d(x, w, dilation=3), ValueError, r"input has 5 rows .*must have at least 7 rows"),
        (lambda x, w: F.conv2d(x, w, dilation=(1, 4)), ValueError, r"input has 6 columns .*at least 9 columns"),
        (lambda x, w: F.conv2d(x, w, groups=3), ValueError, r"conv2d: groups is 3; it must divide .* 4"),
        (lambda x, w: F.conv2d(x, w, groups=0), ValueError, r"conv2d: groups is 0"),
        (lambda x, w: F.conv2d(x.to(np.float32), w), TypeError, r"types float32, float64; they must be equal"),
        (lambda x, w: F.conv2d(Tensor(np.ones((1, 3, 5, 6), int)), w), TypeError, r"input has type int64"),
        (lambda x, w: F.conv_transpose2d(x, w), ValueError, r"conv_transpose2d: input has 3 channels, .*expects 4"),
        (lambda x, w: F.conv_transpose2d(x, w[:3], output_padding=1), ValueError, r"output_padding \(1, 1\) must"),
        (lambda x, w: F.conv_transpose2d(x, w[:3], padding=4), ValueError, r"the output would have size -1 x 0"),
        (lambda x, w: F.max_pool2d(x, 0), ValueError, r"max_pool2d: kernel_size is 0"),
        (lambda x, w: F.max_pool2d(x, 2, padding=2), ValueError, r"padding \(2, 2\) is more than half the kernel size"),
        (lambda x, w: F.max_pool2d(x, 6), ValueError, r"max_pool2d: input has 5 rows.*at least 6 rows"),
        (lambda x, w: F.avg_pool2d(x, 2, divisor_override=0), ValueError, r"divisor_override is 0"),
        (lambda x, w: F.avg_pool2d(x, (2, 7)), ValueError, r"avg_pool2d: input has 6 columns"),
        (lambda x, w: F.interpolate(x), ValueError, r"give either size or scale_factor"),
        (lambda x, w: F.interpolate(x, 3, 2.0), ValueError, r"give either size or scale_factor"),
        (lambda x, w: F.interpolate(x, 3, mode="cubic"), ValueError, r"mode is 'cubic'; legal are"),
        (lambda x, w: F.interpolate(x, scale_factor=-1), ValueError, r"scale_factor is -1"),
        (lambda x, w: F.interpolate(x, scale_factor=0.1), ValueError, r"from 5 x 6 to 0 x 0"),
        (lambda x, w: F.interpolate(x, (0, 3)), ValueError, r"interpolate: size is \(0, 3\)"),
    ],
)  # fmt: skip
def test_refusals(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call(image(1, 3, 5, 6), image(4, 3, 3, 3))


def test_empty_batch() -> None:
    x, w = image(0, 3, 5, 6), image(4, 3, 3, 3)
    assert F.conv2d(x, w).shape == (0, 4, 3, 4)
    assert F.max_pool2d(x, 2).shape == (0, 3, 2, 3)
