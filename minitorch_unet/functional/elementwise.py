"""Elementwise functions. Tensors and numbers broadcast as in NumPy; the result keeps the Tensors' type."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..tensor import Tensor, apply

Operand = Tensor | float


def add(input: Operand, other: Operand) -> Tensor:
    r"""Sum, element by element.

    Formula: $y = x + z$, with $x$ = input and $z$ = other.
    Shapes: any two that broadcast.
    Gradient: $dy = dx + dz$, so $\bar x = \bar y$ and $\bar z = \bar y$, each summed over the axes that it was repeated
        along.
    Kept: nothing.
    Cost: `m` forward, `0` backward.
    Errors: TypeError if neither is a Tensor, ValueError if the shapes do not broadcast.
    """
    return _binary("add", input, other)


def sub(input: Operand, other: Operand) -> Tensor:
    r"""Difference, element by element.

    Formula: $y = x - z$, with $x$ = input and $z$ = other.
    Shapes: any two that broadcast.
    Gradient: $dy = dx - dz$, so $\bar x = \bar y$ and $\bar z = -\bar y$.
    Kept: nothing.
    Cost: `m` forward, `m` backward.
    Errors: TypeError if neither is a Tensor, ValueError if the shapes do not broadcast.
    """
    return _binary("sub", input, other)


def mul(input: Operand, other: Operand) -> Tensor:
    r"""Product, element by element.

    Formula: $y = x z$, with $x$ = input and $z$ = other.
    Shapes: any two that broadcast.
    Gradient: $dy = z\,dx + x\,dz$, so $\bar x = \bar y z$ and $\bar z = \bar y x$. Each needs the other factor.
    Kept: input (for other), other (for input).
    Cost: `m` forward, `2 m` backward.
    Errors: TypeError if neither is a Tensor, ValueError if the shapes do not broadcast.
    """
    return _binary("mul", input, other)


def div(input: Operand, other: Operand) -> Tensor:
    r"""Quotient, element by element.

    Formula: $y = x / z$, with $x$ = input and $z$ = other.
    Shapes: any two that broadcast.
    Gradient: $dy = dx / z - x\,dz / z^2$, so $\bar x = \bar y / z$ and $\bar z = -\bar x\,x / z$.
    Kept: input (for other), other.
    Cost: `m` forward, `4 m` backward.
    Errors: TypeError if neither is a Tensor, ValueError if the shapes do not broadcast. Division by 0 gives inf or nan.
    """
    return _binary("div", input, other)


def neg(input: Tensor) -> Tensor:
    r"""The opposite number.

    Formula: $y = -x$
    Shapes: any; the result has the same.
    Gradient: $dy = -dx$, so $\bar x = -\bar y$.
    Kept: nothing.
    Cost: `m` forward, `m` backward.
    Errors: none.
    """
    return apply("neg", input)


def pow(input: Operand, exponent: Operand) -> Tensor:
    r"""A power; either operand may be a number.

    A negative base with a fractional exponent gives nan, as in PyTorch. With a number as
    exponent the cost is `m` forward and `3 m` backward, and only the base is kept.

    Formula: $y = x^z$, with $x$ = input and $z$ = exponent.
    Shapes: any two that broadcast.
    Gradient: $\partial x^z / \partial x = z x^{z-1}$ and, as $x^z = e^{z \ln x}$,
        $\partial x^z / \partial z = x^z \ln x$; the latter is taken as 0 where $x = 0$ and $z \ge 0$, its limit.
    Kept: input, exponent.
    Cost: `m` forward, `12 m` backward.
    Errors: TypeError if neither is a Tensor.
    """
    if isinstance(exponent, Tensor):
        if not isinstance(input, Tensor):
            input = Tensor(exponent.data.dtype.type(input), device=exponent.device)
        return apply("pow", input, exponent)
    if not isinstance(input, Tensor):
        raise TypeError("pow: neither input nor exponent is a Tensor")
    return input**exponent


def exp(input: Tensor) -> Tensor:
    r"""The exponential function.

    Formula: $y = e^x$
    Shapes: any; the result has the same.
    Gradient: the function is its own derivative: $\bar x = \bar y\,y$. The result is kept, nothing is computed again.
    Kept: result.
    Cost: `m` forward, `m` backward.
    Errors: none; beyond the type's range the result is inf.
    """
    return apply("exp", input)


def log(input: Tensor) -> Tensor:
    r"""The natural logarithm.

    Formula: $y = \ln x$
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y / x$
    Kept: input.
    Cost: `m` forward, `m` backward.
    Errors: none; -inf at 0, nan below.
    """
    return apply("log", input)


def sqrt(input: Tensor) -> Tensor:
    r"""The square root.

    Formula: $y = \sqrt x$
    Shapes: any; the result has the same.
    Gradient: from $y^2 = x$ follows $2 y\,dy = dx$, so $\bar x = \bar y / (2 y)$: infinite at 0.
    Kept: result.
    Cost: `m` forward, `2 m` backward.
    Errors: none; nan below 0.
    """
    return apply("sqrt", input)


def abs(input: Tensor) -> Tensor:
    r"""The absolute value.

    Formula: $y = |x|$
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y\,\mathrm{sign}(x)$. At 0, where there is a kink, the sign is 0.
    Kept: nothing; new `4 n` bytes: the signs.
    Cost: `2 m` forward, `m` backward.
    Errors: none.
    """
    return apply("abs", input)


def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    r"""Values held between two bounds; either may be missing.

    Formula: $y = \min(\max(x, \mathrm{min}), \mathrm{max})$
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y$ where $\mathrm{min} \le x \le \mathrm{max}$, the edges included, else 0: there $y$ does
        not move.
    Kept: nothing; new `n` bytes: where the value is inside, one boolean each.
    Cost: `3 m` forward, `m` backward.
    Errors: ValueError when both bounds are missing.
    """
    if min is None and max is None:
        raise ValueError("clamp: give min, max or both")
    return apply("clamp", input, low=min, high=max)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    r"""The larger of two, element by element.

    Formula: $y = \max(x, z)$, with $x$ = input and $z$ = other.
    Shapes: any two that broadcast.
    Gradient: $\bar x = \bar y s$ and $\bar z = \bar y (1 - s)$, where the share $s$ is 1 where $x > z$, 0 where
        $x < z$, and 1/2 where they are equal.
    Kept: nothing; new `4 m` bytes: the shares.
    Cost: `5 m` forward, `3 m` backward.
    Errors: TypeError if neither is a Tensor, ValueError if the shapes do not broadcast.
    """
    return _binary("maximum", input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    r"""The smaller of two, element by element.

    Formula: $y = \min(x, z)$, with $x$ = input and $z$ = other.
    Shapes: any two that broadcast.
    Gradient: $\bar x = \bar y s$ and $\bar z = \bar y (1 - s)$, where the share $s$ is 1 where $x < z$, 0 where
        $x > z$, and 1/2 where they are equal.
    Kept: nothing; new `4 m` bytes: the shares.
    Cost: `5 m` forward, `3 m` backward.
    Errors: TypeError if neither is a Tensor, ValueError if the shapes do not broadcast.
    """
    return _binary("minimum", input, other)


def where(condition: Any, input: Operand, other: Operand) -> Tensor:
    r"""A choice between two, element by element.

    Formula: $y = x$ where the condition $c$ holds, $z$ elsewhere; with $x$ = input and $z$ = other.
    Shapes: any three that broadcast.
    Gradient: $\bar x = \bar y$ where $c$, else 0; $\bar z = 0$ where $c$, else $\bar y$.
    Kept: condition.
    Cost: `0` forward, `0` backward: values are only copied.
    Errors: TypeError when the condition is not boolean.
    """
    mask = condition.data if isinstance(condition, Tensor) else condition
    found = getattr(mask, "dtype", type(mask))
    if found != np.dtype(bool):
        raise TypeError(f"where: condition must be a boolean Tensor or array, found {found}")
    return apply("where", mask, input, other)


def _binary(name: str, a: Operand, b: Operand) -> Tensor:
    if not (isinstance(a, Tensor) or isinstance(b, Tensor)):
        raise TypeError(f"{name}: neither argument is a Tensor")
    shapes = [getattr(t, "shape", ()) for t in (a, b)]
    for m, n in zip(*(shape[::-1] for shape in shapes), strict=False):
        if m != n and 1 not in (m, n):
            raise ValueError(f"{name}: shapes {shapes[0]} and {shapes[1]} do not broadcast: {m} meets {n}")
    return apply(name, a, b)
