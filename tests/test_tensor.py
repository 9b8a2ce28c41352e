"""The graph: what is recorded, how gradients are carried back, and what is refused."""

import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from minitorch_unet import functional as F
from minitorch_unet import nn
from minitorch_unet.tensor import (
    NonFiniteError,
    Tensor,
    detect_anomaly,
    enable_grad,
    grad,
    is_grad_enabled,
    no_grad,
    state,
)


def leaf(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def gradient(t: Tensor) -> np.ndarray:
    assert t.grad is not None
    return t.grad.numpy()


# ------------------------------------------------------------------ the walk


def test_chain_of_100_000_nodes() -> None:
    x = Tensor(np.array([1.5]), requires_grad=True)
    y = x
    for _ in range(100_000):
        y = y + 1
    y.sum().backward()
    assert gradient(x) == [1.0]
    node = weakref.ref(x)
    del x, y  # dropping it must not recurse either
    gc.collect()
    assert node() is None


def test_thirty_doublings_take_thirty_steps() -> None:
    x = Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(30):
        y = y + y
    y.backward()
    assert gradient(x) == 2.0**30


def test_a_node_waits_for_everything_that_uses_it() -> None:
    a = Tensor(np.array(3.0), requires_grad=True)
    b = a + a
    c = b * b
    c.backward()
    assert gradient(a) == 24.0


def test_shared_subgraph_with_paths_of_different_length() -> None:
    x = leaf(3)
    y = F.exp(x)
    z = y * 2 + F.tanh(F.neg(F.neg(y)))
    (z * y).sum().backward()
    e = np.exp(x.data)
    expected = e * (4 * e + np.tanh(e) + e * (1 - np.tanh(e) ** 2))
    np.testing.assert_allclose(gradient(x), expected, rtol=1e-14)


def test_gradients_add_up_over_calls_until_cleared() -> None:
    x = leaf(2)
    for times in (1, 2, 3):
        (x * 2).sum().backward()
        assert np.array_equal(gradient(x), [2.0 * times] * 2)
    x.grad = None
    (x * 2).sum().backward()
    assert np.array_equal(gradient(x), [2.0, 2.0])


def test_second_backward_needs_retain_graph() -> None:
    x = leaf(2)
    y = F.exp(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(gradient(x), 2 * np.exp(x.data))
    with pytest.raises(
        ValueError, match="call the first backward or grad with retain_graph=True, or compute the loss again"
    ):
        y.backward()


def test_kept_values_are_freed_by_backward() -> None:
    x = leaf(4)
    y = F.exp(x)
    assert y.node is not None
    kept = weakref.ref(y.node.ctx)
    y.sum().backward()
    gc.collect()
    assert kept() is None


def test_only_leaves_get_a_grad() -> None:
    x = leaf(2)
    y = x * 2
    y.sum().backward()
    assert y.grad is None
    assert x.grad is not None
    assert x.is_leaf
    assert not y.is_leaf


def test_two_outputs_at_once_and_an_output_inside_the_others_graph() -> None:
    x = leaf(3)
    y = x * x
    z = y * 3
    (gx,) = grad([y, z], x, [np.ones(3), np.full(3, 2.0)])
    assert gx is not None
    np.testing.assert_allclose(gx.numpy(), 2 * x.data * 7)


def test_gradient_of_an_interior_tensor() -> None:
    x = leaf(3)
    y = F.exp(x)
    gy, gx = grad((y * y).sum(), [y, x])
    assert gy is not None
    assert gx is not None
    np.testing.assert_allclose(gy.numpy(), 2 * y.data)
    np.testing.assert_allclose(gx.numpy(), 2 * y.data**2)


def test_output_that_is_a_leaf() -> None:
    x = Tensor(np.array(2.0), requires_grad=True)
    x.backward()
    assert gradient(x) == 1.0
    (g,) = grad(x, x)
    assert g is not None
    assert g.item() == 1.0


def test_grad_leaves_dot_grad_alone_and_backward_fills_it() -> None:
    x, w = leaf(3), leaf(3, seed=1)
    gx, gw = grad((x * w).sum(), [x, w])
    assert x.grad is None
    assert w.grad is None
    (x * w).sum().backward()
    assert gx is not None
    assert gw is not None
    assert np.array_equal(gradient(x), gx.numpy())
    assert np.array_equal(gradient(w), gw.numpy())


def test_unused_input() -> None:
    x, w = leaf(3), leaf(3)
    with pytest.raises(ValueError, match="grad: the outputs do not depend on input 1; pass allow_unused=True"):
        grad(x.sum(), [x, w])
    assert grad(x.sum(), [x, w], allow_unused=True)[1] is None


def test_refusals() -> None:
    x = leaf(2, 3)
    with pytest.raises(ValueError, match=r"shape \(2, 3\), not a single value; reduce it with .sum\(\) or .mean\(\)"):
        x.backward()
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\), the Tensor \(2, 3\)"):
        x.backward(np.ones(3))
    with pytest.raises(ValueError, match="has no history; some input must have requires_grad=True"):
        Tensor(np.ones(1)).backward()
    with pytest.raises(ValueError, match="grad: input 0 does not require a gradient"):
        grad(x.sum(), Tensor(np.ones(2)))
    with pytest.raises(ValueError, match="1 outputs but 2 grad_outputs"):
        grad(x.sum(), x, [None, None])
    with pytest.raises(TypeError, match="requires_grad needs a floating-point type, found int64"):
        Tensor(np.arange(3), requires_grad=True)
    with pytest.raises(ValueError, match=r"call .detach\(\).numpy\(\)"):
        x.numpy()
    with pytest.raises(ValueError, match="holds 6 values"):
        x.item()
    with pytest.raises(ValueError, match="neither true nor false"):
        bool(x > 0)
    with pytest.raises(TypeError, match="has no length"):
        len(x.sum())


def test_given_gradient_weights_the_outputs() -> None:
    x = leaf(2, 2)
    v = np.array([[1.0, 2.0], [3.0, 4.0]])
    F.exp(x).backward(v)
    np.testing.assert_allclose(gradient(x), v * np.exp(x.data))
    assert np.array_equal(v, [[1.0, 2.0], [3.0, 4.0]])


# ----------------------------------------------------- gradients of gradients


def test_create_graph_gives_higher_derivatives() -> None:
    x = Tensor(np.array(0.7), requires_grad=True)
    y = F.tanh(x)
    t = np.tanh(0.7)
    expected = [1 - t**2, -2 * t * (1 - t**2), (1 - t**2) * (6 * t**2 - 2)]
    for value in expected:
        (y,) = grad(y, x, create_graph=True)  # type: ignore[assignment]
        assert abs(y.item() - value) < 1e-14


@pytest.mark.parametrize("name", ["sqrt", "exp", "tanh", "sigmoid"])
def test_second_derivative_of_a_tensor_without_axes(name: str) -> None:
    """NumPy turns results without axes into scalars; the kept output must still be known as the output."""
    alone, row = Tensor(np.array(0.7), requires_grad=True), Tensor(np.array([0.7]), requires_grad=True)
    results = []
    for x in (alone, row):
        (g,) = grad(getattr(F, name)(x).sum(), x, create_graph=True)
        assert g is not None
        (gg,) = grad(g.sum(), x)
        assert gg is not None
        results.append(gg.item())
    assert results[0] == results[1]
    assert results[0] != 0


def test_backward_with_create_graph_records_dot_grad() -> None:
    x = leaf(3)
    (x**3).sum().backward(create_graph=True)
    assert x.grad is not None
    assert x.grad.requires_grad
    (gg,) = grad(x.grad.sum(), x)
    assert gg is not None
    np.testing.assert_allclose(gg.numpy(), 6 * x.data)


def test_grad_outputs_can_be_differentiated() -> None:
    x, v = leaf(3), leaf(3, seed=1)
    (g,) = grad(F.exp(x), x, v, create_graph=True)
    assert g is not None
    (gv,) = grad(g.sum(), v)
    assert gv is not None
    np.testing.assert_allclose(gv.numpy(), np.exp(x.data))


def test_without_create_graph_nothing_is_recorded() -> None:
    x = leaf(3)
    (g,) = grad(F.exp(x).sum(), x)
    assert g is not None
    assert not g.requires_grad
    assert g.node is None
    assert is_grad_enabled()


# ---------------------------------------------------------- in-place changes


def test_assignment_into_a_graph_is_refused() -> None:
    x = leaf(3)
    y = x * 1
    for t in (x, y):
        with pytest.raises(ValueError, match="setitem: this Tensor is part of a graph"):
            t[0] = 1.0
    with no_grad(), pytest.raises(ValueError, match="part of a graph"):
        y[0] = 1.0
    with no_grad():
        x[0] = 7.0
    assert x.data[0] == 7.0


@pytest.mark.parametrize("through_view", [False, True])
def test_change_of_a_kept_value_is_noticed(through_view: bool) -> None:
    x, w = leaf(3), Tensor(np.arange(3.0))
    y = (x * w).sum()
    if through_view:
        w[1:][0] = 9.0
    else:
        w[0] = 9.0
    with pytest.raises(ValueError, match="a value kept by 'mul' was changed in place after it was used"):
        y.backward()


def test_change_of_the_whole_is_noticed_through_a_kept_view() -> None:
    x, w = leaf(2), Tensor(np.arange(4.0))
    y = (x * w[1:3]).sum()
    w[:] = 0.0
    with pytest.raises(ValueError, match="changed in place"):
        y.backward()


def test_change_of_a_parameter_before_backward_is_noticed() -> None:
    x = leaf(3)
    y = (x * x).sum()
    with no_grad():
        x[0] = 2.0
    with pytest.raises(ValueError, match="changed in place"):
        y.backward()


def test_change_of_a_value_that_is_not_kept_is_harmless() -> None:
    x, w = leaf(3), Tensor(np.arange(3.0))
    y = (x + w).sum()
    w[0] = 9.0
    y.backward()
    assert np.array_equal(gradient(x), np.ones(3))


def test_setitem_takes_tensors_and_numbers() -> None:
    x = Tensor(np.zeros((2, 2)))
    x[0] = Tensor(np.array([1.0, 2.0]))
    x[1, 1] = 5
    assert np.array_equal(x.numpy(), [[1, 2], [0, 5]])


# --------------------------------------------------------------------- hooks


def test_hook_on_a_leaf_sees_the_complete_gradient_once() -> None:
    x = leaf(2)
    seen: list[np.ndarray] = []
    x.register_hook(lambda g: seen.append(g.data.copy()))
    (x * 2 + x * 3).sum().backward()
    assert len(seen) == 1
    assert np.array_equal(seen[0], [5.0, 5.0])


def test_hook_inside_the_graph_sees_and_replaces() -> None:
    x = leaf(2)
    y = x * 3
    seen: list[np.ndarray] = []
    y.register_hook(lambda g: seen.append(g.data.copy()))
    y.register_hook(lambda g: g * 10)
    (y + y).sum().backward()
    assert len(seen) == 1
    assert np.array_equal(seen[0], [2.0, 2.0])
    assert np.array_equal(gradient(x), [60.0, 60.0])


def test_hooks_run_in_order_and_can_be_removed() -> None:
    x = leaf(1)
    x.register_hook(lambda g: g + 1)
    remove = x.register_hook(lambda g: g * 10)
    x.sum().backward()
    assert gradient(x) == [20.0]
    remove()
    x.grad = None
    x.sum().backward()
    assert gradient(x) == [2.0]


def test_hook_replacement_keeps_history_with_create_graph() -> None:
    x = leaf(2)
    x.register_hook(lambda g: g * g)
    (g,) = grad((x**2).sum(), x, create_graph=True)
    assert g is not None
    np.testing.assert_allclose(g.data, 4 * x.data**2)
    remove_all = x._hooks.clear
    remove_all()
    (gg,) = grad(g.sum(), x)
    assert gg is not None
    np.testing.assert_allclose(gg.numpy(), 8 * x.data)


def test_hook_needs_a_gradient() -> None:
    with pytest.raises(ValueError, match="register_hook: this Tensor does not require a gradient"):
        Tensor(np.ones(2)).register_hook(lambda g: None)


# ------------------------------------------------------------------- no_grad


def test_no_grad_enable_grad_and_decorators() -> None:
    x = leaf(2)
    with no_grad():
        assert not is_grad_enabled()
        assert not (x * 2).requires_grad
        with enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @no_grad()
    def quiet() -> Tensor:
        return x * 2

    assert not quiet().requires_grad
    assert not quiet().requires_grad
    with pytest.raises(RuntimeError), no_grad():
        raise RuntimeError
    assert is_grad_enabled()


def test_modes_belong_to_their_thread() -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[tuple[bool, bool]] = []

    def other() -> None:
        inside.wait(10)
        seen.append((is_grad_enabled(), state.anomaly))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with no_grad(), detect_anomaly():
        inside.set()
        assert done.wait(10)
    thread.join()
    assert seen == [(True, False)]


def test_detach_shares_data_without_history() -> None:
    x = leaf(2)
    d = (x * 2).detach()
    assert d.is_leaf
    assert not d.requires_grad
    (x * d).sum().backward()
    np.testing.assert_allclose(gradient(x), d.data)


# ------------------------------------------------------------------- anomaly


class Bad(nn.Module):
    """log of something that may be negative, in a module of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return F.log(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        self.first = nn.ReLU()
        self.inner = [nn.Sequential(nn.LeakyReLU(), Bad())]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[0](x)


def test_anomaly_names_operation_module_and_element_forward() -> None:
    x = Tensor(np.array([[1.0, 2.0], [3.0, 0.0]]), requires_grad=True)
    with (
        detect_anomaly(),
        pytest.raises(NonFiniteError, match=r"the result of 'log' is -inf at element \[1, 1\], though"),
    ):
        F.log(x)
    with (
        detect_anomaly(),
        pytest.raises(NonFiniteError, match=r"result of 'log' in module 'inner.0.1' is -inf at element"),
    ):
        Outer()(x)
    assert not np.isfinite(Outer()(x).data).all()


def test_anomaly_names_operation_and_module_backward() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.sqrt(x)

    x = Tensor(np.array([4.0, 0.0]), requires_grad=True)
    with detect_anomaly(), np.errstate(divide="ignore"):
        y = Root()(x)
        with pytest.raises(NonFiniteError, match=r"the gradient of 'sqrt' in module 'Root' is inf at element \[1\]"):
            y.sum().backward()
    with np.errstate(divide="ignore"):
        F.sqrt(x).sum().backward()
    assert gradient(x)[1] == np.inf


def test_anomaly_blames_only_the_first() -> None:
    """An operation whose inputs are already bad is not the culprit."""
    x = Tensor(np.array([np.nan, 1.0]), requires_grad=True)
    with detect_anomaly():
        assert np.isnan(F.exp(x).data[0])
    with detect_anomaly():
        assert (F.exp(leaf(3)) * 2).sum().item() > 0
