"""CpuKernels: what the compiled kernels speed up; everything else falls back to the reference by inheritance.

The convolutions are offered as a ladder, `algorithm`: "naive" (the textbook's loops), "im2col" (the NumPy reference),
"direct" (blocked in registers), "winograd2" and "winograd4" (minimal filtering with tiles of 2 or 4), and "auto".
Float32 only; float64 and whatever a rung cannot do is served by one that can. Symbols as in reference.py.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .compiled import Conv, Maps, Window, function, scratch
from .memory import empty
from .reference import Array, Kernels, Pair
from .threads import run_parallel as run_on_threads

ALGORITHMS = ("auto", "naive", "im2col", "direct", "winograd2", "winograd4")

PIECES = 16  # into how many pieces a call's work is cut: a fixed number, so that results do not depend on the threads
TILE_BLOCK = 48  # tiles transformed and multiplied at a time, a multiple of the register tiles' rows
TILE_BYTES = 2_000_000  # transformed input of such a block at most: it is read once for each panel of filters
LARGE_WEIGHT = 12_000_000  # bytes of transformed weights from which on they are better transformed block by block
SHARED_BYTES = 20_000_000  # transformed input of a group of tiles shared by all threads, to stay in the outer cache
SUM_BYTES = 24_000_000  # for all partial weight gradients together


def cuts(n: int, pieces: int = PIECES) -> list[Pair]:
    """0..n as at most `pieces` ranges (first, last), evenly."""
    pieces = max(1, min(n, pieces))
    return [(n * i // pieces, n * (i + 1) // pieces) for i in range(pieces)]


def lead(rows: int, channels: int) -> int:
    """Floats from one of V's matrices to the next, as `lead` in kernels/cpu/winograd.h."""
    return rows * (channels if channels % 512 else channels + 16) + 16


def usable(*arrays: Array | None) -> bool:
    """Whether all given arrays are of the kernels' type."""
    return all(a is None or a.dtype == np.float32 for a in arrays)


def channels_last(x: Array) -> Array:
    """The same (N, C, H, W) values with neighbouring channels and non-negative strides; a copy only if need be."""
    if x.size == 0:
        return x
    fits = (x.shape[1] == 1 or x.strides[1] == 4) and all(s >= 0 and s % 4 == 0 for s in x.strides)
    return x if fits else np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def maps(x: Array) -> Maps:
    """The C description of a channels-last (N, C, H, W) array."""
    image, _, row, pixel = (s // 4 for s in x.strides)
    return Maps(x.ctypes.data, image, row, pixel, x.shape[1])


def taps_first(weight: Array) -> Array:
    """(K, C, R, S) as a contiguous (R, S, C, K) array: a view of parameters, which lie so."""
    taps = weight.transpose(2, 3, 1, 0)
    if taps.flags.c_contiguous:
        return taps
    copy = empty(taps.shape, taps.dtype)
    copy[...] = taps
    return copy


run_parallel = functools.partial(run_on_threads, blas=False)  # the kernels make no calls to the BLAS library


class Group(NamedTuple):
    """Tiles first .. first+size-1 of a convolution, with their transformed input v[xi][tile][c]."""

    first: int
    size: int
    v: Array


class CpuKernels(Kernels):
    """The reference for NumPy, with the compiled kernels in the hot places."""

    def __init__(self) -> None:
        super().__init__(np)
        self.algorithm = os.environ.get("MINITORCH_UNET_CONV", "auto")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"MINITORCH_UNET_CONV is {self.algorithm!r}; legal are {', '.join(ALGORITHMS)}")
        self.panel = function("panel_width")()

    # ------------------------------------------------------------ convolution

    def conv2d(
        self, x: Any, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        relu: bool = False,
    ) -> Array:  # fmt: skip
        """See Kernels.conv2d."""
        sources = x if isinstance(x, tuple) else (x,)
        if self.algorithm == "im2col" or groups != 1 or not usable(*sources, weight, bias):
            return super().conv2d(x, weight, bias, stride, padding, dilation, groups, relu)
        n, _, h, w = sources[0].shape
        k, c, r, s = weight.shape
        reach = (h + 2 * padding[0] - dilation[0] * (r - 1) - 1, w + 2 * padding[1] - dilation[1] * (s - 1) - 1)
        p, q = reach[0] // stride[0] + 1, reach[1] // stride[1] + 1
        y = self.empty_channels_last((n, k, p, q), np.float32)
        tile = self._tile(c, k, (r, s), stride, padding, dilation)
        if tile and len(sources) <= 2:
            self._winograd(tile, sources, taps_first(weight), bias, relu, padding[0], y)
        else:
            padded = self.pad(self.join(sources), padding[0], padding[0], padding[1], padding[1])
            self._direct(padded, taps_first(weight), bias, relu, stride, dilation, y)
        return y

    def conv2d_input_grad(
        self, gy: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        bias: Array | None = None,
    ) -> Array:  # fmt: skip
        """See Kernels.conv2d_input_grad."""
        k, c, r, s = weight.shape
        upsampling = stride == (r, s) and padding == (0, 0) and dilation == (1, 1)
        exact = tuple(input_size) == (gy.shape[2] * r, gy.shape[3] * s)
        reach = tuple(dilation[i] * ((r, s)[i] - 1) - padding[i] for i in (0, 1))
        plain = stride == (1, 1) and min(reach) >= 0 and all(
            input_size[i] == gy.shape[2 + i] + dilation[i] * ((r, s)[i] - 1) - 2 * padding[i] for i in (0, 1)
        )  # fmt: skip
        ours = self.algorithm != "im2col" and groups == 1 and usable(gy, weight, bias)
        if not ours or not (plain or (upsampling and exact)):
            return super().conv2d_input_grad(gy, weight, input_size, stride, padding, dilation, groups, bias)
        gx = self.empty_channels_last((gy.shape[0], c, *input_size), np.float32)
        turned = self._turned(taps_first(weight))
        if plain:
            tile = self._tile(k, c, (r, s), stride, reach, dilation)
            if tile:
                self._winograd(tile, (gy,), turned, bias, False, reach[0], gx)
            else:
                padded = self.pad(gy, reach[0], reach[0], reach[1], reach[1])
                self._direct(padded, turned, bias, False, stride, dilation, gx)
        else:  # every tap writes pixels of its own; `turned` has them in reverse order
            for i in range(r):
                for j in range(s):
                    matrix = turned[r - 1 - i, s - 1 - j][None, None]
                    self._direct(gy, matrix, bias, False, (1, 1), (1, 1), gx[:, :, i::r, j::s])
        return gx

    def conv2d_weight_grad(
        self, x: Any, gy: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Array:
        """See Kernels.conv2d_weight_grad."""
        sources = x if isinstance(x, tuple) else (x,)
        if self.algorithm in ("im2col", "naive") or groups != 1 or not usable(*sources, gy):
            return super().conv2d_weight_grad(x, gy, kernel, stride, padding, dilation, groups)
        c, k = sum(source.shape[1] for source in sources), gy.shape[1]
        gw = empty((*kernel, c, k), np.float32)
        tile = self._tile(c, k, kernel, stride, padding, dilation)
        if tile and len(sources) <= 2:
            self._winograd_gradient(tile, sources, gy, padding[0], gw)
        else:
            padded = self.pad(self.join(sources), padding[0], padding[0], padding[1], padding[1])
            self._direct_gradient(padded, gy, kernel, stride, dilation, gw)
        return gw.transpose(3, 2, 0, 1)

    def _tile(self, c: int, k: int, kernel: Pair, stride: Pair, padding: Any, dilation: Pair) -> int:
        """Winograd's tile size for a convolution from c to k channels, or 0 for direct arithmetic."""
        possible = kernel == (3, 3) and stride == dilation == (1, 1) and padding[0] == padding[1]
        if not possible or self.algorithm in ("direct", "naive"):
            return 0
        if self.algorithm == "auto":
            return 4 if min(c, k) >= 8 else 0
        return 2 if self.algorithm == "winograd2" else 4

    def _turned(self, weight: Array) -> Array:
        """(R, S, C, K) -> (R, S, K, C) with the taps in reverse order."""
        r, s, c, k = weight.shape
        turned = empty((r, s, k, c), np.float32)
        work = function("turn_weights")
        run_parallel(lambda part: work(weight, r * s, c, k, *part, turned), cuts(r * s))
        return turned

    def _description(self, sources: tuple[Array, ...], y: Array, pad: int) -> tuple[Conv, list[Array]]:
        """The C description of a 3x3 convolution and the arrays it points to, which must be kept alive."""
        kept = [channels_last(source) for source in sources]
        conv = Conv(y=maps(y), images=y.shape[0], h=kept[0].shape[2], w=kept[0].shape[3], p=y.shape[2], q=y.shape[3])
        for i, source in enumerate(kept):
            conv.x[i] = maps(source)
        conv.pad = pad
        return conv, kept

    def _winograd(
        self, m: int, sources: tuple[Array, ...], weight: Array, bias: Array | None, relu: bool, pad: int, y: Array
    ) -> None:
        """3x3 convolution into y, weight (3, 3, C, K), by minimal filtering with tiles of m x m outputs."""
        conv, kept = self._description(sources, y, pad)
        bias = None if bias is None else np.ascontiguousarray(bias)
        conv.weight, conv.relu = weight.ctypes.data, relu
        conv.bias = None if bias is None else bias.ctypes.data
        xi, (c, k) = (m + 2) ** 2, weight.shape[2:]
        panels = -(-k // self.panel)
        tiles = conv.images * -(-conv.p // m) * -(-conv.q // m)
        size = xi * c * panels * self.panel
        if 4 * size < LARGE_WEIGHT or tiles > 1024:
            u = scratch("weights", size)
            work = function(f"winograd{m}_weights")
            run_parallel(lambda part: work(conv, *part, u), cuts(panels))
            block = max(12, min(TILE_BLOCK, TILE_BYTES // (4 * xi * c) // 12 * 12))
            rest = xi * (lead(block, c) + lead(block, self.panel))
            whole = function(f"winograd{m}_by_tiles")
            run_parallel(lambda part: whole(conv, u, *part, block, scratch("tiles", rest)), cuts(tiles))
        else:
            block = 96
            each = function(f"winograd{m}_by_filters")

            def filters(group: Group, part: Pair) -> None:
                rest = scratch("tiles", xi * (self.panel * block + lead(group.size, self.panel)))
                each(conv, group.v, group.first, group.size, *part, block, rest)

            self._by_groups(filters, conv, m, c, tiles, panels)
        del kept

    def _by_groups(
        self, work: Callable[[Group, Pair], None], conv: Conv, m: int, c: int, tiles: int, panels: int
    ) -> None:
        """For one group of tiles after another: transform its input, shared by all, then `work` on ranges of panels."""
        xi = (m + 2) ** 2
        inputs = function(f"winograd{m}_inputs")

        def transform(group: Group, part: Pair) -> None:
            inputs(conv, group.first, group.size, *part, group.v)

        for first, last in cuts(tiles, -(-4 * xi * c * tiles // SHARED_BYTES)):
            group = Group(first, last - first, scratch("shared", xi * lead(last - first, c)))
            parts = [(first + a, first + b) for a, b in cuts(group.size)]
            run_parallel(functools.partial(transform, group), parts)
            run_parallel(functools.partial(work, group), cuts(panels, 2 * PIECES))

    def _winograd_gradient(self, m: int, sources: tuple[Array, ...], gy: Array, pad: int, gw: Array) -> None:
        """gw (3, 3, C, K) by minimal filtering: the m x m output gradients of a tile act as its filter."""
        gy = channels_last(gy)
        conv, kept = self._description(sources, gy, pad)
        xi, (c, k) = (m + 2) ** 2, gw.shape[2:]
        panels = -(-k // self.panel)
        tiles = conv.images * -(-conv.p // m) * -(-conv.q // m)
        one = xi * c * self.panel  # floats of a panel's sum
        parts = min(PIECES, SUM_BYTES // (4 * panels * one), -(-tiles // 64))
        taps = function(f"winograd{m}_gradient_taps")
        if parts >= 4 or (parts and tiles <= 64 * parts):
            sums = np.zeros((parts, panels * one), np.float32)
            pieces = cuts(tiles, len(sums))
            by_tiles = function(f"winograd{m}_gradient_by_tiles")
            rest = xi * (lead(TILE_BLOCK, c) + lead(TILE_BLOCK, self.panel))
            run_parallel(
                lambda i: by_tiles(conv, *pieces[i], TILE_BLOCK, sums[i], scratch("tiles", rest)), range(len(pieces))
            )
            each = functools.partial(taps, conv)
            run_parallel(
                lambda part: each(sums[:, part[0] * one :], len(sums), panels * one, *part, gw), cuts(panels)
            )
            return
        by_filters = function(f"winograd{m}_gradient_by_filters")
        groups = max(1, -(-4 * xi * c * tiles // SHARED_BYTES))
        # With one group of tiles a range of panels is summed and transformed back at once; else all sums are kept.
        sums = np.zeros(panels * one if groups > 1 else 0, np.float32)

        def filters(group: Group, part: Pair) -> None:
            rest = scratch("tiles", xi * lead(128, self.panel))
            own = sums[part[0] * one :] if groups > 1 else scratch("sums", (part[1] - part[0]) * one)
            if groups == 1:
                own[: (part[1] - part[0]) * one] = 0
            by_filters(conv, group.v, group.first, group.size, *part, 128, own, rest)
            if group.first + group.size == tiles:
                taps(conv, own, 1, 0, *part, gw)

        self._by_groups(filters, conv, m, c, tiles, panels)
        del kept

    def _window(self, x: Array, y: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Window:
        return Window(
            x=maps(x), y=maps(y), images=y.shape[0], p=y.shape[2], q=y.shape[3], r=kernel[0], s=kernel[1],
            stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1],
        )  # fmt: skip

    def _direct(
        self, x: Array, weight: Array, bias: Array | None, relu: bool, stride: Pair, dilation: Pair, y: Array
    ) -> None:
        """Convolution of a padded x into y (which may be a strided view), weight (R, S, C, K), in direct arithmetic."""
        x = channels_last(x)
        r, s, c, k = weight.shape
        bias = None if bias is None else np.ascontiguousarray(bias)
        window = self._window(x, y, (r, s), stride, dilation)
        window.bias, window.relu = None if bias is None else bias.ctypes.data, relu
        lines = cuts(y.shape[0] * y.shape[2], 4 * PIECES)
        if self.algorithm == "naive":
            naive = function("naive_rows")
            run_parallel(lambda part: naive(window, weight, *part), lines)
            return
        panels = -(-k // self.panel)
        packed = scratch("weights", panels * r * s * c * self.panel)
        pack, each = function("pack_weights"), function("direct_rows")
        run_parallel(lambda part: pack(weight, r * s, c, k, *part, packed), cuts(panels))
        run_parallel(lambda part: each(window, packed, *part), lines)

    def _direct_gradient(self, x: Array, gy: Array, kernel: Pair, stride: Pair, dilation: Pair, gw: Array) -> None:
        """gw (R, S, C, K) in direct arithmetic, x padded."""
        x, gy = channels_last(x), channels_last(gy)
        window = self._window(x, gy, kernel, stride, dilation)
        panels = -(-gw.shape[3] // self.panel)
        size = panels * self.panel * gw[..., 0].size
        lines = gy.shape[0] * gy.shape[2]
        each = function("direct_gradient_rows")
        pieces = [
            (i, rows, columns)
            for i, rows in enumerate(cuts(lines, min(PIECES, max(1, SUM_BYTES // (8 * size)))))
            for columns in cuts(panels, 4)
        ]
        sums = np.zeros((pieces[-1][0] + 1, size), np.float32)
        run_parallel(
            lambda piece: each(window, *piece[1], *piece[2], sums[piece[0]], scratch("tiles", 64 * self.panel)), pieces
        )
        taps = function("direct_gradient_taps")
        run_parallel(lambda part: taps(window, sums, len(sums), size, *part, gw), cuts(panels))

    # ------------------------------------------------- bias, ReLU, borders, pooling

    def relu_bias_backward(self, gy: Array, y: Array, owned: bool = False) -> tuple[Array, Array]:
        """See Kernels.relu_bias_backward."""
        if not usable(gy, y) or gy.size == 0:
            return super().relu_bias_backward(gy, y, owned)
        gy, y = channels_last(gy), channels_last(y)
        g = gy if owned else self.empty_channels_last(gy.shape, np.float32)
        return g, self._sums(gy, maps(y), maps(g))

    def channel_sums(self, x: Array) -> Array:
        """See Kernels.channel_sums."""
        if not usable(x) or x.size == 0:
            return super().channel_sums(x)
        return self._sums(channels_last(x), Maps(), Maps())

    def _sums(self, gy: Array, y: Maps, out: Maps) -> Array:
        """Sums over the channels of gy, or (with y) of gy where y > 0, which is then written to out."""
        n, c, h, w = gy.shape
        pieces = cuts(n * h)
        sums = np.zeros((len(pieces), c))
        each, source = function("relu_bias_backward"), maps(gy)
        run_parallel(lambda i: each(source, y, out, h, w, *pieces[i], sums[i]), range(len(pieces)))
        return sums.sum(0).astype(np.float32)

    def pad(self, x: Array, top: int, bottom: int, left: int, right: int, value: float = 0.0) -> Array:
        """See Kernels.pad."""
        if not usable(x) or value != 0 or not (top > 0 or bottom > 0 or left > 0 or right > 0) or x.size == 0:
            return super().pad(x, top, bottom, left, right, value)
        x = channels_last(x)
        n, c, h, w = x.shape
        out = self.empty_channels_last((n, c, h + top + bottom, w + left + right), np.float32)
        rows, columns = out.shape[2:]
        each, source, target = function("pad_rows"), maps(x), maps(out)
        run_parallel(
            lambda part: each(source, target, h, w, rows, columns, top, left, *part), cuts(n * rows)
        )
        return out

    def max_pool2d(
        self, x: Array, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> tuple[Array, Array]:
        """See Kernels.max_pool2d."""
        halving = kernel == stride == (2, 2) and padding == (0, 0) and dilation == (1, 1)
        inside = 2 * out_size[0] <= x.shape[2] and 2 * out_size[1] <= x.shape[3]
        if not (halving and inside and usable(x)):
            return super().max_pool2d(x, out_size, kernel, stride, padding, dilation)
        x = channels_last(x)
        y = self.empty_channels_last((*x.shape[:2], *out_size), np.float32)
        winners = self.empty_channels_last(y.shape, np.uint8)
        each, source, target = function("max_pool_rows"), maps(x), maps(y)
        run_parallel(
            lambda part: each(source, target, winners, *out_size, *part), cuts(x.shape[0] * out_size[0])
        )
        return y, winners

    def max_pool2d_scatter(
        self, gy: Array, winners: Array, input_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        """See Kernels.max_pool2d_scatter."""
        p, q = gy.shape[2:]
        halving = kernel == stride == (2, 2) and padding == (0, 0) and dilation == (1, 1)
        if not (halving and tuple(input_size) == (2 * p, 2 * q) and usable(gy)):
            how = {"kernel": kernel, "stride": stride, "padding": padding, "dilation": dilation}
            return super().max_pool2d_scatter(gy, winners, input_size, **how)
        gy = channels_last(gy)
        gx = self.empty_channels_last((*gy.shape[:2], *input_size), np.float32)
        each, source, target = function("max_pool_backward_rows"), maps(gy), maps(gx)
        won = np.ascontiguousarray(winners.transpose(0, 2, 3, 1))
        run_parallel(lambda part: each(source, target, won, p, q, *part), cuts(gy.shape[0] * p))
        return gx

    # ---------------------------------------------------------------- updates

    def sgd_update(
        self, p: Array, g: Array, velocity: Array | None, first: bool, lr: float,
        momentum: float, dampening: float, weight_decay: float, nesterov: bool,
    ) -> None:  # fmt: skip
        """See Kernels.sgd_update."""
        flat = self._flat(p, g, velocity) if velocity is not None else None
        if flat is None:
            super().sgd_update(p, g, velocity, first, lr, momentum, dampening, weight_decay, nesterov)
            return
        settings = (float(lr), float(momentum), float(dampening), float(weight_decay), nesterov, first)
        self._update("sgd", flat, settings)

    def adam_update(
        self, p: Array, g: Array, mean: Array, square: Array, step: int, lr: float,
        beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
    ) -> None:  # fmt: skip
        """See Kernels.adam_update."""
        flat = self._flat(p, g, mean, square)
        if flat is None:
            super().adam_update(p, g, mean, square, step, lr, beta1, beta2, eps, weight_decay, decoupled)
            return
        shrink = 1 - lr * weight_decay if decoupled else 1.0
        decay = 0.0 if decoupled else float(weight_decay)
        rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
        settings = (rate, root, beta1, beta2, eps, decay, shrink)
        self._update("adam", flat, tuple(float(value) for value in settings))

    def _update(self, name: str, flat: list[Array], settings: tuple[Any, ...]) -> None:
        each = function(name)

        def work(part: Pair) -> None:
            piece = slice(*part)
            each(*(a[piece] for a in flat), part[1] - part[0], *settings)

        run_parallel(work, cuts(flat[0].size, PIECES if flat[0].size > 65536 else 1))

    def _flat(self, *arrays: Array) -> list[Array] | None:
        """One-dimensional views of arrays of the same memory order without gaps; None if they are not like that."""
        first = arrays[0]
        if not usable(*arrays) or any(a.strides != first.strides for a in arrays) or not first.size:
            return None
        order = sorted(range(first.ndim), key=lambda i: (-first.strides[i], first.shape[i]))
        views = [a.transpose(order) for a in arrays]
        return [v.reshape(-1) for v in views] if all(v.flags.c_contiguous for v in views) else None
