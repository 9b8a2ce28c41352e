"""Matrix products."""

from __future__ import annotations

from ..tensor import Tensor, apply


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
    if input.ndim == 0 or other.ndim == 0:
        raise ValueError("matmul: both arguments need at least one axis")
    a = input.reshape(1, -1) if input.ndim == 1 else input
    b = other.reshape(-1, 1) if other.ndim == 1 else other
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(
            f"matmul: shapes {input.shape} and {other.shape}: inner sizes {a.shape[-1]} and {b.shape[-2]} differ"
        )
    y = apply("matmul", a, b)
    kept = y.shape[:-2] + (y.shape[-2:-1] if input.ndim > 1 else ()) + (y.shape[-1:] if other.ndim > 1 else ())
    return y if kept == y.shape else y.reshape(kept)


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
