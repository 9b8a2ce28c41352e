"""Wrong backward rules, planted one at a time: the gradient check must reject every one of them.

Each mutation names a case of the table, what is replaced, and makes the wrong version from the right one. The forward
computation stays right; the check must fail because of the gradient, not because the mutation raises.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest

from minitorch_unet import functional as F
from minitorch_unet import tensor
from minitorch_unet.backend import Kernels
from minitorch_unet.gradcheck_cases import Case
from minitorch_unet.gradcheck_table import all_cases
from minitorch_unet.ops import OPS, norm, reduce
from minitorch_unet.tensor import walk
from minitorch_unet.testing import gradcheck, gradgradcheck

CASES = {case.name: case for case in all_cases()}


class Mutation(NamedTuple):
    """`make(right)` gives the wrong version of `owner.attribute`."""

    title: str
    case: str
    owner: Any
    attribute: str
    make: Callable[[Any], Any]


def rule(title: str, case: str, op: str, wrong: Callable[[Any, Any], Any]) -> Mutation:
    """The backward rule of `op` replaced by `wrong(ctx, gy)`."""
    return Mutation(title, case, OPS[op], "backward", lambda right: staticmethod(wrong))


def kernel(title: str, case: str, name: str, wrong: Callable[..., Any]) -> Mutation:
    """An array routine replaced by `wrong(right, kernels, *arguments)`."""
    return Mutation(title, case, Kernels, name, lambda right: lambda self, *a, **k: wrong(right, self, *a, **k))


def conv_rule(gradient_of: int, **changed: Any) -> Callable[[Any, Any], Any]:
    """conv2d's rule, with settings changed in the gradient of the input (0) or of the weight (1) only."""

    def wrong(ctx: Any, gy: Any) -> Any:
        how = [ctx.how, ctx.how]
        how[gradient_of] = ctx.how | changed
        gx = ctx.ops.conv2d_input_grad(gy, ctx.weight, input_size=ctx.size, **how[0])
        gw = ctx.ops.conv2d_weight_grad(ctx.x, gy, kernel=ctx.kernel, **how[1])
        return gx, gw, ctx.ops.sum(gy, axis=(0, 2, 3)) if ctx.needs[2] else None

    return wrong


def bias_forgotten(ctx: Any, gy: Any) -> Any:
    gx, gw, _ = conv_rule(0)(ctx, gy)
    return gx, gw, gy[0, :, 0, 0]


def group_norm(**changed: Any) -> Callable[[Any, Any], Any]:
    """group_norm's rule with some of what it kept replaced."""
    right = OPS["group_norm"].backward

    def wrong(ctx: Any, gy: Any) -> Any:
        vars(ctx).update(changed)
        return right(ctx, gy)

    return wrong


def overwriting_pool(right: Any, self: Any, gy: Any, winners: Any, input_size: Any, **how: Any) -> Any:
    """Where windows overlap, the last one wins instead of adding."""
    out = np.zeros((*gy.shape[:2], *input_size))
    for p, q in np.ndindex(gy.shape[2:]):
        one = np.zeros_like(gy)
        one[:, :, p, q] = gy[:, :, p, q]
        share = right(self, one, winners, input_size, **how)
        out = np.where(share != 0, share, out)
    return out


def preorder(roots: Sequence[Any]) -> list[Any]:
    """Nodes in the order of discovery: a node may come before another that uses it."""
    order: list[Any] = []
    waiting = list(roots)
    while waiting:
        node = waiting.pop()
        if node not in order:
            order.append(node)
            waiting.extend(parent for parent in node.parents if isinstance(parent, tensor.Node))
    return order


def first_slice(ctx: Any, a: Any, shape: tuple[int, ...]) -> Any:
    """Broadcasting undone by taking one value instead of the sum."""
    a = a[(0,) * (a.ndim - len(shape))]
    return a[tuple(slice(0, n) for n in shape)]


def only_new_axes(ctx: Any, a: Any, shape: tuple[int, ...]) -> Any:
    """The sum over axes of size 1 forgotten."""
    a = a.sum(tuple(range(a.ndim - len(shape))))
    return a[tuple(slice(0, n) for n in shape)]


def assigning(ctx: Any, a: Any, shape: tuple[int, ...], index: Any) -> Any:
    """Repeated indices overwrite each other instead of adding up."""
    ctx.save(index=index)
    out = np.zeros(shape)
    out[index] = a
    return out


def put_assigning(ctx: Any, a: Any, index: Any, shape: tuple[int, ...], axis: int) -> Any:
    out = np.zeros(shape)
    np.put_along_axis(out, index, a, axis)
    return out


def index_assigning(ctx: Any, a: Any, index: Any, axis: int, size: int) -> Any:
    out = np.zeros((*a.shape[:axis], size, *a.shape[axis + 1 :]))
    out[(slice(None),) * axis + (index,)] = a
    return out


def all_equal_take_everything(right: Any) -> Any:
    def wrong(ctx: Any, a: Any, y: Any, axis: Any, keepdims: bool) -> Any:
        out = right(ctx, a, y, axis, keepdims)
        ctx.save(share=(a == y).astype(a.dtype))
        return out

    return wrong


def only_mean(gy: Any, scale: Any) -> Any:
    """Batch normalisation's gradient without the part that flows through the variance."""
    return (gy - gy.mean((0, 2, 3), keepdims=True)) * scale[:, None, None]


def cross_entropy(title: str, variant: str, wrong: Callable[..., Any]) -> Mutation:
    case = f"functional.cross_entropy{variant}"
    return kernel(f"cross_entropy: {title}", case, "softmax_cross_entropy_backward", wrong)


def batch_norm(title: str, variant: str, wrong: Callable[..., Any]) -> Mutation:
    return kernel(f"batch_norm: {title}", f"functional.batch_norm: {variant}", "batch_norm_backward", wrong)


def forward(title: str, case: str, op: str, wrong: Callable[..., Any]) -> Mutation:
    """The forward of an operation that only backward rules use."""
    return Mutation(title, case, OPS[op], "forward", lambda right: staticmethod(wrong))


f = "functional."
FIRST_ORDER = [
    rule("sub: wrong sign", f + "sub", "sub", lambda ctx, gy: (gy, gy)),
    rule("neg: sign forgotten", f + "neg", "neg", lambda ctx, gy: (gy,)),
    rule("add: counted twice", f + "add", "add", lambda ctx, gy: (gy + gy, gy)),
    rule("mul: factors exchanged", f + "mul", "mul", lambda ctx, gy: (gy * ctx.a, gy * ctx.b)),
    rule("div: one division too few", f + "div", "div", lambda ctx, gy: (gy / ctx.b, -gy * ctx.a / ctx.b)),
    rule("pow: exponent not lowered", f + "pow: number", "pow_scalar",
         lambda ctx, gy: (gy * (ctx.exponent * ctx.a**ctx.exponent),)),
    rule("pow: factor forgotten", f + "pow: number", "pow_scalar", lambda ctx, gy: (gy * ctx.a ** (ctx.exponent - 1),)),
    rule("exp: y forgotten", f + "exp", "exp", lambda ctx, gy: (gy,)),
    rule("log: multiplied", f + "log", "log", lambda ctx, gy: (gy * ctx.a,)),
    rule("sqrt: 2 forgotten", f + "sqrt", "sqrt", lambda ctx, gy: (gy / ctx.y,)),
    rule("abs: sign forgotten", f + "abs", "abs", lambda ctx, gy: (gy,)),
    rule("relu: mask ignored", f + "relu", "relu", lambda ctx, gy: (gy,)),
    rule("leaky_relu: slope ignored", f + "leaky_relu", "leaky_relu", lambda ctx, gy: (gy * (ctx.slope == 1),)),
    rule("clamp: mask ignored", f + "clamp", "clamp", lambda ctx, gy: (gy,)),
    rule("sigmoid: 1 - y forgotten", f + "sigmoid", "sigmoid", lambda ctx, gy: (gy * ctx.y,)),
    rule("tanh: square forgotten", f + "tanh", "tanh", lambda ctx, gy: (gy * (1 - ctx.y),)),
    rule("softplus: beta ignored", f + "softplus: beta, threshold", "softplus",
         lambda ctx, gy: (gy * ctx.ops.where(ctx.linear, 1.0, ctx.ops.sigmoid(ctx.a)),)),
    rule("erf: constant forgotten", "ops.erf", "erf", lambda ctx, gy: (gy * np.exp(-ctx.a * ctx.a),)),
    rule("where: branches exchanged", f + "where", "where",
         lambda ctx, gy: (None, np.where(ctx.condition, 0.0, gy), np.where(ctx.condition, gy, 0.0))),
    rule("maximum: everything to both where equal", f + "maximum: equal everywhere", "maximum",
         lambda ctx, gy: (gy * (ctx.share > 0), gy * (ctx.share < 1))),
    rule("maximum: to the smaller", f + "maximum", "maximum", lambda ctx, gy: (gy * (1 - ctx.share), gy * ctx.share)),
    rule("dropout: mask ignored", f + "dropout", "dropout", lambda ctx, gy: (gy / (1 - ctx.p),)),
    rule("dropout: another mask", f + "dropout", "dropout",
         lambda ctx, gy: (ctx.ops.dropout(gy, p=ctx.p, draws=ctx.draws.skip(1)),)),
    rule("dropout: not divided by 1 - p", f + "dropout", "dropout",
         lambda ctx, gy: (ctx.ops.dropout(gy, p=ctx.p, draws=ctx.draws) * (1 - ctx.p),)),
    rule("mean: 1/n forgotten", f + "mean", "mul", lambda ctx, gy: (gy, None)),
    rule("sum: divided by n", f + "sum", "sum", lambda ctx, gy: (np.full(ctx.shape, gy / np.prod(ctx.shape)),)),
    Mutation("amax: everything to each of equal maxima", f + "amax: all equal", reduce, "_extreme",
             all_equal_take_everything),
    rule("amax: to all", f + "amax: dim", "amax", lambda ctx, gy: (np.ones_like(ctx.share) * gy.reshape(ctx.kept),)),
    rule("softmax: without the sum", f + "softmax", "softmax", lambda ctx, gy: (gy * ctx.y,)),
    rule("log_softmax: without the sum", f + "log_softmax", "log_softmax", lambda ctx, gy: (gy,)),
    rule("log_softmax: sum over the wrong axis", f + "log_softmax", "log_softmax",
         lambda ctx, gy: (gy - np.exp(ctx.y) * gy.sum(0, keepdims=True),)),
    rule("logsumexp: not weighted", f + "logsumexp: keepdim", "log_sum_exp", lambda ctx, gy: (gy + 0 * ctx.a,)),
    rule("nll_loss: labels ignored", f + "nll_loss", "take_along_dim",
         lambda ctx, gy: (ctx.ops.put_along_dim(gy, 0 * ctx.index, shape=ctx.shape, axis=ctx.axis), None)),
    cross_entropy("labels ignored", "", lambda right, self, s, t, *rest: right(self, s, 0 * t, *rest)),
    cross_entropy("ignored pixels count", ": weights, ignored",
                  lambda right, self, s, t, w, p, ignored, factor: right(self, s, np.maximum(t, 0), w, p, -1, factor)),
    cross_entropy("class weights forgotten", ": weights, ignored",
                  lambda right, self, s, t, w, *rest: right(self, s, t, None, *rest)),
    cross_entropy("pixel weights forgotten", ": weights, ignored",
                  lambda right, self, s, t, w, p, *rest: right(self, s, t, w, None, *rest)),
    cross_entropy("label not taken off", "",
                  lambda right, self, s, t, w, p, i, factor: factor / 8 * np.exp(s) / np.exp(s).sum(1, keepdims=True)),
    rule("cross_entropy: mean taken as sum", f + "cross_entropy", "softmax_cross_entropy",
         lambda ctx, gy: (ctx.kernels.softmax_cross_entropy_backward(ctx.scores, *ctx.given, gy), None, None, None)),
    batch_norm("mean and variance taken as constants", "training",
               lambda right, *a: right(*a[:-2], False)),
    batch_norm("mean and variance of x where they are constants", "prediction",
               lambda right, *a: right(*a[:-2], True)),
    batch_norm("only the mean's part", "training", lambda right, self, gy, x, y, mean, inverse, scale, *rest: (
        only_mean(gy, scale * inverse), *right(self, gy, x, y, mean, inverse, scale, *rest)[1:])),
    batch_norm("weight's gradient not centred", "training", lambda right, self, gy, x, y, mean, inverse, *rest: (
        right(self, gy, x, y, mean, inverse, *rest)[0], (gy * x).sum((0, 2, 3)) * inverse, gy.sum((0, 2, 3)))),
    batch_norm("weight forgotten", "training", lambda right, self, gy, x, y, mean, inverse, scale, *rest: right(
        self, gy, x, y, mean, inverse, np.ones_like(scale), *rest)),
    batch_norm("ReLU's mask forgotten", "relu, training", lambda right, self, gy, x, y, *rest: right(
        self, gy, x, None, *rest)),
    rule("group_norm: weight forgotten", f + "group_norm", "group_norm", group_norm(weight=np.ones(4))),
    rule("group_norm: sums over channels, not groups", f + "group_norm", "group_norm", group_norm(groups=4)),
    rule("group_norm: sums over the image, not groups", f + "instance_norm", "group_norm", group_norm(groups=1)),
    Mutation("layer_norm: mean taken as constant", f + "layer_norm", tensor.Tensor, "mean",
             lambda right: lambda *a, **k: right(*a, **k).detach()),
    rule("reshape: other order", f + "reshape", "reshape",
         lambda ctx, gy: (np.reshape(gy, ctx.shape, order="F"),)),
    rule("permute: not inverted", f + "transpose", "permute", lambda ctx, gy: (gy.reshape(2, 3, 2),)),
    rule("flip: not turned back", f + "flip", "flip", lambda ctx, gy: (gy,)),
    rule("roll: same direction", f + "roll: flat", "roll", lambda ctx, gy: (np.roll(gy, -ctx.back[0]),)),
    rule("stack: order reversed", f + "stack", "cat",
         lambda ctx, gy: tuple(np.split(gy, len(ctx.sizes), ctx.axis))[::-1]),
    rule("getitem: shifted", "tensor.__getitem__: slices", "getitem",
         lambda ctx, gy: (np.roll(ctx.ops.setitem_zeros(gy, shape=ctx.shape, index=ctx.index), 1, 0),)),
    forward("getitem: repeated indices overwrite", "tensor.__getitem__: repeated integers", "setitem_zeros", assigning),
    forward("index_select: repeated indices overwrite", f + "index_select", "index_add", index_assigning),
    forward("gather: repeated indices overwrite", f + "gather", "put_along_dim", put_assigning),
    forward("broadcasting not undone", f + "mul: broadcast", "sum_to", first_slice),
    forward("broadcasting undone along new axes only", f + "mul: broadcast", "sum_to", only_new_axes),
    rule("pad: border taken from the other side", f + "pad", "pad2d",
         lambda ctx, gy: (ctx.ops.pad2d(gy, widths=tuple(-ctx.widths[i] for i in (1, 0, 3, 2)), value=0.0),)),
    rule("matmul: gradient transposed", f + "matmul", "matmul",
         lambda ctx, gy: (gy.T @ ctx.b.T, ctx.a.T @ gy)),
    rule("matmul: operands exchanged", f + "matmul", "matmul", lambda ctx, gy: ((ctx.b @ gy).T, ctx.a.T @ gy)),
    kernel("conv2d: kernel not turned", f + "conv2d", "conv2d_input_grad",
           lambda right, self, gy, w, *rest: right(self, gy, w[:, :, ::-1, ::-1], *rest)),
    kernel("conv2d: taps of the weight gradient turned", f + "conv2d", "conv2d_weight_grad",
           lambda right, *rest: right(*rest)[:, :, ::-1, ::-1]),
    kernel("conv2d: groups exchanged in the input gradient", f + "conv2d: groups", "conv2d_input_grad",
           lambda right, *rest: np.roll(right(*rest), 2, axis=1)),
    kernel("conv2d: groups exchanged in the weight gradient", f + "conv2d: groups", "conv2d_weight_grad",
           lambda right, *rest: np.roll(right(*rest), 1, axis=0)),
    rule("conv2d: forgotten sum for the bias", f + "conv2d", "conv2d", bias_forgotten),
    rule("conv2d: stride ignored for the input", f + "conv2d: stride", "conv2d", conv_rule(0, stride=(1, 1))),
    rule("conv2d: stride ignored for the weight", f + "conv2d: stride", "conv2d", conv_rule(1, stride=(1, 1))),
    rule("conv2d: dilation ignored for the input", f + "conv2d: dilation", "conv2d", conv_rule(0, dilation=(1, 1))),
    rule("conv2d: dilation ignored for the weight", f + "conv2d: dilation", "conv2d", conv_rule(1, dilation=(1, 1))),
    rule("conv2d: padding ignored for the input", f + "conv2d: padding", "conv2d", conv_rule(0, padding=(0, 0))),
    rule("conv_transpose2d: weight gradient turned", f + "conv_transpose2d", "conv2d_input_grad",
         lambda ctx, gz: (ctx.ops.conv2d(gz, ctx.weight, None, **ctx.how),
                          ctx.ops.conv2d_weight_grad(gz, ctx.gy, kernel=ctx.kernel, **ctx.how)[:, :, ::-1],
                          ctx.ops.sum(gz, axis=(0, 2, 3)))),
    rule("conv_transpose2d: stride ignored for the weight", f + "conv_transpose2d: stride", "conv2d_input_grad",
         lambda ctx, gz: (ctx.ops.conv2d(gz, ctx.weight, None, **ctx.how),
                          ctx.ops.conv2d_weight_grad(
                              gz, ctx.gy, kernel=ctx.kernel, **(ctx.how | {"stride": (1, 1)})),
                          ctx.ops.sum(gz, axis=(0, 2, 3)))),
    kernel("max_pool2d: always to the last tap", f + "max_pool2d", "max_pool2d_scatter",
           lambda right, self, gy, winners, *rest, **how: right(self, gy, np.full_like(winners, 3), *rest, **how)),
    kernel("max_pool2d: to every tap", f + "max_pool2d", "max_pool2d_scatter",
           lambda right, self, gy, winners, size, **how: sum(
               right(self, gy, np.full_like(winners, tap), size, **how) for tap in range(4))),
    kernel("max_pool2d: to every equal value", f + "max_pool2d: all equal", "max_pool2d_scatter",
           lambda right, self, gy, winners, size, **how: sum(
               right(self, gy, np.full_like(winners, tap), size, **how) for tap in range(4))),
    kernel("max_pool2d: overlapping windows overwrite", f + "max_pool2d: overlapping", "max_pool2d_scatter",
           overwriting_pool),
    rule("avg_pool2d: padding ignored", f + "avg_pool2d: overlapping", "sum_pool2d",
         lambda ctx, gy: (ctx.ops.sum_pool2d_scatter(gy, input_size=ctx.size, **(ctx.how | {"padding": (0, 0)})),)),
    Mutation("walk in the order of discovery", "unet.UNet: valid, depth 1", walk, "reverse_topological",
             lambda right: preorder),
]  # fmt: skip

SECOND_ORDER = [
    rule("broadcast_to: not summed", f + "sum", "broadcast_to",
         lambda ctx, gy: (ctx.ops.reshape(gy.mean(), shape=ctx.shape),)),
    rule("sum_to: gradient halved", f + "mul: broadcast", "sum_to",
         lambda ctx, gy: (ctx.ops.broadcast_to(gy, shape=ctx.shape) * 0.5,)),
    rule("conv2d_input_grad: weight gradient doubled", f + "conv2d", "conv2d_input_grad",
         lambda ctx, gz: (ctx.ops.conv2d(gz, ctx.weight, None, **ctx.how),
                          2 * ctx.ops.conv2d_weight_grad(gz, ctx.gy, kernel=ctx.kernel, **ctx.how))),
    rule("conv2d_weight_grad: sign", f + "conv2d", "conv2d_weight_grad",
         lambda ctx, gw: (-ctx.ops.conv2d_input_grad(ctx.gy, gw, input_size=ctx.size, **ctx.how),
                          ctx.ops.conv2d(ctx.x, gw, None, **ctx.how))),
    rule("max_pool2d_scatter: reads the first tap", f + "max_pool2d", "max_pool2d_scatter",
         lambda ctx, gx: (ctx.ops.max_pool2d_gather(gx, winners=0 * ctx.winners, **ctx.how),)),
    rule("index_add: positions ignored", f + "index_select", "index_add",
         lambda ctx, gy: (ctx.ops.take(gy, 0 * ctx.index, axis=ctx.axis), None)),
    Mutation("batch_norm: inverse deviation taken as constant when recorded", f + "batch_norm: training", norm,
             "_statistics", lambda right: lambda *a: (right(*a)[0], right(*a)[1].detach())),
    rule("cross_entropy: probabilities taken as constants when recorded", f + "cross_entropy", "softmax",
         lambda ctx, gy: (0 * gy,)),
    rule("exp: second derivative forgotten", f + "exp", "exp",
         lambda ctx, gy: (gy * (ctx.y if isinstance(ctx.y, np.ndarray) else ctx.y.detach()),)),
]  # fmt: skip


def identity(mutation: Mutation) -> str:
    return mutation.title


def plant(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> Case:
    right = getattr(mutation.owner, mutation.attribute)
    monkeypatch.setattr(mutation.owner, mutation.attribute, mutation.make(right))
    return CASES[mutation.case]


@pytest.mark.parametrize("mutation", FIRST_ORDER, ids=identity)
def test_wrong_rule_is_rejected(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    function, inputs = CASES[mutation.case].make()
    right_values = np.asarray(function(*inputs).data)
    case = plant(mutation, monkeypatch)
    function, inputs = case.make()
    assert np.array_equal(function(*inputs).data, right_values), "the mutation must leave the forward computation alone"
    result = gradcheck(function, inputs, mode=case.mode, raise_exception=False)
    assert not result
    assert result.max_relative_error > 1e-3
    assert "by the backward rule but" in result.message


@pytest.mark.parametrize("mutation", SECOND_ORDER, ids=identity)
def test_wrong_rule_of_a_rule_is_rejected(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    case = plant(mutation, monkeypatch)
    function, inputs = case.make()
    assert gradcheck(function, inputs), "the first derivative must still be right"
    result = gradgradcheck(function, inputs, raise_exception=False)
    assert not result
    assert "by the backward rule but" in result.message


def test_enough_mutations() -> None:
    titles = [m.title for m in FIRST_ORDER + SECOND_ORDER]
    assert len(titles) == len(set(titles))
    assert len(titles) >= 15


def test_a_wrong_choice_among_equal_values_is_a_matter_of_convention() -> None:
    """Any share among ties is a legal derivative: which one is ours stands in test_functional_*.py."""
    x = tensor.Tensor(np.zeros((1, 1, 2, 2)), requires_grad=True)
    assert not gradcheck(lambda x: F.max_pool2d(x, 2), x, raise_exception=False)
