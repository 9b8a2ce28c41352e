"""CUDA kernels of batch normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..reference import Array
from .base import type_name
from .streaming import THREADS, StreamBase, streamable

SUMMED = 4  # channels of a thread that keeps sums, as in norm.cu


class NormKernels(StreamBase):
    """Overrides for maps (N, C, H, W) of float32, float16 and bfloat16; other arrays fall back to CuPy."""

    def channel_moments(self, x: Array) -> tuple[Array, Array]:
        """See Kernels.channel_moments. In one pass: a value of each channel is taken off before sums are formed."""
        kind = type_name(x)
        if kind is None or not streamable(x):
            return super().channel_moments(x)
        x = self.as_map(x)
        channels = x.shape[1]
        stream = self.stream(SUMMED, sums=True, x=x)
        parts = self.xp.empty((stream.pieces, 2, channels), np.float64)
        self._norm("channel_moments", kind, stream.grid, **stream.arguments, parts=parts)
        mean, variance = self.xp.empty((2, channels), np.float64)
        arguments = _finish(parts) | {"values": x.size // channels, "x": stream.arguments["x"]}
        self._norm("finish_moments", kind, -(-channels // 32), **arguments, mean=mean, variance=variance)
        return mean, variance

    def scale_shift(self, x: Array, centre: Array, scale: Array, shift: Array, relu: bool = False) -> Array:
        """See Kernels.scale_shift."""
        kind = type_name(x)
        if kind is None or type_name(centre, scale, shift) != "float" or not streamable(x):
            return super().scale_shift(x, centre, scale, shift, relu)
        x = self.as_map(x)
        y = self.empty_channels_last(x.shape, x.dtype)
        vectors = {
            name: self.xp.ascontiguousarray(values)
            for name, values in (("centre", centre), ("scale", scale), ("shift", shift))
        }
        stream = self.stream(x=x, y=y)
        self._norm("scale_shift", kind, stream.grid, **stream.arguments, **vectors, relu=relu)
        return y

    def batch_norm_backward(
        self, gy: Array, x: Array, y: Array | None, mean: Array, inverse: Array, scale: Array, training: bool,
        owned: bool = False,
    ) -> tuple[Array, Array, Array]:  # fmt: skip
        """See Kernels.batch_norm_backward. One pass for the sums, one for the result."""
        kind = type_name(gy, x, y)
        doubles = all(values.dtype == np.float64 for values in (mean, inverse, scale))
        if kind is None or not doubles or not streamable(gy, x, y):
            return super().batch_norm_backward(gy, x, y, mean, inverse, scale, training, owned)
        gy, x, y = self.as_map(gy), self.as_map(x), None if y is None else self.as_map(y)
        channels = x.shape[1]
        gx = gy if owned else self.empty_channels_last(x.shape, x.dtype)
        given = {
            name: self.xp.ascontiguousarray(values)
            for name, values in (("mean", mean), ("inverse", inverse), ("scale", scale))
        }
        stream = self.stream(SUMMED, sums=True, gy=gy, y=y, x=x)
        parts = self.xp.empty((stream.pieces, 2, channels), np.float64)
        self._norm("batch_norm_sums", kind, stream.grid, **stream.arguments, mean=given["mean"], parts=parts)
        scale_gradient, shift_gradient = self.xp.empty((2, channels), np.float64)
        vectors = self.xp.empty((4, channels), np.float32)
        results = {"scale_gradient": scale_gradient, "shift_gradient": shift_gradient, "vectors": vectors}
        arguments = _finish(parts) | given | results | {"values": x.size // channels, "training": training}
        self._norm("finish_batch_norm", kind, -(-channels // 32), **arguments)
        stream = self.stream(gy=gy, y=y, x=x, gx=gx)
        self._norm("batch_norm_input_gradient", kind, stream.grid, **stream.arguments, vectors=vectors)
        return gx, scale_gradient, shift_gradient

    def _norm(self, name: str, kind: str, grid: Any, **arguments: Any) -> None:
        self.launch("norm.cu", name, grid, THREADS, {"T": kind}, **arguments)


def _finish(parts: Array) -> dict[str, Any]:
    """The arguments of a kernel that adds up the parts (pieces, 2, C)."""
    return {"parts": parts, "count": parts.shape[0], "channels": parts.shape[2]}
