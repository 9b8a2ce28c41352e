"""Elementwise functions, reductions, shapes, norms, dropout: values, conventions at kinks and ties, refusals."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from on_device import Tensor, array, host

from minitorch_unet import functional as F
from minitorch_unet.tensor import grad

few = settings(max_examples=40)
seeds = st.integers(0, 1000)
pytestmark = pytest.mark.usefixtures("device")
EXTREMES = np.array([-1e100, -1e6, -800.0, -30.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 30.0, 800.0, 1e6, 1e100])


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def derivative(function: Any, *values: Any) -> list[list[float]]:
    """Gradients of the sum of function(*values)."""
    leaves = [Tensor(np.array(v, dtype=np.float64), requires_grad=True) for v in values]
    return [host(g).tolist() for g in grad(function(*leaves).sum(), leaves) if g is not None]


# ---------------------------------------------------------------- elementwise

SCALAR = {
    "neg": lambda a: -a, "exp": math.exp, "abs": abs, "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "leaky_relu": lambda a: a if a > 0 else 0.01 * a,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "softplus": lambda a: math.log1p(math.exp(a)) if a <= 20 else a,
    "silu": lambda a: a / (1 + math.exp(-a)),
    "gelu": lambda a: 0.5 * a * (1 + math.erf(a / math.sqrt(2))),
}  # fmt: skip


@pytest.mark.parametrize("name", SCALAR)
def test_elementwise(name: str) -> None:
    x = np.concatenate([3 * normal(40), [0.0, 19.5, 20.5, -20.0]]).reshape(4, 11)
    expected = [SCALAR[name](a) for a in x.ravel().tolist()]
    np.testing.assert_allclose(host(getattr(F, name)(Tensor(x))).ravel(), expected, rtol=1e-13, atol=1e-15)


def test_tanh_gelu_is_close_to_gelu() -> None:
    x = Tensor(np.linspace(-4, 4, 50))
    assert 0 < np.abs(host(F.gelu(x)) - host(F.gelu(x, "tanh"))).max() < 1e-3


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "softplus", "silu", "gelu", "relu", "leaky_relu"])
def test_extreme_values_stay_finite(name: str) -> None:
    x = Tensor(EXTREMES, requires_grad=True)
    y = getattr(F, name)(x)
    (g,) = grad(y, x, np.ones(13))
    assert g is not None
    assert np.isfinite(host(y)).all()
    assert np.isfinite(host(g)).all()
    limits = {"sigmoid": (0, 1), "tanh": (-1, 1), "softplus": (0, 1e100), "silu": (0, 1e100), "gelu": (0, 1e100)}
    if name in limits:
        assert (host(y)[0], host(y)[-1]) == limits[name]


def test_softplus_is_exact_far_below_zero() -> None:
    y = F.softplus(Tensor(np.array([-30.0, -700.0])))
    np.testing.assert_allclose(host(y), [math.exp(-30), math.exp(-700)], rtol=1e-12)


def test_conventions_at_kinks() -> None:
    assert derivative(F.relu, [0.0, -0.0, 1, -1]) == [[0, 0, 1, 0]]
    assert derivative(F.abs, [0.0, -2, 3]) == [[0, -1, 1]]
    assert derivative(lambda x: F.leaky_relu(x, 0.25), [0.0, -1, 1]) == [[0.25, 0.25, 1]]
    assert derivative(lambda x: F.clamp(x, -1, 1), [-1.0, 1, -1.5, 0, 1.5]) == [[1, 1, 0, 1, 0]]
    assert derivative(F.maximum, [1.0, 2, 3], [1.0, 3, 2]) == [[0.5, 0, 1], [0.5, 1, 0]]
    assert derivative(F.minimum, [1.0, 2, 3], [1.0, 3, 2]) == [[0.5, 1, 0], [0.5, 0, 1]]
    assert derivative(lambda x: x**0, [0.0, 2]) == [[0, 0]]
    assert derivative(lambda x: x**1, [0.0, 2]) == [[1, 1]]
    assert derivative(lambda x: x**2, [0.0, 2]) == [[0, 4]]
    assert derivative(F.pow, [0.0, 0.0, 2.0], [2.0, 0.0, 3.0]) == [[0, 0, 12], [0, 0, 8 * math.log(2)]]
    assert derivative(F.log, [0.5])[0] == [2]
    assert derivative(F.sqrt, [4.0])[0] == [0.25]


def test_values_outside_the_domain() -> None:
    assert F.log(Tensor(np.array([0.0]))).item() == -math.inf
    assert math.isnan(F.log(Tensor(np.array([-1.0]))).item())
    assert math.isnan(F.sqrt(Tensor(np.array([-1.0]))).item())
    assert math.isnan(F.pow(Tensor(np.array([-8.0])), 0.5).item())
    assert F.exp(Tensor(np.array([1000.0]))).item() == math.inf
    assert np.isnan(host(F.relu(Tensor(np.array([np.nan]))))).all()
    assert np.isnan(host(F.maximum(Tensor(np.array([np.nan, 1.0])), Tensor(np.array([1.0, np.nan]))))).all()


def test_where_and_clamp() -> None:
    x = Tensor(np.array([1.0, 2.0, 3.0]))
    assert host(F.where(x > 1.5, x, -x)).tolist() == [-1, 2, 3]
    assert host(F.where(array([True, False, True]), 0.0, x)).tolist() == [0, 2, 0]
    assert host(F.clamp(x, 1.5, 2.5)).tolist() == [1.5, 2, 2.5]
    assert host(F.clamp(x, max=2)).tolist() == [1, 2, 2]
    bad = Tensor(np.array([0.0, 1.0]), requires_grad=True)
    (g,) = grad(F.where(bad > 0, F.exp(bad), 0.0).sum(), bad)
    assert g is not None
    assert host(g).tolist() == [0, math.e]


# ----------------------------------------------------------------- reductions


@few
@given(st.data(), st.lists(st.integers(1, 4), min_size=1, max_size=4), st.booleans(), seeds)
def test_reductions(data: st.DataObject, shape: list[int], keep: bool, seed: int) -> None:
    axes = tuple(data.draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True)))
    dim = tuple(a - len(shape) if data.draw(st.booleans()) else a for a in axes)
    x = normal(*shape, seed=seed)
    t = Tensor(x)
    kept = [1 if i in axes else n for i, n in enumerate(shape)]
    cells: dict[Any, list[float]] = {}
    for index in np.ndindex(*shape):
        cells.setdefault(tuple(0 if i in axes else n for i, n in enumerate(index)), []).append(float(x[index]))
    out = [n for i, n in enumerate(shape) if i not in axes] if not keep else kept

    def check(result: Tensor, function: Any) -> None:
        expected = np.array([function(cells[i]) for i in np.ndindex(*kept)]).reshape(out)
        assert result.shape == tuple(out)
        np.testing.assert_allclose(host(result), expected, rtol=1e-12, atol=1e-13)

    check(F.sum(t, dim, keep), math.fsum)
    check(F.mean(t, dim, keep), lambda v: math.fsum(v) / len(v))
    check(F.amax(t, dim, keep), max)
    check(F.amin(t, dim, keep), min)
    check(F.logsumexp(t, dim, keep), lambda v: math.log(math.fsum(map(math.exp, v))))
    check(F.var(t, dim, 0, keep), lambda v: math.fsum((a - math.fsum(v) / len(v)) ** 2 for a in v) / len(v))
    if len(cells[(0,) * len(shape)]) > 1:
        variance = lambda v: math.fsum((a - math.fsum(v) / len(v)) ** 2 for a in v) / (len(v) - 1)  # noqa: E731
        check(F.var(t, dim, keepdim=keep), variance)
        check(F.std(t, dim, keepdim=keep), lambda v: math.sqrt(variance(v)))


def test_softmax_and_log_softmax() -> None:
    x = normal(3, 4, 5)
    for dim in (0, 1, -1):
        e = np.exp(x)
        expected = e / e.sum(dim, keepdims=True)
        np.testing.assert_allclose(host(F.softmax(Tensor(x), dim)), expected, rtol=1e-13)
        np.testing.assert_allclose(host(F.log_softmax(Tensor(x), dim)), np.log(expected), rtol=1e-12)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("shift", [1e6, -1e6, 1e15])
def test_shifted_logits(name: str, shift: float) -> None:
    x = np.array([[1.0, 2.0, 4.0], [0.0, 0.0, -3.0]])
    plain, shifted = (host(getattr(F, name)(Tensor(a), 1)) for a in (x, x + shift))
    np.testing.assert_allclose(
        shifted - shift if name == "logsumexp" else shifted, plain, atol=1e-9 if shift < 1e9 else 0.5
    )


def test_logsumexp_of_infinities() -> None:
    inf = math.inf
    x = Tensor(np.array([[-inf, -inf], [-inf, 0.0], [inf, 1.0]]))
    assert host(F.logsumexp(x, 1)).tolist() == [-inf, 0.0, inf]


def test_float32_sums_keep_their_digits() -> None:
    x = Tensor(np.full(2_000_000, 0.1, np.float32))
    assert x.sum().item() == pytest.approx(2_000_000 * float(np.float32(0.1)), rel=1e-7)
    assert x.sum().dtype == np.float32


def test_ties() -> None:
    x = [[1.0, 3, 3, 0], [2, 2, 2, 2]]
    assert derivative(lambda t: F.amax(t, 1), x) == [[[0, 0.5, 0.5, 0], [0.25] * 4]]
    assert derivative(lambda t: F.amin(t, 1), x) == [[[0, 0, 0, 1], [0.25] * 4]]
    assert derivative(lambda t: F.max(t, 1).values, x) == [[[0, 1, 0, 0], [1, 0, 0, 0]]]
    assert derivative(lambda t: F.min(t, 1).values, x) == [[[0, 0, 0, 1], [1, 0, 0, 0]]]
    assert derivative(F.max, [3.0, 1, 3]) == [[0.5, 0, 0.5]]
    values, indices = F.max(Tensor(np.array(x)), 1)
    assert host(values).tolist() == [3, 2]
    assert host(indices).tolist() == [1, 0]
    assert host(F.min(Tensor(np.array(x)), 0, keepdim=True).indices).tolist() == [[0, 1, 1, 0]]
    assert host(F.argmax(Tensor(np.array(x)), 1)).tolist() == [1, 0]
    assert F.argmax(Tensor(np.array(x))).item() == 1


# --------------------------------------------------------------------- shapes


def test_shapes_against_numpy() -> None:
    x = normal(2, 3, 4)
    t = Tensor(x)
    index = np.array([[[2, 1, 0, 0]], [[1, 1, 2, 0]]])
    pairs = [
        (F.reshape(t, (4, -1)), x.reshape(4, 6)), (F.permute(t, (2, 0, -2)), x.transpose(2, 0, 1)),
        (F.transpose(t, 0, -1), x.swapaxes(0, 2)), (F.flip(t, (0, -1)), x[::-1, :, ::-1]), (F.flip(t, 1), x[:, ::-1]),
        (F.roll(t, (1, -5), (0, 2)), np.roll(x, (1, -5), (0, 2))), (F.roll(t, 7), np.roll(x, 7)),
        (F.roll(t, 2, -1), np.roll(x, 2, -1)),
        (F.broadcast_to(t, (5, 2, 3, 4)), np.broadcast_to(x, (5, 2, 3, 4))),
        (F.cat([t, t], -1), np.concatenate([x, x], -1)),
        (F.stack([t, t], 1), np.stack([x, x], 1)), (F.stack([t], -1), x[..., None]),
        (F.index_select(t, -1, [3, 0, 3]), x[..., [3, 0, 3]]),
        (F.gather(t, 1, index), np.take_along_axis(x, index, 1)),
        (t[..., None, 1], x[..., None, 1]), (t[[1, 0, -1], 2], x[[1, 0, -1], 2]), (t[x > 0], x[x > 0]),
        (t[Tensor(np.array([1]))], x[[1]]),
        (F.linear(t, Tensor(np.ones((2, 4))), Tensor(np.array([1.0, 2]))), x.sum(-1, keepdims=True) + np.array([1, 2])),
    ]  # fmt: skip
    for result, expected in pairs:
        assert result.shape == expected.shape
        np.testing.assert_allclose(host(result), expected, rtol=1e-14)


@pytest.mark.parametrize(
    ("one", "other"),
    [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 2)), ((2, 3), (3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((3,), (4, 3, 2))],
)
def test_matmul(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    a, b = normal(*one), normal(*other, seed=1)
    result = F.matmul(Tensor(a), Tensor(b))
    assert result.shape == np.matmul(a, b).shape
    np.testing.assert_allclose(host(result), np.matmul(a, b), rtol=1e-13)


@pytest.mark.parametrize(("mode", "name"), [("constant", "constant"), ("reflect", "reflect"), ("replicate", "edge")])
@pytest.mark.parametrize("pad", [(1, 2), (0, 1, 2, 0), (3, 3, 2, 2)])
def test_pad(mode: str, name: str, pad: tuple[int, ...]) -> None:
    x = normal(2, 1, 3, 4)
    left, right, top, bottom = (*pad, 0, 0)[:4]
    expected = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), name)  # type: ignore[call-overload]
    assert np.array_equal(host(F.pad(Tensor(x), pad, mode)), expected)


def test_pad_values_and_crop() -> None:
    x = normal(1, 1, 5, 6)
    assert (host(F.pad(Tensor(x), (1, 0), value=7.0))[..., 0] == 7).all()
    assert np.array_equal(host(F.pad(Tensor(x), (-1, -2, 0, -1))), x[:, :, :4, 1:4])
    assert np.array_equal(host(F.crop(Tensor(x), (2, 3))), x[:, :, 1:3, 1:4])  # offsets rounded down
    assert np.array_equal(host(F.crop(Tensor(x), 5)), x[:, :, :, 0:5])


# ---------------------------------------------------------------------- norms


def standardised(x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean()) / math.sqrt(((x - x.mean()) ** 2).mean() + eps)


def test_norms_against_loops() -> None:
    x, w, b = normal(2, 4, 3, 2), normal(4, seed=1), normal(4, seed=2)
    results = {
        "batch": F.batch_norm(Tensor(x), None, None, Tensor(w), Tensor(b), training=True),
        "instance": F.instance_norm(Tensor(x), Tensor(w), Tensor(b)),
        "group": F.group_norm(Tensor(x), 2, Tensor(w), Tensor(b)),
    }
    for n, c in np.ndindex(2, 4):
        pair = slice(c // 2 * 2, c // 2 * 2 + 2)
        expected = {
            "batch": standardised(x[:, c])[n],
            "instance": standardised(x[n, c]),
            "group": standardised(x[n, pair])[c % 2],
        }  # fmt: skip
        for kind, result in results.items():
            np.testing.assert_allclose(host(result)[n, c], expected[kind] * w[c] + b[c], rtol=1e-12, atol=1e-13)
    scale, shift = normal(3, 2, seed=3), normal(3, 2, seed=4)
    layered = F.layer_norm(Tensor(x), (3, 2), Tensor(scale), Tensor(shift), eps=1e-3)
    for n, c in np.ndindex(2, 4):
        np.testing.assert_allclose(
            host(layered)[n, c], standardised(x[n, c], 1e-3) * scale + shift, rtol=1e-12, atol=1e-13
        )


def test_running_statistics() -> None:
    x = normal(3, 2, 4)
    mean, variance = Tensor(np.array([1.0, 2.0])), Tensor(np.array([3.0, 4.0]))
    F.batch_norm(Tensor(x, requires_grad=True), mean, variance, training=True, momentum=0.25)
    channels = [x[:, c].ravel() for c in (0, 1)]
    np.testing.assert_allclose(host(mean), [0.75 * o + 0.25 * v.mean() for o, v in zip((1, 2), channels, strict=True)])
    np.testing.assert_allclose(
        host(variance), [0.75 * o + 0.25 * v.var(ddof=1) for o, v in zip((3, 4), channels, strict=True)]
    )
    assert not mean.requires_grad
    before = host(mean).copy()
    y = F.batch_norm(Tensor(x), mean, variance)
    expected = (x - host(mean)[:, None]) / np.sqrt(host(variance)[:, None] + 1e-5)
    np.testing.assert_allclose(host(y), expected, rtol=1e-12)
    assert np.array_equal(host(mean), before)


def test_norms_of_large_offsets() -> None:
    x = normal(2, 2, 8, 8)
    for function in (
        lambda t: F.batch_norm(t, None, None, training=True),
        lambda t: F.group_norm(t, 1),
        F.instance_norm,
    ):
        np.testing.assert_allclose(host(function(Tensor(x + 1e6))), host(function(Tensor(x))), atol=1e-8)
        assert (host(function(Tensor(np.full((2, 2, 8, 8), 1e6)))) == 0).all()


def test_dropout() -> None:
    x = Tensor(np.ones((100, 100)), requires_grad=True)
    y = F.dropout(x, 0.25, generator=np.random.default_rng(0))
    assert set(np.unique(host(y))) == {0.0, 1 / 0.75}
    assert abs((host(y) == 0).mean() - 0.25) < 0.02
    (g,) = grad(y.sum(), x)
    assert g is not None
    assert np.array_equal(host(g), host(y))
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert (host(F.dropout(x, 1.0)) == 0).all()
    F.manual_seed(3)
    first = host(F.dropout(x))
    second = host(F.dropout(x))
    F.manual_seed(3)
    assert np.array_equal(host(F.dropout(x)), first)
    assert not np.array_equal(first, second)


# --------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: F.add(1.0, 2.0), TypeError, r"add: neither argument is a Tensor"),
        (lambda x: F.mul(x, x[0, 0, 0, :2]), ValueError, r"mul: shapes .* and \(2,\) do not broadcast: 3 meets 2"),
        (lambda x: F.pow(2, 3), TypeError, r"pow: neither"),
        (lambda x: F.clamp(x), ValueError, r"clamp: give min, max or both"),
        (lambda x: F.where(x, x, x), TypeError, r"where: condition must be .*boolean.*found float64"),
        (lambda x: F.gelu(x, "fast"), ValueError, r"gelu: approximate is 'fast'; legal are"),
        (lambda x: F.sum(x, 4), ValueError, r"sum: dim is 4; with 4 axes it must be from -4 to 3"),
        (lambda x: F.mean(x, (0, -4)), ValueError, r"mean: dim \(0, -4\) names an axis twice"),
        (lambda x: F.softmax(x, 1.0), ValueError, r"softmax: dim is 1.0"),
        (lambda x: F.var(x[0, 0, 0, 0]), ValueError, r"var: 1 values with correction 1"),
        (lambda x: F.amax(x[:0], 0), ValueError, r"amax: input of shape \(0, 4, 3, 3\) has no value"),
        (lambda x: F.max(x[:0], 0), ValueError, r"max: input of shape"),
        (lambda x: F.reshape(x, (5, -1)), ValueError, r"reshape: shape \(5, -1\) cannot hold the 72 values"),
        (lambda x: F.permute(x, (0, 1)), ValueError, r"permute: dims \(0, 1\) names 2 axes; the input has 4"),
        (lambda x: F.transpose(x, 0, 7), ValueError, r"transpose: dim is 7"),
        (lambda x: F.flip(x, 5), ValueError, r"flip: dim is 5"),
        (lambda x: F.roll(x, (1, 2), 0), ValueError, r"roll: 2 shifts for dims 0"),
        (lambda x: F.broadcast_to(x, (2, 4, 3)), ValueError, r"broadcast_to: shape \(2, 4, 3, 3\) cannot be"),
        (lambda x: F.cat([]), ValueError, r"cat: tensors is empty"),
        (lambda x: F.cat([x, x[:, :, :2]], 1), ValueError, r"cat: tensor 1 has shape .*only axis 1 may differ"),
        (lambda x: F.stack([x, x[:1]]), ValueError, r"stack: shapes differ"),
        (lambda x: F.index_select(x, 1, [4]), ValueError, r"index_select: index holds values 4\.\.4; legal are 0\.\.3"),
        (lambda x: F.index_select(x, 1, [-1]), ValueError, r"index holds values -1\.\.-1"),
        (lambda x: F.gather(x, 1, np.array([0.5])), TypeError, r"gather: index must hold integers, found float64"),
        (lambda x: F.gather(x, 1, np.array([[0]])), ValueError, r"gather: index has shape \(1, 1\)"),
        (lambda x: F.matmul(x, x[:, :, :2]), ValueError, r"matmul: .* inner sizes 3 and 2 differ"),
        (lambda x: F.matmul(x, x.sum()), ValueError, r"matmul: both arguments need at least one axis"),
        (lambda x: F.linear(x, x[0, 0, :, :2]), ValueError, r"linear: input has \(3,\) features"),
        (lambda x: F.pad(x, (1,)), ValueError, r"pad: pad is \(1,\)"),
        (lambda x: F.pad(x, (-2, -2)), ValueError, r"pad: pad \(-2, -2\) crops more than the size 3 x 3"),
        (lambda x: F.pad(x, (3, 0), "reflect"), ValueError, r"reflect border 3, 0 on an axis of size 3; .* 0 to 2"),
        (lambda x: F.pad(x, (1, 0), "wrap"), ValueError, r"mode is 'wrap'; legal are"),
        (lambda x: F.crop(x, (4, 2)), ValueError, r"crop: size 4 x 2 is not inside the input's 3 x 3"),
        (lambda x: F.group_norm(x, 3), ValueError, r"num_groups 3 does not divide"),
        (lambda x: F.layer_norm(x, (4,)), ValueError, r"does not end in normalized_shape \(4,\)"),
        (lambda x: F.instance_norm(x[0, 0]), ValueError, r"instance_norm: input has shape \(3, 3\)"),
        (lambda x: F.batch_norm(x, None, None), ValueError, r"running_mean and running_var must be given"),
        (lambda x: F.batch_norm(x[:1, :, :1, :1], None, None, training=True), ValueError, r"more than one value"),
        (lambda x: F.batch_norm(x, None, None, x[0, 0], training=True), ValueError, r"weight has .* must be \(4,\)"),
        (lambda x: F.dropout(x, 1.5), ValueError, r"dropout: p is 1.5; it must be from 0 to 1"),
        (lambda x: F.manual_seed(-1), ValueError, r"manual_seed: seed is -1"),
    ],
)  # fmt: skip
def test_refusals(call: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        call(Tensor(normal(2, 4, 3, 3)))
