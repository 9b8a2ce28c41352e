"""Functions that move values: shapes, axes, borders, selections, matrix products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import is_floating, kernels_for
from ..tensor import Tensor, apply, normal_axes


def reshape(input: Tensor, shape: Sequence[int]) -> Tensor:
    """The same values in row-major order in another shape; one entry may be -1. ValueError if the counts differ."""
    shape = tuple(int(n) for n in shape)
    known = math.prod(n for n in shape if n != -1)
    fits = input.size == known if -1 not in shape else known > 0 and input.size % known == 0
    if shape.count(-1) > 1 or not fits:
        raise ValueError(
            f"reshape: shape {shape} cannot hold the {input.size} values of a Tensor of shape {input.shape}"
        )
    return input.reshape(shape)


def permute(input: Tensor, dims: Sequence[int]) -> Tensor:
    """Axes in another order: result axis i is input axis dims[i]. A view."""
    if len(dims) != input.ndim:
        raise ValueError(f"permute: dims {tuple(dims)} names {len(dims)} axes; the input has {input.ndim}")
    return input.permute(tuple(dims))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged. A view."""
    first, second = (normal_axes("transpose", dim, input.ndim)[0] for dim in (dim0, dim1))
    return input.swapaxes(first, second)


def flip(input: Tensor, dims: int | Sequence[int]) -> Tensor:
    """Order of the values along the given axes reversed."""
    return apply("flip", input, axis=normal_axes("flip", dims if isinstance(dims, int) else tuple(dims), input.ndim))


def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Values moved along the axes, those that leave coming back at the other end; without dims, as one flat row."""
    shifts = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    axes = None if dims is None else normal_axes("roll", dims if isinstance(dims, int) else tuple(dims), input.ndim)
    if len(shifts) != (1 if axes is None else len(axes)):
        raise ValueError(f"roll: {len(shifts)} shifts for dims {dims}; there must be one for each")
    return apply("roll", input, shifts=shifts, axis=axes)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """The values repeated along new axes and axes of size 1. Gradient: summed back. A view."""
    shape = tuple(shape)
    pairs = list(zip(input.shape[::-1], shape[::-1], strict=False))
    if len(shape) < input.ndim or any(m not in (1, n) for m, n in pairs):
        raise ValueError(f"broadcast_to: shape {input.shape} cannot be broadcast to {shape}")
    return apply("broadcast_to", input, shape=shape)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing axis; all other axes must agree. Gradient: cut apart again."""
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
    """Tensors of equal shape joined along a new axis."""
    tensors = list(tensors)
    if not tensors:
        raise ValueError("stack: tensors is empty; give at least one")
    if any(t.shape != tensors[0].shape for t in tensors):
        raise ValueError(f"stack: shapes differ: {[t.shape for t in tensors]}; they must be equal")
    (axis,) = normal_axes("stack", dim, tensors[0].ndim + 1)
    shape = (*tensors[0].shape[:axis], 1, *tensors[0].shape[axis:])
    return apply("cat", *(t.reshape(shape) for t in tensors), axis=axis)


def index_select(input: Tensor, dim: int, index: Any) -> Tensor:
    """The slices of input along `dim` at the given positions (0 to size - 1), which may repeat."""
    (axis,) = normal_axes("index_select", dim, input.ndim)
    return apply("take", input, checked_index("index_select", index, input.shape[axis], input), axis=axis)


def gather(input: Tensor, dim: int, index: Any) -> Tensor:
    """y[i, j] = input[index[i, j], j] for dim 0, and alike for others; index positions are 0 to size - 1.

    The index has input's shape except along `dim`.
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
    """A border around the last two axes of (N, C, H, W); pad = (left, right, top, bottom), or (left, right).

    mode "constant" writes `value` (negative widths crop), "reflect" mirrors without repeating the edge (width less
    than the size), "replicate" repeats the edge pixel. Gradients of mirrored pixels add up where they came from.
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
    """The centre of (N, C, H, W) cut to size (h, w); offsets are rounded down: (H - h) // 2. A view."""
    require_4d("crop", "input", input)
    h, w = (size, size) if isinstance(size, int) else size
    if not (0 < h <= input.shape[2] and 0 < w <= input.shape[3]):
        hint = POOLED if (h, w) == (2 * input.shape[2], 2 * input.shape[3]) else ""
        raise ValueError(f"crop: size {h} x {w} is not inside the input's {input.shape[2]} x {input.shape[3]}{hint}")
    top, left = (input.shape[2] - h) // 2, (input.shape[3] - w) // 2
    bottom, right = input.shape[2] - h - top, input.shape[3] - w - left
    return apply("pad2d", input, widths=(-top, -bottom, -left, -right), value=0.0)


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product over the last two axes, leading axes broadcast; vectors as in PyTorch. Keeps both."""
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
    """y = input weight^T + bias: (..., in), (out, in), (out) -> (..., out). Keeps input and weight."""
    if weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input has {input.shape[-1:]} features, weight {weight.shape} expects (out, in) with in equal"
        )
    y = matmul(input, weight.swapaxes(0, 1))
    return y if bias is None else y + bias


def require_4d(function: str, argument: str, tensor: Tensor) -> None:
    """Raise unless the Tensor has the axes (N, C, H, W) and a floating-point type."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{function}: {argument} must be a Tensor, found {type(tensor).__name__}")
    if tensor.ndim != 4:
        raise ValueError(f"{function}: {argument} has shape {tensor.shape}; it must have the four axes (N, C, H, W)")
    if not is_floating(tensor.dtype):
        raise TypeError(f"{function}: {argument} has type {tensor.dtype}; it must be floating-point, e.g. float32")
