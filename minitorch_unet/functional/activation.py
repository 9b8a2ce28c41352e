"""Activation functions, element by element."""

from __future__ import annotations

import math

from ..tensor import Tensor, apply


def relu(input: Tensor) -> Tensor:
    r"""The rectifier: negative values become 0.

    Formula: $y = \max(x, 0)$
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y$ where $x > 0$, else 0, also at 0 itself. As $y > 0$ exactly where $x > 0$, the result
        serves as mask, and the next layer keeps it anyway.
    Kept: result.
    Cost: `m` forward, `2 m` backward.
    Errors: none.
    """
    return apply("relu", input)


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    r"""A rectifier that lets a little of negative values through.

    Formula: $y = x$ where $x > 0$, else $y = s x$, with $s$ = negative_slope.
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y$ where $x > 0$, else $\bar x = s \bar y$, also at 0 itself.
    Kept: nothing; new `4 n` bytes: the slope at each value, 1 or $s$.
    Cost: `2 m` forward, `m` backward.
    Errors: none.
    """
    return apply("leaky_relu", input, negative_slope=negative_slope)


def sigmoid(input: Tensor) -> Tensor:
    r"""The logistic function, from 0 to 1.

    Where $e^{-x}$ is beyond the type's range, it is inf and the result 0.

    Formula: $y = 1 / (1 + e^{-x})$
    Shapes: any; the result has the same.
    Gradient: $dy/dx = e^{-x} / (1 + e^{-x})^2 = y (1 - y)$, so $\bar x = \bar y\,y (1 - y)$: at most a quarter.
    Kept: result.
    Cost: `4 m` forward, `3 m` backward.
    Errors: none.
    """
    return apply("sigmoid", input)


def tanh(input: Tensor) -> Tensor:
    r"""The hyperbolic tangent, from -1 to 1.

    Formula: $y = (e^x - e^{-x}) / (e^x + e^{-x})$
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y (1 - y^2)$
    Kept: result.
    Cost: `m` forward, `3 m` backward.
    Errors: none.
    """
    return apply("tanh", input)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    r"""A smooth rectifier.

    Taken as $x$ itself where $\beta x$ > threshold. Computed as $\max(\beta x, 0) + \ln(1 + e^{-|\beta x|})$, which
    cannot overflow.

    Formula: $y = \ln(1 + e^{\beta x}) / \beta$, with $\beta$ = beta.
    Shapes: any; the result has the same.
    Gradient: $dy/dx = e^{\beta x} / (1 + e^{\beta x})$, so $\bar x = \bar y\,\mathrm{sigmoid}(\beta x)$; $\bar y$
        beyond the threshold.
    Kept: input; new `n` bytes: where the threshold is passed, one boolean each.
    Cost: `9 m` forward, `6 m` backward.
    Errors: none.
    """
    return apply("softplus", input, beta=beta, threshold=threshold)


def silu(input: Tensor) -> Tensor:
    r"""The input times its sigmoid; also called swish (Elfwing et al. 2017).

    Formula: $y = x s$, with $s = \mathrm{sigmoid}(x)$.
    Shapes: any; the result has the same.
    Gradient: by the product rule $\bar x = \bar y (s + x s (1 - s))$.
    Kept: input; new `4 n` bytes: $s$.
    Cost: `5 m` forward, `6 m` backward.
    Errors: none.
    """
    return input * sigmoid(input)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    r"""The input times the normal distribution function of it (Hendrycks and Gimpel 2016).

    approximate="tanh" takes $\Phi(x) \approx (1 + \tanh(\sqrt{2/\pi}\,(x + 0.044715\,x^3))) / 2$; kept and cost below
    are those of "none".

    Formula: $y = x\,\Phi(x)$, with $\Phi(x) = (1 + \mathrm{erf}(x / \sqrt 2)) / 2$.
    Shapes: any; the result has the same.
    Gradient: $\bar x = \bar y (\Phi(x) + x\,\varphi(x))$, with the density $\varphi(x) = e^{-x^2/2} / \sqrt{2 \pi}$.
    Kept: input; new `8 n` bytes: $\Phi(x)$ and $x / \sqrt 2$.
    Cost: `5 m` forward, `10 m` backward.
    Errors: ValueError for another `approximate` than "none" and "tanh".
    """
    if approximate == "none":
        return input * (0.5 * (1 + apply("erf", input * math.sqrt(0.5))))
    if approximate == "tanh":
        return 0.5 * input * (1 + tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))
    raise ValueError(f"gelu: approximate is {approximate!r}; legal are 'none' and 'tanh'")
