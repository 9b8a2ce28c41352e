"""Batch normalisation, optionally with the ReLU behind it, and group normalisation as one operation each; dropout."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend.precision import wide
from ..backend.reference import rounded, widened
from .core import Context, Op, array_ops


class BatchNorm(Op):
    """y = (x - mean) / sqrt(var + eps) weight + bias, per channel (axis 1); with `relu`, max(y, 0).

    x (N, C, ...), weight and bias (C) or None; mean and var (C) float64 arrays: in training those of x itself, as
    `channel_moments` gives them, through which gradients flow too; else constants. Keeps x, weight, mean and
    1 / sqrt(var + eps); with relu also y, whose sign is the mask. Backward is the closed formula of Ioffe and
    Szegedy 2015, section 3, in two passes (see `Kernels.batch_norm_backward`).
    """

    owns_gradients = True

    @staticmethod
    def forward(
        ctx: Context, x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float, training: bool, relu: bool
    ) -> Any:
        inverse = 1 / ctx.xp.sqrt(var + eps)
        scale = inverse if weight is None else weight * inverse
        kept = wide(x.dtype)
        centre, rest = rounded(mean, kept)
        shift = -rest * scale if bias is None else bias - rest * scale
        y = ctx.kernels.scale_shift(x, centre, scale.astype(kept), shift.astype(kept), relu)
        ctx.save(x=x, y=y if relu else None, weight=weight, mean=mean, inverse=inverse, eps=eps, training=training)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        if ctx.ops is not array_ops:
            return _recorded(ctx, gy)
        scale = ctx.xp.ones_like(ctx.mean) if ctx.weight is None else ctx.weight.astype(np.float64)
        gx, gw, gb = ctx.kernels.batch_norm_backward(
            gy, ctx.x, ctx.y, ctx.mean, ctx.inverse, scale, ctx.training, ctx.owned
        )
        return gx, gw if ctx.needs[1] else None, gb if ctx.needs[2] else None


def _recorded(ctx: Any, gy: Any) -> tuple[Any, ...]:
    """The same formula in recorded operations, mean and variance computed again from x so that they depend on it."""
    ops, x = ctx.ops, ctx.x
    axes = (0, *range(2, x.ndim))
    view = (1, -1, *([1] * (x.ndim - 2)))
    share = 1 / (x.size // x.shape[1])
    g = gy if ctx.y is None else gy * (ctx.y > 0)
    centred, inverse = _statistics(ctx, x, axes, share, view)
    z = centred * inverse
    gb, gw = (ops.sum(a, axis=axes, keepdims=True) for a in (g, g * z))
    gx = (g - (gb + z * gw) * share if ctx.training else g) * inverse
    if ctx.weight is not None:
        gx = gx * ops.reshape(ctx.weight, shape=view)
    flat = [ops.reshape(a, shape=(-1,)) if need else None for a, need in zip((gw, gb), ctx.needs[1:], strict=True)]
    return gx, *flat


def _statistics(ctx: Any, x: Any, axes: tuple[int, ...], share: float, view: tuple[int, ...]) -> tuple[Any, Any]:
    """x - mean and 1 / sqrt(var + eps) in recorded operations; in training both depend on x."""
    if not ctx.training:
        return x - ctx.mean.astype(x.dtype).reshape(view), ctx.inverse.astype(x.dtype).reshape(view)
    centred = x - ctx.ops.sum(x, axis=axes, keepdims=True) * share
    return centred, (ctx.ops.sum(centred * centred, axis=axes, keepdims=True) * share + ctx.eps) ** -0.5


class GroupNorm(Op):
    """y = (x - mean) / sqrt(var + eps) weight + bias; mean and var of each image's `groups` groups of channels.

    x (N, C, ...), weight and bias (C) or None; groups divides C (C itself: instance normalisation). Keeps x, weight,
    mean and 1 / sqrt(var + eps). Backward is batch normalisation's closed formula with sums over groups: first over the
    pixels, then over the channels, the order in which channels-last maps lie in memory. Wu and He 2018.
    """

    owns_gradients = True

    @staticmethod
    def forward(ctx: Context, x: Any, weight: Any, bias: Any, groups: int, eps: float) -> Any:
        xp, flat = ctx.xp, _pixels_last(x)
        count = flat.shape[1] // groups * flat.shape[2]
        mean = _over_groups(xp, xp.sum(flat, axis=2, dtype=np.float64), groups) / count
        centre, rest = rounded(mean, flat.dtype)
        y = xp.subtract(flat, centre[:, :, None], out=xp.empty_like(flat))
        squares = xp.sum(xp.multiply(y, y, out=xp.empty_like(y)), axis=2, dtype=np.float64)
        inverse = 1 / xp.sqrt(_over_groups(xp, squares, groups) / count - rest * rest + eps)
        scale = inverse if weight is None else inverse * weight
        shift = -rest * scale if bias is None else bias - rest * scale
        y *= scale.astype(y.dtype)[:, :, None]
        y += shift.astype(y.dtype)[:, :, None]
        ctx.save(x=x, weight=weight, mean=mean, inverse=inverse, groups=groups, eps=eps)
        return y.reshape(x.shape).astype(x.dtype, copy=False)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        if ctx.ops is not array_ops:
            return _recorded_by_group(ctx, gy)
        xp, g, flat = ctx.xp, _pixels_last(gy), _pixels_last(ctx.x)
        count = flat.shape[1] // ctx.groups * flat.shape[2]
        centre, rest = rounded(ctx.mean, flat.dtype)
        centred = xp.subtract(flat, centre[:, :, None], out=xp.empty_like(flat))
        gx = xp.multiply(g, centred, out=xp.empty_like(flat))
        total = xp.sum(g, axis=2, dtype=np.float64)
        products = (xp.sum(gx, axis=2, dtype=np.float64) - rest * total) * ctx.inverse  # of g with the normalised x
        factor = ctx.inverse if ctx.weight is None else ctx.inverse * ctx.weight
        share = ctx.inverse / count
        own = 1.0 if ctx.weight is None else ctx.weight
        slope = share * ctx.inverse * _over_groups(xp, own * products, ctx.groups)
        constant = share * _over_groups(xp, own * total, ctx.groups) - slope * rest
        xp.multiply(g, factor.astype(gx.dtype)[:, :, None], out=gx)
        centred *= slope.astype(gx.dtype)[:, :, None]
        gx -= centred
        gx -= constant.astype(gx.dtype)[:, :, None]
        gw, gb = (a.sum(0).astype(gx.dtype) for a in (products, total))
        gx = gx.reshape(gy.shape).astype(gy.dtype, copy=False)
        return gx, gw if ctx.needs[1] else None, gb if ctx.needs[2] else None


def _pixels_last(x: Any) -> Any:
    """(N, C, ...) as (N, C, pixels), a view where maps are channels-last or C-contiguous; 16 bits in float32."""
    return widened(x).reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _over_groups(xp: Any, values: Any, groups: int) -> Any:
    """(N, C): every value replaced by the sum over its group of neighbouring channels."""
    n, c = values.shape
    grouped = values.reshape(n, groups, c // groups)
    return xp.broadcast_to(grouped.sum(2, keepdims=True), grouped.shape).reshape(n, c)


def _recorded_by_group(ctx: Any, gy: Any) -> tuple[Any, ...]:
    """GroupNorm's formula in recorded operations, mean and variance computed again from x so that they depend on it."""
    ops, shape = ctx.ops, gy.shape
    split = (shape[0], ctx.groups, shape[1] // ctx.groups, math.prod(shape[2:]))
    share = 1 / (split[2] * split[3])

    def summed(a: Any) -> Any:
        return ops.sum(a, axis=(2, 3), keepdims=True)

    x, g = ops.reshape(ctx.x, shape=split), ops.reshape(gy, shape=split)
    centred = x - summed(x) * share
    inverse = (summed(centred * centred) * share + ctx.eps) ** -0.5
    z = centred * inverse
    gw, gb = (ops.reshape(ops.sum(a, axis=(0, 3)), shape=(-1,)) for a in (g * z, g))
    if ctx.weight is not None:
        g = g * ops.reshape(ctx.weight, shape=(1, *split[1:3], 1))
    gx = (g - (summed(g) + z * summed(g * z)) * share) * inverse
    return ops.reshape(gx, shape=shape), gw if ctx.needs[1] else None, gb if ctx.needs[2] else None


class Dropout(Op):
    """y = a / (1 - p) where the element's number is at least p, else 0: linear, and its own gradient.

    Keeps where the numbers begin (`backend.Draws`), not the numbers.
    """

    @staticmethod
    def forward(ctx: Context, a: Any, p: float, draws: Any) -> Any:
        ctx.save(p=p, draws=draws)
        return ctx.kernels.dropout(a, p, draws)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.dropout(gy, p=ctx.p, draws=ctx.draws),)
