"""The heavy array routines in plain NumPy/CuPy: the readable truth that every faster kernel is checked against.

Symbols: N batch, C input channels, K filters (output channels), H W input rows columns, P Q output rows columns,
R S kernel rows columns. Arrays are logically (N, C, H, W); the routines keep them channels-last in memory,
i.e. as a transposed view of a contiguous (N, H, W, C) array, because then one pixel's channels are neighbours and a
convolution is a matrix product of (pixels, S*C) with (S*C, K). Any other memory order is accepted and copied once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from . import memory
from .cross_entropy import CrossEntropy
from .draws import NUMBERS_PER_BLOCK, Draws
from .precision import is_short, wide
from .threads import run_parallel
from .updates import Updates

Array = Any
Pair = tuple[int, int]

PIECE_NUMBERS = 1 << 16  # random numbers drawn at a time: a multiple of what a block of theirs holds
SLAB_PIXELS = 768  # output pixels a matrix product works on at a time: measured best between 512 and 1024


class Kernels(CrossEntropy, Updates):
    """Array routines for one array library `xp` (NumPy or CuPy). A faster backend overrides methods of this class."""

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        self._empty = memory.empty if xp is np else xp.empty

    # ---------------------------------------------------------------- helpers

    def empty_channels_last(self, shape: tuple[int, ...], dtype: Any, zero: bool = False) -> Array:
        """New (N, C, H, W) array whose memory order is (N, H, W, C)."""
        n, c, h, w = shape
        make = self.xp.zeros if zero else self._empty
        return make((n, h, w, c), dtype).transpose(0, 3, 1, 2)

    def erf(self, x: Array) -> Array:
        """The error function of each element, by SciPy or CuPy's copy of it."""
        if self.xp is np:
            from scipy import special
        elif self.xp.__name__ == "cupy":
            from cupyx.scipy import special
        else:
            special = self.xp.cupyx.scipy.special
        return special.erf(x)

    def run(self, work: Callable[[Any], None], items: Iterable[Any]) -> None:
        """Independent pieces of work: on threads for NumPy; one after another on a GPU, which is parallel inside."""
        if self.xp is np:
            run_parallel(work, items)
        else:
            for item in items:
                work(item)

    def pad(self, x: Array, top: int, bottom: int, left: int, right: int, value: float = 0.0) -> Array:
        """(N, C, H, W) with a constant border; a negative width crops. Without any border: x itself, not a copy."""
        n, c, h, w = x.shape
        x = x[:, :, max(0, -top) : h - max(0, -bottom), max(0, -left) : w - max(0, -right)]
        top, bottom, left, right = (max(0, width) for width in (top, bottom, left, right))
        if not (top or bottom or left or right):
            return x
        h, w = x.shape[2:]
        out = self.empty_channels_last((n, c, h + top + bottom, w + left + right), x.dtype)
        out[:, :, :top], out[:, :, top + h :] = value, value
        out[:, :, top : top + h, :left], out[:, :, top : top + h, left + w :] = value, value
        out[:, :, top : top + h, left : left + w] = x
        return out

    # ------------------------------------------------------------ convolution

    def conv2d(
        self, x: Any, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        relu: bool = False,
    ) -> Array:  # fmt: skip
        """y[n,k,p,q] = b[k] + sum_{c,r,s} x[n, c, p*stride + r*dilation - padding, ...] w[k,c,r,s] -> (N, K, P, Q).

        x may be a tuple of arrays whose channels follow one another. With relu, y = max(y, 0). With 16-bit maps the
        weight is rounded to their type; bias and sums are float32, and y is rounded once.
        """
        first = x[0] if isinstance(x, tuple) else x
        if is_short(first.dtype):
            how = (stride, padding, dilation, groups, relu)
            y = self.conv2d(widened(x), widened(weight.astype(first.dtype)), widened(bias), *how)
            return y.astype(first.dtype)
        kernel = weight.shape[2:]
        x = self.join(x)
        x = self.pad(x, padding[0], padding[0], padding[1], padding[1])
        out_size = tuple((x.shape[2 + i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1))
        y = self._by_group(
            lambda x, w, b: self._correlate(x, w.transpose(2, 3, 1, 0), b, out_size, stride, dilation),
            groups, (x, weight, bias), (1, 0, 0),
        )  # fmt: skip
        return self.xp.maximum(y, 0, out=y) if relu else y

    def join(self, x: Any) -> Array:
        """A tuple of (N, C_i, H, W) arrays as one array with all their channels; an array as it is."""
        if not isinstance(x, tuple):
            return x
        if len(x) == 1:
            return x[0]
        edges = [0, *accumulate(source.shape[1] for source in x)]
        n, _, h, w = x[0].shape
        out = self.empty_channels_last((n, edges[-1], h, w), self.xp.result_type(*x))

        def rows(part: slice) -> None:
            for source, (first, last) in zip(x, pairwise(edges), strict=True):
                out[:, first:last, part] = source[:, :, part]

        self.run(rows, self._row_slices(out))
        return out

    def conv2d_input_grad(
        self, gy: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        bias: Array | None = None, mask: Array | None = None,
    ) -> Array:  # fmt: skip
        """Gradient of `conv2d` with respect to its input, (N, C, H, W); also the transposed convolution of gy.

        A bias (C), for the latter's sake, is added to the result. With a mask, of its shape, the result is 0 where the
        mask is not above 0: the gradient goes on back through the ReLU that the input came from. 16-bit maps: as
        in conv2d.
        """
        if is_short(gy.dtype):
            how = (input_size, stride, padding, dilation, groups)
            short = widened(weight.astype(gy.dtype))
            return self.conv2d_input_grad(widened(gy), short, *how, widened(bias), widened(mask)).astype(gy.dtype)

        def whole(gy: Array, w: Array) -> Array:
            if stride == (1, 1):
                # A correlation of the padded gradient with the kernel turned by 180 degrees, K and C exchanged.
                before = [dilation[i] * (w.shape[2 + i] - 1) - padding[i] for i in (0, 1)]
                reach = [input_size[i] + dilation[i] * (w.shape[2 + i] - 1) for i in (0, 1)]
                after = [reach[i] - gy.shape[2 + i] - before[i] for i in (0, 1)]
                padded = self.pad(gy, before[0], after[0], before[1], after[1])
                turned = w[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
                return self._correlate(padded, turned, None, input_size, stride, dilation)
            return self._scatter_taps(gy, w, input_size, stride, padding, dilation)

        gx = self._by_group(whole, groups, (gy, weight), (1, 0))
        if bias is not None:
            gx += bias[:, None, None]
        if mask is not None:
            gx *= mask > 0
        return gx

    def conv2d_weight_grad(
        self, x: Any, gy: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Array:
        """Gradient of `conv2d` with respect to its weight: sum over n, p, q of x (shifted by the tap) times gy.

        Of 16-bit maps it is float32, as the weights are.
        """
        if is_short(gy.dtype):
            return self.conv2d_weight_grad(widened(x), widened(gy), kernel, stride, padding, dilation, groups)
        x = self.pad(self.join(x), padding[0], padding[0], padding[1], padding[1])
        parts = []
        for g in range(groups):
            own_x, own_gy = (self._group(a, g, groups, 1) for a in (x, gy))
            parts.append(self._correlate_with_gradient(own_x, own_gy, kernel, stride, dilation))
        return parts[0] if groups == 1 else self.xp.concatenate(parts)

    def _group(self, array: Array, g: int, groups: int, axis: int) -> Array:
        if array is None or groups == 1:
            return array
        size = array.shape[axis] // groups
        return array[:, g * size : (g + 1) * size] if axis else array[g * size : (g + 1) * size]

    def _by_group(
        self, work: Callable[..., Array], groups: int, arrays: tuple[Array, ...], axes: tuple[int, ...]
    ) -> Array:
        """Run `work` on each group's share of the arrays (cut along `axes`); join the results along the channels."""
        parts = [
            work(*(self._group(a, g, groups, axis) for a, axis in zip(arrays, axes, strict=True)))
            for g in range(groups)
        ]
        return parts[0] if groups == 1 else self.xp.concatenate(parts, axis=1)

    def _slabs(self, n: int, rows: int, columns: int) -> list[tuple[int, int, int]]:
        """(image, first row, row count) of pieces of about SLAB_PIXELS pixels, evenly cut, at least two an image."""
        count = min(rows, max(2, -(-rows * columns // SLAB_PIXELS)))
        edges = [rows * i // count for i in range(count + 1)]
        return [(b, lo, hi - lo) for b in range(n) for lo, hi in pairwise(edges)]

    def _patch_rows(
        self, x: Array, b: int, first: int, count: int, step: int, q: int, s: int, sw: int, dw: int
    ) -> Array:
        """im2col along the columns only: (count, Q, S*C) from rows first, first+step, ... of channels-last image b.

        x is (N, H, W, C). Element [i, q, (s, c)] is x[b, first + i*step, q*sw + s*dw, c]: S copies of the image
        rather than the R*S of a whole im2col, since the R row taps are whole-row slices of this array.
        """
        _, row, column, channel = x.strides
        view = self.xp.lib.stride_tricks.as_strided(
            x[b, first:], (count, q, s, x.shape[3]), (row * step, column * sw, column * dw, channel)
        )
        return self.xp.ascontiguousarray(view).reshape(count, q, s * x.shape[3])

    def _correlate(
        self, x: Array, weight: Array, bias: Array | None, out_size: tuple[int, ...], stride: Pair, dilation: Pair
    ) -> Array:
        """Correlation of a padded (N, C, H, W) with a weight (R, S, C, K): slabs of rows, one product a row tap."""
        xp = self.xp
        x = xp.ascontiguousarray(x.transpose(0, 2, 3, 1))
        r, s, c, k = weight.shape
        (p, q), (sh, sw), (dh, dw) = out_size, stride, dilation
        taps = xp.ascontiguousarray(weight).reshape(r, s * c, k)
        out = self._empty((x.shape[0], p, q, k), x.dtype)

        def slab(item: tuple[int, int, int]) -> None:
            b, top, rows = item
            y = out[b, top : top + rows].reshape(rows * q, k)
            if sh == 1:  # neighbouring row taps share their rows
                shared = self._patch_rows(x, b, top, rows + (r - 1) * dh, 1, q, s, sw, dw)
            for i in range(r):
                if sh == 1:
                    patches = shared[i * dh : i * dh + rows]
                else:
                    patches = self._patch_rows(x, b, top * sh + i * dh, rows, sh, q, s, sw, dw)
                patches = patches.reshape(rows * q, s * c)
                if i == 0:
                    xp.matmul(patches, taps[i], out=y)
                else:
                    y += patches @ taps[i]
            if bias is not None:
                y += bias

        self.run(slab, self._slabs(x.shape[0], p, q))
        return out.transpose(0, 3, 1, 2)

    def _scatter_taps(
        self, gy: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        """Each gradient pixel times the kernel, added into the R*S input pixels that it was computed from."""
        xp = self.xp
        k, c, r, s = weight.shape
        (h, w), (sh, sw), (ph, pw), (dh, dw) = input_size, stride, padding, dilation
        gy = xp.ascontiguousarray(gy.transpose(0, 2, 3, 1))
        n, p, q, _ = gy.shape
        flat = xp.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(k, r * s * c)
        gx = xp.zeros((n, max(h + 2 * ph, (p - 1) * sh + dh * (r - 1) + 1), w + 2 * pw, c), gy.dtype)

        def slab(item: tuple[int, int, int]) -> None:
            b, top, rows = item
            products = (gy[b, top : top + rows].reshape(rows * q, k) @ flat).reshape(rows, q, r, s, c)
            for i in range(r):
                row = top * sh + i * dh
                for j in range(s):
                    gx[b, row : row + (rows - 1) * sh + 1 : sh, j * dw : j * dw + (q - 1) * sw + 1 : sw] += products[
                        :, :, i, j
                    ]

        slabs = self._slabs(n, p, q)
        if dh * (r - 1) < sh:  # slabs write to rows of their own
            self.run(slab, slabs)
        else:
            for item in slabs:
                slab(item)
        return gx[:, ph : ph + h, pw : pw + w].transpose(0, 3, 1, 2)

    def _correlate_with_gradient(self, x: Array, gy: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Array:
        """gw[k,c,r,s] = sum_{n,p,q} gy[n,k,p,q] x[n,c,p*sh+r*dh,q*sw+s*dw], x padded; memory order (R, S, C, K)."""
        xp = self.xp
        x = xp.ascontiguousarray(x.transpose(0, 2, 3, 1))
        gy = xp.ascontiguousarray(gy.transpose(0, 2, 3, 1))
        (r, s), (sh, sw), (dh, dw) = kernel, stride, dilation
        n, p, q, k = gy.shape
        c = x.shape[3]
        gw = xp.zeros((r, s * c, k), x.dtype)
        slabs = self._slabs(n, p, q)

        def part(item: tuple[int, int]) -> None:
            i, first = item
            filters = slice(first, first + 64)
            total = gw[i, :, filters]
            for b, top, rows in slabs:
                patches = self._patch_rows(x, b, top * sh + i * dh, rows, sh, q, s, sw, dw).reshape(rows * q, s * c)
                total += patches.T @ gy[b, top : top + rows, :, filters].reshape(rows * q, -1)

        self.run(part, [(i, first) for i in range(r) for first in range(0, k, 64)])
        return gw.reshape(r, s, c, k).transpose(3, 2, 0, 1)

    def relu_bias_backward(self, gy: Array, y: Array, owned: bool = False) -> tuple[Array, Array]:
        """Back through y = relu(x + bias): gradients of x (gy where y > 0) and bias. `owned`: gy may be overwritten."""
        g = self.xp.multiply(gy, y > 0, out=gy if owned else None)
        return g, self.channel_sums(g)

    def channel_sums(self, x: Array) -> Array:
        """Sum of an (N, C, H, W) array over all axes but the channels, accumulated in float64; float32 of 16 bits."""
        return self.xp.sum(x, axis=(0, 2, 3), dtype=np.float64).astype(wide(x.dtype))

    def relu(self, x: Array) -> Array:
        """max(x, 0)."""
        return self.xp.maximum(x, 0)

    def cast(self, x: Array, dtype: Any) -> Array:
        """The same values in another floating-point type."""
        return x.astype(dtype)

    def dropout(self, x: Array, p: float, draws: Draws) -> Array:
        """Each value set to 0 with probability p, the others divided by 1 - p.

        A value is 0 where its number of `draws` is below p: the numbers are dealt out in the order (N, H, W, C), in
        which maps lie in memory, else in C order.
        """
        order = (0, 2, 3, 1) if x.ndim == 4 else tuple(range(x.ndim))
        values = self.xp.ascontiguousarray(x.transpose(order))
        y = self._empty(values.shape, x.dtype)
        given, made = values.reshape(-1), y.reshape(-1)
        scale = x.dtype.type(1 / (1 - p))

        def piece(first: int) -> None:
            part = slice(first, min(first + PIECE_NUMBERS, x.size))
            numbers = draws.skip(first // NUMBERS_PER_BLOCK).uniform(part.stop - first)
            factors = (numbers >= p).astype(x.dtype) * scale
            self.xp.multiply(given[part], self.xp.asarray(factors), out=made[part])

        self.run(piece, range(0, x.size, PIECE_NUMBERS))
        return y.transpose(np.argsort(order).tolist())

    def record_draws(self, start: Draws) -> contextlib.AbstractContextManager[Any]:
        """Within it a step is recorded whose dropout is to draw other numbers each time that it is played.

        `start`: where the engine's generator stands. Gives an object to `set(draws)` with before a play; None here.
        """
        return contextlib.nullcontext()

    def add_into(self, total: Array, x: Array) -> None:
        """total += x, large arrays side by side on threads."""
        if total.ndim < 3 or total.size < 100_000:
            total += x
            return
        step = -(-total.shape[-2] // 16)

        def rows(part: slice) -> None:
            total[..., part, :] += x[..., part, :]

        self.run(rows, [slice(top, top + step) for top in range(0, total.shape[-2], step)])

    # ---------------------------------------------------------------- pooling

    def _windows(self, x: Array, out_size: Pair, kernel: Pair, stride: Pair, dilation: Pair) -> list[Array]:
        """For each tap of the window, row-major, the strided view of x that holds it for all output pixels."""
        (p, q), (sh, sw), (dh, dw) = out_size, stride, dilation
        return [
            x[:, :, i * dh : i * dh + (p - 1) * sh + 1 : sh, j * dw : j * dw + (q - 1) * sw + 1 : sw]
            for i in range(kernel[0])
            for j in range(kernel[1])
        ]

    def _pool_padded(
        self, x: Array, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, value: float
    ) -> Array:
        """x with the border that windows of a pool reach: `padding` before, whatever the last window needs after."""
        need = [(out_size[i] - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)]
        after = [max(0, need[i] - x.shape[2 + i] - padding[i]) for i in (0, 1)]
        return self.pad(x, padding[0], after[0], padding[1], after[1], value)

    def max_pool2d(
        self, x: Array, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> tuple[Array, Array]:
        """Maximum of each window and its winner: the tap's row-major number, the first among equals (NaN wins)."""
        xp = self.xp
        x = self._pool_padded(x, out_size, kernel, stride, padding, dilation, -np.inf)
        taps = self._windows(x, out_size, kernel, stride, dilation)
        y = self.empty_channels_last((*x.shape[:2], *out_size), x.dtype)
        winners = self.empty_channels_last(y.shape, np.uint8 if len(taps) <= 256 else np.int32)

        def rows(part: slice) -> None:
            best, winner = y[:, :, part], winners[:, :, part]
            best[...], winner[...] = taps[0][:, :, part], 0
            for number, tap in enumerate(taps[1:], 1):
                candidate = tap[:, :, part]
                better = (candidate > best) | (candidate != candidate)  # NaN wins, the last one of several
                xp.copyto(winner, number, where=better)
                xp.copyto(best, candidate, where=better)

        self.run(rows, self._row_slices(y))
        return y, winners

    def max_pool2d_scatter(
        self, gy: Array, winners: Array, input_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        """Each gradient goes to the window's winner: the gradient of `max_pool2d`, (N, C, H, W)."""
        like = self.empty_channels_last((*gy.shape[:2], *input_size), gy.dtype, zero=True)
        gx = self._pool_padded(like, gy.shape[2:], kernel, stride, padding, dilation, 0.0)
        taps = self._windows(gx, gy.shape[2:], kernel, stride, dilation)

        def rows(part: slice) -> None:
            g, winner = gy[:, :, part], winners[:, :, part]
            for number, tap in enumerate(taps):
                tap[:, :, part] += g * (winner == number)

        overlapping = dilation[0] * (kernel[0] - 1) >= stride[0]
        self.run(rows, [slice(None)] if overlapping else self._row_slices(gy))
        return gx[:, :, padding[0] : padding[0] + input_size[0], padding[1] : padding[1] + input_size[1]]

    def max_pool2d_gather(
        self, x: Array, winners: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        """The value of x at each window's given winner, (N, C, P, Q): the transpose of `max_pool2d_scatter`."""
        out_size = winners.shape[2:]
        x = self._pool_padded(x, out_size, kernel, stride, padding, dilation, 0.0)
        y = self.empty_channels_last(winners.shape, x.dtype, zero=True)
        for number, tap in enumerate(self._windows(x, out_size, kernel, stride, dilation)):
            y += tap * (winners == number)
        return y

    def sum_pool2d(self, x: Array, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        """Sum over each window of the zero-padded x, (N, C, P, Q)."""
        x = self._pool_padded(x, out_size, kernel, stride, padding, (1, 1), 0.0)
        y = self.empty_channels_last((*x.shape[:2], *out_size), x.dtype, zero=True)
        for tap in self._windows(x, out_size, kernel, stride, (1, 1)):
            y += tap
        return y

    def sum_pool2d_scatter(self, gy: Array, input_size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Array:
        """Each value added to all pixels of its window, (N, C, H, W): the transpose of `sum_pool2d`."""
        like = self.empty_channels_last((*gy.shape[:2], *input_size), gy.dtype, zero=True)
        gx = self._pool_padded(like, gy.shape[2:], kernel, stride, padding, (1, 1), 0.0)
        for tap in self._windows(gx, gy.shape[2:], kernel, stride, (1, 1)):
            tap += gy
        return gx[:, :, padding[0] : padding[0] + input_size[0], padding[1] : padding[1] + input_size[1]]

    def _row_slices(self, y: Array) -> list[slice]:
        """Ranges of output rows of about 256 KiB each, for elementwise work that should stay in cache."""
        n, c, p, q = y.shape
        step = max(1, 65536 // max(1, n * c * q))
        return [slice(top, top + step) for top in range(0, p, step)]

    # ------------------------------------------------------------ normalisation

    def channel_moments(self, x: Array) -> tuple[Array, Array]:
        """Mean and variance (divided by the count) of every channel of (N, C, ...), both (C) in float64.

        The variance is that of x less its mean, so that a large mean costs no digits.
        """
        x = widened(x)
        xp, axes = self.xp, (0, *range(2, x.ndim))
        count = max(1, x.size // max(1, x.shape[1]))
        mean = xp.sum(x, axis=axes, dtype=np.float64) / count
        centred = x - per_channel(mean.astype(x.dtype), x.ndim)
        rest = xp.sum(centred, axis=axes, dtype=np.float64) / count  # what rounding the mean to x's type leaves
        return mean, xp.sum(centred * centred, axis=axes, dtype=np.float64) / count - rest * rest

    def scale_shift(self, x: Array, centre: Array, scale: Array, shift: Array, relu: bool = False) -> Array:
        """y = (x - centre) scale + shift for x (N, C, ...), the others (C) of x's type. With relu, y = max(y, 0).

        With 16-bit x the others are float32; y is of x's type.
        """
        if is_short(x.dtype):
            return self.scale_shift(widened(x), centre, scale, shift, relu).astype(x.dtype)
        y = x - per_channel(centre, x.ndim)
        y *= per_channel(scale, x.ndim)
        y += per_channel(shift, x.ndim)
        return self.xp.maximum(y, 0, out=y) if relu else y

    def batch_norm_backward(
        self, gy: Array, x: Array, y: Array | None, mean: Array, inverse: Array, scale: Array, training: bool,
        owned: bool = False,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """Back through y = scale (x - mean) inverse + shift: gradients of x, of scale and of shift, g being that of y.

        With z = (x - mean) inverse and n values a channel: d shift = sum g; d scale = sum g z; and d x = scale inverse
        (g - (sum g + z sum g z) / n) in training, where mean and inverse = 1 / sqrt(var + eps) come from x itself, else
        scale inverse g. Ioffe and Szegedy 2015, section 3. y is given if max(y, 0) followed: then g = gy where y > 0.
        x, y, gy (N, C, ...); mean, inverse, scale and the two sums (C) in float64. `owned`: gy may be overwritten.
        """
        if is_short(x.dtype):
            wider = (widened(gy), widened(x), widened(y), mean, inverse, scale, training, True)
            gx, *sums = self.batch_norm_backward(*wider)
            return gx.astype(x.dtype), sums[0], sums[1]
        xp, ndim, axes = self.xp, x.ndim, (0, *range(2, x.ndim))
        g = gy if y is None else xp.multiply(gy, y > 0, out=gy if owned else None)
        centre, rest = rounded(mean, x.dtype)
        centred = x - per_channel(centre, ndim)
        total = xp.sum(g, axis=axes, dtype=np.float64)
        products = xp.sum(g * centred, axis=axes, dtype=np.float64) - rest * total
        slope, constant = batch_norm_slope(total, products, inverse, rest, x)
        factor = scale * inverse
        gx = g * per_channel(factor.astype(x.dtype), ndim)
        if training:
            gx -= centred * per_channel((factor * slope).astype(x.dtype), ndim)
            gx -= per_channel((factor * constant).astype(x.dtype), ndim)
        return gx, products * inverse, total


def widened(x: Any) -> Any:
    """16-bit arrays (also a tuple of them) in float32; others, and None, as they are."""
    if isinstance(x, tuple):
        return tuple(widened(part) for part in x)
    return x if x is None or not is_short(x.dtype) else x.astype(np.float32)


def per_channel(values: Array, ndim: int) -> Array:
    """(C) as an array that meets (N, C, ...) of `ndim` axes."""
    return values.reshape(-1, *([1] * (ndim - 2)))


def rounded(mean: Array, dtype: Any) -> tuple[Array, Array]:
    """The float64 mean in another type, and what that leaves: x - mean = (x - rounded) - rest, both however large."""
    centre = mean.astype(dtype)
    return centre, mean - centre


def batch_norm_slope(total: Array, products: Array, inverse: Array, rest: Array, x: Array) -> tuple[Array, Array]:
    """slope, constant (C) such that (sum g + z sum g z) / n = slope (x - centre) + constant; total = sum g, products =
    sum g (x - mean), z = (x - mean) inverse, mean = centre + rest.
    """
    count = max(1, x.size // max(1, x.shape[1]))
    slope = products * inverse * inverse / count
    return slope, total / count - slope * rest
