"""CpuKernels: what the compiled kernels speed up; everything else falls back to the reference by inheritance.

The convolutions are offered as a ladder, `algorithm`: "naive" (the textbook's loops), "im2col" (the NumPy reference),
"direct" (blocked in registers), "winograd2" and "winograd4" (minimal filtering with tiles of 2 or 4), and "auto".
Float32 only; float64 and whatever a rung cannot do is served by one that can. Symbols as in reference.py.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from .compiled import Conv, Maps, Scores, Weight, Window, function, scratch
from .memory import empty
from .reference import Array, Kernels, Pair, batch_norm_slope, rounded
from .threads import get_num_threads
from .threads import run_parallel as run_on_threads

ALGORITHMS = ("auto", "naive", "im2col", "direct", "winograd2", "winograd4")

PIECES = 16  # into how many pieces a call's work is cut: a fixed number, so that results do not depend on the threads
PIECE_VALUES = 1 << 14  # floats of such a piece at least, where the work is one pass over memory

# How work is cut so that its parts stay in cache, in bytes: see kernels/cpu/tiles.h.
BLOCK_BYTES = 400_000  # a block of tiles, transformed, and its products: most of a core's second-level cache
LARGE_WEIGHT = 20_000_000  # transformed weights from which on they are not made all at once
SHARED_BYTES = 16_000_000  # transformed input of the tiles that all threads share: part of the third-level cache
STREAM_BYTES = 24_000_000  # results from which on no part is still in cache when it is read
GRADIENT_SHARED_BYTES = 5_000_000  # the same for weight gradients
SUM_BYTES = 20_000_000  # partial weight gradients
WEIGHT_COST = 300  # of transforming one weight, in multiplications
MANY_TILES = 600  # from which on the weight gradient is better cut by tiles than by channels
CHANNELS = 96  # whose weights are transformed at a time
PIECE_CHANNELS = 128  # whose weight gradient is summed at a time
GRADIENT_BLOCK = 128  # tiles whose gradients are transformed at a time


def cuts(n: int, pieces: int = PIECES) -> list[Pair]:
    """0..n as at most `pieces` ranges (first, last), evenly."""
    pieces = max(1, min(n, pieces))
    return [(n * i // pieces, n * (i + 1) // pieces) for i in range(pieces)]


def shares(rows: int, x: Array) -> list[Pair]:
    """0..rows as ranges for work that goes once through an array: fewer where it is so small that calls would cost."""
    return cuts(rows, min(PIECES, x.size // PIECE_VALUES))


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
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))


def straight(weight: Array) -> Weight:
    """The C description of a contiguous (R, S, C, K) weight for a convolution from C to K channels."""
    c, k = weight.shape[2:]
    return Weight(weight.ctypes.data, c * k, k, 1, 0)


def transposed(weight: Array, turned: bool) -> Weight:
    """The same for its transpose, from K to C channels; `turned`: with the taps in reverse order."""
    c, k = weight.shape[2:]
    return Weight(weight.ctypes.data, c * k, 1, k, turned)


def _call(form: str, conv: Conv, name: str, *arguments: Any) -> Any:
    """The C function `name` of a form, for a convolution."""
    return function(f"{form}_{name}")(conv, *arguments)


run_parallel = functools.partial(run_on_threads, blas=False)  # the kernels make no calls to the BLAS library


class CpuKernels(Kernels):
    """The reference for NumPy, with the compiled kernels in the hot places."""

    def __init__(self) -> None:
        super().__init__(np)
        self.algorithm = os.environ.get("MINITORCH_UNET_CONV", "auto")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"MINITORCH_UNET_CONV is {self.algorithm!r}; legal are {', '.join(ALGORITHMS)}")
        self.panel, self.vector, self.rows = (
            function(name)() for name in ("panel_width", "vector_width", "register_rows")
        )

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
        taps = taps_first(weight)
        form = self._form(c, k, (r, s), stride, dilation, n, (p, q)) if len(sources) <= 2 else "direct"
        if form == "direct":
            padded = self.pad(self.join(sources), padding[0], padding[0], padding[1], padding[1])
            self._direct(padded, taps, straight(taps), bias, relu, stride, dilation, y)
        else:
            window = {"pad": padding, "patch_in": (r, s), "stride": stride, "dilation": dilation}
            self._convolve(form, sources, y, straight(taps), bias, relu, **window)
        return y

    def conv2d_input_grad(
        self, gy: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        bias: Array | None = None,
    ) -> Array:  # fmt: skip
        """See Kernels.conv2d_input_grad."""
        k, c, r, s = weight.shape
        exact = tuple(input_size) == (gy.shape[2] * r, gy.shape[3] * s)
        upsampling = exact and self._separate((r, s), stride, padding, dilation)
        reach = tuple(dilation[i] * ((r, s)[i] - 1) - padding[i] for i in (0, 1))
        plain = stride == (1, 1) and min(reach) >= 0 and all(
            input_size[i] == gy.shape[2 + i] + dilation[i] * ((r, s)[i] - 1) - 2 * padding[i] for i in (0, 1)
        )  # fmt: skip
        ours = self.algorithm != "im2col" and groups == 1 and usable(gy, weight, bias)
        if not ours or not (plain or upsampling):
            return super().conv2d_input_grad(gy, weight, input_size, stride, padding, dilation, groups, bias)
        gx = self.empty_channels_last((gy.shape[0], c, *input_size), np.float32)
        taps = taps_first(weight)
        if upsampling:
            self._convolve("patches", (gy,), gx, transposed(taps, turned=False), bias, patch_out=(r, s))
            return gx
        form = self._form(k, c, (r, s), stride, dilation, gy.shape[0], input_size)
        if form == "direct":
            padded = self.pad(gy, reach[0], reach[0], reach[1], reach[1])
            self._direct(padded, taps, transposed(taps, turned=True), bias, False, stride, dilation, gx)
        else:
            window = {"pad": reach, "patch_in": (r, s), "dilation": dilation}
            self._convolve(form, (gy,), gx, transposed(taps, turned=True), bias, **window)
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
        form = self._form(c, k, kernel, stride, dilation, gy.shape[0], gy.shape[2:]) if len(sources) <= 2 else "direct"
        if gy.size == 0 or gw.size == 0:
            gw[...] = 0
        elif form == "direct":
            padded = self.pad(self.join(sources), padding[0], padding[0], padding[1], padding[1])
            self._direct_gradient(padded, gy, kernel, stride, dilation, gw)
        else:
            window = {"pad": padding, "patch_in": kernel, "stride": stride, "dilation": dilation}
            self._gradient(form, sources, gy, gw, **window)
        return gw.transpose(3, 2, 0, 1)

    def _form(self, c: int, k: int, kernel: Pair, stride: Pair, dilation: Pair, n: int, out_size: Pair) -> str:
        """How to compute a convolution from c to k channels: "direct", or a form of kernels/cpu/tiles.h."""
        if self.algorithm == "naive":
            return "direct"
        winograd = kernel == (3, 3) and stride == dilation == (1, 1)
        if self.algorithm == "auto":
            p, q = out_size
            # Multiplications for each pair of channels, and what it costs to transform their weights.
            quicker = 36 * n * -(-p // 4) * -(-q // 4) + WEIGHT_COST < 9 * n * p * q
            return "direct" if min(c, k) < 8 and kernel != (1, 1) else "winograd4" if winograd and quicker else "patches"
        if winograd and self.algorithm != "direct":
            return self.algorithm
        return "patches" if stride == kernel and dilation == (1, 1) else "direct"

    def _separate(self, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> bool:
        """Whether a transposed convolution's windows touch without overlap, so that it is a product of patches."""
        return stride == kernel and padding == (0, 0) and dilation == (1, 1) and self.algorithm != "naive"

    # ------------------------------------------------ tile by tile (kernels/cpu/tiles.h)

    def _description(
        self, form: str, sources: tuple[Array, ...], y: Array, pad: Pair = (0, 0), patch_in: Pair = (1, 1),
        patch_out: Pair = (1, 1), stride: Pair = (1, 1), dilation: Pair = (1, 1),
    ) -> tuple[Conv, list[Array]]:  # fmt: skip
        """The C description of a convolution and the arrays it points to, which must be kept alive."""
        kept = [channels_last(source) for source in sources]
        (h, w), (p, q) = kept[0].shape[2:], y.shape[2:]
        conv = Conv(y=maps(y), images=y.shape[0], h=h, w=w, p=p // patch_out[0], q=q // patch_out[1])
        for i, source in enumerate(kept):
            conv.x[i] = maps(source)
        if form != "patches":
            patch_in = (1, 1)
        for i in (0, 1):
            conv.pad[i], conv.stride[i], conv.dilation[i] = pad[i], stride[i], dilation[i]
            conv.patch_in[i], conv.patch_out[i] = patch_in[i], patch_out[i]
        return conv, kept

    def _measures(self, form: str, conv: Conv) -> tuple[int, int, int, int]:
        """(XI, columns of V, columns of U in whole panels, tiles) of a convolution in this form."""
        m = int(form[-1]) if form != "patches" else 1
        xi = 1 if form == "patches" else (m + 2) ** 2
        taps_in, taps_out = conv.patch_in[0] * conv.patch_in[1], conv.patch_out[0] * conv.patch_out[1]
        c = taps_in * sum(-(-x.channels // self.vector) * self.vector for x in conv.x)
        k = taps_out * -(-conv.y.channels // self.panel) * self.panel
        return xi, c, k, conv.images * -(-conv.p // m) * -(-conv.q // m)

    def _convolve(
        self, form: str, sources: tuple[Array, ...], y: Array, weight: Weight, bias: Array | None = None,
        relu: bool = False, **window: Pair,
    ) -> None:  # fmt: skip
        """A convolution into y, bias and ReLU included."""
        conv, kept = self._description(form, sources, y, **window)
        bias = None if bias is None else np.ascontiguousarray(bias)
        conv.weight, conv.relu = weight, relu
        conv.bias = None if bias is None else bias.ctypes.data
        conv.stream = y.nbytes >= STREAM_BYTES and all(n % 64 == 0 for n in (y.ctypes.data, y.strides[0], *y.strides[2:]))
        xi, c, k, tiles = self._measures(form, conv)
        threads = get_num_threads()
        call = functools.partial(_call, form, conv)
        if 4 * xi * c * k < LARGE_WEIGHT:
            u = scratch("weights", call("weights_size"))
            call("weights", threads, u)
            block = min(96, max(1, BLOCK_BYTES // (4 * xi * (c + self.panel)) // self.rows)) * self.rows
            rest = scratch("tiles", threads * call("by_tiles_scratch", block))
            call("by_tiles", threads, u, block, rest)
        else:
            at_once = max(1, min(tiles, SHARED_BYTES // (4 * xi * c)))
            at_once = -(-tiles // -(-tiles // at_once))
            group = min(range(max(1, self.rows * 2 // 3), self.rows + 1), key=lambda rows: (-(-at_once // rows) * rows, -rows))
            channels = min(c, CHANNELS)
            shared = scratch("shared", call("by_filters_shared", at_once, group))
            rest = scratch("tiles", threads * call("by_filters_scratch", at_once, channels))
            call("by_filters", threads, at_once, group, channels, shared, rest)
        del kept

    def _gradient(self, form: str, sources: tuple[Array, ...], gy: Array, gw: Array, **window: Pair) -> None:
        """gw (R, S, C, K), the gradient of a convolution's weight."""
        gy = channels_last(gy)
        conv, kept = self._description(form, sources, gy, **window)
        xi, c, k, tiles = self._measures(form, conv)
        threads = get_num_threads()
        call = functools.partial(_call, form, conv)
        size = 4 * xi * c * k
        if size <= SUM_BYTES and tiles >= MANY_TILES or 2 * size <= BLOCK_BYTES:
            parts = max(min(2, tiles), min(PIECES, SUM_BYTES // size, tiles // 32))
            groups = min(-(-threads // parts), k // self.panel)
            block = max(24, min(192, BLOCK_BYTES // (4 * xi * (c + self.panel))))
            sums = scratch("sums", call("gradient_by_tiles_sums", parts))
            rest = scratch("tiles", threads * call("gradient_by_tiles_scratch", block))
            call("gradient_by_tiles", threads, parts, groups, block, sums, rest, gw)
        else:
            at_once = max(self.vector, min(c, GRADIENT_SHARED_BYTES // (4 * xi * tiles) // self.vector * self.vector))
            each = min(at_once, PIECE_CHANNELS)
            block = min(tiles, GRADIENT_BLOCK)
            shared = scratch("shared", call("gradient_by_channels_shared", at_once))
            rest = scratch("tiles", threads * call("gradient_by_channels_scratch", each, block))
            call("gradient_by_channels", threads, at_once, each, block, shared, rest, gw)
        del kept

    # ------------------------------------------------ direct (kernels/cpu/direct.h)

    def _window(self, x: Array, y: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Window:
        return Window(
            x=maps(x), y=maps(y), images=y.shape[0], p=y.shape[2], q=y.shape[3], r=kernel[0], s=kernel[1],
            stride_h=stride[0], stride_w=stride[1], dilation_h=dilation[0], dilation_w=dilation[1],
        )  # fmt: skip

    def _direct(
        self, x: Array, taps: Array, weight: Weight, bias: Array | None, relu: bool, stride: Pair, dilation: Pair,
        y: Array,
    ) -> None:  # fmt: skip
        """Convolution of a padded x into y in direct arithmetic; `weight` describes `taps` (R, S, ...)."""
        x = channels_last(x)
        kernel, c, k = taps.shape[:2], x.shape[1], y.shape[1]
        bias = None if bias is None else np.ascontiguousarray(bias)
        window = self._window(x, y, kernel, stride, dilation)
        window.bias, window.relu = None if bias is None else bias.ctypes.data, relu
        threads = get_num_threads()
        if self.algorithm == "naive":
            if weight.column != 1:
                taps = np.ascontiguousarray(taps[::-1, ::-1].transpose(0, 1, 3, 2))
            function("naive")(window, taps, threads)
            return
        packed = scratch("weights", -(-k // self.panel) * self.panel * kernel[0] * kernel[1] * c)
        function("pack_weights")(weight, kernel[0] * kernel[1], c, k, threads, packed)
        function("direct")(window, packed, threads)

    def _direct_gradient(self, x: Array, gy: Array, kernel: Pair, stride: Pair, dilation: Pair, gw: Array) -> None:
        """gw (R, S, C, K) in direct arithmetic, x padded."""
        x, gy = channels_last(x), channels_last(gy)
        window = self._window(x, gy, kernel, stride, dilation)
        threads = get_num_threads()
        size = function("direct_gradient_sums")(window, 1)
        parts = max(1, min(PIECES, gy.shape[0] * gy.shape[2], SUM_BYTES // (4 * size)))
        sums = scratch("sums", parts * size)
        rest = scratch("tiles", threads * function("direct_gradient_scratch")(window))
        function("direct_gradient")(window, threads, parts, sums, rest, gw)

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
        pieces = shares(n * h, gy)
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
            lambda part: each(source, target, h, w, rows, columns, top, left, *part), shares(n * rows, out)
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
            lambda part: each(source, target, winners, *out_size, *part), shares(x.shape[0] * out_size[0], x)
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
        run_parallel(lambda part: each(source, target, won, p, q, *part), shares(gy.shape[0] * p, gx))
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

    # ------------------------------------------------------------ normalisation

    def channel_moments(self, x: Array) -> tuple[Array, Array]:
        """See Kernels.channel_moments. In one pass: a value of each channel is taken off before sums are formed."""
        if not usable(x) or x.ndim != 4 or x.size == 0:
            return super().channel_moments(x)
        x = channels_last(x)
        n, c, h, w = x.shape
        pieces, source, shift = shares(n * h, x), maps(x), np.ascontiguousarray(x[0, :, 0, 0])
        sums = np.zeros((len(pieces), 2, c))
        each = function("channel_moments")
        run_parallel(lambda i: each(source, shift, h, w, *pieces[i], sums[i]), range(len(pieces)))
        mean, square = sums.sum(0) / (n * h * w)
        return shift + mean, square - mean * mean

    def scale_shift(self, x: Array, centre: Array, scale: Array, shift: Array, relu: bool = False) -> Array:
        """See Kernels.scale_shift."""
        if not usable(x, centre, scale, shift) or x.ndim != 4 or x.size == 0:
            return super().scale_shift(x, centre, scale, shift, relu)
        x = channels_last(x)
        n, _, h, w = x.shape
        y = self.empty_channels_last(x.shape, np.float32)
        vectors = [np.ascontiguousarray(a) for a in (centre, scale, shift)]
        each, source, target = function("scale_shift"), maps(x), maps(y)
        run_parallel(lambda part: each(source, target, *vectors, relu, h, w, *part), shares(n * h, x))
        return y

    def batch_norm_backward(
        self, gy: Array, x: Array, y: Array | None, mean: Array, inverse: Array, scale: Array, training: bool,
        owned: bool = False,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """See Kernels.batch_norm_backward. One pass for the sums, one for the result."""
        if not usable(gy, x, y) or x.ndim != 4 or x.size == 0:
            return super().batch_norm_backward(gy, x, y, mean, inverse, scale, training, owned)
        gy, x, y = channels_last(gy), channels_last(x), None if y is None else channels_last(y)
        n, c, h, w = x.shape
        gx = gy if owned else self.empty_channels_last(x.shape, np.float32)
        given = [maps(gy), Maps() if y is None else maps(y), maps(x)]
        centre, rest = rounded(mean, np.float32)
        pieces = shares(n * h, x)
        sums = np.zeros((len(pieces), 2, c))
        each = function("batch_norm_sums")
        run_parallel(lambda i: each(*given, centre, h, w, *pieces[i], sums[i]), range(len(pieces)))
        total, products = sums.sum(0)
        products -= rest * total
        slope, constant = batch_norm_slope(total, products, inverse, rest, x) if training else np.zeros((2, c))
        factor = scale * inverse
        vectors = [centre, *((factor * a).astype(np.float32) for a in (1, slope, constant))]
        back, target = function("batch_norm_input_grad"), maps(gx)
        run_parallel(lambda part: back(*given, target, *vectors, h, w, *part), pieces)
        return gx, products * inverse, total

    # -------------------------------------------------- softmax and cross-entropy

    def softmax_cross_entropy(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int
    ) -> Array:
        """See Kernels.softmax_cross_entropy."""
        description = self._scores(scores, labels, weight, pixel_weight, ignore_index)
        if description is None:
            return super().softmax_cross_entropy(scores, labels, weight, pixel_weight, ignore_index)
        return self._cross_entropy(*description, None, 1.0)

    def softmax_cross_entropy_backward(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int,
        factor: Any,
    ) -> Array:  # fmt: skip
        """See Kernels.softmax_cross_entropy_backward. The result is channels-last."""
        description = self._scores(scores, labels, weight, pixel_weight, ignore_index)
        if description is None:
            return super().softmax_cross_entropy_backward(scores, labels, weight, pixel_weight, ignore_index, factor)
        n, c = scores.shape[:2]
        gx = self.empty_channels_last((n, c, labels.size // n, 1), np.float32)
        self._cross_entropy(*description, gx, float(factor))
        return gx.reshape(scores.shape)

    def _cross_entropy(self, s: Scores, kept: list[Array], gx: Array | None, factor: float) -> Array:
        pieces = shares(kept[1].size, kept[0])
        sums = np.zeros((len(pieces), 3))
        each = function("softmax_cross_entropy")

        def work(i: int) -> None:
            room = scratch("scores", s.classes * self.panel)
            each(s, *pieces[i], room, sums[i], 0 if gx is None else gx, factor)

        run_parallel(work, range(len(pieces)))
        return sums.sum(0)

    def _scores(
        self, scores: Array, labels: Array, weight: Array | None, pixel_weight: Array | None, ignore_index: int
    ) -> tuple[Scores, list[Array]] | None:
        """The C description of such a call and the arrays it points to; None if the reference must serve it."""
        if not usable(scores, weight, pixel_weight) or not np.can_cast(labels.dtype, np.int64) or not scores.size:
            return None
        n, c = scores.shape[:2]
        rows = scores.reshape(n, c, -1) if scores.ndim > 2 else scores.T[None]  # (N, C, P); an image of N pixels
        if any(stride % 4 for stride in rows.strides):
            rows = np.ascontiguousarray(rows)
        labels = np.ascontiguousarray(labels, np.uint8 if labels.dtype == np.uint8 else np.int64)
        weights = [None if a is None else np.ascontiguousarray(a) for a in (weight, pixel_weight)]
        image, channel, pixel = (stride // 4 for stride in rows.strides)
        description = Scores(
            rows.ctypes.data, image, channel, pixel, c, rows.shape[2], labels.ctypes.data, labels.itemsize,
            ignore_index, *(None if a is None else a.ctypes.data for a in weights),
        )  # fmt: skip
        return description, [rows, labels, *(a for a in weights if a is not None)]
