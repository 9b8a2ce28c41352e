"""Reductions. `dim` is None (everything), an axis or several; `keepdim` keeps reduced axes as 1."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..tensor import Tensor, apply, normal_axes
from .elementwise import sqrt

Dim = int | tuple[int, ...] | None


class ValuesIndices(NamedTuple):
    """What `max(input, dim)` and `min(input, dim)` return."""

    values: Tensor
    indices: Tensor


def sum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    r"""Sum over axes; of float32 accumulated in float64.

    Formula: $y = \sum_i x_i$ over the axes in dim.
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: every term enters once, $\partial y / \partial x_i = 1$: $\bar x_i = \bar y$, a view that is repeated, not
        copied.
    Kept: nothing (but the shape).
    Cost: `n` forward, `0` backward.
    Errors: ValueError for an axis that the input does not have.
    """
    return input.sum(dim, keepdim)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    r"""Mean over axes.

    Formula: $y = \frac 1 k \sum_i x_i$ over the axes in dim, $k$ the number of values summed.
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: $\bar x_i = \bar y / k$
    Kept: nothing (but the shape).
    Cost: `n + m` forward, `m` backward.
    Errors: ValueError for an axis that the input does not have.
    """
    return input.mean(dim, keepdim)


def var(input: Tensor, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    r"""Variance over axes; correction 1 is the unbiased estimate.

    Formula: $y = \frac{1}{k - c} \sum_i (x_i - \mu)^2$, with $\mu$ the mean of the $k$ values, $c$ = correction.
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: $dy = \frac{2}{k - c} \sum_i (x_i - \mu)(dx_i - d\mu)$, where the part of $d\mu$ vanishes because
        $\sum_i (x_i - \mu) = 0$: $\bar x_i = \bar y\,\frac{2}{k - c} (x_i - \mu)$. The walk does not know that and
        computes the 0.
    Kept: nothing; new `4 n` bytes: $x - \mu$.
    Cost: `4 n + 3 m` forward, `6 n` backward.
    Errors: ValueError unless there are more than `correction` values.
    """
    axes = normal_axes("var", dim, input.ndim)
    count = math.prod(input.shape[i] for i in axes)
    if count <= correction:
        raise ValueError(f"var: {count} values with correction {correction}; there must be more values than that")
    centred = input - input.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim) * (1 / (count - correction))


def std(input: Tensor, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    r"""Standard deviation over axes: the square root of `var`.

    Formula: $y = \sqrt{\frac{1}{k - c} \sum_i (x_i - \mu)^2}$
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: $\bar x_i = \frac{\bar y}{y} \frac{x_i - \mu}{k - c}$: infinite or nan where all values are equal.
    Kept: result; new `4 n` bytes: $x - \mu$.
    Cost: `4 n + 4 m` forward, `6 n` backward.
    Errors: ValueError unless there are more than `correction` values.
    """
    return sqrt(var(input, dim, correction, keepdim))


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    r"""Maximum over axes; equal maxima share the gradient.

    Formula: $y = \max_i x_i$ over the axes in dim.
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: $\bar x_i = \bar y / q$ for the $q$ values that equal the maximum, 0 for the others.
    Kept: nothing; new `4 n` bytes: each value's share.
    Cost: `3 n` forward, `n` backward.
    Errors: ValueError when there is no value to choose among.
    """
    _refuse_empty("amax", input, dim)
    return apply("amax", input, axis=normal_axes("amax", dim, input.ndim), keepdims=keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    r"""Minimum over axes; equal minima share the gradient.

    Formula: $y = \min_i x_i$ over the axes in dim.
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: $\bar x_i = \bar y / q$ for the $q$ values that equal the minimum, 0 for the others.
    Kept: nothing; new `4 n` bytes: each value's share.
    Cost: `3 n` forward, `n` backward.
    Errors: ValueError when there is no value to choose among.
    """
    _refuse_empty("amin", input, dim)
    return apply("amin", input, axis=normal_axes("amin", dim, input.ndim), keepdims=keepdim)


def max(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    r"""Largest value: with dim (values, indices) along it, the first among equals; without dim that of all, as `amax`.

    Formula: $y = x_j$, with $j$ the smallest of all $i$ whose $x_i$ is the maximum along dim.
    Shapes: any; values and indices are without the axis dim, or with keepdim have it as 1.
    Gradient: $\bar x_j = \bar y$, all others get 0: the winner takes it all, unlike in `amax`.
    Kept: nothing; new `8 m` bytes: the indices, which are returned too.
    Cost: `n` forward, `m` backward.
    Errors: ValueError when there is no value to choose among.
    """
    return amax(input) if dim is None else _select("max", input, dim, keepdim)


def min(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    r"""Smallest value: with dim (values, indices) along it, the first among equals; without dim that of all, as `amin`.

    Formula: $y = x_j$, with $j$ the smallest of all $i$ whose $x_i$ is the minimum along dim.
    Shapes: any; values and indices are without the axis dim, or with keepdim have it as 1.
    Gradient: $\bar x_j = \bar y$, all others get 0: the winner takes it all, unlike in `amin`.
    Kept: nothing; new `8 m` bytes: the indices, which are returned too.
    Cost: `n` forward, `m` backward.
    Errors: ValueError when there is no value to choose among.
    """
    return amin(input) if dim is None else _select("min", input, dim, keepdim)


def argmax(input: Tensor, dim: int | None = None) -> Tensor:
    r"""Position of the first largest value along dim, or in the flattened Tensor.

    Formula: $y = \min \{ i : x_i = \max_k x_k \}$
    Shapes: any; the result is without the axis dim, of int64.
    Gradient: none: an index does not move with $x$.
    Kept: nothing.
    Cost: `n` forward, `0` backward.
    Errors: ValueError when there is no value to choose among.
    """
    return Tensor(input.data.argmax(axis=dim))


def logsumexp(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    r"""Logarithm of a sum of exponentials, a smooth maximum; the maximum is taken out first, so that nothing overflows.

    Formula: $y = \ln \sum_i e^{x_i} = t + \ln \sum_i e^{x_i - t}$ for any $t$, and for $t = \max_i x_i$ safely.
    Shapes: any; the result is without the axes in dim, or with keepdim has them as 1.
    Gradient: $\partial y / \partial x_i = e^{x_i} / \sum_k e^{x_k}$, so $\bar x_i = \bar y\,\mathrm{softmax}(x)_i$,
        computed again.
    Kept: input.
    Cost: `4 n` forward, `6 n` backward.
    Errors: ValueError for an axis that the input does not have.
    """
    return apply("log_sum_exp", input, axis=normal_axes("logsumexp", dim, input.ndim), keepdims=keepdim)


def softmax(input: Tensor, dim: int) -> Tensor:
    r"""Shares that sum to 1 along dim, the larger the value.

    Formula: $y_i = e^{x_i} / \sum_k e^{x_k}$, computed with $x - \max_k x_k$ in place of $x$, which changes nothing.
    Shapes: any; the result has the same.
    Gradient: $\partial y_i / \partial x_j = y_i (\delta_{ij} - y_j)$, hence $\bar x_j = \sum_i \bar y_i\,y_i
        (\delta_{ij} - y_j) = y_j (\bar y_j - \sum_i \bar y_i y_i)$.
    Kept: result.
    Cost: `5 n` forward, `4 n` backward.
    Errors: ValueError for an axis that the input does not have.
    """
    return apply("softmax", input, axis=normal_axes("softmax", dim, input.ndim))


def log_softmax(input: Tensor, dim: int) -> Tensor:
    r"""Logarithm of `softmax` along dim, exact also where the softmax itself would be rounded to 0.

    Formula: $y_i = x_i - \ln \sum_k e^{x_k}$, computed with $x - \max_k x_k$ in place of $x$.
    Shapes: any; the result has the same.
    Gradient: $\partial y_i / \partial x_j = \delta_{ij} - e^{y_j}$, hence
        $\bar x_j = \bar y_j - e^{y_j} \sum_i \bar y_i$.
    Kept: result.
    Cost: `5 n` forward, `4 n` backward.
    Errors: ValueError for an axis that the input does not have.
    """
    return apply("log_softmax", input, axis=normal_axes("log_softmax", dim, input.ndim))


def _refuse_empty(function: str, input: Tensor, dim: Dim) -> None:
    if any(input.shape[axis] == 0 for axis in normal_axes(function, dim, input.ndim)):
        raise ValueError(f"{function}: input of shape {input.shape} has no value to choose along dim {dim}")


def _select(name: str, input: Tensor, dim: int, keepdim: bool) -> ValuesIndices:
    _refuse_empty(name, input, dim)
    (axis,) = normal_axes(name, dim, input.ndim)
    choose = input.data.argmax if name == "max" else input.data.argmin
    index = choose(axis=axis)
    kept = index.reshape([1 if i == axis else n for i, n in enumerate(input.shape)])
    values = apply("take_along_dim", input, kept, axis=axis)
    return ValuesIndices(values if keepdim else values.reshape(index.shape), Tensor(kept if keepdim else index))
