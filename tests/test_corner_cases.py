"""Corner cases in which values or gradients were once silently wrong."""

import ml_dtypes
import numpy as np
import pytest

from minitorch_unet import Tensor, nn, no_grad
from minitorch_unet import functional as F
from minitorch_unet.backend import memory
from minitorch_unet.optim import SGD, clip_grad_norm_, clip_grad_value_, grad_norm
from minitorch_unet.testing import gradcheck


@pytest.mark.parametrize("index", [([0, 0, 1],), ((0, 0, 1),), (np.array([0, 0, 1]),)])
def test_a_row_taken_twice_gets_both_gradients(index) -> None:
    x = Tensor(np.ones((4, 3)), requires_grad=True)
    x[index].sum().backward()
    assert x.grad.numpy()[:, 0].tolist() == [2, 1, 0, 0]


def test_index_select_refuses_an_index_of_two_axes() -> None:
    with pytest.raises(ValueError, match=r"index has shape \(2, 2\)"):
        F.index_select(Tensor(np.ones((2, 3))), 0, np.array([[0, 1], [0, 0]]))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, bool])
def test_sums_of_integers_stay_exact(kind) -> None:
    total = Tensor(np.array([1, 0, 1], kind)).sum()
    assert total.dtype.kind in "iu" and total.item() == 2
    assert Tensor(np.array([2**53 + 1])).sum().item() == 2**53 + 1


@pytest.mark.parametrize("value", [-200.0, -88.0, -20.0, -10.0, 0.0, 10.0, 200.0])
def test_sigmoid_keeps_its_digits_far_from_0(value) -> None:
    x = Tensor(np.full(3, value, np.float32), requires_grad=True)
    y = F.sigmoid(x)
    expected = 1 / (1 + np.exp(-value))
    np.testing.assert_allclose(y.detach().numpy(), expected, rtol=3e-7, atol=1e-38)
    y.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), expected * (1 - expected), rtol=3e-7, atol=1e-7 * (value > 0) + 1e-38)


@pytest.mark.parametrize("size", [16, memory.LARGE])
def test_memory_of_every_size_keeps_its_type(size) -> None:
    for dtype in (np.float32, np.float16, np.dtype(ml_dtypes.bfloat16)):
        assert memory.empty((size,), dtype).dtype == dtype


def test_large_maps_of_bfloat16_can_be_joined() -> None:
    half = Tensor(np.ones((1, 16, 256, 256), ml_dtypes.bfloat16))
    joined = F.cat([half, half], 1)
    assert joined.dtype == half.dtype and joined.shape == (1, 32, 256, 256)


@pytest.mark.parametrize("shapes", [((3, 4), (4,)), ((4,), (4, 3)), ((4,), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3))])
def test_products_with_vectors_by_the_operator(shapes) -> None:
    rng = np.random.default_rng(0)
    a, b = (Tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes)
    y = a @ b
    np.testing.assert_allclose(y.detach().numpy(), a.detach().numpy() @ b.detach().numpy(), atol=1e-12)
    assert gradcheck(lambda p, q: p @ q, (a, b))


def test_a_single_parameter_is_meant_as_a_whole() -> None:
    p = Tensor(np.zeros((2, 2)), requires_grad=True)
    p.grad = Tensor(np.full((2, 2), 3.0))
    assert clip_grad_norm_(p, 1.0) == pytest.approx(6.0) and grad_norm(p) == pytest.approx(1.0, rel=1e-5)
    SGD(p, lr=1.0).step()
    np.testing.assert_allclose(p.detach().numpy(), -0.5, rtol=1e-5)
    clip_grad_value_(p, 0.1)
    np.testing.assert_allclose(p.grad.numpy(), 0.1)


def test_a_parameter_given_twice_is_refused() -> None:
    p = Tensor(np.zeros(2), requires_grad=True)
    with pytest.raises(ValueError, match="SGD: params holds a parameter more than once"):
        SGD([p, p], lr=1.0)


def test_an_assignment_that_would_forget_a_history_is_refused() -> None:
    x, z = Tensor(np.ones(1), requires_grad=True), Tensor(np.zeros(3))
    with pytest.raises(ValueError, match="setitem: the value is part of a graph"):
        z[0:1] = x * 3
    z[Tensor(np.array([1, 2]))] = x.detach()
    assert z.numpy().tolist() == [0, 1, 1]
    with no_grad():
        z[0:1] = x * 3
    assert z.numpy().tolist() == [3, 1, 1]


def test_layer_normalisation_takes_a_single_size() -> None:
    x = Tensor(np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32))
    assert np.array_equal(nn.LayerNorm(5)(x).detach().numpy(), nn.LayerNorm((5,))(x).detach().numpy())
