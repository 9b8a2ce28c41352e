"""Convolution of (N, C, H, W) Tensors.

Symbols: N batch, C input channels, K filters, H W input size, P Q output size, R S kernel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import autocast_dtype, is_short
from ..tensor import Tensor, apply
from .shape import require_4d
from .windows import PairLike, pair, window_output


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: PairLike = 1,
    padding: PairLike | str = 0, dilation: PairLike = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    r"""Two-dimensional convolution; as everywhere in deep learning a correlation: the kernel is not turned.

    padding may be "valid" (0) or "same" (stride 1 only). Computed by matrix products over slabs of rows, or by
    Winograd's minimal filtering (docs/cpu-kernels.md), which needs fewer operations than stand under Cost.

    Formula: $y_{nkpq} = b_k + \sum_{crs} x_{n,\,c,\,p\sigma + r\delta - \pi,\,q\sigma + s\delta - \pi}\; w_{kcrs}$,
        with $\sigma$ = stride, $\delta$ = dilation, $\pi$ = padding, and $x = 0$ outside.
    Shapes: input (N, C, H, W), weight (K, C/groups, R, S), bias (K) -> (N, K, P, Q), P = floor((H + 2 padding -
        dilation (R - 1) - 1) / stride) + 1, Q alike.
    Gradient: $y$ is linear in $x$ and in $w$. Reading the formula from the other side,
        $\bar x_{ncij} = \sum \bar y_{nkpq} w_{kcrs}$ over all $k, p, q, r, s$ with $p\sigma + r\delta - \pi = i$ and
        $q\sigma + s\delta - \pi = j$: `conv_transpose2d` of $\bar y$, at stride 1 the correlation with the turned
        kernel. Further $\bar w_{kcrs} = \sum_{npq} \bar y_{nkpq}\, x_{n,\,c,\,p\sigma + r\delta - \pi,\,q\sigma +
        s\delta - \pi}$ and $\bar b_k = \sum_{npq} \bar y_{nkpq}$.
    Kept: input (for weight), weight (for input).
    Cost: `2 C R S m / groups` forward, `2 C R S m / groups + 2 K R S n / groups` backward (at stride 1).
    Errors: ValueError or TypeError for shapes, channel counts or types that do not fit, or a window larger than the
        input.
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
    r"""Convolution and ReLU in one operation, stride 1, of one or two Tensors whose channels follow one another.

    Two are read where they are, not copied together: the U-Net's skip and upsampled map.

    Formula: $y = \max(\mathrm{conv2d}(\mathrm{cat}(x, x'), w, b), 0)$
    Shapes: input one or two (N, C_i, H, W), weight (K, C, R, S) with C the sum of C_i, bias (K) -> (N, K, P, Q).
    Gradient: $\bar a = \bar y$ where $y > 0$, else 0, then as for `conv2d` with $\bar a$ in the place of $\bar y$. Each
        source gets an array of its own.
    Kept: input (for weight), weight (for input), result.
    Cost: `(2 C R S + 1) m` forward, `2 C R S m + 2 K R S n + 3 m` backward.
    Errors: like `conv2d`; ValueError for more than two Tensors or sizes that differ.
    """
    sources = _sources("conv2d_relu", input, weight, bias)
    paddings = pair("conv2d_relu", "padding", padding, 0)
    window_output("conv2d_relu", sources[0], (weight.shape[2], weight.shape[3]), (1, 1), paddings, (1, 1))
    return apply("conv2d_relu", weight, bias, *sources, padding=paddings)


def double_conv2d_relu(
    input: Tensor | Sequence[Tensor], weight1: Tensor, bias1: Tensor | None, weight2: Tensor, bias2: Tensor | None,
    padding: PairLike = 0, recompute: bool = False,
) -> Tensor:  # fmt: skip
    r"""`conv2d_relu` twice, a block of the U-Net, in one operation; both kernels are of one size.

    With `recompute` the map between the two is not kept but computed again in the backward pass.

    Formula: $h = \mathrm{conv2d\_relu}(x, w_1, b_1)$, $\; y = \mathrm{conv2d\_relu}(h, w_2, b_2)$
    Shapes: input one or two (N, C_i, H, W), weight1 (K, C, R, S), bias1 (K), weight2 (F, K, R, S), bias2 (F) -> (N, F,
        P, Q).
    Gradient: the rule of `conv2d_relu` for the second convolution, which gives $\bar w_2$, $\bar b_2$ and $\bar h$;
        then for the first.
    Kept: input, weight1, bias1, weight2, result; new `4 N K (P + R - 1 - 2 padding) (Q + S - 1 - 2 padding)` bytes:
        $h$, without recompute.
    Cost: `(2 C R S + 1) N K (P + R - 1 - 2 padding) (Q + S - 1 - 2 padding) + (2 K R S + 1) m` forward, `2 (C + F) R S
        N K (P + R - 1 - 2 padding) (Q + S - 1 - 2 padding) + 2 K R S (n + m)` backward.
    Errors: like `conv2d_relu`; ValueError if weight2 does not follow on weight1.
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
    r"""Transposed ("up-") convolution: exactly the gradient of `conv2d` with respect to its input.

    Each input pixel times the kernel is added into the output at stride steps. The two are transposes of each other:
    $\langle \mathrm{conv2d}(z, w), x \rangle = \langle z, \mathrm{conv\_transpose2d}(x, w) \rangle$.

    Formula: $y_{ncij} = b_c + \sum x_{nkpq} w_{kcrs}$ over all $k, p, q, r, s$ with $p\sigma + r\delta - \pi = i$ and
        $q\sigma + s\delta - \pi = j$; $\sigma$ = stride, $\delta$ = dilation, $\pi$ = padding.
    Shapes: input (N, K, P, Q), weight (K, C/groups, R, S), bias (C) -> (N, C, H, W), H = (P - 1) stride - 2 padding +
        dilation (R - 1) + output_padding + 1, W alike.
    Gradient: transposing twice gives back the convolution: $\bar x = \mathrm{conv2d}(\bar y, w)$. In $\bar w$ the parts
        are exchanged: $\bar w_{kcrs} = \sum_{npq} x_{nkpq}\, \bar y_{n,\,c,\,p\sigma + r\delta - \pi,\,q\sigma +
        s\delta - \pi}$; and $\bar b_c = \sum_{nij} \bar y_{ncij}$.
    Kept: input (for weight), weight (for input).
    Cost: `2 C R S n / groups + m` forward, `4 C R S n / groups + m` backward.
    Errors: like `conv2d`; ValueError unless output_padding is smaller than stride or dilation.
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
