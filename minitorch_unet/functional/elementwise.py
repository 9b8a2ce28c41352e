"""Elementwise functions. Tensors and numbers broadcast as in NumPy; the result keeps the Tensors' type."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..tensor import Tensor, apply

Operand = Tensor | float


def add(input: Operand, other: Operand) -> Tensor:
    """y = input + other. Gradients: gy, gy. Keeps nothing."""
    return _binary("add", input, other)


def sub(input: Operand, other: Operand) -> Tensor:
    """y = input - other. Gradients: gy, -gy. Keeps nothing."""
    return _binary("sub", input, other)


def mul(input: Operand, other: Operand) -> Tensor:
    """y = input * other. Gradients: gy other, gy input. Keeps both."""
    return _binary("mul", input, other)


def div(input: Operand, other: Operand) -> Tensor:
    """y = input / other. Gradients: gy / other, -gy input / other^2. Keeps both."""
    return _binary("div", input, other)


def neg(input: Tensor) -> Tensor:
    """y = -input."""
    return apply("neg", input)


def pow(input: Operand, exponent: Operand) -> Tensor:
    """y = input ^ exponent; either may be a number. Gradients: gy b a^(b-1), gy y log a (0 where a = 0 and b >= 0).

    Keeps both. A negative base with a fractional exponent gives nan, as in PyTorch.
    """
    if isinstance(exponent, Tensor):
        if not isinstance(input, Tensor):
            input = Tensor(exponent.data.dtype.type(input), device=exponent.device)
        return apply("pow", input, exponent)
    if not isinstance(input, Tensor):
        raise TypeError("pow: neither input nor exponent is a Tensor")
    return input**exponent


def exp(input: Tensor) -> Tensor:
    """y = e^input. Gradient: gy y. Keeps y."""
    return apply("exp", input)


def log(input: Tensor) -> Tensor:
    """y = natural logarithm; -inf at 0, nan below. Gradient: gy / input. Keeps input."""
    return apply("log", input)


def sqrt(input: Tensor) -> Tensor:
    """y = square root; nan below 0. Gradient: gy / (2 y), infinite at 0. Keeps y."""
    return apply("sqrt", input)


def abs(input: Tensor) -> Tensor:
    """y = |input|. Gradient: gy sign(input), 0 at 0. Keeps the sign."""
    return apply("abs", input)


def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """y = min(max(input, min), max). Gradient: gy where min <= input <= max (edges included), 0 outside.

    Keeps a boolean mask. Raises ValueError when both bounds are missing.
    """
    if min is None and max is None:
        raise ValueError("clamp: give min, max or both")
    return apply("clamp", input, low=min, high=max)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two, element by element. Gradient to the larger; half to each where they are equal."""
    return _binary("maximum", input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two, element by element. Gradient to the smaller; half to each where they are equal."""
    return _binary("minimum", input, other)


def where(condition: Any, input: Operand, other: Operand) -> Tensor:
    """y = input where the boolean condition holds, other elsewhere. Keeps the condition.

    Raises TypeError when the condition is not boolean.
    """
    mask = condition.data if isinstance(condition, Tensor) else condition
    found = getattr(mask, "dtype", type(mask))
    if found != np.dtype(bool):
        raise TypeError(f"where: condition must be a boolean Tensor or array, found {found}")
    return apply("where", mask, input, other)


def relu(input: Tensor) -> Tensor:
    """y = max(input, 0). Gradient: gy where y > 0, 0 at 0. Keeps y (the next layer keeps it anyway)."""
    return apply("relu", input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """y = input where positive, negative_slope * input elsewhere (gradient at 0: the slope)."""
    return apply("leaky_relu", input, negative_slope=negative_slope)


def sigmoid(input: Tensor) -> Tensor:
    """y = 1 / (1 + e^-input). Gradient: gy y (1 - y). Keeps y."""
    return apply("sigmoid", input)


def tanh(input: Tensor) -> Tensor:
    """y = tanh(input). Gradient: gy (1 - y^2). Keeps y."""
    return apply("tanh", input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """y = log(1 + e^(beta input)) / beta, taken as input where beta * input > threshold.

    Gradient: gy sigmoid(beta input). Keeps input.
    """
    return apply("softplus", input, beta=beta, threshold=threshold)


def silu(input: Tensor) -> Tensor:
    """y = input * sigmoid(input); also called swish (Elfwing et al. 2017)."""
    return input * sigmoid(input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """y = input * Phi(input), Phi the normal distribution function (Hendrycks and Gimpel 2016).

    approximate="none" uses erf; "tanh" uses 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    """
    if approximate == "none":
        return input * (0.5 * (1 + apply("erf", input * math.sqrt(0.5))))
    if approximate == "tanh":
        return 0.5 * input * (1 + tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))
    raise ValueError(f"gelu: approximate is {approximate!r}; legal are 'none' and 'tanh'")


def _binary(name: str, a: Operand, b: Operand) -> Tensor:
    if not (isinstance(a, Tensor) or isinstance(b, Tensor)):
        raise TypeError(f"{name}: neither argument is a Tensor")
    shapes = [getattr(t, "shape", ()) for t in (a, b)]
    for m, n in zip(*(shape[::-1] for shape in shapes), strict=False):
        if m != n and 1 not in (m, n):
            raise ValueError(f"{name}: shapes {shapes[0]} and {shapes[1]} do not broadcast: {m} meets {n}")
    return apply(name, a, b)
