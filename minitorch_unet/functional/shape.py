"""Functions that move values: shapes, axes, borders, selections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import is_floating, kernels_for
from ..tensor import Tensor, apply, normal_axes


def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:
    r"""The same values in row-major order in another shape; one entry may be -1, which stands for what is left.

    Formula: $y_i = x_i$ for the flat, row-major index $i$.
    Shapes: any; the result has the given one, of equally many values.
    Gradient: $\bar x_i = \bar y_i$: reshaped back.
    Kept: nothing (but the shape).
    Cost: `0` forward, `0` backward. A view where the memory allows one, else a copy.
    Errors: ValueError if the number of values does not fit.
    """
    shape = tuple(int(n) for n in shape)
    known = math.prod(n for n in shape if n != -1)
    fits = input.size == known if -1 not in shape else known > 0 and input.size % known == 0
    if shape.count(-1) > 1 or not fits:
        raise ValueError(
            f"reshape: shape {shape} cannot hold the {input.size} values of a Tensor of shape {input.shape}"
        )
    return input.reshape(shape)


def permute(input: Tensor, dims: Sequence[int]) -> Tensor:
    r"""Axes in another order: result axis i is input axis dims[i].

    Formula: $y_{i_{d_0} i_{d_1} \ldots} = x_{i_0 i_1 \ldots}$, with $d$ = dims.
    Shapes: any; the result's sizes are permuted alike.
    Gradient: the values are only named differently: $\bar x$ is $\bar y$ permuted by the inverse of dims.
    Kept: nothing (but the inverse order).
    Cost: `0` forward, `0` backward. A view.
    Errors: ValueError if dims does not name every axis once.
    """
    if len(dims) != input.ndim:
        raise ValueError(f"permute: dims {tuple(dims)} names {len(dims)} axes; the input has {input.ndim}")
    return input.permute(tuple(dims))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    r"""Two axes exchanged.

    Formula: $y_{\ldots j \ldots i \ldots} = x_{\ldots i \ldots j \ldots}$
    Shapes: any; the result has two sizes exchanged.
    Gradient: $\bar x$ is $\bar y$ with the same axes exchanged back.
    Kept: nothing (but the order).
    Cost: `0` forward, `0` backward. A view.
    Errors: ValueError for an axis that the input does not have.
    """
    first, second = (normal_axes("transpose", dim, input.ndim)[0] for dim in (dim0, dim1))
    return input.swapaxes(first, second)


def flip(input: Tensor, dims: int | Sequence[int]) -> Tensor:
    r"""Order of the values along axes reversed.

    Formula: $y_i = x_{k - 1 - i}$ along each axis in dims, of size $k$.
    Shapes: any; the result has the same.
    Gradient: flipping twice changes nothing, so the gradient is flipped, too: $\bar x_i = \bar y_{k - 1 - i}$.
    Kept: nothing.
    Cost: `0` forward, `0` backward.
    Errors: ValueError for an axis that the input does not have.
    """
    return apply("flip", input, axis=normal_axes("flip", dims if isinstance(dims, int) else tuple(dims), input.ndim))


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    r"""Values moved along axes, those that leave coming back at the other end; without dims, as one flat row.

    Formula: $y_i = x_{(i - s) \bmod k}$ along an axis of size $k$, with $s$ its shift.
    Shapes: any; the result has the same.
    Gradient: rolled back: $\bar x_i = \bar y_{(i + s) \bmod k}$.
    Kept: nothing.
    Cost: `0` forward, `0` backward.
    Errors: ValueError unless there is one shift for each axis.
    """
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    axes = None if dims is None else normal_axes("roll", dims if isinstance(dims, int) else tuple(dims), input.ndim)
    if len(shifts) != (1 if axes is None else len(axes)):
        raise ValueError(f"roll: {len(shifts)} shifts for dims {dims}; there must be one for each")
    return apply("roll", input, shifts=shifts, axis=axes)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    r"""Values repeated along new axes and axes of size 1.

    Formula: $y_{ij} = x_j$ for every $i$ of a repeated axis.
    Shapes: any that broadcasts; the result has the given one.
    Gradient: $x_j$ is used once for every $i$, and uses add up: $\bar x_j = \sum_i \bar y_{ij}$.
    Kept: nothing (but the shape).
    Cost: `0` forward, `m` backward. A view: nothing is written forward.
    Errors: ValueError if the shape cannot be broadcast to the one given.
    """
    shape = tuple(shape)
    pairs = list(zip(input.shape[::-1], shape[::-1], strict=False))
    if len(shape) < input.ndim or any(m not in (1, n) for m, n in pairs):
        raise ValueError(f"broadcast_to: shape {input.shape} cannot be broadcast to {shape}")
    return apply("broadcast_to", input, shape=shape)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    r"""Tensors joined along an existing axis.

    Formula: $y = (t_0, t_1, \ldots)$ along dim.
    Shapes: any, equal in all axes but dim; the result's size along dim is the sum of theirs.
    Gradient: $\bar y$ is cut apart where the Tensors met: views, not copies.
    Kept: nothing (but the sizes).
    Cost: `0` forward, `0` backward.
    Errors: ValueError for no Tensor, or sizes that differ in another axis.
    """
    tensors = list(tensors)
    if not tensors:
        raise ValueError("cat: tensors is empty; give at least one")
    (axis,) = normal_axes("cat", dim, tensors[0].ndim)
    for i, t in enumerate(tensors[1:], 1):
        if t.ndim != tensors[0].ndim or any(
            n != tensors[0].shape[d] for d, n in enumerate(t.shape) if d != axis
        ):
            raise ValueError(
                f"cat: tensor {i} has shape {t.shape}, tensor 0 {tensors[0].shape}; only axis {axis} may differ"
                + _why_maps_differ(tensors[0].shape[2:], t.shape[2:])
            )
    return apply("cat", *tensors, axis=axis)


POOLED = "; one is half the other: a pooled map in the place of the one before the pooling?"


def _why_maps_differ(one: tuple[int, ...], other: tuple[int, ...]) -> str:
    """What usually lies behind maps of a U-Net that do not fit, where their sizes give it away; or ''."""
    if len(one) != 2 or len(other) != 2 or one == other:
        return ""
    small, large = sorted((one, other))
    if large == (2 * small[0], 2 * small[1]):
        return POOLED
    if max(b - a for a, b in zip(small, large, strict=True)) == 1:
        return "; they differ by one row or column: max_pool2d drops the last one of an odd size"
    return "; crop() cuts the larger to the smaller"


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    r"""Tensors of equal shape joined along a new axis.

    Formula: $y_i = t_i$, with $i$ the index along the new axis dim.
    Shapes: any, all equal; the result has one axis more.
    Gradient: $\bar t_i = \bar y_i$
    Kept: nothing.
    Cost: `0` forward, `0` backward.
    Errors: ValueError for no Tensor, or for shapes that differ.
    """
    tensors = list(tensors)
    if not tensors:
        raise ValueError("stack: tensors is empty; give at least one")
    if any(t.shape != tensors[0].shape for t in tensors):
        raise ValueError(f"stack: shapes differ: {[t.shape for t in tensors]}; they must be equal")
    (axis,) = normal_axes("stack", dim, tensors[0].ndim + 1)
    shape = (*tensors[0].shape[:axis], 1, *tensors[0].shape[axis:])
    return apply("cat", *(t.reshape(shape) for t in tensors), axis=axis)


def index_select(input: Tensor, dim: int, index: Any) -> Tensor:
    r"""The slices of input along dim at the given positions, which may repeat.

    Formula: $y_{\ldots i \ldots} = x_{\ldots k_i \ldots}$, with $k$ = index.
    Shapes: input any, index (I); the result has size I along dim.
    Gradient: $\bar x_j = \sum_{i : k_i = j} \bar y_i$: a slice taken twice gets both gradients. Computed as the product
        with the matrix of 0 and 1 that has a 1 at $(k_i, i)$, whose sums repeat bit for bit.
    Kept: index.
    Cost: `0` forward, `(2 I - 1) n` backward.
    Errors: TypeError if index holds no integers, ValueError if it has another number of axes than one, or holds others
        than 0 to size - 1.
    """
    (axis,) = normal_axes("index_select", dim, input.ndim)
    positions = checked_index("index_select", index, input.shape[axis], input)
    if positions.ndim != 1:
        raise ValueError(f"index_select: index has shape {positions.shape}; it must have one axis")
    return apply("take", input, positions, axis=axis)


def gather(input: Tensor, dim: int, index: Any) -> Tensor:
    r"""For every place its own position along dim.

    Formula: $y_{ij} = x_{k_{ij} j}$ for dim 0, with $k$ = index; alike for the other axes.
    Shapes: any; index and result have input's but for the size along dim.
    Gradient: $\bar x_{lj} = \sum_{i : k_{ij} = l} \bar y_{ij}$: added into zeros where the values were read.
    Kept: index.
    Cost: `0` forward, `m` backward.
    Errors: TypeError if index holds no integers, ValueError if its shape does not fit or it holds others than 0 to size
        - 1.
    """
    (axis,) = normal_axes("gather", dim, input.ndim)
    index = checked_index("gather", index, input.shape[axis], input)
    expected = tuple(index.shape[i] if i == axis and index.ndim == input.ndim else n for i, n in enumerate(input.shape))
    if index.shape != expected:
        raise ValueError(
            f"gather: index has shape {index.shape}; apart from dim {dim} it must be that of input, {input.shape}"
        )
    return apply("take_along_dim", input, index, axis=axis)


def checked_index(function: str, index: Any, size: int, like: Tensor) -> Any:
    """The array, on like's device, of an integer index; raises TypeError or ValueError unless it is in 0..size-1."""
    index = index.data if isinstance(index, Tensor) else kernels_for(like.data).xp.asarray(index)
    if index.dtype.kind not in "iu":
        raise TypeError(f"{function}: index must hold integers, found {index.dtype}")
    if index.size and (int(index.min()) < 0 or int(index.max()) >= size):
        raise ValueError(
            f"{function}: index holds values {int(index.min())}..{int(index.max())}; legal are 0..{size - 1}"
        )
    return index


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float = 0.0) -> Tensor:
    r"""A border around the last two axes; pad = (left, right, top, bottom), or (left, right).

    mode "constant" writes `value` (negative widths crop), "reflect" mirrors without repeating the edge (width less than
    the size), "replicate" repeats the edge pixel. The last two are `index_select` along each axis, and keep and cost
    the same.

    Formula: $y_{pq} = x_{p - \mathrm{top},\, q - \mathrm{left}}$ inside, `value` outside.
    Shapes: input (N, C, H, W) -> (N, C, P, Q), P = top + H + bottom, Q = left + W + right.
    Gradient: $\bar x$ is the inside of $\bar y$. Gradients of mirrored or repeated pixels add up where they came from.
    Kept: nothing (but the widths).
    Cost: `0` forward, `0` backward.
    Errors: ValueError for another mode or number of widths, for a border that is too wide to mirror or crops too much.
    """
    require_4d("pad", "input", input)
    if len(pad) not in (2, 4):
        raise ValueError(f"pad: pad is {tuple(pad)}; give (left, right) or (left, right, top, bottom)")
    left, right, top, bottom = (*pad, 0, 0)[:4]
    if mode == "constant":
        h, w = input.shape[2:]
        if h + min(top, 0) + min(bottom, 0) < 0 or w + min(left, 0) + min(right, 0) < 0:
            raise ValueError(f"pad: pad {tuple(pad)} crops more than the size {h} x {w}")
        return apply("pad2d", input, widths=(top, bottom, left, right), value=value)
    if mode not in ("reflect", "replicate"):
        raise ValueError(f"pad: mode is {mode!r}; legal are 'constant', 'reflect' and 'replicate'")
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        size = input.shape[axis]
        limit = size - 1 if mode == "reflect" else 10**9
        if min(before, after) < 0 or max(before, after) > limit or size == 0:
            raise ValueError(
                f"pad: {mode} border {before}, {after} on an axis of size {size}; legal is 0 to "
                f"{limit if mode == 'reflect' else 'any width, on a size of at least 1'}"
            )
        if before or after:
            position = np.arange(-before, size + after)
            if mode == "reflect":  # -1 -> 1 and size -> size - 2
                position = np.where(position < 0, -position, position)
                position = np.where(position >= size, 2 * (size - 1) - position, position)
            else:
                position = np.clip(position, 0, size - 1)
            input = index_select(input, axis, kernels_for(input.data).xp.asarray(position))
    return input


def crop(input: Tensor, size: int | Sequence[int]) -> Tensor:
    r"""The centre, cut to size (h, w); offsets are rounded down.

    Formula: $y_{pq} = x_{p + \lfloor (H - h)/2 \rfloor,\, q + \lfloor (W - w)/2 \rfloor}$
    Shapes: input (N, C, H, W) -> (N, C, P, Q), (P, Q) = size.
    Gradient: $\bar x$ is $\bar y$ in the window and 0 around it. In training those zeros are never written: the
        gradient travels as its inside and a place, and is added into the one that comes along the other path.
    Kept: nothing (but the widths).
    Cost: `0` forward, `0` backward. A view.
    Errors: ValueError if size is not inside the input's.
    """
    require_4d("crop", "input", input)
    h, w = (size, size) if isinstance(size, int) else size
    if not (0 < h <= input.shape[2] and 0 < w <= input.shape[3]):
        hint = POOLED if (h, w) == (2 * input.shape[2], 2 * input.shape[3]) else ""
        raise ValueError(f"crop: size {h} x {w} is not inside the input's {input.shape[2]} x {input.shape[3]}{hint}")
    top, left = (input.shape[2] - h) // 2, (input.shape[3] - w) // 2
    bottom, right = input.shape[2] - h - top, input.shape[3] - w - left
    return apply("pad2d", input, widths=(-top, -bottom, -left, -right), value=0.0)


def require_4d(function: str, argument: str, tensor: Tensor) -> None:
    """Raise unless the Tensor has the axes (N, C, H, W) and a floating-point type."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}: {argument} must be a Tensor, found {type(tensor).__name__}")
    if tensor.ndim != 4:
        raise ValueError(f"{function}: {argument} has shape {tensor.shape}; it must have the four axes (N, C, H, W)")
    if not is_floating(tensor.dtype):
        raise TypeError(f"{function}: {argument} has type {tensor.dtype}; it must be floating-point, e.g. float32")
