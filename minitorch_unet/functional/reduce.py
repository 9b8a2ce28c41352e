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
    """Sum over `dim`, float32 accumulated in float64. Gradient: gy, broadcast back. Keeps the shape only."""
    return input.sum(dim, keepdim)


def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Sum over `dim` divided by the number of elements summed. Gradient: gy / count."""
    return input.mean(dim, keepdim)


def var(input: Tensor, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    """sum (input - mean)^2 / (count - correction); correction 1 is the unbiased estimate.

    Raises ValueError when count <= correction.
    """
    axes = normal_axes("var", dim, input.ndim)
    count = math.prod(input.shape[i] for i in axes)
    if count <= correction:
        raise ValueError(f"var: {count} values with correction {correction}; there must be more values than that")
    centred = input - input.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim) * (1 / (count - correction))


def std(input: Tensor, dim: Dim = None, correction: float = 1, keepdim: bool = False) -> Tensor:
    """Square root of `var`."""
    return sqrt(var(input, dim, correction, keepdim))


def amax(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Maximum over `dim`; equal maxima share the gradient evenly. Keeps the shares."""
    _refuse_empty("amax", input, dim)
    return apply("amax", input, axis=normal_axes("amax", dim, input.ndim), keepdims=keepdim)


def amin(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """Minimum over `dim`; equal minima share the gradient evenly. Keeps the shares."""
    _refuse_empty("amin", input, dim)
    return apply("amin", input, axis=normal_axes("amin", dim, input.ndim), keepdims=keepdim)


def max(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Without `dim`: the largest value (ties share the gradient). With it: (values, indices), the first among equals.

    Keeps the indices; the gradient goes to them alone.
    """
    return amax(input) if dim is None else _select("max", input, dim, keepdim)


def min(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """Without `dim`: the smallest value (ties share the gradient). With it: (values, indices), first among equals."""
    return amin(input) if dim is None else _select("min", input, dim, keepdim)


def argmax(input: Tensor, dim: int | None = None) -> Tensor:
    """Index of the first largest value along `dim`, or in the flattened Tensor; no gradient."""
    return Tensor(input.data.argmax(axis=dim))


def logsumexp(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """log sum e^input over `dim`, computed without overflow. Gradient: gy softmax(input). Keeps input."""
    return apply("log_sum_exp", input, axis=normal_axes("logsumexp", dim, input.ndim), keepdims=keepdim)


def softmax(input: Tensor, dim: int) -> Tensor:
    """e^input / sum e^input along `dim`. Gradient: y (gy - sum gy y). Keeps y."""
    return apply("softmax", input, axis=normal_axes("softmax", dim, input.ndim))


def log_softmax(input: Tensor, dim: int) -> Tensor:
    """input - log sum e^input along `dim`. Gradient: gy - e^y sum gy. Keeps y."""
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
