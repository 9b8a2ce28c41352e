"""Operations that move values without changing them, and their gradients, which move them back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .core import Context, Op, Part, array_ops
from .reduce import accurate_sum


class Reshape(Op):
    """The same values in row-major order in another shape."""

    @staticmethod
    def forward(ctx: Context, a: Any, shape: tuple[int, ...]) -> Any:
        ctx.save(shape=a.shape)
        return a.reshape(shape)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.reshape(gy, shape=ctx.shape),)


class Permute(Op):
    """Axes in another order."""

    @staticmethod
    def forward(ctx: Context, a: Any, dims: tuple[int, ...]) -> Any:
        ctx.save(inverse=tuple(int(i) for i in np.argsort(dims)))
        return a.transpose(dims)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.permute(gy, dims=ctx.inverse),)


class Flip(Op):
    """Values along the axes in reverse order."""

    @staticmethod
    def forward(ctx: Context, a: Any, axis: tuple[int, ...]) -> Any:
        ctx.save(axis=axis)
        return ctx.xp.flip(a, axis)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.flip(gy, axis=ctx.axis),)


class Roll(Op):
    """Values moved along the axes; those that leave come back at the other end."""

    @staticmethod
    def forward(ctx: Context, a: Any, shifts: tuple[int, ...], axis: tuple[int, ...] | None) -> Any:
        ctx.save(back=tuple(-s for s in shifts), axis=axis)
        return ctx.xp.roll(a, shifts if axis else shifts[0], axis)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.roll(gy, shifts=ctx.back, axis=ctx.axis),)


class BroadcastTo(Op):
    """Values repeated along new axes and axes of size 1."""

    @staticmethod
    def forward(ctx: Context, a: Any, shape: tuple[int, ...]) -> Any:
        ctx.save(shape=a.shape)
        return ctx.xp.broadcast_to(a, shape)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.sum_to(gy, shape=ctx.shape),)


class SumTo(Op):
    """Sum over the axes along which an array of `shape` was broadcast: the transpose of `broadcast_to`."""

    @staticmethod
    def forward(ctx: Context, a: Any, shape: tuple[int, ...]) -> Any:
        ctx.save(shape=a.shape)
        extra = a.ndim - len(shape)
        axes = tuple(range(extra)) + tuple(i + extra for i, n in enumerate(shape) if n == 1 and a.shape[i + extra] != 1)
        return accurate_sum(ctx.xp, a, axes, keepdims=True).reshape(shape)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.broadcast_to(gy, shape=ctx.shape),)


class Cat(Op):
    """Arrays joined along an axis."""

    @staticmethod
    def forward(ctx: Context, *arrays: Any, axis: int) -> Any:
        ctx.save(axis=axis, sizes=[a.shape[axis] for a in arrays])
        if axis == 1 and arrays[0].ndim == 4:
            return ctx.kernels.join(arrays)
        return ctx.xp.concatenate(arrays, axis)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        edges = [0, *(int(edge) for edge in np.cumsum(ctx.sizes))]
        before = (slice(None),) * ctx.axis
        return tuple(gy[(*before, slice(lo, hi))] for lo, hi in pairwise(edges))


class Getitem(Op):
    """a[index]: slices, integers, None, Ellipsis, boolean and integer arrays, with NumPy's meaning."""

    @staticmethod
    def forward(ctx: Context, a: Any, index: Any) -> Any:
        ctx.save(shape=a.shape, index=index)
        return a[index]

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.setitem_zeros(gy, shape=ctx.shape, index=ctx.index),)


class SetitemZeros(Op):
    """Zeros of `shape` with the values added at `index` (repeated indices add up): the transpose of `getitem`."""

    @staticmethod
    def forward(ctx: Context, a: Any, shape: tuple[int, ...], index: Any) -> Any:
        ctx.save(index=index)
        out = _zeros_in_order_of(ctx.xp, a, shape)
        parts = index if isinstance(index, tuple) else (index,)
        listed = any(isinstance(part, list | tuple | range) for part in parts)
        if listed or any(hasattr(part, "dtype") and part.dtype.kind in "iu" for part in parts):
            ctx.xp.add.at(out, index, a)
        else:
            out[index] = a
        return out

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (gy[ctx.index],)


def _zeros_in_order_of(xp: Any, a: Any, shape: tuple[int, ...]) -> Any:
    """Zeros whose axes lie in memory in the same order as a's, so that channels-last stays channels-last."""
    if a.ndim != len(shape):
        return xp.zeros(shape, a.dtype)
    order = sorted(range(a.ndim), key=lambda i: -abs(a.strides[i]))
    return xp.zeros([shape[i] for i in order], a.dtype).transpose([order.index(i) for i in range(a.ndim)])


class TakeAlongDim(Op):
    """y[i, j, ...] = a[index[i, j, ...], j, ...] for `axis` 0, and alike for the others."""

    @staticmethod
    def forward(ctx: Context, a: Any, index: Any, axis: int) -> Any:
        ctx.save(index=index, axis=axis, shape=a.shape)
        return ctx.xp.take_along_axis(a, index, axis)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return ctx.ops.put_along_dim(gy, ctx.index, shape=ctx.shape, axis=ctx.axis), None


class PutAlongDim(Op):
    """Zeros of `shape` with the values added where `take_along_dim` would read them: its transpose."""

    @staticmethod
    def forward(ctx: Context, a: Any, index: Any, shape: tuple[int, ...], axis: int) -> Any:
        xp = ctx.xp
        ctx.save(index=index, axis=axis)
        out = xp.zeros(shape, a.dtype)
        for position in range(index.shape[axis]):  # one position at a time: its indices cannot repeat an element
            at = [slice(None)] * a.ndim
            at[axis] = slice(position, position + 1)
            at_index = index[tuple(at)]
            xp.put_along_axis(out, at_index, xp.take_along_axis(out, at_index, axis) + a[tuple(at)], axis)
        return out

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return ctx.ops.take_along_dim(gy, ctx.index, axis=ctx.axis), None


class Take(Op):
    """Slices of `a` along `axis` at the given positions, which may repeat."""

    @staticmethod
    def forward(ctx: Context, a: Any, index: Any, axis: int) -> Any:
        ctx.save(index=index, axis=axis, size=a.shape[axis])
        return ctx.xp.take(a, index, axis)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return ctx.ops.index_add(gy, ctx.index, axis=ctx.axis, size=ctx.size), None


class IndexAdd(Op):
    """Slices of `a` added into `size` zero slices at the given positions: the transpose of `take`."""

    @staticmethod
    def forward(ctx: Context, a: Any, index: Any, axis: int, size: int) -> Any:
        xp = ctx.xp
        ctx.save(index=index, axis=axis)
        one_hot = (index[None, :] == xp.arange(size)[:, None]).astype(a.dtype)  # a product repeats bit for bit
        return xp.moveaxis(xp.tensordot(one_hot, a, axes=(1, axis)), 0, axis)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return ctx.ops.take(gy, ctx.index, axis=ctx.axis), None


class Pad2d(Op):
    """A border of a constant around the last two axes of (N, C, H, W); negative widths crop."""

    @staticmethod
    def forward(ctx: Context, a: Any, widths: tuple[int, int, int, int], value: float) -> Any:
        ctx.save(widths=widths, shape=a.shape)
        return ctx.kernels.pad(a, *widths, value)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        if ctx.ops is array_ops and max(ctx.widths) <= 0:  # a crop: zeros around gy, which nobody needs to write
            top, _, left, _ = (-w for w in ctx.widths)
            rows, columns = slice(top, top + gy.shape[2]), slice(left, left + gy.shape[3])
            return (Part(gy, (slice(None), slice(None), rows, columns), ctx.shape),)
        return (ctx.ops.pad2d(gy, widths=tuple(-w for w in ctx.widths), value=0.0),)


class Matmul(Op):
    """a @ b with NumPy's broadcasting of the leading axes; both at least two-dimensional."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(a=a if ctx.needs[1] else None, b=b if ctx.needs[0] else None)
        return a @ b

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        ga = gy @ ctx.b.swapaxes(-1, -2) if ctx.needs[0] else None
        return ga, ctx.a.swapaxes(-1, -2) @ gy if ctx.needs[1] else None
