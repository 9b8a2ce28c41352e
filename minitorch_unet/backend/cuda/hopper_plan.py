"""Which convolutions rung 5 (hopper.py) serves, and how it cuts them into tiles and blocks.

Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows
columns. Maps are (N, C, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..reference import Array, Pair
from .base import CudaBase, type_name
from .conv_shapes import Window

ROW = 128  # bytes of a pixel's channels: what a step takes, and what a box of the copy engine brings
PIECE = 64 * ROW  # bytes of 64 pixels of a step
HALO = 2  # rows that a box of pixels may be taller than its tile
ALIGNMENT = 1024 + 128  # bytes for mbarriers, and for aligning tiles
LEAST_STEPS = 4  # that a block should have where a sum is split: fewer hardly fill its ring of stages
MOST_PADDING = 4 / 3  # work including what only fills up tiles, to useful work, up to which this rung is worth while


class Tile(NamedTuple):
    """A tile of conv_hopper.cu, and what its blocks have in shared memory; the names and numbers are that file's."""

    filters: int
    rows: int  # of 8 pixels each
    boxes: int
    stages: int
    pieces: int
    blocks: int  # that share a multiprocessor

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block."""
        return (
            ALIGNMENT
            + self.boxes * (self.rows + HALO) * 8 * ROW
            + self.stages * self.filters * ROW
            + self.pieces * 2 * PIECE
        )

    def number(self, pixels: tuple[int, int, int], outputs: int) -> int:
        """Tiles of a map of N, P, Q and its outputs."""
        n, p, q = pixels
        return n * tiles(p, self.rows) * tiles(q, 8) * tiles(outputs, self.filters)


NARROW, SMALL, LARGE = Tile(64, 32, 2, 3, 1, 2), Tile(128, 16, 4, 6, 2, 1), Tile(128, 32, 3, 5, 2, 1)


class Plan(NamedTuple):
    """How a forward pass or input gradient is cut: its tile, blocks that share the sum of one, blocks in all."""

    tile: Tile
    splits: int
    blocks: int


class WeightPlan(NamedTuple):
    """How a weight gradient is cut: filters of a tile, and shares of the pixels that blocks take."""

    filters: int
    splits: int


# ------------------------------------------------------------------------------------------------ what can be done


def by_taps(window: Window) -> bool:
    """Whether windows touch without overlap; then each tap is given a map of its own."""
    return window.touching and window.taps > 1


def can_forward(kernels: CudaBase, sources: Sequence[Array], weight: Array, window: Window, groups: int = 1) -> bool:
    """Whether `forward` serves these arguments, and without much waste."""
    channels = [x.shape[1] for x in sources]
    return (
        _served(kernels, sources, window, groups)
        and len(sources) <= (1 if by_taps(window) else 2)
        and min(window.output_size(sources[0].shape[2:])) > 0
        and _fits(sources[0].itemsize, channels, weight.shape[0])
    )


def can_input_grad(
    kernels: CudaBase, gy: Array, weight: Array, input_size: Pair, window: Window, groups: int = 1
) -> bool:
    """Whether `input_grad` serves these arguments, and without much waste."""
    touched = tuple(gy.shape[2 + i] * window.stride[i] for i in (0, 1))
    return (
        _served(kernels, [gy], window, groups)
        and (not by_taps(window) or tuple(input_size) == touched)
        and _fits(gy.itemsize, [weight.shape[0]], weight.shape[1])
    )


def can_weight_grad(kernels: CudaBase, sources: Sequence[Array], gy: Array, window: Window, groups: int = 1) -> bool:
    """Whether `weight_grad` serves these arguments, and without much waste. Of 16-bit maps only: see the kernel."""
    return (
        _served(kernels, [*sources, gy], window, groups)
        and gy.itemsize == 2
        and len(sources) <= (1 if by_taps(window) else 2)
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
        and (window.stride == (1, 1) or (by_taps(window) and window.taps <= 4))
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
    work = sum(tiles(depth, chunk) * chunk for depth in depths) * tiles(outputs, 64) * 64
    aligned = all(channels * itemsize % 16 == 0 for channels in (*depths, outputs))
    return aligned and work <= MOST_PADDING * sum(depths) * outputs


# ------------------------------------------------------------------------------------------------ how they are cut


def conv_plan(
    kernels: CudaBase, pixels: tuple[int, int, int], outputs: int, boxes: int, share: int, copies: int
) -> Plan:
    """Tiles as large as still fill the device; where even small ones do not, several blocks share a tile's sum.

    pixels: N, P, Q; boxes: of a tile's sum, with `share` steps each; copies: how often the pixels are made (once for
    every tap of a patch).
    """
    device = kernels.multiprocessors
    filled = SMALL.rows * tiles(pixels[1], SMALL.rows)
    fits = (
        LARGE.rows * tiles(pixels[1], LARGE.rows) <= 1.1 * filled and LARGE.number(pixels, outputs) * copies >= device
    )
    tile = NARROW if outputs <= NARROW.filters else LARGE if fits else SMALL
    count, room = tile.number(pixels, outputs) * copies, device * tile.blocks
    splits = max(1, min(room // count, boxes, boxes * share // LEAST_STEPS)) if copies == 1 else 1
    return Plan(tile, splits, min(room, count * splits))


def shared_taps(window: Window) -> int:
    """How many taps of conv_hopper.cu have one box of pixels: all of a column, where it is not taller than the halo."""
    rows = window.kernel[0]
    return rows if not by_taps(window) and (rows - 1) * window.dilation[0] <= HALO else 1


def weight_plan(kernels: CudaBase, shape: tuple[int, int, int, int], columns: int) -> WeightPlan:
    """As many shares of the pixels of gy, of the given shape, as fill the device with so many tiles of columns."""
    n, k, p, q = shape
    filters = 64 if k <= 64 else 128
    count = columns * tiles(k, filters)
    steps = n * tiles(p, 8) * tiles(q, 8)
    return WeightPlan(filters, max(1, min(kernels.multiprocessors // count, steps // LEAST_STEPS)))


def weights_share(window: Window) -> bool:
    """Whether conv_hopper_weights.cu takes the three taps of a column from one box of pixels."""
    return window.kernel[0] == 3 and not by_taps(window) and window.dilation[0] <= 8


def weight_columns(window: Window, channels: int) -> int:
    """Tiles of columns (tap, channel) of conv_hopper_weights.cu."""
    blocks = tiles(channels, 64)
    return window.kernel[1] * blocks if weights_share(window) else tiles(window.taps * blocks, 3)


def weights_shared(filters: int) -> int:
    """Bytes of shared memory of a block of conv_hopper_weights.cu."""
    return ALIGNMENT + (6 if filters == 64 else 5) * (filters // 64 + 3) * PIECE


def tiles(count: int, size: int) -> int:
    """How many tiles of a size hold so many."""
    return -(-count // size)
