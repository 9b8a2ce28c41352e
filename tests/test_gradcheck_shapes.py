"""The gradient check on drawn shapes, strides, paddings, dilations, groups, axes and indices."""

from typing import Any

import numpy as np
import on_device
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from on_device import Tensor, host

from minitorch_unet import functional as F
from minitorch_unet.testing import gradcheck, gradgradcheck

few = settings(max_examples=20)
seeds = st.integers(0, 1000)
pytestmark = pytest.mark.usefixtures("device")
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def check(function: Any, *inputs: Tensor, twice: bool = True) -> None:
    # All elements, and twice over, on the processor; on others, where it takes longer, two directions.
    thorough = on_device.current == "cpu"
    assert gradcheck(function, inputs, mode="full" if thorough else "projection").max_relative_error < 1e-6
    if twice and thorough:
        assert gradgradcheck(function, inputs, mode="projection").max_relative_error < 1e-6


@few
@given(st.data(), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), pairs, seeds)
def test_conv2d(data: st.DataObject, n: int, groups: int, c: int, k: int, stride: Any, seed: int) -> None:
    kernel, dilation = data.draw(pairs), data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = data.draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    least = [max(1, dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i]) for i in (0, 1)]
    size = [n + data.draw(st.integers(0, 2)) for n in least]
    inputs = [leaf(n, groups * c, *size, seed=seed), leaf(groups * k, c, *kernel, seed=seed + 1)]
    if data.draw(st.booleans()):
        inputs.append(leaf(groups * k, seed=seed + 2))
    check(lambda x, w, b=None: F.conv2d(x, w, b, stride, padding, dilation, groups), *inputs)


@few
@given(st.data(), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), st.integers(1, 2), pairs, seeds)
def test_conv_transpose2d(data: st.DataObject, n: int, groups: int, c: int, k: int, stride: Any, seed: int) -> None:
    kernel, size = data.draw(pairs), data.draw(pairs)
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = data.draw(st.tuples(st.integers(0, 1), st.integers(0, 1)))
    extra = tuple(data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    out = [(size[i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (kernel[i] - 1) + extra[i] + 1 for i in (0, 1)]
    assume(min(out) > 0)
    inputs = [leaf(n, groups * k, *size, seed=seed), leaf(groups * k, c, *kernel, seed=seed + 1)]
    if data.draw(st.booleans()):
        inputs.append(leaf(groups * c, seed=seed + 2))
    check(lambda x, w, b=None: F.conv_transpose2d(x, w, b, stride, padding, extra, groups, dilation), *inputs)


@few
@given(st.data(), pairs, pairs, st.booleans(), seeds)
def test_pools(data: st.DataObject, kernel: Any, stride: Any, ceil: bool, seed: int) -> None:
    padding = tuple(data.draw(st.integers(0, k // 2)) for k in kernel)
    dilation = data.draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    size = [dilation[i] * (kernel[i] - 1) + 1 + data.draw(st.integers(0, 3)) for i in (0, 1)]
    x = leaf(1, 2, *size, seed=seed)
    check(lambda x: F.max_pool2d(x, kernel, stride, padding, dilation, ceil), x)
    counted = data.draw(st.booleans())
    check(lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, counted), x)


@few
@given(st.data(), st.tuples(st.integers(2, 4), st.integers(2, 4)), seeds)
def test_pad(data: st.DataObject, size: tuple[int, int], seed: int) -> None:
    mode = data.draw(st.sampled_from(["constant", "reflect", "replicate"]))
    least = -1 if mode == "constant" else 0
    pad = tuple(
        data.draw(st.integers(least, n - 1 if mode == "reflect" else 3)) for n in (*[size[1]] * 2, *[size[0]] * 2)
    )
    assume(size[1] + pad[0] + pad[1] > 0 and size[0] + pad[2] + pad[3] > 0)
    check(lambda x: F.pad(x, pad, mode, 0.5), leaf(1, 2, *size, seed=seed))


@few
@given(
    st.sampled_from(["nearest", "bilinear"]),
    pairs,
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.booleans(),
    seeds,
)
def test_interpolate(mode: str, size: Any, out: Any, corners: bool, seed: int) -> None:
    x = leaf(1, 2, *size, seed=seed)
    corners = corners and mode == "bilinear"
    check(lambda x: F.interpolate(x, out, mode=mode, align_corners=corners), x)
    factors = [(o + 0.25) / n for o, n in zip(out, size, strict=True)]
    check(lambda x: F.interpolate(x, scale_factor=factors, mode=mode, align_corners=corners), x)


shapes = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@few
@given(st.data(), shapes, seeds)
def test_cat(data: st.DataObject, shape: list[int], seed: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for i in range(data.draw(st.integers(1, 3))):
        own = list(shape)
        own[axis] = data.draw(st.integers(1, 2))
        parts.append(leaf(*own, seed=seed + i))
    check(lambda *t: F.cat(t, axis), *parts)


@few
@given(st.data(), shapes, seeds)
def test_getitem(data: st.DataObject, shape: list[int], seed: int) -> None:
    index: list[Any] = []
    for n in shape[: data.draw(st.integers(1, len(shape)))]:
        kind = data.draw(st.sampled_from(["slice", "integer", "new", "all"]))
        if kind == "slice":
            start = data.draw(st.integers(0, n - 1))
            index.append(slice(start, None, 2) if data.draw(st.booleans()) else slice(start, None, -1))
        elif kind == "integer":
            index.append(data.draw(st.integers(-n, n - 1)))
        else:
            index += [slice(None)] if kind == "all" else [None, slice(None)]
    check(lambda x: x[tuple(index)], leaf(*shape, seed=seed))
    rows = data.draw(st.lists(st.integers(-shape[0], shape[0] - 1), min_size=1, max_size=4))
    check(lambda x: x[rows], leaf(*shape, seed=seed))


@few
@given(st.data(), st.lists(st.integers(2, 3), min_size=1, max_size=3), st.booleans(), seeds)
def test_reductions(data: st.DataObject, shape: list[int], keep: bool, seed: int) -> None:
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    x = leaf(*shape, seed=seed)
    for name in ("sum", "mean", "var", "amax", "amin", "logsumexp"):
        check(lambda x, name=name: getattr(F, name)(x, axes, keepdim=keep), x)
    for name in ("softmax", "log_softmax"):
        check(lambda x, name=name: getattr(F, name)(x, axes[0]), x)


@few
@given(st.data(), shapes, st.sampled_from(["add", "sub", "mul", "div", "maximum"]), seeds)
def test_broadcasting(data: st.DataObject, shape: list[int], name: str, seed: int) -> None:
    def narrowed() -> list[int]:
        kept = [1 if data.draw(st.booleans()) else n for n in shape]
        return kept[data.draw(st.integers(0, len(kept) - 1)) :]

    x, y = leaf(*narrowed(), seed=seed), leaf(*narrowed(), seed=seed + 1)
    if name == "div":  # away from 0
        y = Tensor(host(y) + 3 * np.sign(host(y)), requires_grad=True)
    check(lambda x, y: getattr(F, name)(x, y), x, y)
