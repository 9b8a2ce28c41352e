"""Losses against loops over pixels, at extreme values, and with labels that are not legal."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import Tensor, host

from minitorch_unet import functional as F
from minitorch_unet.tensor import grad

few = settings(max_examples=40)
seeds = st.integers(0, 1000)
pytestmark = pytest.mark.usefixtures("device")


def softmax_oracle(scores: Any) -> list[float]:
    top = max(scores)
    total = math.fsum(math.exp(s - top) for s in scores)
    return [math.exp(s - top) / total for s in scores]


def draw(seed: int, ignore: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Logits (2, 3, 2, 4) and labels (2, 2, 4), a quarter of them ignored; at least one counts."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (2, 2, 4))
    if ignore is not None:
        labels[rng.random(labels.shape) < 0.25] = ignore
        labels[0, 0, 0] = 1 if ignore != 1 else 0
    return 3 * rng.standard_normal((2, 3, 2, 4)), labels


def per_pixel(logits: Any, labels: Any, ignore: int, energy: Any) -> np.ndarray:
    """energy(probabilities, label, index) for every pixel that is not ignored, 0 for the others."""
    out = np.zeros(labels.shape)
    for index in np.ndindex(labels.shape):
        if labels[index] != ignore:
            p = softmax_oracle([logits[(index[0], c, *index[1:])] for c in range(logits.shape[1])])
            out[index] = energy(p, labels[index], index)
    return out


@few
@given(
    st.sampled_from([-100, 0, 255]), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.3, 1.0]),
    st.sampled_from(["mean", "sum", "none"]), seeds,
)  # fmt: skip
def test_cross_entropy(ignore: int, classes: bool, pixels: bool, smoothing: float, reduction: str, seed: int) -> None:
    logits, labels = draw(seed, ignore)
    weight = np.array([0.5, 2.0, 1.5]) if classes else np.ones(3)
    pixel = np.random.default_rng(seed + 1).uniform(0.1, 3, labels.shape) if pixels else np.ones(labels.shape)

    def energy(p: list[float], label: int, index: Any) -> float:
        hard = -weight[label] * math.log(p[label])
        soft = -math.fsum(weight[c] * math.log(p[c]) for c in range(3)) / 3
        return pixel[index] * ((1 - smoothing) * hard + smoothing * soft)

    expected = per_pixel(logits, labels, ignore, energy)
    total = per_pixel(logits, labels, ignore, lambda p, label, index: pixel[index] * weight[label]).sum()
    reduced = {"mean": expected.sum() / total, "sum": expected.sum(), "none": expected}[reduction]
    loss = F.cross_entropy(
        Tensor(logits), labels, weight if classes else None, ignore, reduction, smoothing, pixel if pixels else None
    )
    np.testing.assert_allclose(host(loss), reduced, rtol=1e-12, atol=1e-13)


@few
@given(st.sampled_from([-100, 2]), st.sampled_from(["mean", "sum", "none"]), seeds)
def test_nll_and_focal_loss(ignore: int, reduction: str, seed: int) -> None:
    logits, labels = draw(seed, ignore)
    weight = np.array([0.5, 2.0, 1.5])

    def reduce(expected: np.ndarray) -> Any:
        total = weight[labels[labels != ignore]].sum()
        return {"mean": expected.sum() / total, "sum": expected.sum(), "none": expected}[reduction]

    logp = F.log_softmax(Tensor(logits), 1)
    expected = reduce(per_pixel(logits, labels, ignore, lambda p, t, _: -weight[t] * math.log(p[t])))
    np.testing.assert_allclose(
        host(F.nll_loss(logp, labels, weight, ignore, reduction)), expected, rtol=1e-12, atol=1e-13
    )
    for gamma in (0.0, 2.0, 0.5):
        expected = reduce(
            per_pixel(logits, labels, ignore, lambda p, t, _, g=gamma: -weight[t] * (1 - p[t]) ** g * math.log(p[t]))
        )
        loss = F.focal_loss(Tensor(logits), labels, gamma, weight, ignore, reduction)
        np.testing.assert_allclose(host(loss), expected, rtol=1e-10, atol=1e-13)


@few
@given(st.sampled_from([-100, 1]), st.sampled_from([0.0, 1.0]), seeds)
def test_dice_and_tversky(ignore: int, smooth: float, seed: int) -> None:
    logits, labels = draw(seed, ignore)
    tp, fp, fn = np.zeros(3), np.zeros(3), np.zeros(3)
    for index in np.ndindex(labels.shape):
        if labels[index] != ignore:
            p = softmax_oracle([logits[(index[0], c, *index[1:])] for c in range(3)])
            for c in range(3):
                true = float(labels[index] == c)
                tp[c] += p[c] * true
                fp[c] += p[c] * (1 - true)
                fn[c] += (1 - p[c]) * true
    dice = (2 * tp + smooth) / (2 * tp + fp + fn + smooth)
    tversky = (tp + smooth) / (tp + 0.2 * fp + 0.6 * fn + smooth)
    x = Tensor(logits)
    assert F.dice_loss(x, labels, smooth, ignore).item() == pytest.approx(1 - dice.mean(), rel=1e-12)
    assert F.dice_loss(x, labels, smooth, ignore, False).item() == pytest.approx(1 - dice[1:].mean(), rel=1e-12)
    assert F.tversky_loss(x, labels, 0.2, 0.6, smooth, ignore).item() == pytest.approx(1 - tversky.mean(), rel=1e-12)


def test_dice_of_right_and_wrong_answers() -> None:
    labels = np.array([[[0, 1], [1, 0]]])
    sure = 100 * np.stack([1 - labels, labels], 1).astype(float)
    assert F.dice_loss(Tensor(sure), labels).item() == pytest.approx(0, abs=1e-12)
    assert F.dice_loss(Tensor(-sure), labels, smooth=1e-9).item() == pytest.approx(1, abs=1e-6)
    absent = np.zeros_like(labels)  # class 1 is nowhere and is not predicted: costs nothing
    assert F.dice_loss(Tensor(100 * np.stack([1 - absent, absent], 1).astype(float)), absent).item() == pytest.approx(0)


@few
@given(st.booleans(), st.booleans(), st.sampled_from(["mean", "sum", "none"]), seeds)
def test_binary_cross_entropy(weighted: bool, positive: bool, reduction: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, t = 3 * rng.standard_normal((3, 4)), rng.uniform(0, 1, (3, 4))
    w, pos = (rng.uniform(0.5, 2, (3, 4)) if weighted else None), (2.5 if positive else None)
    expected = np.zeros((3, 4))
    for i in np.ndindex(3, 4):
        s = 1 / (1 + math.exp(-x[i]))
        expected[i] = -((pos or 1) * t[i] * math.log(s) + (1 - t[i]) * math.log(1 - s)) * (1 if w is None else w[i])
    expected = {"mean": expected.mean(), "sum": expected.sum(), "none": expected}[reduction]
    loss = F.binary_cross_entropy_with_logits(Tensor(x), t, w, reduction, pos)
    np.testing.assert_allclose(host(loss), expected, rtol=1e-10, atol=1e-13)


def test_mse() -> None:
    x, t = np.array([1.0, 2.0, 4.0]), np.array([0.0, 2.0, 1.0])
    assert F.mse_loss(Tensor(x), t).item() == pytest.approx(10 / 3)
    assert F.mse_loss(Tensor(x), Tensor(t), "sum").item() == 10
    assert host(F.mse_loss(Tensor(x), t, "none")).tolist() == [1, 0, 9]


# -------------------------------------------------------------- extreme values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", [1e6, -1e6])
def test_losses_do_not_change_when_all_logits_are_shifted(dtype: Any, shift: float) -> None:
    logits, labels = draw(0, -100)
    logits = np.round(logits * 4) / 4  # so that float32 holds logits + 1e6 exactly; 1e6 has 20 bits
    logits = np.round(logits).astype(dtype)
    for function in (F.cross_entropy, F.dice_loss, F.focal_loss, F.tversky_loss):
        results = []
        for x in (Tensor(logits, requires_grad=True), Tensor(logits + dtype(shift), requires_grad=True)):
            loss = function(x, labels)
            (g,) = grad(loss, x)
            assert g is not None
            results.append((host(loss), host(g)))
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [1e3, 1e6, 1e30])
def test_losses_of_huge_logits_are_finite(scale: float) -> None:
    logits, labels = draw(1, None)
    for function in (F.cross_entropy, F.dice_loss, F.focal_loss, F.tversky_loss):
        x = Tensor(scale * logits, requires_grad=True)
        loss = function(x, labels)
        (g,) = grad(loss, x)
        assert np.isfinite(host(loss))
        assert g is not None
        assert np.isfinite(host(g)).all()


@pytest.mark.parametrize("x", [0.0, 1.0, 800.0, 1e6, 1e30])
def test_binary_cross_entropy_of_huge_logits(x: float) -> None:
    right, wrong = Tensor(np.array([x, -x]), requires_grad=True), Tensor(np.array([-x, x]), requires_grad=True)
    target = np.array([1.0, 0.0])
    assert F.binary_cross_entropy_with_logits(right, target, reduction="sum").item() == pytest.approx(
        2 * math.log1p(math.exp(-x)), rel=1e-14, abs=1e-300
    )
    loss = F.binary_cross_entropy_with_logits(wrong, target, reduction="sum")
    assert loss.item() == pytest.approx(2 * (x + math.log1p(math.exp(-x))))
    (g,) = grad(loss, wrong)
    assert g is not None
    assert np.isfinite(host(g)).all()


def test_one_wrong_sure_pixel_costs_its_margin() -> None:
    x = np.zeros((1, 2, 1, 1))
    x[0, 0] = 1e6
    assert F.cross_entropy(Tensor(x), np.array([[[1]]])).item() == 1e6


def test_ignored_pixels_get_no_gradient() -> None:
    logits, labels = draw(2, -100)
    for function in (F.cross_entropy, F.dice_loss, F.focal_loss, F.tversky_loss, F.nll_loss):
        x = Tensor(logits, requires_grad=True)
        (g,) = grad(function(x, labels), x)
        assert g is not None
        ignored = np.broadcast_to((labels == -100)[:, None], g.shape)
        assert (host(g)[ignored] == 0).all()
        assert (host(g)[~ignored] != 0).any()


# ----------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "dice_loss", "focal_loss", "tversky_loss"])
@pytest.mark.parametrize("value", [3, -1, 255, -101])
def test_labels_out_of_range_are_refused(name: str, value: int) -> None:
    logits, labels = draw(0, None)
    labels[1, 1, 2] = value
    with pytest.raises(ValueError, match=rf"{name}: target: index holds values .*{value}.*; legal are 0\.\.2"):
        getattr(F, name)(Tensor(logits), labels)


@pytest.mark.parametrize("name", ["cross_entropy", "nll_loss", "dice_loss", "focal_loss", "tversky_loss"])
def test_wrong_targets_are_refused(name: str) -> None:
    logits, labels = draw(0, None)
    function = getattr(F, name)
    with pytest.raises(TypeError, match=f"{name}: target must hold whole class numbers, found type float64"):
        function(Tensor(logits), labels.astype(float))
    with pytest.raises(ValueError, match=rf"{name}: target has shape \(2, 1, 2, 4\); for input .* must be \(2, 2, 4\)"):
        function(Tensor(logits), labels[:, None])
    with pytest.raises(ValueError, match=rf"{name}: input has shape \(3,\)"):
        function(Tensor(np.ones(3)), labels)
    for kind in (np.uint8, np.int16, np.uint64):
        assert function(Tensor(logits), labels.astype(kind)).item() == function(Tensor(logits), labels).item()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x, t: F.cross_entropy(x, t, np.ones(2)), r"weight has shape \(2,\); with 3 classes: \(3,\)"),
        (lambda x, t: F.cross_entropy(x, t, reduction="avg"), r"reduction is 'avg'; legal are 'mean', 'sum', 'none'"),
        (lambda x, t: F.cross_entropy(x, t, label_smoothing=1.5), r"label_smoothing is 1.5; it must be from 0 to 1"),
        (lambda x, t: F.cross_entropy(x, t, pixel_weight=np.ones((2, 2))), r"pixel_weight has shape \(2, 2\)"),
        (lambda x, t: F.cross_entropy(x, np.full_like(t, -100)), r"no pixel counts"),
        (lambda x, t: F.focal_loss(x, np.full_like(t, -100)), r"focal_loss: no pixel counts"),
        (lambda x, t: F.mse_loss(x, x[:, :1]), r"mse_loss: target has shape \(2, 1, 2, 4\)"),
        (lambda x, t: F.mse_loss(x, np.ones(3)), r"mse_loss: target has shape \(3,\)"),
        (lambda x, t: F.mse_loss(x, x, "max"), r"mse_loss: reduction is 'max'"),
        (lambda x, t: F.binary_cross_entropy_with_logits(x, t), r"target has shape \(2, 2, 4\), input \(2, 3, 2, 4\)"),
    ],
)
def test_refusals(call: Any, text: str) -> None:
    logits, labels = draw(0, None)
    with pytest.raises(ValueError, match=text):
        call(Tensor(logits), labels)
