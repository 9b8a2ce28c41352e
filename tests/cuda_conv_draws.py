"""Random convolutions for the rungs of the CUDA ladder, and what their results must be.

A draw is checked value by value against the reference in float64, twice. Tightly, on factors that are rounded as the
rung rounds them: what remains are the result's own rounding and that of the sums,

    |y - tight| <= UNIT |tight| + SUMS m,        m = the same pass on magnitudes.

And against the factors as they were given, |y - exact| <= UNIT |exact| + (SUMS + FACTORS) m. Around every view there is
NaN, so that what is read outside of it shows. Symbols as in reference.py.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np

from minitorch_unet.backend import named_dtype
from minitorch_unet.backend.cuda import conv_plan
from minitorch_unet.backend.cuda.conv_launch import Pass
from minitorch_unet.backend.cuda.conv_plan import Tiling
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.devices import library
from minitorch_unet.backend.reference import Kernels

DEVICE = os.environ.get("MINITORCH_UNET_TEST_DEVICE", "simulate")
REFERENCE = Kernels(np)
UNIT = {"float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # of rounding to the type, relative
SMALLEST = {"float32": 0.0, "float16": 2.0**-25, "bfloat16": 0.0}  # half of float16's smallest number
SUMS = 2.0**-20  # of float32 sums of some hundred products, and of three TF32 products in the place of one
FACTORS = {"tf32": 2.0**-10, "16 bits float16": 2.0**-11, "16 bits bfloat16": 2.0**-8}  # both factors', or the weight's

# What each rung is compiled for here: maps, precision of float32 products, tile. Few, for every variant must be built;
# in check mode, where that takes longest, only the first of a rung, and two of rung 4.
VARIANTS = {
    "naive": [("float32", "highest", None), ("bfloat16", "highest", None)],
    "tiled": [("float32", "highest", None), ("float16", "highest", None)],
    "gemm": [("float32", "highest", (128, 64)), ("bfloat16", "highest", (64, 128))],
    "mma": [("float32", "highest", (64, 128)), ("bfloat16", "highest", (128, 128)), ("float32", "high", (128, 64)),
            ("float16", "highest", (128, 64))],
}  # fmt: skip
CHECKED = {"naive": 1, "tiled": 1, "gemm": 1, "mma": 2}


class Spied(CudaKernels):
    """Kernels that keep the names of the engines that served."""

    def __init__(self, xp: Any) -> None:
        super().__init__(xp)
        self.served: list[str] = []

    def choose_rung(self, job: Pass) -> tuple[str, Tiling]:
        name, plan = super().choose_rung(job)
        self.served.append(name)
        return name, plan


def new_kernels() -> Spied:
    return Spied(library(DEVICE))


def one_tile(tile: tuple[int, int] | None) -> dict[str, conv_plan.Engine]:
    """The engines with this tile only, for those that have a choice."""
    return {
        name: engine._replace(tiles=(tile,)) if tile and len(engine.tiles) > 1 else engine
        for name, engine in conv_plan.ENGINES.items()
    }


class Geometry(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    size: tuple[int, int]  # H, W
    out: tuple[int, int]  # P, Q

    @property
    def rest(self) -> tuple[Any, ...]:
        return self.stride, self.padding, self.dilation, 1


class Draws:
    """Random arguments on the device."""

    def __init__(self, xp: Any, dtype: str, seed: int, largest: int = 12) -> None:
        self.xp, self.name, self.dtype = xp, dtype, named_dtype(dtype)
        self.rng, self.largest = np.random.default_rng(seed), largest
        # Channels come in whole pieces of 16 bytes, or as they like.
        self.vector = 16 // self.dtype.itemsize if self.chance(0.8) else 1

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def int(self, low: int, high: int) -> int:
        """low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def channels(self, most: int = 40) -> int:
        return self.vector * self.int(1, most // self.vector) if self.chance(0.8) else self.vector

    def geometry(self, strided: float, touching: float) -> Geometry:
        """Kernel 1 to 3 (now and then 5), padding 0 to 2, now and then dilated or strided; or windows that touch."""
        kernel = (self.int(1, 3), self.int(1, 3)) if self.chance(0.9) else (5, self.int(3, 5))
        stride, padding, dilation = (1, 1), (self.int(0, 2), self.int(0, 2)), (1, 1)
        if self.chance(touching):
            kernel = stride = (2, 2) if self.chance(0.7) else (self.int(1, 3), self.int(1, 3))
            padding = (0, 0)
        elif self.chance(strided):
            stride = self.int(1, 2), self.int(1, 3)
        if self.chance(0.2) and stride == (1, 1):
            dilation = self.int(1, 2), self.int(1, 2)
        padding = padding if self.chance(0.6) else (0, 0)
        reach = [dilation[i] * (kernel[i] - 1) + 1 - 2 * padding[i] for i in (0, 1)]
        out = [max(self.int(1, self.largest), 2 - reach[i]) for i in (0, 1)]
        extra = [self.int(0, stride[i] - 1) if self.chance(0.3) else 0 for i in (0, 1)]
        h, w = ((out[i] - 1) * stride[i] + reach[i] + extra[i] for i in (0, 1))
        return Geometry(kernel, stride, padding, dilation, (max(h, 1), max(w, 1)), (out[0], out[1]))

    def map(self, n: int, c: int, size: tuple[int, int], whole: bool = False) -> Any:
        """(N, C, H, W) channels-last, mostly a part of a larger map; now and then in another order, or misaligned."""
        values = self.rng.standard_normal((n, *size, c)).astype(self.dtype)
        kind = 0 if whole else self.int(0, 7)
        if kind == 7:
            return self.xp.asarray(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
        top, bottom, left, right = (self.int(0, 2) for _ in range(4)) if kind >= 3 else (0, 0, 0, 0)
        before, after = (self.vector * self.int(0, 2), self.int(0, 2)) if kind == 6 else (0, 0)
        h, w = size
        around = np.full((n, top + h + bottom, left + w + right, before + c + after), np.nan, self.dtype)
        view = slice(None), slice(top, top + h), slice(left, left + w), slice(before, before + c)
        around[view] = values
        return self.xp.asarray(around)[view].transpose(0, 3, 1, 2)

    def weight(self, k: int, c: int, kernel: tuple[int, int]) -> Any:
        """(K, C, R, S), float32: (K, R, S, C) in memory, the last channels of more, or (K, C, R, S) in memory."""
        values = self.rng.standard_normal((k, *kernel, c)).astype("float32")
        if self.chance(0.2):
            return self.xp.asarray(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
        before = self.vector * self.int(0, 3) if self.chance(0.4) else 0
        around = np.full((k, *kernel, before + c), np.nan, "float32")
        around[..., before:] = values
        return self.xp.asarray(around)[..., before:].transpose(0, 3, 1, 2)

    def bias(self, length: int) -> Any:
        return self.xp.asarray(self.rng.standard_normal(length).astype("float32")) if self.chance(0.6) else None


def host(x: Any) -> Any:
    """Values on the device in float64; of None None, of a tuple a tuple."""
    if isinstance(x, tuple):
        return tuple(map(host, x))
    return None if x is None else x.get().astype("float64")


def magnitude(x: Any) -> Any:
    return tuple(map(abs, x)) if isinstance(x, tuple) else None if x is None else abs(x)


def to_tf32(x: np.ndarray) -> np.ndarray:
    """Float64 values rounded to 11 significant bits, ties away from zero."""
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)


def rounded(x: Any, engine: str, dtype: np.dtype[Any]) -> Any:
    """Factors as an engine rounds them: maps are in their type already, weights are float32 but for rung 4."""
    if isinstance(x, tuple):
        return tuple(rounded(each, engine, dtype) for each in x)
    if engine == "tf32":
        return to_tf32(x)
    return x.astype(dtype).astype(np.float64) if engine == "16 bits" else x


def wrong(
    found: np.ndarray, tight: np.ndarray, exact: np.ndarray, scale: np.ndarray, engine: str, dtype: str, out: str
) -> str | None:
    """What is wrong with a result; None if nothing is."""
    if found.shape != tight.shape:
        return f"has shape {found.shape}, not {tight.shape}"
    factors = FACTORS.get(engine, FACTORS.get(f"{engine} {dtype}", 0.0))
    for truth, error in ((tight, SUMS), (exact, SUMS + factors)):
        off = abs(found - truth)
        allowed = UNIT[out] * abs(truth) + (1 + UNIT[out]) * error * scale + SMALLEST[out]
        if not (off <= allowed).all():
            at = tuple(int(i[0]) for i in np.nonzero(~(off <= allowed)))
            return f"at {at}: {found[at]}, not {truth[at]}; {int((~(off <= allowed)).sum())} of {off.size} are wrong"
    return None


# ------------------------------------------------------------------------------------------------- the three passes


def forward(kernels: Spied, draws: Draws) -> str | None:
    """Draw a forward pass; what is wrong with its result."""
    geometry = draws.geometry(strided=0.15, touching=0.1)
    n, two = draws.int(1, 3), draws.chance(0.4)
    sources = tuple(draws.map(n, draws.channels(), geometry.size) for _ in range(1 + two))
    x = sources if two or draws.chance(0.5) else sources[0]
    k, relu = draws.channels(72) - draws.int(0, draws.vector - 1), draws.chance(0.5)
    weight, bias = draws.weight(k, sum(source.shape[1] for source in sources), geometry.kernel), draws.bias(k)
    y = kernels.conv2d(x, weight, bias, *geometry.rest, relu)
    engine, (x, w, b) = kernels.served[-1], map(host, (x, weight, bias))
    rx, rw = rounded(x, engine, draws.dtype), rounded(w, engine, draws.dtype)
    tight, exact = (REFERENCE.conv2d(*pair, b, *geometry.rest, relu) for pair in ((rx, rw), (x, w)))
    scale = REFERENCE.conv2d(magnitude(x), abs(w), magnitude(b), *geometry.rest)
    assert y.dtype == draws.dtype
    return wrong(host(y), tight, exact, scale, engine, draws.name, draws.name)


def input_grad(kernels: Spied, draws: Draws) -> str | None:
    """Draw an input gradient; what is wrong with its result."""
    geometry = draws.geometry(strided=0.1, touching=0.25)
    n, k, c = draws.int(1, 3), draws.channels(), draws.channels(72)
    gy, weight, bias = draws.map(n, k, geometry.out), draws.weight(k, c, geometry.kernel), draws.bias(c)
    mask = draws.map(n, c, geometry.size) if draws.chance(0.5) else None
    gx = kernels.conv2d_input_grad(gy, weight, geometry.size, *geometry.rest, bias, mask)
    engine, (g, w, b, m) = kernels.served[-1], map(host, (gy, weight, bias, mask))
    rg, rw = rounded(g, engine, draws.dtype), rounded(w, engine, draws.dtype)
    rest = (geometry.size, *geometry.rest)
    tight, exact = (REFERENCE.conv2d_input_grad(*pair, *rest, b, m) for pair in ((rg, rw), (g, w)))
    scale = REFERENCE.conv2d_input_grad(abs(g), abs(w), *rest, magnitude(b))
    assert gx.dtype == draws.dtype
    return wrong(host(gx), tight, exact, scale, engine, draws.name, draws.name)


def weight_grad(kernels: Spied, draws: Draws) -> str | None:
    """Draw a weight gradient; what is wrong with its result."""
    geometry = draws.geometry(strided=0.15, touching=0.2)
    n, two, k = draws.int(1, 3), draws.chance(0.4), draws.channels(72)
    sources = tuple(draws.map(n, draws.channels(), geometry.size) for _ in range(1 + two))
    x, gy = sources if two else sources[0], draws.map(n, k, geometry.out)
    gw = kernels.conv2d_weight_grad(x, gy, geometry.kernel, *geometry.rest)
    engine, x, g = kernels.served[-1], host(x), host(gy)
    rx, rg = rounded(x, engine, draws.dtype), rounded(g, engine, draws.dtype)
    rest = (geometry.kernel, *geometry.rest)
    tight, exact = (REFERENCE.conv2d_weight_grad(*pair, *rest) for pair in ((rx, rg), (x, g)))
    scale = REFERENCE.conv2d_weight_grad(magnitude(x), abs(g), *rest)
    assert gw.dtype == "float32" and gw.transpose(0, 2, 3, 1).flags.c_contiguous
    return wrong(host(gw), tight, exact, scale, engine, draws.name, "float32")


PASSES = {"forward": forward, "input_grad": input_grad, "weight_grad": weight_grad}
