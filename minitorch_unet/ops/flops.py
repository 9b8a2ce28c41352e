"""How many floating-point operations a rule needs, by formulas on shapes. A multiplication with an addition counts two.

Counted is what the formula asks for, not what a kernel does: Winograd's filtering does fewer, and what is made again in
a backward pass to save memory is not counted. A product's bias counts nothing; an elementwise function counts one for
each value, whichever it is; what only moves values counts 0. None: no formula is known.
Symbols: N batch, C input channels, K filters, P Q output size, R S kernel size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

Shape = tuple[int, ...]

ELEMENTWISE = {
    "add", "sub", "mul", "div", "neg", "pow", "pow_scalar", "exp", "log", "sqrt", "abs", "clamp", "maximum", "minimum",
    "relu", "leaky_relu", "sigmoid", "tanh", "softplus", "erf",
}  # fmt: skip
REDUCTIONS = {"sum", "sum_to", "amax", "amin"}
POOLS = {"max_pool2d", "sum_pool2d"}
MOVES = {
    "reshape", "permute", "flip", "roll", "broadcast_to", "cat", "getitem", "setitem_zeros", "take_along_dim", "take",
    "pad2d", "where", "cast", "max_pool2d_scatter", "max_pool2d_gather",
}  # fmt: skip

# Operations of the gradient for each value of an elementwise function's result and each input that wants one.
GRADIENTS = {"add": (0, 0), "sub": (0, 1), "mul": (1, 1), "neg": (1,), "relu": (1,), "exp": (1,), "abs": (1,)}


class Product(NamedTuple):
    """A convolution or matrix product within an operation."""

    weight: int  # which of the inputs is the weight
    macs: int  # multiplications, each with an addition
    shape: Shape  # of its result


def products(op: str, inputs: Sequence[Shape | None], out: Shape, params: Mapping[str, Any]) -> list[Product]:
    """The products in the forward rule of `op`; inputs: shapes, None for what is no array."""
    shapes: list[Any] = list(inputs)
    if op == "conv2d":  # each of the N K P Q results sums over C/groups R S
        return [Product(1, prod(out) * prod(shapes[1][1:]), out)]
    if op == "conv2d_input_grad":  # the transposed convolution: each input is spread over C/groups R S
        return [Product(1, prod(shapes[0]) * prod(shapes[1][1:]), out)]
    if op == "conv2d_weight_grad":
        per_result = shapes[0][1] // params["groups"] * prod(params["kernel"])
        return [Product(1, prod(shapes[1]) * per_result, out)]
    if op == "conv2d_relu":
        return [Product(0, prod(out) * prod(shapes[0][1:]), out)]
    if op == "double_conv2d_relu":
        first, source = shapes[0], shapes[4]
        size = (source[2 + i] + 2 * params["padding"][i] - first[2 + i] + 1 for i in (0, 1))
        hidden = (source[0], first[0], *size)
        return [
            Product(0, prod(hidden) * prod(first[1:]), hidden),
            Product(2, prod(out) * prod(shapes[2][1:]), out),
        ]
    if op == "matmul":
        return [Product(1, prod(out) * shapes[0][-1], out)]
    return []


def forward_flops(op: str, inputs: Sequence[Shape | None], out: Shape, params: Mapping[str, Any]) -> int | None:
    """Operations of the forward rule."""
    if found := products(op, inputs, out, params):
        return 2 * sum(product.macs for product in found)
    if op in ELEMENTWISE:
        return prod(out)
    if op in REDUCTIONS and inputs[0] is not None:
        return prod(inputs[0]) - prod(out)
    if op in POOLS:
        return prod(out) * (prod(params["kernel"]) - 1)
    return 0 if op in MOVES else None


def backward_flops(op: str, kept: Any, gy: Shape) -> int | None:
    """Operations of the backward rule; kept: its ctx, gy: the shape of the gradient it is given.

    The gradient of a product takes as many operations for each factor as the product itself.
    """
    needs = kept.needs
    if op in ("conv2d", "conv2d_input_grad"):
        if kept.weight is not None:
            channels = kept.weight.shape[1]
        else:
            channels = (kept.x.shape[1] if op == "conv2d" else gy[1]) // kept.how["groups"]
        results = gy if op == "conv2d" else (gy[0], _filters(kept), *kept.out_size)
        return 2 * prod(results) * channels * prod(kept.kernel) * sum(needs[:2])
    if op == "conv2d_relu":
        return 2 * prod(gy) * prod(kept.kernel) * _channels(kept, needs[0], needs[2:])
    if op == "double_conv2d_relu":
        middle = kept.weight1.shape[0]
        through = any(needs[:2]) or any(needs[4:])
        first = (gy[0], middle, *(gy[2 + i] + kept.kernel[i] - 1 - 2 * kept.padding[i] for i in (0, 1)))
        second = prod(gy) * middle * (needs[2] + through)
        return 2 * prod(kept.kernel) * (second + prod(first) * _channels(kept, needs[0], needs[4:]))
    if op == "matmul":
        inner = (kept.a if kept.a is not None else kept.b.swapaxes(-1, -2)).shape[-1]
        return 2 * prod(gy) * inner * sum(needs[:2])
    if op in GRADIENTS:
        return prod(gy) * sum(count for count, need in zip(GRADIENTS[op], needs, strict=True) if need)
    return 0 if op in MOVES or op in ("sum", "max_pool2d") else None


def _filters(kept: Any) -> int:
    return kept.weight.shape[0] if kept.weight is not None else kept.gy.shape[1]


def _channels(kept: Any, weight: bool, sources: Sequence[bool]) -> int:
    """Channels that the gradients of a convolution with several sources go over: all for the weight, and each own."""
    own = sum(channels for channels, need in zip(kept.channels, sources, strict=True) if need)
    return sum(kept.channels) * weight + own
