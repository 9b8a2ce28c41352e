"""The arrays in a Tensor: devices, types, broadcasting, views, memory orders, and whose memory a gradient is."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minitorch_unet import functional as F
from minitorch_unet.tensor import Tensor, grad


def leaf(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Tensor:
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype), requires_grad=True)


def gradient(t: Tensor) -> np.ndarray:
    assert t.grad is not None
    return t.grad.numpy()


# ------------------------------------------------------------ devices, types


class FakeCupyArray:
    """Looks to the engine like an array on a GPU."""

    __cuda_array_interface__ = None
    dtype, shape, ndim, size, base = np.dtype(np.float32), (2,), 1, 2, None
    device = SimpleNamespace(id=1)


FakeCupyArray.__module__ = "cupy"


def test_mixed_devices_are_refused() -> None:
    on_gpu = Tensor(FakeCupyArray())
    assert on_gpu.device == "cuda:1"
    with pytest.raises(
        ValueError, match=r"add: inputs are on different devices \(cpu, cuda:1\); move them with .to\(device\)"
    ):
        Tensor(np.ones(2, np.float32)) + on_gpu


def test_missing_device_is_named() -> None:
    with pytest.raises(ValueError, match="device is 'cuda:x'"):
        Tensor([1.0], device="cuda:x")
    x = Tensor([1.0])
    assert x.to("cpu") is x


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.float32(2.5), np.int64(2), np.array(2.5).item()])
def test_numbers_take_on_the_tensors_type(dtype: Any, number: Any) -> None:
    x = leaf(2, 2, dtype=dtype)
    results = [x + number, number + x, x - number, number - x, x * number, number * x, x / number, x**number]
    results += [F.pow(2.0, x), F.maximum(x, number), F.where(x.data > 0, x, number), F.clamp(x, -number, number)]
    assert {r.dtype for r in results} == {np.dtype(dtype)}
    for result in results:
        (g,) = grad(F.where(np.isfinite(result.data), result, 0.0).sum(), x)
        assert g is not None
        assert g.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_keep_the_type(dtype: Any) -> None:
    x = leaf(2, 4, 4, 4, dtype=dtype)
    w = leaf(4, 4, 3, 3, dtype=dtype)
    labels = np.zeros((2, 4, 4), int)
    results = [
        F.softplus(x), F.gelu(x), F.gelu(x, "tanh"), F.silu(x), F.sigmoid(x), F.var(x), F.std(x, 1), x.mean(),
        F.logsumexp(x, 1), F.softmax(x, 1), F.conv2d(x, w), F.conv_transpose2d(x, w, stride=2), F.max_pool2d(x, 2),
        F.avg_pool2d(x, 3, 1, 1), F.interpolate(x, (3, 5), mode="bilinear"), F.batch_norm(x, None, None, training=True),
        F.group_norm(x, 2), F.dropout(x, 0.3), F.cross_entropy(x, labels, weight=np.ones(4), label_smoothing=0.1),
        F.dice_loss(x, labels), F.focal_loss(x, labels), F.tversky_loss(x, labels), F.mse_loss(x, np.zeros(x.shape)),
        F.binary_cross_entropy_with_logits(x, np.ones(x.shape), pos_weight=2.0), F.pad(x, (1, 1), "reflect"),
    ]  # fmt: skip
    for result in results:
        assert result.dtype == dtype
        (g,) = grad(result.sum(), x)
        assert g is not None
        assert g.dtype == dtype


def test_mixed_types_give_each_input_its_own_back() -> None:
    a, b = leaf(3, dtype=np.float32), leaf(3, dtype=np.float64)
    y = a * b
    assert y.dtype == np.float64
    y.sum().backward()
    assert gradient(a).dtype == np.float32
    assert gradient(b).dtype == np.float64


def test_what_a_tensor_is_made_of() -> None:
    assert Tensor([1.0, 2.0]).dtype == np.float32
    assert Tensor([1, 2]).dtype == np.int64
    assert Tensor(np.array([1.0])).dtype == np.float64
    assert Tensor(np.float64(1.0)).dtype == np.float64
    assert Tensor([1.0], dtype=np.float64).dtype == np.float64
    data = np.ones(3)
    assert Tensor(data).data is data
    assert "requires_grad=True" in repr(leaf(2))
    assert "from=exp" in repr(F.exp(leaf(2)))
    assert float(Tensor(np.array([2.5]))) == 2.5
    assert len(Tensor(np.zeros((4, 2)))) == 4


def test_numpy_arrays_on_the_left_are_left_to_tensor() -> None:
    x = leaf(2)
    for y in (np.ones(2) + x, np.ones(2) * x, np.ones(2) - x, np.ones(2) / x, np.float64(2) * x):
        assert isinstance(y, Tensor)
        assert y.requires_grad
        assert y.shape == (2,)


def test_comparisons_give_tensors_without_history() -> None:
    x, y = Tensor(np.array([1.0, 2.0, 3.0]), requires_grad=True), Tensor(np.array([3.0, 2.0, 1.0]))
    expected = {
        "eq": (x == y, [False, True, False]), "ne": (x != y, [True, False, True]), "lt": (x < y, [True, False, False]),
        "le": (x <= y, [True, True, False]), "gt": (x > 2, [False, False, True]), "ge": (x >= 2, [False, True, True]),
        "and": ((x > 1) & (x < 3), [False, True, False]), "or": ((x < 2) | (x > 2), [True, False, True]),
    }  # fmt: skip
    for result, values in expected.values():
        assert result.data.tolist() == values
        assert not result.requires_grad


# ------------------------------------------------- broadcasting, views, aliases


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((3,), (2, 3)),
        ((2, 1), (1, 3)),
        ((), (2, 2)),
        ((1,), (4,)),
        ((2, 1, 3), (4, 1)),
        ((1, 1), (1, 1)),
        ((0, 3), (1, 3)),
    ],
)
@pytest.mark.parametrize("create", [False, True])
def test_broadcasting_is_undone(one: tuple[int, ...], other: tuple[int, ...], create: bool) -> None:
    a, b = leaf(*one), leaf(*other, seed=1)
    ga, gb = grad((a * b).sum(), [a, b], create_graph=create)
    assert ga is not None
    assert gb is not None
    shape = np.broadcast_shapes(one, other)
    for g, own, partner in ((ga, a, b), (gb, b, a)):
        full = np.broadcast_to(partner.data, shape)
        axes = tuple(range(len(shape) - own.ndim))
        axes += tuple(i + len(axes) for i, n in enumerate(own.shape) if n == 1 and shape[i + len(axes)] != 1)
        assert g.shape == own.shape
        np.testing.assert_allclose(g.data, full.sum(axes, keepdims=True).reshape(own.shape), rtol=1e-14)


def test_views_share_memory_and_their_gradients_reach_the_whole() -> None:
    x = leaf(3, 4)
    views = [x[1:], x[:, ::-1], x.reshape(4, 3), x.permute(1, 0), F.broadcast_to(x, (2, 3, 4)), x[1, 2:3]]
    assert all(np.shares_memory(v.data, x.data) for v in views)
    F.add(x[0], x[:, ::-1][2]).sum().backward()
    expected = np.zeros((3, 4))
    expected[[0, 2]] = 1
    assert np.array_equal(gradient(x), expected)


def test_gradients_of_two_leaves_never_share_memory() -> None:
    v = np.ones(3)
    for function in (F.add, lambda a, b: a + b + a, lambda a, b: a.reshape(3) + b, lambda a, b: F.cat([a, b])):
        a, b = leaf(3), leaf(3, seed=1)
        y = function(a, b)
        start = v if y.shape == (3,) else np.ones(6)
        y.backward(start)
        ga, gb = a.grad, b.grad
        assert ga is not None
        assert gb is not None
        ga.data[...] = 100.0
        assert not np.any(gb.data == 100.0)
        assert not np.any(start == 100.0)
        ga, gb = (g.data for g in grad(function(a, b), [a, b], start) if g is not None)
        assert not np.shares_memory(ga, gb)
        assert not np.shares_memory(ga, start)
        a.grad = b.grad = None
        function(a, b).backward(start, create_graph=True)
        assert a.grad is not b.grad
        assert not np.shares_memory(a.grad.data, b.grad.data)  # type: ignore[union-attr]
    x = leaf(3)
    x.sum().backward()
    x.grad.data[0] = 5.0  # type: ignore[union-attr]
    assert np.array_equal(gradient(x), [5.0, 1.0, 1.0])


def layouts(data: np.ndarray) -> dict[str, np.ndarray]:
    """The same values laid out differently in memory."""
    wide = np.zeros((*data.shape[:-1], 2 * data.shape[-1]))
    wide[..., ::2] = data
    read_only = data.copy()
    read_only.flags.writeable = False
    return {
        "fortran": np.asfortranarray(data),
        "strided": wide[..., ::2],
        "reversed": np.ascontiguousarray(data[..., ::-1])[..., ::-1],
        "permuted": np.ascontiguousarray(data.T).T,
        "read-only": read_only,
    }


IMAGE_FUNCTIONS = {
    "conv2d": lambda x: F.conv2d(x, Tensor(np.arange(36.0).reshape(2, 2, 3, 3)), stride=2, padding=1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, Tensor(np.arange(16.0).reshape(2, 2, 2, 2)), stride=2),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 1, 1),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2, ceil_mode=True),
    "interpolate": lambda x: F.interpolate(x, (7, 3), mode="bilinear"),
    "pad": lambda x: F.pad(x, (1, 2, 3, 1), "reflect"),
    "crop": lambda x: F.crop(x, (2, 3)),
    "batch_norm": lambda x: F.batch_norm(x, None, None, training=True),
    "softmax": lambda x: F.softmax(x, 1),
    "cross_entropy": lambda x: F.cross_entropy(x, np.ones((2, 4, 5), int)),
    "gelu": F.gelu,
    "relu": F.relu,
    "sum": lambda x: x.sum((0, 2)),
    "amax": lambda x: F.amax(x, (1, 3)),
    "matmul": lambda x: x @ x.swapaxes(2, 3),
    "cat": lambda x: F.cat([x, x], 1),
    "getitem": lambda x: x[:, 0, [1, 1, 2]],
    "roll": lambda x: F.roll(x, (1, 2), (2, 3)),
    "dropout": lambda x: F.dropout(x, 0.5, generator=np.random.default_rng(0)),
}


@pytest.mark.parametrize("name", IMAGE_FUNCTIONS)
def test_memory_order_does_not_matter_and_inputs_are_not_changed(name: str) -> None:
    data = np.random.default_rng(5).standard_normal((2, 2, 4, 5))

    def run(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = Tensor(array, requires_grad=True)
        y = IMAGE_FUNCTIONS[name](x)
        weights = np.cos(np.arange(y.size)).reshape(y.shape)
        (g,) = grad(y, x, weights)
        assert g is not None
        return y.data, g.data

    expected = run(data.copy())
    again = run(data.copy())
    assert [e.tobytes() for e in expected] == [a.tobytes() for a in again]
    for kind, array in layouts(data).items():
        for result, wanted in zip(run(array), expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=1e-13, atol=1e-13, err_msg=kind)
        assert np.array_equal(array, data), kind
