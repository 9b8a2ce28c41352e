"""Convolutions on CUDA: a ladder of kernels, and which of them serves a call.

`algorithm` chooses the rung: "naive" (a thread a value), "tiled" (shared memory), "gemm" (blocked in registers,
float32), "mma" (tensor cores), "hopper" (those of compute capability 9.x, fed by its copy engine: hopper.py), and
"auto", the last where it can, else the quickest by estimate. What a rung cannot do, a lower one does: "hopper" wants
16-bit maps or TF32, and channels that fill its tiles; "mma" wants channels in whole pieces of 16 bytes; all but "naive"
want at most 32 taps, and of input gradients stride 1 or windows that touch. What none can do (types other than float32,
float16 and bfloat16, several groups) the reference does.

On tensor cores float32 maps are computed with three TF32 products for one (nearly float32's accuracy, but an infinity
becomes NaN), or, with set_float32_matmul_precision("high"), with one. Symbols as in reference.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..reference import Array, Pair
from . import hopper
from .base import type_name
from .conv_launch import ALGORITHMS, ConvLauncher, Pass
from .conv_shapes import Window, aligned, describe, readable
from .hopper_plan import can_forward, can_input_grad, can_weight_grad

__all__ = ["ALGORITHMS", "ConvKernels"]


class ConvKernels(ConvLauncher):
    """Overrides for maps (N, C, H, W) of float32, float16 and bfloat16; weights are float32 (or of the maps' type)."""

    def conv2d(
        self, x: Any, weight: Array, bias: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        relu: bool = False,
    ) -> Array:  # fmt: skip
        """See Kernels.conv2d."""
        arguments = (x, weight, bias, stride, padding, dilation, groups, relu)
        sources, window = self._sources(x), Window(weight.shape[2:], stride, padding, dilation)
        size, kind = window.output_size(sources[0].shape[2:]), type_name(*sources)
        if kind is None or groups != 1 or min(size) < 1 or not _filled(*sources, weight):
            return super().conv2d(*arguments)
        if self.prefers_hopper and can_forward(self, sources, weight, window):
            return hopper.forward(self, sources, weight, bias, window, relu)
        conv = describe(sources, window, size, weight.shape[0], relu=int(relu))
        if conv is None:
            return super().conv2d(*arguments)
        depths = [window.taps * source.shape[1] for source in sources]
        y = self.empty_channels_last((sources[0].shape[0], weight.shape[0], *size), sources[0].dtype)
        job = Pass("forward", kind, conv, conv, depths, _vector(sources))
        self.run_pass(job, _named(sources) | {"weight": weight}, {"y": y}, bias)
        return y

    def conv2d_input_grad(
        self, gy: Array, weight: Array, input_size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
        bias: Array | None = None, mask: Array | None = None,
    ) -> Array:  # fmt: skip
        """See Kernels.conv2d_input_grad."""
        arguments = (gy, weight, input_size, stride, padding, dilation, groups, bias, mask)
        window, kind = Window(weight.shape[2:], stride, padding, dilation), type_name(gy, mask)
        if kind is None or groups != 1 or min(input_size) < 1 or not _filled(gy, weight):
            return super().conv2d_input_grad(*arguments)
        (k, c, r, s), size = weight.shape, gy.shape[2:]
        gy = gy if readable(gy) else self.channels_last(gy)
        if self.prefers_hopper and can_input_grad(self, gy, weight, input_size, window):
            return hopper.input_grad(self, gy, weight, input_size, window, bias, mask)
        plain = describe([gy], window, size, c, rows=gy.shape[0] * math.prod(input_size), inner=input_size)
        product, depth = None, k
        if window.touching and tuple(input_size) == (size[0] * r, size[1] * s):
            product = describe([gy], Window((1, 1)), size, window.taps * c, patch_r=r, patch_s=s)
        elif stride == (1, 1):
            product, depth = describe([gy], window.turned(), input_size, c), window.taps * k
        if plain is None:
            return super().conv2d_input_grad(*arguments)
        gx = self.empty_channels_last((gy.shape[0], c, *input_size), gy.dtype)
        job = Pass("input_grad", kind, plain, product, [depth], _vector([gy], c))
        mask = None if mask is None else self._dense(mask)
        self.run_pass(job, {"gy": gy, "weight": weight}, {"gx": gx}, bias, mask)
        return gx

    def conv2d_weight_grad(
        self, x: Any, gy: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
    ) -> Array:
        """See Kernels.conv2d_weight_grad. Always float32, in (K, R, S, C) memory."""
        sources, window = self._sources(x), Window(kernel, stride, padding, dilation)
        kind, (n, k, p, q) = type_name(*sources, gy), gy.shape
        if kind is None or groups != 1 or not _filled(*sources, gy):
            return super().conv2d_weight_grad(x, gy, kernel, stride, padding, dilation, groups)
        channels = sum(source.shape[1] for source in sources)
        conv = describe(sources, window, (p, q), window.taps * channels, rows=k)
        if conv is None:
            return super().conv2d_weight_grad(x, gy, kernel, stride, padding, dilation, groups)
        gy = self._dense(gy)
        if self.prefers_hopper and can_weight_grad(self, sources, gy, window):
            return hopper.weight_grad(self, sources, gy, window)
        gw = self.xp.empty((k, *kernel, channels), "float32")
        job = Pass("weight_grad", kind, conv, conv, [n * p * q], _vector([*sources, gy]))
        self.run_pass(job, _named(sources) | {"gy": gy}, {"gw": gw})
        return gw.transpose(0, 3, 1, 2)

    def _sources(self, x: Any) -> tuple[Array, ...]:
        """One map or two that kernels can read; more are joined."""
        sources = x if isinstance(x, tuple) else (x,)
        sources = sources if len(sources) <= 2 else (self.join(sources),)
        return tuple(source if readable(source) else self.channels_last(source) for source in sources)

    def _dense(self, x: Array) -> Array:
        """x itself if it is channels-last without gaps and begins at a multiple of 16 bytes, else a copy."""
        dense = self.channels_last(x)
        return dense if dense.data.ptr % 16 == 0 else dense.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)


def _named(sources: Sequence[Array]) -> dict[str, Array | None]:
    return {"x": sources[0], "x2": sources[1] if len(sources) > 1 else None}


def _filled(*arrays: Array) -> bool:
    return all(array.size > 0 for array in arrays)


def _vector(maps: Sequence[Array], channels: int = 0) -> int:
    """The bytes of the pieces that the channels of all maps, and so many more channels, fall into: 16, 8 or 0."""
    sizes = (16, 8) if maps[0].itemsize == 2 else (16,)
    fitting = [size for size in sizes if all(aligned(x, size) for x in maps)]
    return next((size for size in fitting if channels * maps[0].itemsize % size == 0), 0)
