"""Pooling and resizing of (N, C, H, W) Tensors.

Symbols: N batch, C channels, H W input size, P Q output size, R S size of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import kernels_for
from ..tensor import Tensor, apply
from .products import matmul
from .shape import require_4d
from .windows import Pair, PairLike, pair, window_output


def max_pool2d(
    input: Tensor, kernel_size: PairLike, stride: PairLike | None = None, padding: PairLike = 0,
    dilation: PairLike = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    r"""Largest value of each window; of equal values the first, row by row, wins.

    stride defaults to the kernel size; padding is -inf and at most half the kernel. With return_indices also each
    winner's position in the flat H x W plane.

    Formula: $y_{ncpq} = \max_{rs}\; x_{n,\,c,\,p\sigma + r\delta - \pi,\,q\sigma + s\delta - \pi}$, with $\sigma$ =
        stride, $\delta$ = dilation, $\pi$ = padding.
    Shapes: input (N, C, H, W), kernel_size (R, S) -> (N, C, P, Q), P = floor((H + 2 padding - dilation (R - 1) - 1) /
        stride) + 1, with ceil_mode rounded up.
    Gradient: $y$ moves with its window's winner alone: $\bar x_{ncij} = \sum \bar y_{ncpq}$ over the windows that
        $(i, j)$ has won.
    Kept: nothing; new `m` bytes: the number of each window's winner in its window. With `remade()` not even these.
    Cost: `2 (R S - 1) m` forward, `2 R S m` backward.
    Errors: ValueError for a padding of more than half the kernel, or a window larger than the input.
    """
    out_size, how = _window("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode)
    y = apply("max_pool2d", input, out_size=out_size, **how)
    if not return_indices:
        return y
    _, winners = kernels_for(input.data).max_pool2d(input.data, out_size, **how)
    xp = kernels_for(input.data).xp
    axes = [xp.arange(out_size[i], dtype=np.int64) * how["stride"][i] - how["padding"][i] for i in (0, 1)]
    tap = winners.astype(np.int64)
    row = axes[0][:, None] + tap // how["kernel"][1] * how["dilation"][0]
    column = axes[1] + tap % how["kernel"][1] * how["dilation"][1]
    return y, Tensor(row * input.shape[3] + column)


def avg_pool2d(
    input: Tensor, kernel_size: PairLike, stride: PairLike | None = None, padding: PairLike = 0,
    ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    r"""Mean of each window; stride defaults to the kernel size.

    The divisor $k$ is the number of pixels in the window (zero padding counted if count_include_pad; what ceil_mode
    adds beyond the padding never counts), or divisor_override.

    Formula: $y_{ncpq} = \frac 1 k \sum_{rs} x_{n,\,c,\,p\sigma + r - \pi,\,q\sigma + s - \pi}$, with $\sigma$ = stride,
        $\pi$ = padding.
    Shapes: input (N, C, H, W), kernel_size (R, S) -> (N, C, P, Q), P = floor((H + 2 padding - R) / stride) + 1, Q
        alike.
    Gradient: $\bar x_{ncij} = \sum \bar y_{ncpq} / k$ over the windows that hold $(i, j)$.
    Kept: nothing; new `4 P Q` bytes: $1 / k$ of every window.
    Cost: `(R S + 1) m` forward, `(R S + 1) m` backward.
    Errors: ValueError for a padding of more than half the kernel, a window larger than the input, or divisor_override
        0.
    """
    if divisor_override is not None and divisor_override == 0:
        raise ValueError("avg_pool2d: divisor_override is 0; it must not be")
    out_size, how = _window("avg_pool2d", input, kernel_size, stride, padding, 1, ceil_mode)
    del how["dilation"]
    total = apply("sum_pool2d", input, out_size=out_size, **how)
    if divisor_override is not None:
        return total * (1 / divisor_override)
    counts = []
    for i in (0, 1):
        first = np.arange(out_size[i]) * how["stride"][i] - how["padding"][i]
        border = how["padding"][i] if count_include_pad else 0
        last = np.minimum(first + how["kernel"][i], input.shape[2 + i] + border)
        counts.append(last - np.maximum(first, -border))
    xp = kernels_for(input.data).xp
    return total * xp.asarray(1 / np.outer(counts[0], counts[1]), dtype=input.dtype)


def interpolate(
    input: Tensor, size: PairLike | None = None, scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest", align_corners: bool = False,
) -> Tensor:  # fmt: skip
    r"""Maps resized to `size`, or by `scale_factor` (output size rounded down).

    A scale_factor given is itself used in place of P / H, as in PyTorch. "nearest" by a whole scale_factor is a mere
    repetition, which computes and keeps nothing.

    Formula: $y = A\,x\,B^T$ for every map. "nearest": row $i$ of $A$ has its 1 at $\lfloor i H / P \rfloor$.
        "bilinear": it has the weights of the two rows around $(i + 1/2) H / P - 1/2$, or with align_corners around
        $i (H - 1) / (P - 1)$.
    Shapes: input (N, C, H, W) -> (N, C, P, Q), (P, Q) = size.
    Gradient: linear in $x$: $\bar x = A^T\,\bar y\,B$.
    Kept: nothing; new `4 P H + 4 Q W` bytes: $A$ and $B$.
    Cost: `(2 H - 1) N C P W + (2 W - 1) m` forward, `(2 Q - 1) N C P W + (2 P - 1) n` backward.
    Errors: ValueError unless exactly one of size and scale_factor is given, or for another mode.
    """
    require_4d("interpolate", "input", input)
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: give either size or scale_factor")
    if mode not in ("nearest", "bilinear"):
        raise ValueError(f"interpolate: mode is {mode!r}; legal are 'nearest' and 'bilinear'")
    in_size = input.shape[2:]
    steps: list[float | None] = [None, None]
    if size is None:
        factors = (scale_factor,) * 2 if isinstance(scale_factor, int | float) else tuple(scale_factor or ())
        if len(factors) != 2 or min(factors) <= 0:
            raise ValueError(f"interpolate: scale_factor is {scale_factor!r}; it must be one or two positive numbers")
        out_size = (int(in_size[0] * factors[0]), int(in_size[1] * factors[1]))
        steps = [1 / f for f in factors]
    else:
        out_size = pair("interpolate", "size", size, 1)
    if min(*out_size, *in_size) < 1:
        raise ValueError(
            f"interpolate: from {in_size[0]} x {in_size[1]} to {out_size[0]} x {out_size[1]}: no size may be 0"
        )
    if mode == "nearest" and all(m % n == 0 for m, n in zip(out_size, in_size, strict=True)) and size is None:
        n, c, (h, w) = *input.shape[:2], in_size
        a, b = out_size[0] // h, out_size[1] // w
        repeated = apply("broadcast_to", input.reshape(n, c, h, 1, w, 1), shape=(n, c, h, a, w, b))
        return repeated.reshape(n, c, *out_size)
    xp = kernels_for(input.data).xp
    rows, columns = (
        xp.asarray(_resize_matrix(in_size[i], out_size[i], steps[i], mode, align_corners), dtype=input.dtype)
        for i in (0, 1)
    )
    return matmul(matmul(Tensor(rows), input), Tensor(columns.T))


def _resize_matrix(n: int, m: int, step: float | None, mode: str, align_corners: bool) -> np.ndarray:
    """(m, n) matrix whose row i holds the weights with which output i reads the n inputs."""
    step = n / m if step is None else step
    out = np.arange(m)
    matrix = np.zeros((m, n))
    if mode == "nearest":
        # float32, as PyTorch computes it: products that end just below a whole number must fall on the same side.
        matrix[out, np.minimum(np.floor(out.astype(np.float32) * np.float32(step)).astype(int), n - 1)] = 1
        return matrix
    at = out * ((n - 1) / (m - 1) if m > 1 else 0.0) if align_corners else np.maximum((out + 0.5) * step - 0.5, 0)
    low = np.minimum(np.floor(at).astype(int), n - 1)
    share = at - low
    matrix[out, low] += 1 - share
    matrix[out, np.minimum(low + 1, n - 1)] += share
    return matrix


def _window(
    name: str, input: Tensor, kernel_size: PairLike, stride: PairLike | None, padding: PairLike,
    dilation: PairLike, ceil_mode: bool,
) -> tuple[Pair, dict[str, Pair]]:  # fmt: skip
    require_4d(name, "input", input)
    kernel = pair(name, "kernel_size", kernel_size, 1)
    how = {
        "kernel": kernel,
        "stride": kernel if stride is None else pair(name, "stride", stride, 1),
        "padding": pair(name, "padding", padding, 0),
        "dilation": pair(name, "dilation", dilation, 1),
    }
    if any(2 * p > k for p, k in zip(how["padding"], kernel, strict=True)):
        raise ValueError(f"{name}: padding {how['padding']} is more than half the kernel size {kernel}")
    return window_output(name, input, ceil_mode=ceil_mode, **how), how
