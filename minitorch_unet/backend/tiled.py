"""Convolutions by kernels/cpu/tiles.h: which way, in blocks of which size, and the memory that it takes.

A *form* says what a tile is: "winograd4" and "winograd2" (4x4 and 2x2 outputs of a 3x3 convolution, minimal filtering),
"patches" (one pixel, plain products). The symbols are those of tiles.h: V (XI matrices of tiles x C), U (XI of C x K).

The sizes are chosen so that what is used together stays in cache. They never depend on the number of threads where that
would change a result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiled import function, scratch, width
from .structs import Array, Conv, Weight, address, channels_last, maps
from .threads import get_num_threads

Pair = tuple[int, int]

BLOCK_BYTES = 400_000  # V and M of a block of tiles: with what passes by, a core's second-level cache
SHARED_BYTES = 16_000_000  # V of the tiles that all threads share, in a convolution
GRADIENT_SHARED_BYTES = 5_000_000  # the same in a weight gradient
WEIGHT_BYTES = 450_000  # of U made at a time, where it is not made all at once
LARGE_WEIGHT = 20_000_000  # bytes of U from which on it is not
SOME_TILES = 400  # from which on it pays to make U beforehand; of single pixels, twice as many
STREAM_BYTES = 10_000_000  # of a result, from which on no part would still be in cache when it is read
SUM_BYTES = 20_000_000  # partial weight gradients
MANY_TILES = 600  # from which on a weight gradient is better cut by tiles than by channels
TILES_IN_A_SUM = 48  # before it is added to those of others: a longer one would cost digits
PARTS = 16  # of a sum over tiles, at most
PIECE_CHANNELS = 128  # whose weight gradient a thread sums at a time, cut by channels
WEIGHT_COST = 200  # of transforming one weight, in multiplications


def quicker_by_tiles(n: int, out_size: Pair) -> bool:
    """Whether F(4x4, 3x3) is quicker than direct arithmetic for n images of so many outputs (rows, columns)."""
    p, q = out_size
    # Multiplications for each pair of channels, and once what it costs to transform their weights.
    return 36 * n * -(-p // 4) * -(-q // 4) + WEIGHT_COST < 9 * n * p * q


def streamed(y: Array) -> bool:
    """Whether a result is to be written past the caches: it is large, and each of its vectors aligned."""
    return y.nbytes >= STREAM_BYTES and all(n % 64 == 0 for n in (y.ctypes.data, y.strides[0], *y.strides[2:]))


def describe(
    form: str, sources: tuple[Array, ...], y: Array, pad: Pair = (0, 0), patch_in: Pair = (1, 1),
    patch_out: Pair = (1, 1), stride: Pair = (1, 1), dilation: Pair = (1, 1),
) -> tuple[Conv, list[Array]]:  # fmt: skip
    """The description of a convolution of channels-last arrays, and the arrays it points to."""
    kept = [channels_last(source) for source in sources]
    (h, w), (p, q) = kept[0].shape[2:], y.shape[2:]
    conv = Conv(y=maps(y), images=y.shape[0], h=h, w=w, p=p // patch_out[0], q=q // patch_out[1])
    for i, source in enumerate(kept):
        conv.x[i] = maps(source)
    for i in (0, 1):
        conv.pad[i], conv.stride[i], conv.dilation[i] = pad[i], stride[i], dilation[i]
        conv.patch_in[i] = patch_in[i] if form == "patches" else 1
        conv.patch_out[i] = patch_out[i]
    return conv, kept


class Plan(NamedTuple):
    """A call of a function of tiles.h: its name, its sizes, and floats of memory: shared by all threads, and theirs."""

    function: str
    sizes: tuple[int, ...]
    memory: dict[str, int]

    def run(self, form: str, conv: Conv, threads: int, *result: Array) -> None:
        """Make the call; `result` is an array that it writes to, if the description does not name it."""
        buffers = {purpose: scratch(purpose, size) for purpose, size in self.memory.items()}
        if self.function == "by_tiles":
            function(f"{form}_weights")(conv, threads, buffers["shared"])
        function(f"{form}_{self.function}")(conv, threads, *self.sizes, *buffers.values(), *result)


class _Measures(NamedTuple):
    """XI; columns of V; columns of U in whole panels; tiles; and of the instruction set: columns, rows, floats."""

    xi: int
    c: int
    k: int
    tiles: int
    panel: int
    rows: int
    vector: int


def _measure(form: str, conv: Conv) -> _Measures:
    panel, rows, vector = (width(name) for name in ("panel_width", "register_rows", "vector_width"))
    m = 1 if form == "patches" else int(form[-1])
    taps_in, taps_out = conv.patch_in[0] * conv.patch_in[1], conv.patch_out[0] * conv.patch_out[1]
    c = taps_in * sum(_rounded_up(x.channels, vector) for x in conv.x)
    k = taps_out * _rounded_up(conv.y.channels, panel)
    tiles = conv.images * -(-conv.p // m) * -(-conv.q // m)
    return _Measures(1 if m == 1 else (m + 2) ** 2, c, k, tiles, panel, rows, vector)


def _rounded_up(n: int, step: int) -> int:
    return -(-n // step) * step


def _matrices(xi: int, *sizes: int) -> int:
    """Floats of xi matrices of each of these sizes: `apart` in tiles.h."""
    return xi * sum(_rounded_up(size, 16) + 16 for size in sizes)


def plan_convolution(form: str, conv: Conv, threads: int) -> Plan:
    """All weights first and then block after block of tiles; or filter after filter for all tiles."""
    xi, c, k, tiles, panel, rows, vector = _measure(form, conv)
    if tiles >= (SOME_TILES if xi > 1 else 2 * SOME_TILES) and 4 * xi * c * k <= LARGE_WEIGHT:
        budget = BLOCK_BYTES if xi > 1 else BLOCK_BYTES // 2  # the weights of all taps pass by as well
        block = min(96, max(1, budget // (4 * xi * (c + panel)) // rows)) * rows
        memory = {"shared": xi * c * k, "tiles": threads * _matrices(xi, block * c, block * panel)}
        return Plan("by_tiles", (block,), memory)
    times = -(-tiles // max(1, SHARED_BYTES // (4 * xi * c)))
    at_once = -(-tiles // max(1, times))
    # Groups of nearly as many rows as a register tile may have, such that the last one is nearly full too; small ones
    # share less.
    group = min(range(-(-rows * 2 // 3), rows + 1), key=lambda g: _rounded_up(at_once, g) * (1 + 0.3 / g))
    channels = max(vector, min(c, WEIGHT_BYTES // (4 * xi * panel) // vector * vector))
    memory = {
        "shared": _matrices(xi, _rounded_up(at_once, group) * c),
        "tiles": threads * _matrices(xi, channels * panel, at_once * panel),
    }
    return Plan("by_filters", (at_once, group, channels), memory)


def plan_gradient(form: str, conv: Conv, threads: int) -> Plan:
    """Ranges of tiles, each with a whole sum of its own; or all tiles for ranges of channels."""
    xi, c, k, tiles, panel, _, vector = _measure(form, conv)
    one_sum = 4 * xi * c * k
    if (one_sum <= SUM_BYTES and tiles >= MANY_TILES) or 2 * one_sum <= BLOCK_BYTES:
        parts = max(1, min(PARTS, SUM_BYTES // one_sum, tiles // 32))
        groups = min(-(-threads // parts), k // panel)  # of filters; any number gives the same result
        block = max(24, min(TILES_IN_A_SUM, BLOCK_BYTES // (4 * xi * (c + panel)))) if xi > 1 else 192
        memory = {
            "shared": parts * (k // panel) * _matrices(xi, c * panel),
            "tiles": threads * _matrices(xi, block * c, block * panel),
        }
        return Plan("gradient_by_tiles", (parts, groups, block), memory)
    channels = max(vector, min(c, GRADIENT_SHARED_BYTES // (4 * xi * tiles) // vector * vector))
    each, block = min(channels, PIECE_CHANNELS), min(tiles, TILES_IN_A_SUM)
    memory = {
        "shared": _matrices(xi, tiles * channels),
        "tiles": threads * _matrices(xi, block * panel, each * panel),
    }
    return Plan("gradient_by_channels", (channels, each, block), memory)


def convolve(
    form: str, sources: tuple[Array, ...], y: Array, weight: Weight, bias: Array | None = None, relu: bool = False,
    mask: Array | None = None, **window: Pair,
) -> None:  # fmt: skip
    """A convolution into y, bias and ReLU included; y is 0 where `mask` is not above 0. `window`: see `describe`."""
    if y.size == 0:
        return
    conv, kept = describe(form, sources, y, **window)
    bias = None if bias is None else np.ascontiguousarray(bias)
    conv.weight, conv.bias, conv.relu = weight, address(bias), relu
    if mask is not None:
        mask = channels_last(mask)
        conv.mask = maps(mask)
    conv.stream = streamed(y)
    threads = get_num_threads()
    plan_convolution(form, conv, threads).run(form, conv, threads)
    del kept, mask  # the description pointed to them until here


def weight_gradient(form: str, sources: tuple[Array, ...], gy: Array, gw: Array, **window: Pair) -> None:
    """gw (R, S, C, K), the gradient of a convolution's weight. `window`: see `describe`."""
    if gy.size == 0 or gw.size == 0:
        gw[...] = 0
        return
    gy = channels_last(gy)
    conv, kept = describe(form, sources, gy, **window)
    threads = get_num_threads()
    plan_gradient(form, conv, threads).run(form, conv, threads, gw)
    del kept
