"""Reductions over axes. `axis` is always a tuple of non-negative axes; the public functions translate `dim`.

float32 sums are accumulated in float64: one pass, and sums over hundreds of thousands of pixels keep their digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import is_floating, is_short
from .core import Context, Op

Axes = tuple[int, ...]


def kept_shape(shape: tuple[int, ...], axis: Axes) -> tuple[int, ...]:
    """The shape with the reduced axes kept as 1."""
    return tuple(1 if i in axis else n for i, n in enumerate(shape))


def accurate_sum(xp: Any, a: Any, axis: Axes, keepdims: bool) -> Any:
    """Sum in the input's type, accumulated in float64 where it is a floating-point one."""
    if not is_floating(a.dtype):
        return xp.sum(a, axis=axis, keepdims=keepdims)
    return xp.sum(a, axis=axis, dtype=np.float64, keepdims=keepdims).astype(a.dtype, copy=False)


class Sum(Op):
    """Sum over axes."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: Axes, keepdims: bool = False) -> Any:
        ctx.save(shape=a.shape, axis=axis)
        if a.ndim == 4 and axis == (0, 2, 3) and not keepdims and is_floating(a.dtype) and not is_short(a.dtype):
            return ctx.kernels.channel_sums(a)
        return ctx.xp.asarray(accurate_sum(ctx.xp, a, axis, keepdims))

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        kept = ctx.ops.reshape(gy, shape=kept_shape(ctx.shape, ctx.axis))
        return (ctx.ops.broadcast_to(kept, shape=ctx.shape),)


class Amax(Op):
    """Maximum over axes; equal maxima share the gradient evenly."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: Axes, keepdims: bool = False) -> Any:
        return _extreme(ctx, a, ctx.xp.max(a, axis=axis, keepdims=True), axis, keepdims)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.reshape(gy, shape=ctx.kept) * ctx.share,)


class Amin(Amax):
    """Minimum over axes; equal minima share the gradient evenly."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: Axes, keepdims: bool = False) -> Any:
        return _extreme(ctx, a, ctx.xp.min(a, axis=axis, keepdims=True), axis, keepdims)


def _extreme(ctx: Context, a: Any, y: Any, axis: Axes, keepdims: bool) -> Any:
    """Save how the gradient is shared among the elements equal to the extreme y, given with its axes kept."""
    equal = a == y
    ctx.save(share=(equal / ctx.xp.maximum(equal.sum(axis, keepdims=True), 1)).astype(a.dtype), kept=y.shape)
    return y if keepdims else y.reshape([n for i, n in enumerate(a.shape) if i not in axis])


class LogSumExp(Op):
    """y = log sum exp(a), with the maximum taken out so that it cannot overflow."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: Axes, keepdims: bool = False) -> Any:
        top = ctx.xp.max(a, axis=axis, keepdims=True)
        top = ctx.xp.where(ctx.xp.isfinite(top), top, 0).astype(a.dtype)  # a row of -inf stays -inf, not nan
        with np.errstate(divide="ignore"):
            y = top + ctx.xp.log(accurate_sum(ctx.xp, ctx.xp.exp(a - top), axis, True))
        ctx.save(a=a, axis=axis, kept=y.shape)
        return y if keepdims else y.reshape([n for i, n in enumerate(a.shape) if i not in axis])

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.reshape(gy, shape=ctx.kept) * ctx.ops.softmax(ctx.a, axis=ctx.axis),)


class Softmax(Op):
    """y = exp(a) / sum exp(a) over the axes; d/da = y (gy - sum gy y)."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: Axes) -> Any:
        y = ctx.xp.exp(a - ctx.xp.max(a, axis=axis, keepdims=True))
        y /= accurate_sum(ctx.xp, y, axis, True)
        ctx.save(y=y, axis=axis)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        weighted = gy * ctx.y
        return (weighted - ctx.y * ctx.ops.sum(weighted, axis=ctx.axis, keepdims=True),)


class LogSoftmax(Op):
    """y = a - log sum exp(a) over the axes; d/da = gy - exp(y) sum gy."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: Axes) -> Any:
        y = a - ctx.xp.max(a, axis=axis, keepdims=True)
        y -= ctx.xp.log(accurate_sum(ctx.xp, ctx.xp.exp(y), axis, True))
        ctx.save(y=y, axis=axis)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy - ctx.ops.exp(ctx.y) * ctx.ops.sum(gy, axis=ctx.axis, keepdims=True),)
