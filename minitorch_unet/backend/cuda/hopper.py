"""Rung 5 of the convolutions, for Hopper GPUs (compute capability 9.x): conv_hopper.cu and conv_hopper_weights.cu.

Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows
columns. Maps are (N, C, H, W) whose channels are neighbours in memory; cropped views serve as they are, through tensor
maps. hopper_plan.py has a question, `can_...`, for each pass here, which relies on the answer having been yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..reference import Array, Pair
from .base import type_name
from .conv_launch import ConvLauncher
from .conv_shapes import Convolution, Window
from .hopper_plan import (
    ROW,
    by_taps,
    conv_plan,
    shared_taps,
    tiles,
    weight_columns,
    weight_plan,
    weights_share,
    weights_shared,
)
from .launcher import Strided
from .tensor_map import of_map, of_weight

THREADS = 384


def forward(
    kernels: ConvLauncher,
    sources: Sequence[Array],
    weight: Array,
    bias: Array | None,
    window: Window,
    relu: bool = False,
) -> Array:
    """`Kernels.conv2d` for one or two sources: y (N, K, P, Q) of the maps' type."""
    x = sources[0]
    size = window.output_size(x.shape[2:])
    y = kernels.empty_channels_last((x.shape[0], weight.shape[0], *size), x.dtype)
    product = Product(
        maps=maps_by_tap(window, x, size) if by_taps(window) else sources,
        channels=(x.shape[1], sum(more.shape[1] for more in sources[1:])),
        weight=packed_weight(kernels, weight, x), turned=False, targets=[y],
        origin=(-window.padding[0], -window.padding[1]), step=window.dilation, by_tap=1 if by_taps(window) else 0,
    )  # fmt: skip
    _convolve(kernels, product, window, y, bias, None, relu)
    return y


def input_grad(
    kernels: ConvLauncher, gy: Array, weight: Array, input_size: Pair, window: Window, bias: Array | None = None,
    mask: Array | None = None,
) -> Array:  # fmt: skip
    """`Kernels.conv2d_input_grad`: gx (N, C, H, W) of gy's type.

    A convolution of gy in which taps step backwards, or, for touching windows, a sum over filters alone of which each
    tap makes pixels of its own. What is summed over, the filter, is the weights' outermost axis in memory, which 16-bit
    products can read as it is; for TF32 the filters are brought innermost.
    """
    turned = gy.itemsize == 2
    gx = kernels.empty_channels_last((gy.shape[0], weight.shape[1], *input_size), gy.dtype)
    product = Product(
        maps=[gy], channels=(gy.shape[1], 0),
        weight=packed_weight(kernels, weight if turned else weight.transpose(1, 0, 2, 3), gy), turned=turned,
        targets=maps_by_tap(window, gx, (gy.shape[2], gy.shape[3])) if by_taps(window) else [gx],
        origin=window.padding, step=(-window.dilation[0], -window.dilation[1]), by_tap=2 if by_taps(window) else 0,
    )  # fmt: skip
    _convolve(kernels, product, window, gx, bias, None if mask is None else kernels.channels_last(mask), False)
    return gx


def weight_grad(kernels: ConvLauncher, sources: Sequence[Array], gy: Array, window: Window) -> Array:
    """`Kernels.conv2d_weight_grad` of 16-bit maps: gw (K, C, R, S), float32, in (K, R, S, C) memory."""
    xp, (n, k, p, q), taps, share = kernels.xp, gy.shape, window.taps, weights_share(window)
    channels = [x.shape[1] for x in sources]
    total = sum(channels)
    columns = [weight_columns(window, c) for c in channels]
    plan = weight_plan(kernels, gy.shape, max(columns))
    parts = plan.splits * (2 if plan.filters == 64 else 1)
    gw = xp.empty((k, *window.kernel, total), "float32")
    sums = gw.reshape(1, k, taps, total) if parts == 1 else xp.empty((parts, k, taps, total), "float32")
    box_rows = 8 + 2 * window.dilation[0] if share else 8
    for x, c, tiles_of_columns, first in zip(sources, channels, columns, (0, channels[0]), strict=False):
        maps = maps_by_tap(window, x, (p, q)) if by_taps(window) else [x]
        kernels.launch(
            "conv_hopper_weights.cu", "conv_hopper_weights", tiles_of_columns * tiles(k, plan.filters) * plan.splits,
            THREADS, {"T": type_name(gy) or "", "FILTERS": str(plan.filters)}, shared=weights_shared(plan.filters),
            gy=bytes(of_map(xp, gy, (64, 8, 8), "gy")),
            x=_four([bytes(of_map(xp, each, (64, 8, box_rows), "x")) for each in maps]),
            out=Strided(sums[..., first : first + c]), n=n, p=p, q=q, k=k, c=c, r=window.kernel[0],
            s=window.kernel[1], origin_h=-window.padding[0], origin_w=-window.padding[1], step_h=window.dilation[0],
            step_w=window.dilation[1], share=int(share), by_tap=int(by_taps(window)), splits=plan.splits,
            part_stride=k * taps * total, filter_stride=taps * total, tap_stride=total,
        )  # fmt: skip
    if parts > 1:
        conv = Convolution(rows=k, columns=taps * total, patch_r=1, patch_s=1)
        kernels.add_up_parts(conv, sums, gw, {"bias": None, "mask": None})
    return gw.transpose(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------ launching


class Product(NamedTuple):
    """The product that conv_hopper.cu computes; see there for `origin`, `step` and `by_tap`."""

    maps: Sequence[Array]  # (N, channels, ., .): one or two sources, or one for every tap
    channels: Pair  # that are summed over: of the first source, of the second
    weight: Array  # packed: (outputs, channels, R, S) with the channels innermost, or turned: (channels, outputs, R, S)
    turned: bool
    targets: Sequence[Array]  # (N, outputs, P, Q): one, or one for every tap
    origin: Pair
    step: Pair
    by_tap: int


def _convolve(
    kernels: ConvLauncher,
    product: Product,
    window: Window,
    y: Array,
    bias: Array | None,
    mask: Array | None,
    relu: bool,
) -> None:
    xp, tf32, chunk = kernels.xp, y.itemsize == 4, ROW // y.itemsize
    n, k, p, q = product.targets[0].shape
    share = shared_taps(window)
    copies = window.taps if product.by_tap == 2 else 1
    boxes = sum(tiles(c, chunk) for c in product.channels) * (window.taps // share // copies)
    plan = conv_plan(kernels, (n, p, q), k, boxes, share, copies)
    tile = plan.tile
    parts = xp.empty((plan.splits, n * p * q, k), "float32") if plan.splits > 1 else None
    bias = None if bias is None else xp.ascontiguousarray(bias, "float32")
    box = (chunk, 8, tile.rows + (share - 1) * abs(product.step[0]))
    weight_box = (64, chunk) if product.turned else (chunk, tile.filters)
    kernels.launch(
        "conv_hopper.cu", "conv_hopper", plan.blocks, THREADS,
        {"T": type_name(y) or "", "FILTERS": str(tile.filters), "ROWS": str(tile.rows),
         "TURNED": str(int(product.turned))}, shared=tile.shared,
        x=_four([bytes(of_map(xp, x, box, "x", tf32)) for x in product.maps]),
        weight=bytes(of_weight(xp, product.weight, weight_box, "weight", tf32)),
        y=_four([bytes(of_map(xp, target, (chunk, 8, 8), "y")) for target in product.targets]),
        parts=parts, bias=None if parts is not None else bias, mask=None if parts is not None else mask,
        relu=int(relu), n=n, p=p, q=q, k=k, r=window.kernel[0], s=window.kernel[1], origin_h=product.origin[0],
        origin_w=product.origin[1], step_h=product.step[0], step_w=product.step[1], channels=product.channels[0],
        more_channels=product.channels[1], share=share, by_tap=product.by_tap, splits=plan.splits,
    )  # fmt: skip
    if parts is not None:
        conv = Convolution(rows=n * p * q, columns=k, patch_r=1, patch_s=1, relu=int(relu))
        kernels.add_up_parts(conv, parts, y, {"bias": bias, "mask": mask})


def packed_weight(kernels: ConvLauncher, weight: Array, like: Array) -> Array:
    """weight (K, C, R, S) as an array of the maps' type in (K, R, S, C) memory; itself, view or not, where it is so."""
    (_, c, r, s), (filter_, channel, row, tap) = weight.shape, weight.strides
    lies_right = (
        weight.dtype == like.dtype and weight.data.ptr % 16 == 0 and (channel == weight.itemsize or c == 1)
        and filter_ % 16 == row % 16 == tap % 16 == 0 and min(filter_, row, tap) > 0 and (row == s * tap or 1 in (r, s))
    )  # fmt: skip
    return weight if lies_right else kernels.packed_weight(weight, type_name(like) or "").transpose(0, 3, 1, 2)


def maps_by_tap(window: Window, x: Array, size: Pair) -> list[Array]:
    """For windows that touch: of x, the pixels under each tap of the first (P, Q) windows."""
    (r, s), (p, q) = window.kernel, size
    return [x[:, :, i : i + p * r : r, j : j + q * s : s] for i in range(r) for j in range(s)]


def _four(maps: Sequence[bytes]) -> bytes:
    """The struct TensorMaps: four maps, of which those not needed repeat the last."""
    return b"".join(maps) + maps[-1] * (4 - len(maps))
