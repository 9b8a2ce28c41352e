"""Batch normalisation as one operation, optionally with the ReLU behind it; and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend.precision import wide
from ..backend.reference import rounded
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
