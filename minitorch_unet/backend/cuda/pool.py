"""CUDA kernels of max pooling. Symbols: N batch, C channels, H W input rows columns, P Q output rows columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..reference import Array, Pair
from .base import map_strides, type_name
from .launcher import Strided
from .streaming import MOST_PIXELS, THREADS, StreamBase, streamable

MOST_TAPS = 256  # of a window: a winner is one byte
HALVING = ((2, 2), (2, 2), (0, 0), (1, 1))  # kernel, stride, padding, dilation of the U-Net's pools


class PoolKernels(StreamBase):
    """Overrides for maps (N, C, H, W) of float32, float16 and bfloat16; other arrays fall back to CuPy."""

    def max_pool2d(
        self, x: Array, out_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> tuple[Array, Array]:
        """See Kernels.max_pool2d."""
        kind = type_name(x)
        if kind is None or not _servable(x) or min(out_size) < 1 or math.prod(kernel) > MOST_TAPS:
            return super().max_pool2d(x, out_size, kernel, stride, padding, dilation)
        x = self.as_map(x)
        h, w = x.shape[2:]
        y = self.empty_channels_last((*x.shape[:2], *out_size), x.dtype)
        winners = self.empty_channels_last(y.shape, np.uint8)
        inside = 2 * out_size[0] <= h and 2 * out_size[1] <= w
        if inside and (kernel, stride, padding, dilation) == HALVING:
            self._pool("halve", kind, y, y, x=x, y=y, winners=winners)
        else:
            window = _window(kernel, stride, padding, dilation) | {"h": h, "w": w}
            self._pool("max_pool2d", kind, y, y, window, x=x, y=y, winners=winners)
        return y, winners

    def max_pool2d_scatter(
        self, gy: Array, winners: Array, input_size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        """See Kernels.max_pool2d_scatter."""
        kind, how = type_name(gy), (kernel, stride, padding, dilation)
        h, w = input_size
        if not self._known(kind, winners, gy) or min(h, w) < 1 or h * w * gy.shape[1] > MOST_PIXELS:
            return super().max_pool2d_scatter(gy, winners, input_size, *how)
        gy, winners = self.as_map(gy), self.channels_last(winners)
        p, q = gy.shape[2:]
        gx = self.empty_channels_last((*gy.shape[:2], h, w), gy.dtype)
        if (h, w) == (2 * p, 2 * q) and how == HALVING:
            self._pool("halve_backward", kind, gy, gy, gy=gy, winners=winners, gx=gx)
        else:
            window = _window(*how) | {"h": h, "w": w}
            self._pool("max_pool2d_scatter", kind, gx, gy, window, gy=gy, winners=winners, gx=gx)
        return gx

    def max_pool2d_gather(
        self, x: Array, winners: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
    ) -> Array:
        """See Kernels.max_pool2d_gather."""
        kind, how = type_name(x), (kernel, stride, padding, dilation)
        if not self._known(kind, winners, x):
            return super().max_pool2d_gather(x, winners, *how)
        x, winners = self.as_map(x), self.channels_last(winners)
        y = self.empty_channels_last(winners.shape, x.dtype)
        window = _window(*how) | {"h": x.shape[2], "w": x.shape[3]}
        del window["r"]
        self._pool("max_pool2d_gather", kind, y, winners, window, x=x, winners=winners, y=y)
        return y

    def _known(self, kind: str | None, winners: Array, x: Array) -> bool:
        """Whether the kernels can serve these winners with this map, which is read or sent to them."""
        return kind is not None and winners.dtype == np.uint8 and _servable(x, winners)

    def _pool(
        self, name: str, kind: str | None, served: Array, pooled: Array, window: dict[str, int] | None = None,
        **arrays: Array,
    ) -> None:  # fmt: skip
        """Launch a kernel whose threads serve the pixels of `served`; P and Q are those of `pooled`.

        Of the arrays, x or gy may have gaps. Without a window it is one of the kernels for HALVING.
        """
        n, channels = served.shape[:2]
        p, q = pooled.shape[2:]
        arguments: dict[str, Any] = {**arrays, "p": p, "q": q, "channels": channels, **(window or {})}
        name_given = "x" if "x" in arrays else "gy"
        given = arrays[name_given]
        strides = map_strides(given) or (0, 0, 0)
        arguments[name_given] = Strided(given)
        arguments |= zip((f"{name_given}_{axis}" for axis in ("image", "row", "pixel")), strides, strict=True)
        width = 1
        if window is None:
            width = 16 // given.itemsize
            aligned = given.data.ptr % 16 == 0 and arrays["winners"].data.ptr % width == 0
            wide = aligned and all(step % width == 0 for step in (channels, *strides))
            width = width if wide else 1
            arguments["wide"] = wide
        threads = served[:1].size // width
        self.launch("pool.cu", name, (-(-threads // THREADS), n), THREADS, {"T": kind or ""}, **arguments)


def _servable(*maps: Array) -> bool:
    """Whether the kernels can serve maps of this size: they count an image's values in 32 bits."""
    return streamable(*maps) and all(x[:1].size <= MOST_PIXELS for x in maps)


def _window(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> dict[str, int]:
    """The kernels' arguments for a window."""
    sizes = {"r": kernel[0], "s": kernel[1]}
    for name, pair in (("stride", stride), ("pad", padding), ("dilation", dilation)):
        sizes |= {f"{name}_h": pair[0], f"{name}_w": pair[1]}
    return sizes
