"""CpuKernels: what the compiled kernels speed up; everything else falls back to the reference by inheritance.

The convolutions are offered as a ladder, `algorithm`: "naive" (the textbook's loops), "im2col" (the NumPy reference),
"direct" (blocked in registers), "winograd2" and "winograd4" (minimal filtering with tiles of 2 or 4), and "auto".
Float32 only; float64 and whatever a rung cannot do is served by one that can. Symbols as in reference.py.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from . import direct, dry, tiled
from .compiled import function, scratch, width
from .memory import empty
from .reference import Array, Kernels, Pair, batch_norm_slope, rounded
from .structs import Maps, Scores, Weight, address, channels_last, filters_last, maps, straight, transposed, usable
from .threads import get_num_threads

ALGORITHMS = ("auto", "naive", "im2col", "direct", "winograd2", "winograd4")

PIECES = 16  # of work that goes once through memory: a fixed number, so that results do not depend on the threads
PIECE_VALUES = 1 << 14  # floats of such a piece at least


def shares(rows: int, x: Array) -> tuple[int, int, int]:
    """(threads, rows, pieces) for work that goes once through x: fewer pieces where it is so small that calls cost."""
    return get_num_threads(), rows, max(1, min(PIECES, rows, x.size // PIECE_VALUES))


class CpuKernels(Kernels):
    """The reference for NumPy, with the compiled kernels in the hot places."""

    def __init__(self) -> None:
        super().__init__(np)
        self.algorithm = os.environ.get("MINITORCH_UNET_CONV", "auto")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"MINITORCH_UNET_CONV is {self.algorithm!r}; legal are {', '.join(ALGORITHMS)}")

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
        weight = filters_last(weight)
        form = self._form(c, k, (r, s), stride, dilation, n, (p, q)) if len(sources) <= 2 else "direct"
        if form == "direct":
            padded = self.pad(self.join(sources), padding[0], padding[0], padding[1], padding[1])
            self._direct(padded, weight, straight(weight), bias, relu, stride, dilation, y)
        else:
            window = {"pad": padding, "patch_in": (r, s), "stride": stride, "dilation": dilation}
            tiled.convolve(form, sources, y, straight(weight), bias, relu, None, **window)
        return y

    def conv2d_input_grad(
        self, gy: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        bias: Array | None = None, mask: Array | None = None,
    ) -> Array:  # fmt: skip
        """See Kernels.conv2d_input_grad."""
        k, c, r, s = weight.shape
        exact = tuple(input_size) == (gy.shape[2] * r, gy.shape[3] * s)
        upsampling = exact and self._separate((r, s), stride, padding, dilation)
        reach = (dilation[0] * (r - 1) - padding[0], dilation[1] * (s - 1) - padding[1])
        plain = stride == (1, 1) and min(reach) >= 0 and all(
            input_size[i] == gy.shape[2 + i] + dilation[i] * ((r, s)[i] - 1) - 2 * padding[i] for i in (0, 1)
        )  # fmt: skip
        ours = self.algorithm != "im2col" and groups == 1 and usable(gy, weight, bias, mask)
        if not ours or not (plain or upsampling):
            return super().conv2d_input_grad(gy, weight, input_size, stride, padding, dilation, groups, bias, mask)
        gx = self.empty_channels_last((gy.shape[0], c, *input_size), np.float32)
        weight = filters_last(weight)
        turned = transposed(weight, turned=True)
        form = "patches" if upsampling else self._form(k, c, (r, s), stride, dilation, gy.shape[0], input_size)
        if upsampling:
            tiled.convolve(form, (gy,), gx, transposed(weight, turned=False), bias, mask=mask, patch_out=(r, s))
        elif form == "direct":
            padded = self.pad(gy, reach[0], reach[0], reach[1], reach[1])
            swapped = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
            self._direct(padded, swapped, turned, bias, False, stride, dilation, gx)
            if mask is not None:
                gx *= mask > 0
        else:
            window = {"pad": reach, "patch_in": (r, s), "dilation": dilation}
            tiled.convolve(form, (gy,), gx, turned, bias, False, mask, **window)
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
        if form == "direct":
            padded = self.pad(self.join(sources), padding[0], padding[0], padding[1], padding[1])
            direct.weight_gradient(padded, gy, kernel, stride, dilation, gw)
        else:
            window = {"pad": padding, "patch_in": kernel, "stride": stride, "dilation": dilation}
            tiled.weight_gradient(form, sources, gy, gw, **window)
        return gw.transpose(3, 2, 0, 1)

    def _form(self, c: int, k: int, kernel: Pair, stride: Pair, dilation: Pair, n: int, out_size: Pair) -> str:
        """How to compute a convolution from c to k channels: "direct", or a form of kernels/cpu/tiles.h."""
        if self.algorithm == "naive":
            return "direct"
        winograd = kernel == (3, 3) and stride == dilation == (1, 1)
        if self.algorithm == "auto":
            if min(c, k) < 8:
                return "direct"
            return "winograd4" if winograd and tiled.quicker_by_tiles(n, out_size) else "patches"
        if winograd and self.algorithm != "direct":
            return self.algorithm
        return "patches" if stride == kernel and dilation == (1, 1) else "direct"

    def _direct(
        self, x: Array, weight: Array, description: Weight, bias: Array | None, relu: bool, stride: Pair,
        dilation: Pair, y: Array,
    ) -> None:  # fmt: skip
        """A padded x convolved into y by the algorithm that was asked for; weight (K, C, R, S) and its description."""
        if self.algorithm == "naive":
            direct.convolve_naively(x, weight, bias, relu, stride, dilation, y)
        else:
            direct.convolve(x, weight.shape[2:], description, bias, relu, stride, dilation, y)

    def _separate(self, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> bool:
        """Whether a transposed convolution's windows touch without overlap, so that it is a product of patches."""
        return stride == kernel and padding == (0, 0) and dilation == (1, 1) and self.algorithm != "naive"

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
        share = shares(n * h, gy)
        sums = np.zeros((share[-1], c))
        function("relu_bias_backward")(maps(gy), y, out, h, w, *share, sums)
        return sums.sum(0).astype(np.float32)

    def pad(self, x: Array, top: int, bottom: int, left: int, right: int, value: float = 0.0) -> Array:
        """See Kernels.pad."""
        if not usable(x) or value != 0 or not (top > 0 or bottom > 0 or left > 0 or right > 0) or x.size == 0:
            return super().pad(x, top, bottom, left, right, value)
        x = channels_last(x)
        n, c, h, w = x.shape
        out = self.empty_channels_last((n, c, h + top + bottom, w + left + right), np.float32)
        rows, columns = out.shape[2:]
        function("pad")(maps(x), maps(out), h, w, rows, columns, top, left, *shares(n * rows, out))
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
        function("max_pool")(maps(x), maps(y), winners, *out_size, *shares(x.shape[0] * out_size[0], x))
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
        won = np.ascontiguousarray(winners.transpose(0, 2, 3, 1))
        function("max_pool_backward")(maps(gy), maps(gx), won, p, q, *shares(gy.shape[0] * p, gx))
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
        function("sgd")(*flat, *settings, *shares(p.size, p))

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
        function("adam")(*flat, *(float(value) for value in settings), *shares(p.size, p))

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
        share, shift = shares(n * h, x), np.ascontiguousarray(x[0, :, 0, 0])
        sums = np.zeros((share[-1], 2, c))
        function("channel_moments")(maps(x), shift, h, w, *share, sums)
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
        function("scale_shift")(maps(x), maps(y), *vectors, relu, h, w, *shares(n * h, x))
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
        share = shares(n * h, x)
        sums = np.zeros((share[-1], 2, c))
        function("batch_norm_sums")(*given, centre, h, w, *share, sums)
        total, products = sums.sum(0)
        products -= rest * total
        slope, constant = batch_norm_slope(total, products, inverse, rest, x) if training else np.zeros((2, c))
        factor = scale * inverse
        vectors = [centre, *((factor * a).astype(np.float32) for a in (1, slope, constant))]
        function("batch_norm_input_grad")(*given, maps(gx), *vectors, h, w, *share)
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
        share = shares(kept[1].size, kept[0])
        sums = np.zeros((share[-1], 3))
        room = scratch("scores", share[0] * s.classes * width("panel_width"))
        function("softmax_cross_entropy")(s, 0 if gx is None else gx, factor, *share, room, sums)
        if dry.record is not None:
            sums[:, :2] = 1  # a loss over no pixels would be refused
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
            ignore_index, *(address(a) for a in weights),
        )  # fmt: skip
        return description, [rows, labels, *(a for a in weights if a is not None)]
