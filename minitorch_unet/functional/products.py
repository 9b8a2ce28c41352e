"""Matrix products."""

from __future__ import annotations

from ..tensor import Tensor


def matmul(input: Tensor, other: Tensor) -> Tensor:
    r"""Matrix product over the last two axes; leading axes broadcast, vectors are treated as PyTorch does.

    Formula: $y_{ik} = \sum_j x_{ij} z_{jk}$, with $x$ = input and $z$ = other.
    Shapes: input (..., I, J), other (..., J, K) -> (..., I, K).
    Gradient: $\bar x_{ij} = \sum_k \bar y_{ik} z_{jk}$ and $\bar z_{jk} = \sum_i x_{ij} \bar y_{ik}$:
        $\bar x = \bar y z^T$, $\bar z = x^T \bar y$.
    Kept: input (for other), other (for input).
    Cost: `(2 J - 1) m` forward, `4 J m` backward.
    Errors: ValueError if the inner sizes differ, or for a Tensor without axes.
    """
    return (input if isinstance(input, Tensor) else Tensor(input)) @ other


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    r"""A fully connected layer: a matrix product and a bias.

    Formula: $y = x w^T + b$
    Shapes: input (..., I), weight (O, I), bias (O) -> (..., O).
    Gradient: as of `matmul`: $\bar x = \bar y w$, $\bar w = \bar y^T x$; the bias is used by every row:
        $\bar b = \sum \bar y$ over all axes but the last.
    Kept: input (for weight), weight (for input).
    Cost: `2 I m` forward, `(4 I + 1) m` backward.
    Errors: ValueError if input's last size is not weight's.
    """
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input has {input.shape[-1:]} features, weight {weight.shape} expects (out, in) with in equal"
        )
    y = matmul(input, weight.swapaxes(0, 1))
    return y if bias is None else y + bias
