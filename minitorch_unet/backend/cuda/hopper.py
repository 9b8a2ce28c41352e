"""Rung 5 of the convolutions, for Hopper GPUs (compute capability 9.x): kernels/cuda/conv_hopper.cu and _weights.cu.

Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows columns.
Maps are (N, C, H, W) whose channels are neighbours in memory; cropped views serve as they are, through tensor maps.
Each pass has a question, `can_...`, and the pass itself, which relies on the answer having been yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..reference import Array, Pair
from .base import CudaBase, type_name
from .conv_shapes import Convolution
from .launcher import Strided
from .tensor_map import of_map, of_weight

THREADS = 384
ROW = 128  # bytes of a pixel's channels: what a step takes, and what a box of the copy engine brings
PIECE = 64 * ROW  # bytes of 64 pixels' share of a step
LEAST_STEPS = 4  # that a block should have where a sum is split: fewer hardly fill its ring of stages
MOST_PADDING = 4 / 3  # work including what only fills up tiles, to useful work, up to which this rung is worth while


class Window(NamedTuple):
    """Which input pixels an output pixel reads."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def taps(self) -> int:
        """R S."""
        return self.kernel[0] * self.kernel[1]

    @property
    def touching(self) -> bool:
        """Whether neighbouring windows touch without overlap; then each tap is a map of its own (stride 1 is not)."""
        return self.stride != (1, 1) and self.stride == self.kernel and self.padding == (0, 0)

    def output_size(self, x: Array) -> Pair:
        """P, Q."""
        p, q = (
            (x.shape[2 + i] + 2 * self.padding[i] - self.dilation[i] * (self.kernel[i] - 1) - 1) // self.stride[i] + 1
            for i in (0, 1)
        )
        return p, q

    def maps_by_tap(self, x: Array, size: Pair) -> list[Array]:
        """For touching windows: of x, the pixels under each tap of the first (P, Q) windows."""
        (r, s), (p, q) = self.kernel, size
        return [x[:, :, i : i + p * r : r, j : j + q * s : s] for i in range(r) for j in range(s)]


class Plan(NamedTuple):
    """How a pass is cut: filters of a tile, blocks that share the steps of one tile, blocks in all."""

    filters: int
    splits: int
    blocks: int


# ------------------------------------------------------------------------------------------------ what can be done


def can_forward(kernels: CudaBase, sources: Sequence[Array], weight: Array, window: Window, groups: int = 1) -> bool:
    """Whether `forward` serves these arguments, and without much waste."""
    channels = [x.shape[1] for x in sources]
    return (
        _served(kernels, sources, window, groups)
        and len(sources) <= (1 if window.touching else 2)
        and min(window.output_size(sources[0])) > 0
        and _fits(sources[0].itemsize, channels, weight.shape[0])
    )


def can_input_grad(
    kernels: CudaBase, gy: Array, weight: Array, input_size: Pair, window: Window, groups: int = 1
) -> bool:
    """Whether `input_grad` serves these arguments, and without much waste."""
    touched = tuple(gy.shape[2 + i] * window.stride[i] for i in (0, 1))
    return (
        _served(kernels, [gy], window, groups)
        and (not window.touching or input_size == touched)
        and _fits(gy.itemsize, [weight.shape[0]], weight.shape[1])
    )


def can_weight_grad(
    kernels: CudaBase, sources: Sequence[Array], gy: Array, window: Window, groups: int = 1
) -> bool:
    """Whether `weight_grad` serves these arguments, and without much waste. Of 16-bit maps only: see the kernel."""
    return (
        _served(kernels, [*sources, gy], window, groups)
        and gy.itemsize == 2
        and len(sources) <= (1 if window.touching else 2)
        and all(_fits(2, [x.shape[1]], gy.shape[1]) for x in sources)
    )


def _served(kernels: CudaBase, maps: Sequence[Array], window: Window, groups: int) -> bool:
    """What all passes ask for: the device, one type of maps, how they lie in memory, stride 1 or touching windows."""
    name = type_name(*maps)
    return (
        kernels.compute_capability // 10 == 9
        and name is not None
        and (name != "float" or kernels.tf32_allowed)
        and groups == 1
        and (window.stride == (1, 1) or (window.touching and window.taps <= 4))
        and min(window.padding) >= 0
        and all(map(_in_boxes, maps))
    )


def _in_boxes(x: Array) -> bool:
    """Whether the copy engine can fetch boxes of a map: neighbouring channels, all else at multiples of 16 bytes."""
    (n, c, h, w), (image, channel, row, column) = x.shape, x.strides
    others = [stride for length, stride in ((n, image), (h, row), (w, column)) if length > 1]
    return (
        x.size > 0
        and (channel == x.itemsize or c == 1)
        and x.data.ptr % 16 == 0
        and all(stride > 0 and stride % 16 == 0 for stride in others)
    )


def _fits(itemsize: int, depths: Sequence[int], outputs: int) -> bool:
    """Whether channels are multiples of 16 bytes and do not leave too much of the steps and tiles unused."""
    chunk = ROW // itemsize
    work = sum(_tiles(depth, chunk) * chunk for depth in depths) * _tiles(outputs, 64) * 64
    aligned = all(channels * itemsize % 16 == 0 for channels in (*depths, outputs))
    return aligned and work <= MOST_PADDING * sum(depths) * outputs


# ------------------------------------------------------------------------------------------------ the passes


def forward(
    kernels: CudaBase, sources: Sequence[Array], weight: Array, bias: Array | None, window: Window, relu: bool = False
) -> Array:
    """`Kernels.conv2d` for one or two sources: y (N, K, P, Q) of the maps' type."""
    x = sources[0]
    size = window.output_size(x)
    y = kernels.empty_channels_last((x.shape[0], weight.shape[0], *size), x.dtype)
    product = Product(
        maps=window.maps_by_tap(x, size) if window.touching else sources,
        channels=(x.shape[1], sum(more.shape[1] for more in sources[1:])),
        weight=packed_weight(kernels, weight, x), turned=False, targets=[y],
        origin=(-window.padding[0], -window.padding[1]), step=window.dilation, by_tap=1 if window.touching else 0,
    )  # fmt: skip
    _convolve(kernels, product, window, y, bias, None, relu)
    return y


def input_grad(
    kernels: CudaBase, gy: Array, weight: Array, input_size: Pair, window: Window, bias: Array | None = None,
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
        targets=window.maps_by_tap(gx, (gy.shape[2], gy.shape[3])) if window.touching else [gx],
        origin=window.padding, step=(-window.dilation[0], -window.dilation[1]), by_tap=2 if window.touching else 0,
    )  # fmt: skip
    _convolve(kernels, product, window, gx, bias, None if mask is None else kernels.channels_last(mask), False)
    return gx


def weight_grad(kernels: CudaBase, sources: Sequence[Array], gy: Array, window: Window) -> Array:
    """`Kernels.conv2d_weight_grad` of 16-bit maps: gw (K, C, R, S), float32, in (K, R, S, C) memory."""
    xp, (n, k, p, q), taps = kernels.xp, gy.shape, window.taps
    channels = [x.shape[1] for x in sources]
    total = sum(channels)
    plans = [weight_plan(kernels, gy.shape, c, taps) for c in channels]
    splits = max(plan.splits for plan in plans)
    filters = plans[0].filters
    parts = splits * (2 if filters == 64 else 1)
    gw = xp.empty((k, *window.kernel, total), "float32")
    sums = gw.reshape(1, k, taps, total) if parts == 1 else xp.empty((parts, k, taps, total), "float32")
    stages = 6 if filters == 64 else 5
    box = (64, 8, 8)
    for x, c, first in zip(sources, channels, (0, channels[0]), strict=False):
        maps = window.maps_by_tap(x, (p, q)) if window.touching else [x]
        tiles = _tiles(_tiles(c, 64) * taps, 3) * _tiles(k, filters)
        kernels.launch(
            "conv_hopper_weights.cu", "conv_hopper_weights", tiles * splits, THREADS,
            {"T": type_name(gy) or "", "FILTERS": str(filters)}, shared=_shared(stages, (filters // 64 + 3) * PIECE, 0),
            gy=bytes(of_map(xp, gy, box, "gy")), x=_four([bytes(of_map(xp, each, box, "x")) for each in maps]),
            out=Strided(sums[..., first : first + c]), n=n, p=p, q=q, k=k, c=c, r=window.kernel[0],
            s=window.kernel[1], origin_h=-window.padding[0], origin_w=-window.padding[1], step_h=window.dilation[0],
            step_w=window.dilation[1], by_tap=int(window.touching), splits=splits,
            part_stride=k * taps * total, filter_stride=taps * total, tap_stride=total,
        )  # fmt: skip
    if parts > 1:
        _finish(kernels, sums, gw, k, taps * total, None, None, False)
    return gw.transpose(0, 3, 1, 2)


# ------------------------------------------------------------------------------------------------ how they are cut


def conv_plan(kernels: CudaBase, pixels: tuple[int, int, int], outputs: int, steps: int, copies: int) -> Plan:
    """Tiles as large as still fill the device; where even small ones do not, several blocks share a tile's steps.

    pixels: N, P, Q; steps: of a tile's sum; copies: how often the pixels are made (once for every tap of a patch).
    """
    device = kernels.multiprocessors

    def tiles(filters: int) -> int:
        n, p, q = pixels
        return n * _tiles(p, tile_rows(filters)) * _tiles(q, 8) * _tiles(outputs, filters) * copies

    filters = 64 if outputs <= 64 else 256 if outputs % 256 == 0 and tiles(256) >= device else 128
    splits = max(1, min(device // tiles(filters), steps // LEAST_STEPS)) if copies == 1 else 1
    return Plan(filters, splits, min(device, tiles(filters) * splits))


def weight_plan(kernels: CudaBase, shape: tuple[int, int, int, int], channels: int, taps: int) -> Plan:
    """As many shares of the pixels of gy, of the given shape, as fill the device."""
    n, k, p, q = shape
    filters = 64 if k <= 64 else 128
    tiles = _tiles(_tiles(channels, 64) * taps, 3) * _tiles(k, filters)
    steps = n * _tiles(p, 8) * _tiles(q, 8)
    splits = max(1, min(kernels.multiprocessors // tiles, steps // LEAST_STEPS))
    return Plan(filters, splits, tiles * splits)


def tile_rows(filters: int) -> int:
    """Rows of pixels of a tile: narrow tiles are twice as high."""
    return 32 if filters == 64 else 16


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
    kernels: CudaBase, product: Product, window: Window, y: Array, bias: Array | None, mask: Array | None, relu: bool
) -> None:
    xp, tf32, chunk = kernels.xp, y.itemsize == 4, ROW // y.itemsize
    n, k, p, q = product.targets[0].shape
    copies = window.taps if product.by_tap == 2 else 1
    steps = sum(_tiles(c, chunk) for c in product.channels) * window.taps // copies
    plan = conv_plan(kernels, (n, p, q), k, steps, copies)
    rows, stages = tile_rows(plan.filters), 6 if plan.filters == 128 else 4
    parts = xp.empty((plan.splits, n * p * q, k), "float32") if plan.splits > 1 else None
    bias = None if bias is None else xp.ascontiguousarray(bias, "float32")
    weight_box = (64, chunk) if product.turned else (chunk, plan.filters)
    kernels.launch(
        "conv_hopper.cu", "conv_hopper", plan.blocks, THREADS,
        {"T": type_name(y) or "", "FILTERS": str(plan.filters), "TURNED": str(int(product.turned))},
        shared=_shared(stages, rows * 8 * ROW + plan.filters * ROW, 4 * PIECE),
        x=_four([bytes(of_map(xp, x, (chunk, 8, rows), "x", tf32)) for x in product.maps]),
        weight=bytes(of_weight(xp, product.weight, weight_box, "weight", tf32)),
        y=_four([bytes(of_map(xp, target, (chunk, 8, 8), "y")) for target in product.targets]),
        parts=parts, bias=None if parts is not None else bias, mask=None if parts is not None else mask,
        relu=int(relu), n=n, p=p, q=q, k=k, r=window.kernel[0], s=window.kernel[1], origin_h=product.origin[0],
        origin_w=product.origin[1], step_h=product.step[0], step_w=product.step[1], channels=product.channels[0],
        more_channels=product.channels[1], by_tap=product.by_tap, splits=plan.splits,
    )  # fmt: skip
    if parts is not None:
        _finish(kernels, parts, y, n * p * q, k, bias, mask, relu)


def _finish(
    kernels: CudaBase, parts: Array, y: Array, rows: int, columns: int, bias: Array | None, mask: Array | None, relu: bool
) -> None:  # fmt: skip
    """y = epilogue(sum of the parts), each (rows, columns)."""
    conv = Convolution(rows=rows, columns=columns, patch_r=1, patch_s=1, q=1, relu=int(relu))
    kernels.launch(
        "conv_finish.cu", "conv_finish", _tiles(rows * columns, 4 * 256), 256, {"T": type_name(y) or ""},
        parts=parts, splits=parts.shape[0], bias=bias, mask=mask, y=y, conv=bytes(conv),
    )  # fmt: skip


def packed_weight(kernels: CudaBase, weight: Array, like: Array) -> Array:
    """weight (K, C, R, S) as an array of the maps' type in (K, R, S, C) memory; itself, view or not, where it is so."""
    k, c, r, s = weight.shape
    filter_, channel, row, tap = weight.strides
    size = weight.itemsize
    lies_right = (
        weight.dtype == like.dtype and weight.data.ptr % 16 == 0 and (channel == size or c == 1)
        and filter_ % 16 == row % 16 == tap % 16 == 0 and min(filter_, row, tap) > 0 and (row == s * tap or 1 in (r, s))
    )  # fmt: skip
    if lies_right:
        return weight
    packed = kernels.xp.empty((k, r, s, c), like.dtype)
    if weight.dtype != "float32":
        packed[...] = weight.transpose(0, 2, 3, 1)
        return packed.transpose(0, 3, 1, 2)
    kernels.launch(
        "conv_finish.cu", "conv_pack_weight", _tiles(weight.size, 256), 256, {"T": type_name(like) or ""},
        weight=Strided(weight), stride_k=filter_ // size, stride_c=channel // size, stride_r=row // size,
        stride_s=tap // size, k=k, c=c, r=r, s=s, packed=packed,
    )  # fmt: skip
    return packed.transpose(0, 3, 1, 2)


def _four(maps: Sequence[bytes]) -> bytes:
    """The struct TensorMaps: four maps, of which those not needed repeat the last."""
    return b"".join(maps) + maps[-1] * (4 - len(maps))


def _shared(stages: int, stage: int, pieces: int) -> int:
    """Bytes of shared memory: the ring, two barriers a stage, tiles on their way out, and room to align them in."""
    return stages * (stage + 16) + pieces + 1024


def _tiles(count: int, size: int) -> int:
    return -(-count // size)
