"""A pixel that does not count has no effect on any loss, whatever its scores are, and no gradient."""

import numpy as np
import pytest

from minitorch_unet import Tensor
from minitorch_unet import functional as F

LOSSES = {
    "cross_entropy": F.cross_entropy,
    "each pixel's": lambda s, t: F.cross_entropy(s, t, reduction="none").sum(),
    "smoothed": lambda s, t: F.cross_entropy(s, t, label_smoothing=0.1),
    "nll": F.nll_loss,
    "focal": F.focal_loss,
    "dice": F.dice_loss,
    "tversky": F.tversky_loss,
}


@pytest.mark.parametrize("score", [np.nan, -np.inf, np.inf, 1e30])
@pytest.mark.parametrize("loss", LOSSES)
def test_an_ignored_pixel_has_no_effect(loss, score) -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5))
    labels[0, 1, 2] = labels[1, 3, 0] = -100
    results = []
    for strange in (0.0, score):
        scores[0, :, 1, 2], scores[1, 1, 3, 0] = strange, strange
        x = Tensor(scores, requires_grad=True)
        energy = LOSSES[loss](x, labels)
        energy.backward()
        results.append((energy.item(), x.grad.numpy()))
    (value, gradient), (strange_value, strange_gradient) = results
    assert np.isfinite(value) and value == strange_value
    assert np.array_equal(gradient, strange_gradient) and not strange_gradient[0, :, 1, 2].any()


def test_focal_loss_of_a_certain_pixel_has_a_finite_gradient() -> None:
    x = Tensor(np.array([[[80.0]], [[-80.0]]])[None].reshape(1, 2, 1, 1), requires_grad=True)
    F.focal_loss(x, np.zeros((1, 1, 1), int), gamma=0.5).backward()
    assert np.isfinite(x.grad.numpy()).all()
    with pytest.raises(ValueError, match="gamma is -1"):
        F.focal_loss(x, np.zeros((1, 1, 1), int), gamma=-1)


def test_means_over_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="mean of"):
        F.mse_loss(Tensor(np.zeros((0, 3))), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="leaves no class"):
        F.dice_loss(Tensor(np.zeros((1, 1, 2, 2))), np.zeros((1, 2, 2), int), include_background=False)


def test_a_class_that_is_neither_there_nor_predicted_costs_nothing_without_smoothing() -> None:
    scores = np.full((1, 3, 2, 2), -1e4)
    scores[:, 0] = 0
    assert F.dice_loss(Tensor(scores), np.zeros((1, 2, 2), int), smooth=0).item() == 0


def test_binary_cross_entropy_gives_its_target_a_gradient() -> None:
    x, t = Tensor(np.array([0.5, -2.0])), Tensor(np.array([0.2, 0.7]), requires_grad=True)
    F.binary_cross_entropy_with_logits(x, t, reduction="sum").backward()
    np.testing.assert_allclose(t.grad.numpy(), -x.numpy())
