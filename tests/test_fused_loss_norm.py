"""The fused cross-entropy and batch normalisation: against compositions, by hand, at extreme values.

float32 runs in the compiled kernels (where they were built), float64 in the NumPy reference.
"""

import math
from typing import Any

import numpy as np
import pytest
from cpu_kernel_cases import LAYOUTS, image
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import Tensor, array, host

from minitorch_unet import UNet, grad
from minitorch_unet import functional as F
from minitorch_unet.backend import compiled
from minitorch_unet.backend.devices import kernels_of
from minitorch_unet.backend.reference import Kernels
from minitorch_unet.functional.loss import _composed_cross_entropy
from minitorch_unet.tensor import Node

few = settings(max_examples=60, deadline=None)
TYPES = [np.float32, np.float64]
every_device = pytest.mark.usefixtures("device")
both_types = pytest.mark.parametrize("dtype", TYPES)
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-13}


def value_and_gradients(function: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    """The function's value and the gradients of all arrays."""
    leaves = [Tensor(a, requires_grad=True) for a in arrays]
    y = function(*leaves)
    weights = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    return [host(y), *(host(g) for g in grad(y, leaves, Tensor(weights)) if g is not None)]


def close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)))


def names_in_graph(output: Tensor) -> list[str]:
    found, waiting = [], [output.node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Node):
            found.append(node.op.name)
            waiting.extend(node.parents)  # type: ignore[arg-type]
    return found


# -------------------------------------------------------------- cross-entropy


@every_device
@few
@given(
    st.sampled_from(TYPES), st.integers(1, 6), st.lists(st.integers(1, 7), max_size=3), st.integers(1, 20),
    st.sampled_from(["u1", "i1", "i8", "u8"]), st.booleans(), st.booleans(), st.booleans(), st.integers(0, 10**6),
)  # fmt: skip
def test_fused_and_composed_agree(
    dtype: Any, c: int, size: list[int], n: int, kind: str, classes: bool, pixels: bool, mean: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = (3 * rng.standard_normal((n, c, *size))).astype(dtype)
    if len(size) == 2 and seed % 2:
        scores = image(rng, n, c, *size, layout=seed % LAYOUTS).astype(dtype, copy=False)
    labels = rng.integers(0, c, (n, *size)).astype(kind)
    ignored = 127
    labels[rng.random(labels.shape) < 0.2] = ignored
    labels.flat[0] = c - 1
    weight = rng.uniform(0.1, 2, c).astype(dtype) if classes else None
    pixel = rng.uniform(0.1, 2, labels.shape).astype(dtype) if pixels else None
    how = (weight, ignored, "mean" if mean else "sum", 0.0, pixel)
    fused = value_and_gradients(lambda x: F.cross_entropy(x, labels, *how), scores)
    how = tuple(array(value) if isinstance(value, np.ndarray) else value for value in how)
    composed = value_and_gradients(lambda x: _composed_cross_entropy(x, array(labels), *how), scores)
    close(fused, composed, TOLERANCE[dtype])


@every_device
@both_types
def test_cross_entropy_by_hand(dtype: Any) -> None:
    # p = (1/4, 3/4) in the first pixel and (1/2, 1/2) in the second, which counts three times.
    scores = np.array([[[0, 5], [math.log(3), 5]]], dtype)
    loss, g = value_and_gradients(
        lambda x: F.cross_entropy(x, np.array([[1, 0]]), pixel_weight=np.array([[1, 3]])) * 1, scores
    )
    assert loss == pytest.approx((math.log(4 / 3) + 3 * math.log(2)) / 4, rel=1e-6)
    gy = np.random.default_rng(1).standard_normal(()).astype(dtype)
    np.testing.assert_allclose(g, gy * np.array([[[1 / 4, -3 / 2], [-1 / 4, 3 / 2]]]) / 4, rtol=1e-6)


@every_device
@both_types
@pytest.mark.parametrize("shift", [2.0**20, -(2.0**20)])
def test_a_common_shift_changes_no_bit(dtype: Any, shift: float) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(-40, 40, (2, 3, 5, 7)).astype(dtype)  # whole numbers: float32 holds their sums exactly
    labels = rng.integers(0, 3, (2, 5, 7))
    results = [value_and_gradients(lambda x: F.cross_entropy(x, labels), s) for s in (scores, scores + dtype(shift))]
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@every_device
@both_types
@pytest.mark.parametrize("top", [1e6, 1e30])
def test_sure_pixels(dtype: Any, top: float) -> None:
    scores = np.zeros((1, 2, 1, 2), dtype)
    scores[0, 0] = top
    labels = np.array([[[0, 1]]], np.uint8)
    x = Tensor(scores, requires_grad=True)
    loss = F.cross_entropy(x, labels, reduction="sum")
    assert loss.item() == dtype(top)
    (g,) = grad(loss, x)
    assert g is not None
    assert host(g).tolist() == [[[[0, 1]], [[0, -1]]]]


@every_device
@both_types
@pytest.mark.parametrize("gap", [1.0, 5.0, 20.0, 60.0])
def test_small_energies_and_gradients_keep_their_digits(dtype: Any, gap: float) -> None:
    x = Tensor(np.array([[gap, 0.0]], dtype), requires_grad=True)
    loss = F.cross_entropy(x, [0])
    (g,) = grad(loss, x)
    assert g is not None
    p = math.exp(-gap) / (1 + math.exp(-gap))
    bound = 4 * float(np.finfo(dtype).eps)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-gap)), rel=bound)
    np.testing.assert_allclose(host(g), [[-p, p]], rtol=bound)
    assert host(g).sum() == 0


@pytest.mark.skipif(not compiled.available(), reason=f"compiled kernels: {compiled.status()}")
def test_exponential_and_logarithm_within_a_few_units_in_the_last_place() -> None:
    kernels = kernels_of(np)
    rng = np.random.default_rng(3)
    for low, high, units in ((-87, -17.5, 2.0), (-17.5, 0, 3.5), (-1e-3, 0, 3.5)):
        d = rng.uniform(low, high, 100_000).astype(np.float32)
        scores = np.stack([d, np.zeros_like(d)], 1)
        g = kernels.softmax_cross_entropy_backward(scores, np.ones(d.size, np.int64), None, None, -100, 1.0)[:, 0]
        e = np.exp(d.astype(np.float64))  # the gradient is e / (1 + e): of e below -17.5, e itself
        truth = e / (1 + e)
        assert (np.abs(g - truth) <= units * np.spacing(truth.astype(np.float32))).all()
    for d in rng.uniform(-80, 80, 500).astype(np.float32):
        scores = np.array([[d, 0]], np.float32)
        energy = kernels.softmax_cross_entropy(scores, np.array([1], np.uint8), None, None, -100)[0]
        truth = max(d, 0) + math.log1p(math.exp(-abs(float(d))))
        assert abs(energy - truth) <= 4 * np.spacing(np.float32(truth))
    far = np.array([[-88, 0], [-1e30, 0], [-np.inf, 0]], np.float32)
    g = kernels.softmax_cross_entropy_backward(far, np.ones(3, np.int64), None, None, -100, 1.0)
    assert np.abs(g).max() < 1.2e-38


@every_device
@both_types
def test_one_class_costs_nothing(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    loss, g = value_and_gradients(
        lambda x: F.cross_entropy(x, np.zeros((2, 3, 5), int)), rng.standard_normal((2, 1, 3, 5)).astype(dtype)
    )
    assert loss == 0
    assert (g == 0).all()


@every_device
@both_types
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_pixels_that_do_not_count_may_hold_anything(dtype: Any, bad: float) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((2, 3, 4, 5)).astype(dtype), rng.integers(0, 3, (2, 4, 5))
    weights = np.ones((2, 4, 5))
    labels[1, 2, 3], weights[0, 1, 1] = 255, 0
    results = []
    for _ in range(2):
        with np.errstate(invalid="ignore"):  # the reference computes inf - inf before it drops the pixel
            results.append(
                value_and_gradients(lambda x: F.cross_entropy(x, labels, None, 255, pixel_weight=weights), scores)
            )
        scores = scores.copy()
        scores[1, :, 2, 3] = scores[0, 1, 1, 1] = bad
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))
    assert (results[1][1][1, :, 2, 3] == 0).all()
    assert (results[1][1][0, :, 1, 1] == 0).all()


@every_device
@both_types
@pytest.mark.parametrize("c", [2, 3, 5])
@pytest.mark.parametrize("where", [0, 1])
def test_nan_in_nan_out(dtype: Any, c: int, where: int) -> None:
    scores = np.random.default_rng(0).standard_normal((1, c, 3, 20)).astype(dtype)
    scores[0, where, 1, 18] = np.nan
    loss, g = value_and_gradients(lambda x: F.cross_entropy(x, np.zeros((1, 3, 20), int)), scores)
    assert np.isnan(loss)
    wrong = np.isnan(g)
    assert wrong[0, :, 1, 18].all()
    assert wrong.sum() == c


@every_device
@both_types
def test_impossible_classes(dtype: Any) -> None:
    """Scores of -inf say that a class is impossible: no share for it, and an infinite energy if it is the truth."""
    scores = np.array([[0, 0, -np.inf]], dtype)
    assert F.cross_entropy(Tensor(scores), [0]).item() == pytest.approx(math.log(2))
    assert F.cross_entropy(Tensor(scores), [2]).item() == np.inf


@every_device
@both_types
def test_no_pixel_counts(dtype: Any) -> None:
    scores, labels = np.ones((1, 2, 2, 2), dtype), np.full((1, 2, 2), -100)
    loss, g = value_and_gradients(lambda x: F.cross_entropy(x, labels, reduction="sum"), scores)
    assert loss == 0
    assert (g == 0).all()
    for how in ({}, {"ignore_index": 1, "pixel_weight": np.zeros((1, 2, 2))}):
        with pytest.raises(ValueError, match="cross_entropy: no pixel counts"):
            F.cross_entropy(Tensor(scores), labels if not how else 0 * labels, **how)


@every_device
@both_types
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("u1", 3), ("u1", 255), ("i8", -1), ("i8", 2**32), ("i8", -(2**40)), ("u8", 2**64 - 100), ("u4", 2**31),
        ("i2", 9),
    ],
)  # fmt: skip
def test_labels_out_of_range_are_refused(dtype: Any, kind: str, value: int) -> None:
    labels = np.ones((2, 9, 5), kind)
    labels[1, 7, 2] = value
    with pytest.raises(ValueError, match=rf"cross_entropy: target: index holds values .*{value}.*; legal are 0\.\.2"):
        F.cross_entropy(Tensor(np.zeros((2, 3, 9, 5), dtype)), labels)


def test_labels_and_weights_are_not_copied() -> None:
    labels, pixels = np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), np.float32)
    x = Tensor(np.zeros((1, 2, 2, 2), np.float32), requires_grad=True)
    loss = F.cross_entropy(x, labels, pixel_weight=pixels)
    assert loss.node is not None
    assert loss.node.ctx is not None
    saved = loss.node.ctx.saved
    assert saved["given"][0] is labels
    assert saved["given"][2] is pixels
    assert saved["scores"] is x.data


@every_device
def test_only_what_the_fused_operation_can_do_is_fused() -> None:
    x, labels = Tensor(np.zeros((1, 2, 2, 2)), requires_grad=True), np.zeros((1, 2, 2), int)
    assert names_in_graph(F.cross_entropy(x, labels)) == ["softmax_cross_entropy"]
    for how in ({"reduction": "none"}, {"label_smoothing": 0.1}):
        assert "log_softmax" in names_in_graph(F.cross_entropy(x, labels, **how))


@every_device
@both_types
def test_gradients_of_half_precision_and_of_recorded_rules(dtype: Any) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((2, 3, 4, 5)).astype(dtype), rng.integers(0, 3, (2, 4, 5))
    x = Tensor(scores, requires_grad=True)
    (fast,) = grad(F.cross_entropy(x, labels, [1, 2, 3]), x)
    (recorded,) = grad(F.cross_entropy(x, labels, [1, 2, 3]), x, create_graph=True)
    assert fast is not None
    assert recorded is not None
    np.testing.assert_allclose(host(fast), host(recorded), atol=1e-7)
    half = F.cross_entropy(Tensor(scores.astype(np.float16)), labels, [1, 2, 3])
    assert half.dtype == np.float32  # losses of 16-bit scores are computed, and given, in float32
    assert half.item() == pytest.approx(F.cross_entropy(x, labels, [1, 2, 3]).item(), rel=2e-3)


# --------------------------------------------------------- batch normalisation


def composed_batch_norm(x: Tensor, w: Tensor, b: Tensor, relu: bool, eps: float = 1e-5) -> Tensor:
    """Training mode in single operations."""
    axes = (0, *range(2, x.ndim))
    view = (1, -1, *([1] * (x.ndim - 2)))
    centred = x - x.mean(axes, keepdim=True)
    y = centred * ((centred * centred).mean(axes, keepdim=True) + eps) ** -0.5 * w.reshape(view) + b.reshape(view)
    return F.relu(y) if relu else y


@every_device
@few
@given(
    st.sampled_from(TYPES), st.integers(1, 70), st.lists(st.integers(1, 9), max_size=3), st.integers(2, 4),
    st.booleans(), st.integers(0, 10**6),
)  # fmt: skip
def test_batch_norm_is_its_composition(dtype: Any, c: int, size: list[int], n: int, relu: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, c, *size)).astype(dtype)
    if len(size) == 2 and seed % 2:
        x = image(rng, n, c, *size, layout=seed % LAYOUTS).astype(dtype, copy=False)
    w, b = rng.uniform(0.5, 2, c).astype(dtype), rng.standard_normal(c).astype(dtype)
    expected = value_and_gradients(
        lambda x, w, b: composed_batch_norm(x, w, b, relu), *(a.astype(np.float64) for a in (x, w, b))
    )
    if relu and np.abs(expected[0]).min(initial=1, where=expected[0] > 0) < 1e-5:
        return  # rounding may choose the other side of the kink
    # Few values of nearly equal size have a large derivative: rounding is enlarged as the gradient is.
    spread = x.astype(np.float64).std(axis=(0, *range(2, x.ndim))).min()
    tolerance = TOLERANCE[dtype] * 4 / min(1, spread)
    found = value_and_gradients(lambda x, w, b: F.batch_norm(x, None, None, w, b, True, relu=relu), x, w, b)
    close(found, expected, tolerance)


@every_device
@both_types
def test_batch_norm_by_hand(dtype: Any) -> None:
    x = np.array([[[[1.0, 3.0]]], [[[5.0, 7.0]]]], dtype)  # mean 4, variance 5
    w, b = (Tensor(np.array([v], dtype)) for v in (2, 1))
    mean, variance = (Tensor(np.array([v], dtype)) for v in (0, 1))
    y = F.batch_norm(Tensor(x), mean, variance, w, b, True, momentum=0.5, eps=0, relu=True)
    np.testing.assert_allclose(host(y).ravel(), [0, 1 - 2 / 5**0.5, 1 + 2 / 5**0.5, 1 + 6 / 5**0.5], rtol=1e-6)
    assert (mean.item(), variance.item()) == pytest.approx((2, 0.5 + 0.5 * 20 / 3))
    y = F.batch_norm(Tensor(x), mean, variance, w, b, eps=0)
    np.testing.assert_allclose(host(y).ravel(), 2 * (x.ravel() - 2) / variance.item() ** 0.5 + 1, rtol=1e-6)


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e6])
def test_statistics_of_large_offsets(offset: float) -> None:
    """float32 maps far from 0, also where the first pixel is far from all others."""
    rng = np.random.default_rng(0)
    x = (offset + rng.standard_normal((2, 19, 30, 30))).astype(np.float32)
    for _ in range(2):
        exact = x.astype(np.float64)
        mean, variance = kernels_of(np).channel_moments(x)
        assert (np.abs(mean - exact.mean((0, 2, 3))) <= 2e-7 * exact.std((0, 2, 3))).all()
        np.testing.assert_allclose(variance, exact.var((0, 2, 3)), rtol=1e-5)
        y = F.batch_norm(Tensor(x), None, None, training=True)
        centred = exact - exact.mean((0, 2, 3), keepdims=True)
        expected = centred / np.sqrt(exact.var((0, 2, 3), keepdims=True) + 1e-5)
        np.testing.assert_allclose(host(y), expected, rtol=1e-5, atol=2e-5)
        x = x.copy()
        x[0, :, 0, 0] = -offset


@every_device
@both_types
@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_channels_become_the_bias(dtype: Any, value: float) -> None:
    x = np.full((2, 17, 9, 11), value, dtype)
    b = np.linspace(-1, 1, 17).astype(dtype)
    y, gx, _, gb = value_and_gradients(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True), x, np.ones(17, dtype), b
    )
    np.testing.assert_allclose(y, np.broadcast_to(b[:, None, None], y.shape), atol=1e-12 if dtype == np.float64 else 0)
    assert np.isfinite(gx).all()
    assert np.isfinite(gb).all()


@every_device
@both_types
def test_nan_spoils_its_channel_only(dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 20, 5, 6)).astype(dtype)
    x[1, 17, 2, 3] = np.nan
    mean, variance = (Tensor(np.ones(20, dtype)) for _ in range(2))
    y = F.batch_norm(Tensor(x), mean, variance, training=True, relu=True)
    for result in (host(y).transpose(1, 0, 2, 3), host(mean), host(variance)):
        assert np.isnan(result[17]).all()
        assert np.isfinite(np.delete(result, 17, 0)).all()


@every_device
@both_types
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_recorded_batch_norm_is_the_fast_one(dtype: Any, training: bool, relu: bool) -> None:
    rng = np.random.default_rng(0)
    leaves = [Tensor(rng.standard_normal(s).astype(dtype), requires_grad=True) for s in ((2, 19, 5, 6), (19,), (19,))]
    running = [Tensor(rng.uniform(0.5, 2, 19).astype(dtype)) for _ in range(2)]
    gy = Tensor(rng.standard_normal((2, 19, 5, 6)).astype(dtype))
    results = []
    for create_graph in (False, True):
        y = F.batch_norm(leaves[0], *running, *leaves[1:], training, 0.0, relu=relu)
        results.append([host(g) for g in grad(y, leaves, gy, create_graph=create_graph) if g is not None])
    close(*results, tolerance=TOLERANCE[dtype])


@every_device
def test_gradient_that_another_needs_is_not_overwritten() -> None:
    """Batch normalisation may write into a gradient that is its own, never into one given by the caller."""
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32), requires_grad=True)
    gy = np.random.default_rng(1).standard_normal((2, 3, 8, 8), dtype=np.float32)
    before = gy.copy()
    y = F.batch_norm(x, None, None, training=True, relu=True)
    y.backward(Tensor(gy), retain_graph=True)
    assert x.grad is not None
    first = host(x.grad).copy()
    assert np.array_equal(gy, before)
    x.grad = None
    (y * 1.0 + y * 0.0).backward(Tensor(gy))
    np.testing.assert_array_equal(host(x.grad), first)  # type: ignore[attr-defined]


def test_maps_stay_channels_last() -> None:
    """Through batch normalisation, dropout, joining and the loss: no layer has to turn a map around."""

    def is_last(array: np.ndarray) -> bool:
        return array.transpose(0, 2, 3, 1).flags.c_contiguous

    rng = np.random.default_rng(0)
    x = Tensor(image(rng, 2, 6, 7, 9, layout=LAYOUTS - 1), requires_grad=True)
    for function in (
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.dropout(x, 0.5, generator=np.random.default_rng(1)),
        lambda x: F.cat([x, x], 1),
    ):
        y = function(x)
        assert is_last(host(y))
        (g,) = grad(y, x, y.detach())
        assert g is not None
        assert is_last(host(g))
    (g,) = grad(F.cross_entropy(x, np.zeros((2, 7, 9), int)), x)
    assert g is not None
    assert is_last(host(g))


@every_device
def test_unet_with_batch_norm_is_made_of_fused_operations(device: str) -> None:
    network = UNet(base=2, depth=1, norm="batch").to(device)
    names = names_in_graph(network(Tensor(np.zeros((1, 1, 20, 20), np.float32))))
    assert "relu" not in names
    assert names.count("batch_norm") >= 6
    assert [name for name in network.state_dict() if name.startswith("down.0.norm1")] == [
        f"down.0.norm1.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    ]


@pytest.mark.parametrize("name", ["channel_moments", "scale_shift", "batch_norm_backward"])
def test_reference_serves_any_number_of_axes(name: str) -> None:
    """(N, C) and (N, C, L) give what the same values as images give."""
    rng = np.random.default_rng(0)
    x, gy = (rng.standard_normal((5, 3, 1, 4), dtype=np.float32) for _ in range(2))
    vectors = rng.uniform(0.5, 2, (3, 3))

    def call(kernels: Kernels, shape: tuple[int, ...]) -> list[np.ndarray]:
        a, g = x.reshape(shape), gy.reshape(shape)
        arguments = {
            "channel_moments": (a,),
            "scale_shift": (a, *vectors.astype(np.float32), True),
            "batch_norm_backward": (g, a, a, *vectors, True),
        }[name]
        made = getattr(kernels, name)(*arguments)
        return [np.asarray(m).ravel() for m in (made if isinstance(made, tuple) else (made,))]

    as_images, as_lines = call(kernels_of(np), (5, 3, 1, 4)), call(kernels_of(np), (5, 3, 4))
    close(as_lines, as_images, 1e-6)
