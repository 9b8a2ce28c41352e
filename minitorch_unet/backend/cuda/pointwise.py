"""CUDA kernels that go once through maps: ReLU and its way back, sums over channels, addition, borders, copies."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from ..reference import Array
from .base import type_name
from .streaming import MOST_PIXELS, THREADS, StreamBase, streamable

# The conversions that kernels/cuda/convert.cu is compiled for: between float32 and 16 bits, and copies.
CONVERSIONS = {
    *((kind, kind) for kind in ("float", "half", "bf16")),
    *(("float", kind) for kind in ("half", "bf16")),
    *((kind, "float") for kind in ("half", "bf16")),
}


class PointwiseKernels(StreamBase):
    """Overrides for maps (N, C, H, W) of float32, float16 and bfloat16; other arrays fall back to CuPy."""

    def relu_bias_backward(self, gy: Array, y: Array, owned: bool = False) -> tuple[Array, Array]:
        """See Kernels.relu_bias_backward. The bias's gradient is float32 whatever the maps' type."""
        kind = type_name(gy, y)
        if kind is None or not streamable(gy, y) or gy.shape != y.shape:
            return super().relu_bias_backward(gy, y, owned)
        gy, y = self.as_map(gy), self.as_map(y)
        g = gy if owned else self.empty_channels_last(gy.shape, gy.dtype)
        return g, self._channel_sums(kind, gy, y, g)

    def channel_sums(self, x: Array) -> Array:
        """See Kernels.channel_sums. The sums are float32 whatever the map's type."""
        kind = type_name(x)
        if kind is None or not streamable(x):
            return super().channel_sums(x)
        return self._channel_sums(kind, self.as_map(x), None, None)

    def _channel_sums(self, kind: str, gy: Array, y: Array | None, g: Array | None) -> Array:
        """Sums over the channels of gy, or (with y) of gy where y > 0, which is then written to g."""
        channels = gy.shape[1]
        stream = self.stream(gy=gy, y=y, g=g, sums=True)
        parts = self.xp.empty((stream.pieces, channels), np.float64)
        self.launch("pointwise.cu", "channel_sums", stream.grid, THREADS, {"T": kind}, **stream.arguments, parts=parts)
        sums = self.xp.empty(channels, np.float32)
        how: dict[str, Any] = {"parts": parts, "count": stream.pieces, "channels": channels, "sums": sums}
        self.launch("pointwise.cu", "finish_sums", -(-channels // 32), THREADS, {"T": kind}, **how)
        return sums

    def add_into(self, total: Array, x: Array) -> None:
        """See Kernels.add_into."""
        kind = type_name(total, x)
        same = total.shape == x.shape and streamable(total, x)
        if kind is None or not same or self.as_map(total) is not total or 0 in total.strides:
            super().add_into(total, x)
            return
        stream = self.stream(total=total, x=self.as_map(x), mixed=True)
        self.launch("pointwise.cu", "add_into", stream.grid, THREADS, {"T": kind}, **stream.arguments)

    def pad(self, x: Array, top: int, bottom: int, left: int, right: int, value: float = 0.0) -> Array:
        """See Kernels.pad."""
        kind = type_name(x)
        n, c, h, w = x.shape
        shape = (n, c, h + top + bottom, w + left + right)
        grown = max(top, bottom, left, right) > 0
        if kind is None or not grown or min(shape) < 1 or not streamable(x):
            return super().pad(x, top, bottom, left, right, value)
        x = self.as_map(x)
        out = self.empty_channels_last(shape, x.dtype)
        stream = self.stream(out=out, x=x, merge=False)
        how: dict[str, Any] = {"h": h, "w": w, "top": top, "left": left, "value": value}
        self.launch("pointwise.cu", "pad", stream.grid, THREADS, {"T": kind}, **stream.arguments, **how)
        return out

    def join(self, x: Any) -> Array:
        """See Kernels.join."""
        if not isinstance(x, tuple) or len(x) == 1:
            return super().join(x)
        kind = type_name(*x)
        if kind is None or not streamable(*x):
            return super().join(x)
        edges = [0, *accumulate(source.shape[1] for source in x)]
        n, _, h, w = x[0].shape
        out = self.empty_channels_last((n, edges[-1], h, w), x[0].dtype)
        for source, (first, last) in zip(x, pairwise(edges), strict=True):
            self._convert(self.as_map(source), out[:, first:last])
        return out

    def _convert(self, x: Array, y: Array, relu: bool = False) -> None:
        """y = x, or max(x, 0), for maps of one shape as `as_map` gives them."""
        stream = self.stream(x=x, y=y, mixed=True)
        kinds = {"FROM": type_name(x) or "", "TO": type_name(y) or ""}
        self.launch("convert.cu", "convert", stream.grid, THREADS, kinds, **stream.arguments, relu=relu)

    def _converted(self, x: Array, dtype: Any, relu: bool) -> Array | None:
        """x, or max(x, 0), as a new array of that type: a map channels-last, others in C order. None if we cannot."""
        y = self.xp.empty(x.shape, dtype) if x.ndim != 4 else self.empty_channels_last(x.shape, dtype)
        if (type_name(x), type_name(y)) not in CONVERSIONS:
            return None
        if x.ndim == 4:
            if not streamable(x):
                return None
            self._convert(self.as_map(x), y, relu)
            return y
        if not (x.flags.c_contiguous and 0 < x.size <= MOST_PIXELS):
            return None
        self._convert(x.reshape(1, 1, 1, -1), y.reshape(1, 1, 1, -1), relu)
        return y

    def cast(self, x: Array, dtype: Any) -> Array:
        """See Kernels.cast."""
        made = self._converted(x, np.dtype(dtype), relu=False) if x.dtype != dtype else None
        return super().cast(x, dtype) if made is None else made

    def relu(self, x: Array) -> Array:
        """See Kernels.relu."""
        made = self._converted(x, x.dtype, relu=True)
        return super().relu(x) if made is None else made
