"""Group normalisation as one operation: digits, memory order, gradients, beside the formula in float64."""

import numpy as np
import pytest

from minitorch_unet import Tensor, grad, no_grad
from minitorch_unet import functional as F

ORDERS = {"channels-last": (0, 2, 3, 1), "C": (0, 1, 2, 3), "columns first": (3, 1, 0, 2)}


def composed(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> Tensor:
    """The formula from elementary operations."""
    split = x.reshape(x.shape[0], groups, -1)
    centred = split - split.mean(2, keepdim=True)
    y = (centred * ((centred * centred).mean(2, keepdim=True) + 1e-5) ** -0.5).reshape(x.shape)
    return y * weight.reshape(1, -1, 1, 1) + bias.reshape(1, -1, 1, 1)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_float32_beside_the_formula_in_float64(groups: int, order: str, offset: float) -> None:
    rng = np.random.default_rng(groups)
    axes = ORDERS[order]
    x = (rng.standard_normal((3, 6, 5, 4)) + offset).astype(np.float32)
    x = np.ascontiguousarray(x.transpose(axes)).transpose(np.argsort(axes))
    weight, bias = (rng.standard_normal(6).astype(np.float32) for _ in range(2))
    gy = rng.standard_normal(x.shape).astype(np.float32)

    def run(function: object, dtype: type) -> list[np.ndarray]:
        tensors = [Tensor(a.astype(dtype), requires_grad=True) for a in (x, weight, bias)]
        y = function(tensors[0], groups, *tensors[1:])  # type: ignore[operator]
        found = [y, *grad(y, tensors, Tensor(gy.astype(dtype)))]
        assert [t.dtype for t in found] == [dtype] * 4
        if function is F.group_norm and order != "columns first":
            assert all(t.data.strides == tensors[0].data.strides for t in found[:2]), "maps keep their memory order"
        return [t.detach().numpy() for t in found]

    for found, wanted in zip(run(F.group_norm, np.float32), run(composed, np.float64), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_weight_and_bias_may_be_absent_and_maps_need_no_pixels() -> None:
    x = np.random.default_rng(0).standard_normal((4, 6))
    with no_grad():
        plain = F.group_norm(Tensor(x), 2).numpy()
        shifted = F.group_norm(Tensor(x), 2, bias=Tensor(np.arange(6.0))).numpy()
        assert F.group_norm(Tensor(np.zeros((0, 6, 2, 2))), 2).shape == (0, 6, 2, 2)
    split = x.reshape(4, 2, 3)
    wanted = (split - split.mean(2, keepdims=True)) / np.sqrt(split.var(2, keepdims=True) + 1e-5)
    np.testing.assert_allclose(plain, wanted.reshape(4, 6), rtol=1e-12)
    np.testing.assert_allclose(shifted, plain + np.arange(6), rtol=1e-12)
