"""Convolution, pooling and resizing of (N, C, H, W) Tensors.

Symbols: N batch, C input channels, K filters, H W input size, P Q output size, R S kernel size.
Sizes: convolution and pooling  floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1;
transposed convolution  (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import autocast_dtype, is_short, kernels_for
from ..tensor import Tensor, apply
from .shape import matmul, require_4d

Pair = tuple[int, int]
PairLike = int | Sequence[int]


def pair(function: str, argument: str, value: PairLike, least: int) -> Pair:
    """`value` as (rows, columns); both must be whole numbers of at least `least`."""
    numbers = (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    if len(numbers) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in numbers):
        raise ValueError(
            f"{function}: {argument} is {value!r}; it must be one or two whole numbers of at least {least}"
        )
    return int(numbers[0]), int(numbers[1])


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: PairLike = 1,
    padding: PairLike | str = 0, dilation: PairLike = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """y[n,k,p,q] = bias[k] + sum_{c,r,s} input[n, c, p stride + r dilation - padding, ...] weight[k,c,r,s].

    input (N, C, H, W), weight (K, C/groups, R, S), bias (K) -> (N, K, P, Q). A correlation: the kernel is not turned.
    padding may be "valid" (0) or "same" (stride 1 only). Keeps input and weight. Raises ValueError/TypeError for
    shapes, channel counts or types that do not fit. Computed by matrix products over slabs of rows.
    """
    input = _autocast(input)
    groups = _check_operands("conv2d", input, weight, bias, groups, transposed=False)
    how: dict[str, Any] = {
        "stride": pair("conv2d", "stride", stride, 1),
        "dilation": pair("conv2d", "dilation", dilation, 1),
    }
    if padding == "same":
        if how["stride"] != (1, 1):
            raise ValueError(f"conv2d: padding 'same' needs stride 1, found {stride}")
        total = [d * (k - 1) for d, k in zip(how["dilation"], weight.shape[2:], strict=True)]
        if any(t % 2 for t in total):  # the extra row goes after, as in PyTorch
            input = apply("pad2d", input, widths=(0, total[0] % 2, 0, total[1] % 2), value=0.0)
        padding = (total[0] // 2, total[1] // 2)
    elif isinstance(padding, str) and padding != "valid":
        raise ValueError(f"conv2d: padding is {padding!r}; legal are numbers, 'valid' and 'same'")
    how["padding"] = pair("conv2d", "padding", 0 if padding == "valid" else padding, 0)  # type: ignore[arg-type]
    window_output("conv2d", input, (weight.shape[2], weight.shape[3]), **how)
    return apply("conv2d", input, weight, bias, **how, groups=groups)


def conv2d_relu(
    input: Tensor | Sequence[Tensor], weight: Tensor, bias: Tensor | None = None, padding: PairLike = 0
) -> Tensor:  # fmt: skip
    """relu(conv2d(cat(input, 1), weight, bias, padding=padding)) in one operation, stride 1.

    input is one Tensor (N, C, H, W), or two whose channels follow one another (they are read where they are, not
    copied together). Keeps the sources, the weight and the result. Raises like conv2d.
    """
    sources = _sources("conv2d_relu", input, weight, bias)
    paddings = pair("conv2d_relu", "padding", padding, 0)
    window_output("conv2d_relu", sources[0], (weight.shape[2], weight.shape[3]), (1, 1), paddings, (1, 1))
    return apply("conv2d_relu", weight, bias, *sources, padding=paddings)


def double_conv2d_relu(
    input: Tensor | Sequence[Tensor], weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None,
    padding: PairLike = 0, recompute: bool = False,
) -> Tensor:  # fmt: skip
    """conv2d_relu(conv2d_relu(input, weight1, bias1), weight2, bias2): a block of the U-Net in one operation.

    Keeps the sources, the weights, the result and the map between the convolutions; with `recompute` that map is
    computed again in the backward pass instead. Kernels are equal in size. Raises like conv2d_relu.
    """
    name = "double_conv2d_relu"
    sources = _sources(name, input, weight1, bias1)
    paddings = pair(name, "padding", padding, 0)
    kernel = (weight1.shape[2], weight1.shape[3])
    if weight2.shape[1:] != (weight1.shape[0], *kernel) or (bias2 is not None and bias2.shape != weight2.shape[:1]):
        raise ValueError(f"{name}: weight2 has shape {weight2.shape}; after weight1 {weight1.shape} it must be "
                         f"(K, {weight1.shape[0]}, {kernel[0]}, {kernel[1]}), and bias2 (K)")  # fmt: skip
    if {t.dtype for t in (weight2, bias2) if t is not None} != {weight1.dtype}:
        raise TypeError(f"{name}: weight2 and bias2 must have the type of weight1, {weight1.dtype}")
    reach = (2 * kernel[0] - 1, 2 * kernel[1] - 1)  # both windows together, both paddings
    window_output(name, sources[0], reach, (1, 1), (2 * paddings[0], 2 * paddings[1]), (1, 1))
    operands = (weight1, bias1, weight2, bias2, *sources)
    return apply("double_conv2d_relu", *operands, padding=paddings, recompute=recompute)


def _sources(
    name: str, input: Tensor | Sequence[Tensor], weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, ...]:
    """One or two Tensors whose channels follow one another, checked against each other, the weight and the bias."""
    sources = tuple(map(_autocast, (input,) if isinstance(input, Tensor) else input))
    if not 1 <= len(sources) <= 2:
        raise ValueError(f"{name}: input holds {len(sources)} Tensors; legal are one and two")
    for source in sources:
        require_4d(name, "input", source)
    if any(s.shape[0] != sources[0].shape[0] or s.shape[2:] != sources[0].shape[2:] for s in sources):
        shapes = " and ".join(str(s.shape) for s in sources)
        raise ValueError(f"{name}: inputs have shapes {shapes}; all axes but the channels must be equal")
    if len({s.dtype for s in sources}) > 1:
        raise TypeError(f"{name}: inputs have types {[s.dtype.name for s in sources]}; they must be equal")
    channels = sum(s.shape[1] for s in sources)
    _check_operands(name, sources[0], weight, bias, 1, transposed=False, channels=channels)
    return sources


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: PairLike = 1, padding: PairLike = 0,
    output_padding: PairLike = 0, groups: int = 1, dilation: PairLike = 1,
) -> Tensor:  # fmt: skip
    """Transposed ("up-") convolution: exactly the gradient of conv2d with respect to its input.

    Each input pixel times the kernel is added into the output at stride steps: <conv2d(x, w), y> = <x, convT(y, w)>.
    input (N, K, P, Q), weight (K, C/groups, R, S), bias (C) -> (N, C, H, W) with
    H = (P - 1) stride - 2 padding + dilation (R - 1) + output_padding + 1. Keeps input and weight.
    Raises ValueError unless output_padding is smaller than stride or dilation.
    """
    name = "conv_transpose2d"
    input = _autocast(input)
    groups = _check_operands(name, input, weight, bias, groups, transposed=True)
    strides, dilations = pair(name, "stride", stride, 1), pair(name, "dilation", dilation, 1)
    paddings, extra = pair(name, "padding", padding, 0), pair(name, "output_padding", output_padding, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise ValueError(
            f"{name}: output_padding {extra} must be smaller than stride {strides} or dilation {dilations}"
        )
    size = tuple(
        (input.shape[2 + i] - 1) * strides[i]
        - 2 * paddings[i]
        + dilations[i] * (weight.shape[2 + i] - 1)
        + extra[i]
        + 1
        for i in (0, 1)
    )
    if min(size) < 1:
        raise ValueError(
            f"{name}: the output would have size {size[0]} x {size[1]}; use less padding or a larger input"
        )
    operands = (input, weight) if bias is None else (input, weight, bias)
    return apply(
        "conv2d_input_grad",
        *operands,
        input_size=size,
        stride=strides,
        padding=paddings,
        dilation=dilations,
        groups=groups,
    )


def max_pool2d(
    input: Tensor, kernel_size: PairLike, stride: PairLike | None = None, padding: PairLike = 0,
    dilation: PairLike = 1, ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    """Largest value of each window; stride defaults to the kernel size; among equal values the first, row-major, wins.

    (N, C, H, W) -> (N, C, P, Q), with return_indices also each winner's position in the flat H x W plane. Keeps the
    winners, one byte a window. padding is -inf and at most half the kernel.
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
    """Mean of each window; stride defaults to the kernel size. (N, C, H, W) -> (N, C, P, Q). Keeps nothing.

    The divisor is the number of pixels in the window (zero padding counted if count_include_pad; what ceil_mode adds
    beyond the padding never counts), or divisor_override.
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
    """(N, C, H, W) resized to `size`, or by `scale_factor` (output size rounded down).

    "nearest": output row i reads input row floor(i H / P). "bilinear": row i reads at (i + 1/2) H / P - 1/2, or with
    align_corners at i (H - 1) / (P - 1), between its two neighbours. A scale_factor given is itself used in place
    of P / H, as in PyTorch. Linear and separable: a product with a matrix for the rows and one for the columns, which
    are kept.
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


def _check_operands(
    name: str, input: Tensor, weight: Tensor, bias: Tensor | None, groups: int, transposed: bool,
    channels: int | None = None,
) -> int:  # fmt: skip
    """Raise unless channels (default: input's), groups and types of a convolution's operands fit; return groups."""
    require_4d(name, "input", input)
    require_4d(name, "weight", weight)
    if not isinstance(groups, int) or groups < 1 or weight.shape[0] % groups:
        raise ValueError(f"{name}: groups is {groups!r}; it must divide the weight's first size, {weight.shape[0]}")
    expected = weight.shape[0] if transposed else weight.shape[1] * groups
    channels = input.shape[1] if channels is None else channels
    if channels != expected:
        raise ValueError(
            f"{name}: input has {channels} channels, weight {weight.shape} with groups {groups} expects {expected}"
            + ("; a concatenation has the channels of both maps" if channels == 2 * expected else "")
        )
    filters = weight.shape[1] * groups if transposed else weight.shape[0]
    if bias is not None and bias.shape != (filters,):
        raise ValueError(f"{name}: bias has shape {bias.shape}; weight {weight.shape} expects ({filters},)")
    types = {t.dtype.name for t in (input, weight, bias) if t is not None}
    mixed = is_short(input.dtype) and types == {input.dtype.name, "float32"} and weight.dtype == np.float32
    if len(types) > 1 and not mixed:
        raise TypeError(
            f"{name}: input, weight and bias have types {', '.join(sorted(types))}; they must be equal, see Tensor.to, "
            "or the input of a 16-bit type and the others float32 (see autocast)"
        )
    if min(weight.shape) < 1:
        raise ValueError(f"{name}: weight has shape {weight.shape}; no size may be 0")
    return groups


def _autocast(input: Any) -> Any:
    """A float32 map in the type that `autocast` asks for; anything else, and without it, as it is."""
    dtype = autocast_dtype()
    return input.to(dtype) if dtype is not None and isinstance(input, Tensor) and input.dtype == np.float32 else input


def window_output(
    name: str, input: Tensor, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, ceil_mode: bool = False
) -> Pair:
    """Output size (P, Q) of a sliding window; raises ValueError when the window does not fit even once."""
    sizes = []
    for i, axis in enumerate(("rows", "columns")):
        n, reach = input.shape[2 + i] + 2 * padding[i], dilation[i] * (kernel[i] - 1) + 1
        least = reach - (stride[i] - 1 if ceil_mode else 0)  # ceil_mode lets a window reach beyond the padding
        if n < least:
            raise ValueError(
                f"{name}: input has {input.shape[2 + i]} {axis} and padding {padding[i]}, but the window reaches over "
                f"{reach}; the input must have at least {least - 2 * padding[i]} {axis}"
            )
        count = -(-(n - reach) // stride[i]) + 1 if ceil_mode else (n - reach) // stride[i] + 1
        if ceil_mode and (count - 1) * stride[i] >= input.shape[2 + i] + padding[i]:
            count -= 1  # a window must start inside the input or the padding before it
        sizes.append(count)
    return sizes[0], sizes[1]


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
