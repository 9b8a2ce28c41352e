"""Convolution, in three operations that are closed under differentiation.

For fixed sizes y = conv2d(x, w) is linear in x and in w. With <,> the sum of products,

    <conv2d(x, w), g> = <x, conv2d_input_grad(g, w)> = <w, conv2d_weight_grad(x, g)>,

so each one's gradients are the other two. `conv2d_input_grad` is also the transposed convolution.
Symbols: N batch, C input channels, K filters, H W input size, P Q output size, R S kernel size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

from .core import Context, Op, array_ops

Pair = tuple[int, int]


class Conv2d(Op):
    """x (N, C, H, W), weight (K, C/groups, R, S), bias (K) or None -> (N, K, P, Q). Keeps x and weight."""

    owns_gradients = True

    @staticmethod
    def forward(
        ctx: Context, x: Any, weight: Any, bias: Any,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
    ) -> Any:  # fmt: skip
        ctx.save(
            x=x if ctx.needs[1] else None, weight=weight if ctx.needs[0] else None,
            size=x.shape[2:], kernel=weight.shape[2:],
            how={"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        )  # fmt: skip
        return ctx.kernels.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        gx = ctx.ops.conv2d_input_grad(gy, ctx.weight, input_size=ctx.size, **ctx.how) if ctx.needs[0] else None
        gw = ctx.ops.conv2d_weight_grad(ctx.x, gy, kernel=ctx.kernel, **ctx.how) if ctx.needs[1] else None
        return gx, gw, _bias_grad(ctx, gy) if ctx.needs[2] else None


class Conv2dInputGrad(Op):
    """gy (N, K, P, Q), weight (K, C/groups, R, S), perhaps bias (C) -> (N, C, H, W), (H, W) = input_size.

    Keeps gy and weight. The bias is there for the transposed convolution, which this is.
    """

    owns_gradients = True

    @staticmethod
    def forward(
        ctx: Context, gy: Any, weight: Any, *bias: Any,
        input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    ) -> Any:  # fmt: skip
        ctx.save(
            gy=gy if ctx.needs[1] else None, weight=weight if ctx.needs[0] else None,
            out_size=gy.shape[2:], kernel=weight.shape[2:],
            how={"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        )  # fmt: skip
        return ctx.kernels.conv2d_input_grad(gy, weight, input_size, stride, padding, dilation, groups, *bias)

    @staticmethod
    def backward(ctx: Any, gz: Any) -> tuple[Any, ...]:
        # With output_padding the input may be larger than the P x Q windows need: those rows were not used.
        p, q = ctx.out_size
        ggy = ctx.ops.conv2d(gz, ctx.weight, None, **ctx.how)[:, :, :p, :q] if ctx.needs[0] else None
        gw = ctx.ops.conv2d_weight_grad(gz, ctx.gy, kernel=ctx.kernel, **ctx.how) if ctx.needs[1] else None
        gb = [_bias_grad(ctx, gz) if need else None for need in ctx.needs[2:]]
        return ggy, gw, *gb


class Conv2dRelu(Op):
    """relu(conv2d(cat(sources), weight, bias)), stride 1, without the concatenated or the unclipped array in memory.

    weight (K, C, R, S), bias (K) or None, then one or two sources (N, C_i, H, W) -> (N, K, P, Q). Keeps the sources,
    the weight and the result, whose sign is the ReLU's mask.
    """

    owns_gradients = True

    @staticmethod
    def forward(ctx: Context, weight: Any, bias: Any, *sources: Any, padding: Pair) -> Any:
        how: dict[str, Any] = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
        y = ctx.kernels.conv2d(sources, weight, bias, relu=True, **how)
        kept = {f"source{i}": source if ctx.needs[0] else None for i, source in enumerate(sources)}
        ctx.save(y=y, weight=weight if any(ctx.needs[2:]) else None, kernel=weight.shape[2:], how=how, **kept)
        ctx.save(channels=[source.shape[1] for source in sources])
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        given, y = [gy], [ctx.y]
        del gy, ctx.y
        return _conv_relu_backward(ctx, given, y, ctx.weight, _sources, ctx.channels, ctx.needs, ctx.owned)


class DoubleConv2dRelu(Op):
    """conv2d_relu twice: a block of the U-Net. With `recompute` the map between the two is not kept, but made again.

    weight1, bias1, weight2, bias2, then one or two sources. Keeps these, the result and, unless recompute, the map
    between.
    """

    owns_gradients = True

    @staticmethod
    def forward(
        ctx: Context, weight1: Any, bias1: Any, weight2: Any, bias2: Any, *sources: Any, padding: Pair, recompute: bool
    ) -> Any:
        how: dict[str, Any] = {"stride": (1, 1), "padding": padding, "dilation": (1, 1), "groups": 1}
        hidden = ctx.kernels.conv2d(sources, weight1, bias1, relu=True, **how)
        y = ctx.kernels.conv2d((hidden,), weight2, bias2, relu=True, **how)
        ctx.save(y=y, hidden=None if recompute else hidden, weight1=weight1, bias1=bias1, weight2=weight2, how=how)
        ctx.save(**{f"source{i}": source for i, source in enumerate(sources)})
        ctx.save(kernel=weight1.shape[2:], channels=[source.shape[1] for source in sources], padding=padding)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        hidden = ctx.hidden
        if ctx.ops is not array_ops:
            hidden = ctx.ops.conv2d_relu(ctx.weight1, ctx.bias1, *_sources(ctx), padding=ctx.padding)
        elif hidden is None:
            hidden = ctx.kernels.conv2d(_sources(ctx), ctx.weight1, ctx.bias1, relu=True, **ctx.how)
        first, second = (*ctx.needs[:2], *ctx.needs[4:]), (*ctx.needs[2:4], any(ctx.needs[:2] + ctx.needs[4:]))
        given, y, channels = [gy], [ctx.y], [hidden.shape[1]]
        del gy, ctx.y, ctx.hidden  # large: handed on to be released as soon as possible
        mask = None if ctx.ops is not array_ops else hidden  # the gradient comes out masked, in one pass
        gw2, gb2, gh = _conv_relu_backward(ctx, given, y, ctx.weight2, _just(hidden), channels, second, ctx.owned, mask)
        if gh is None:
            return None, None, gw2, gb2, *[None] * len(ctx.channels)
        given, y = [gh], [hidden] if mask is None else []
        del gh, hidden, mask
        gw1, gb1, *gx = _conv_relu_backward(ctx, given, y, ctx.weight1, _sources, ctx.channels, first, owned=True)
        return gw1, gb1, gw2, gb2, *gx


def _sources(ctx: Any) -> tuple[Any, ...]:
    """The arrays whose channels follow one another, some of them perhaps made again just now."""
    return tuple(getattr(ctx, f"source{i}") for i in range(len(ctx.channels)))


def _bias_grad(ctx: Any, gy: Any) -> Any:
    """Sum over all axes but the channels; on arrays in float32 at least, however short the maps' type is."""
    return ctx.kernels.channel_sums(gy) if ctx.ops is array_ops else ctx.ops.sum(gy, axis=(0, 2, 3))


def _just(array: Any) -> Callable[[Any], tuple[Any, ...]]:
    return lambda ctx: (array,)


def _conv_relu_backward(
    ctx: Any, given: list[Any], y: list[Any], weight: Any, sources: Callable[[Any], tuple[Any, ...]],
    channels: Sequence[int], needs: Sequence[bool], owned: bool = False, mask: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Gradients of weight, bias and sources of y = conv2d_relu(...), from that of y, which is `given`.

    Both lists hold one array, taken out and released after use; sources(ctx) are asked for only in between. y is empty
    where the gradient went through the ReLU already. `owned`: the gradient may be overwritten. `mask`: set the only
    source's gradient to 0 where it is not above 0.
    """
    recorded = ctx.ops is not array_ops
    if recorded:
        g, gb = given.pop() * (y.pop() > 0), None
    elif y:
        g, gb = ctx.kernels.relu_bias_backward(given.pop(), y.pop(), owned)
    else:
        g = given.pop()
        gb = ctx.kernels.channel_sums(g)
    gw = None
    if needs[0] and recorded:
        gw = ctx.ops.conv2d_weight_grad(ctx.ops.cat(*sources(ctx), axis=1), g, kernel=ctx.kernel, **ctx.how)
    elif needs[0]:
        gw = ctx.kernels.conv2d_weight_grad(sources(ctx), g, kernel=ctx.kernel, **ctx.how)
    if needs[1] and recorded:
        gb = _bias_grad(ctx, g)
    # The input's size from the gradient's: sources may have been dropped where no gradient of the weight is wanted.
    size = tuple(g.shape[2 + i] + ctx.kernel[i] - 1 - 2 * ctx.how["padding"][i] for i in (0, 1))
    parts = []
    for (a, b), need in zip(pairwise([0, *accumulate(channels)]), needs[2:], strict=True):
        # Each source's gradient is an array of its own: a view of a common one would keep all of it in memory.
        own = weight if len(channels) == 1 else weight[:, a:b]
        if need and mask is not None:
            parts.append(ctx.kernels.conv2d_input_grad(g, own, size, mask=mask, **ctx.how))
        else:
            parts.append(ctx.ops.conv2d_input_grad(g, own, input_size=size, **ctx.how) if need else None)
    return gw, gb if needs[1] else None, *parts


class Conv2dWeightGrad(Op):
    """x (N, C, H, W), gy (N, K, P, Q) -> (K, C/groups, R, S) with (R, S) = kernel. Keeps x and gy."""

    @staticmethod
    def forward(
        ctx: Context, x: Any, gy: Any, kernel: Pair,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
    ) -> Any:  # fmt: skip
        ctx.save(
            x=x if ctx.needs[1] else None, gy=gy if ctx.needs[0] else None,
            size=x.shape[2:], out_size=gy.shape[2:],
            how={"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        )  # fmt: skip
        return ctx.kernels.conv2d_weight_grad(x, gy, kernel, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gw: Any) -> tuple[Any, ...]:
        p, q = ctx.out_size
        gx = ctx.ops.conv2d_input_grad(ctx.gy, gw, input_size=ctx.size, **ctx.how) if ctx.needs[0] else None
        ggy = ctx.ops.conv2d(ctx.x, gw, None, **ctx.how)[:, :, :p, :q] if ctx.needs[1] else None
        return gx, ggy
