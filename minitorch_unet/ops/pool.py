"""Pooling. The gradient of max pooling follows the number of each window's winning tap, one byte."""

from __future__ import annotations

from typing import Any

from .core import Context, Op, Recipe

Pair = tuple[int, int]


class MaxPool2d(Op):
    """Largest value of each window; among equal values the first in row-major order wins. Keeps the winners, or x."""

    owns_gradients = True

    @staticmethod
    def forward(ctx: Context, x: Any, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
        how = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
        y, winners = ctx.kernels.max_pool2d(x, out_size, **how)
        if ctx.remaking:
            pool = ctx.kernels.max_pool2d  # not ctx itself, which will hold the recipe: a cycle would outlive the step
            winners = Recipe(lambda x: pool(x, out_size, **how)[1], x)
        ctx.save(winners=winners, size=x.shape[2:], how=how)
        return y

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.max_pool2d_scatter(gy, winners=ctx.winners, input_size=ctx.size, **ctx.how),)


class MaxPool2dScatter(Op):
    """Sends each value to its window's winner: linear, and the gradient of `max_pool2d`."""

    @staticmethod
    def forward(ctx: Context, gy: Any, winners: Any, input_size: Pair, **how: Pair) -> Any:
        ctx.save(winners=winners, how=how)
        return ctx.kernels.max_pool2d_scatter(gy, winners, input_size, **how)

    @staticmethod
    def backward(ctx: Any, gx: Any) -> tuple[Any, ...]:
        return (ctx.ops.max_pool2d_gather(gx, winners=ctx.winners, **ctx.how),)


class MaxPool2dGather(Op):
    """Reads x at given winners: the transpose of `max_pool2d_scatter`."""

    @staticmethod
    def forward(ctx: Context, x: Any, winners: Any, **how: Pair) -> Any:
        ctx.save(winners=winners, size=x.shape[2:], how=how)
        return ctx.kernels.max_pool2d_gather(x, winners, **how)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.max_pool2d_scatter(gy, winners=ctx.winners, input_size=ctx.size, **ctx.how),)


class SumPool2d(Op):
    """Sum of each window of the zero-padded input; average pooling divides it."""

    @staticmethod
    def forward(ctx: Context, x: Any, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        ctx.save(size=x.shape[2:], how={"kernel": kernel, "stride": stride, "padding": padding})
        return ctx.kernels.sum_pool2d(x, out_size, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, gy: Any) -> tuple[Any, ...]:
        return (ctx.ops.sum_pool2d_scatter(gy, input_size=ctx.size, **ctx.how),)


class SumPool2dScatter(Op):
    """Adds each value to all pixels of its window: the transpose of `sum_pool2d`."""

    @staticmethod
    def forward(ctx: Context, gy: Any, input_size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        ctx.save(out_size=gy.shape[2:], how={"kernel": kernel, "stride": stride, "padding": padding})
        return ctx.kernels.sum_pool2d_scatter(gy, input_size, kernel, stride, padding)

    @staticmethod
    def backward(ctx: Any, gx: Any) -> tuple[Any, ...]:
        return (ctx.ops.sum_pool2d(gx, out_size=ctx.out_size, **ctx.how),)
