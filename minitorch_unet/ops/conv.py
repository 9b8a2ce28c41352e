"""Convolution, in three operations that are closed under differentiation.

For fixed sizes y = conv2d(x, w) is linear in x and in w. With <,> the sum of products,

    <conv2d(x, w), g> = <x, conv2d_input_grad(g, w)> = <w, conv2d_weight_grad(x, g)>,

so each one's gradients are the other two. `conv2d_input_grad` is also the transposed convolution.
Symbols: N batch, C input channels, K filters, H W input size, P Q output size, R S kernel size.
"""

from __future__ import annotations

from typing import Any

from .core import Context, Op

Pair = tuple[int, int]


class Conv2d(Op):
    """x (N, C, H, W), weight (K, C/groups, R, S), bias (K) or None -> (N, K, P, Q). Keeps x and weight."""

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
        return gx, gw, ctx.ops.sum(gy, axis=(0, 2, 3)) if ctx.needs[2] else None


class Conv2dInputGrad(Op):
    """gy (N, K, P, Q), weight (K, C/groups, R, S) -> (N, C, H, W) with (H, W) = input_size. Keeps gy and weight."""

    @staticmethod
    def forward(
        ctx: Context, gy: Any, weight: Any, input_size: Pair,
        stride: Pair, padding: Pair, dilation: Pair, groups: int,
    ) -> Any:  # fmt: skip
        ctx.save(
            gy=gy if ctx.needs[1] else None, weight=weight if ctx.needs[0] else None,
            out_size=gy.shape[2:], kernel=weight.shape[2:],
            how={"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
        )  # fmt: skip
        return ctx.kernels.conv2d_input_grad(gy, weight, input_size, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, gz: Any) -> tuple[Any, ...]:
        # With output_padding the input may be larger than the P x Q windows need: those rows were not used.
        p, q = ctx.out_size
        ggy = ctx.ops.conv2d(gz, ctx.weight, None, **ctx.how)[:, :, :p, :q] if ctx.needs[0] else None
        gw = ctx.ops.conv2d_weight_grad(gz, ctx.gy, kernel=ctx.kernel, **ctx.how) if ctx.needs[1] else None
        return ggy, gw


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
