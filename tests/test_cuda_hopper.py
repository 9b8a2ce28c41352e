"""Rung 5 of the convolutions (TMA and wgmma) against the reference in float64, on random shapes and arguments.

Maps are drawn in the type that the kernels read, and weights are rounded to it, so that factors are exact but for TF32;
what is left is the order of a float32 sum and the rounding of the result. Errors are bounded value by value:
|y - ref| <= UNIT |ref| + FACTOR (the same convolution of absolute values).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minitorch_unet import simulator
from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda import hopper
from minitorch_unet.backend.cuda.conv_shapes import Window
from minitorch_unet.backend.cuda.hopper_plan import LARGE, NARROW, SMALL, Plan, Tile, WeightPlan, by_taps, tiles
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.devices import library
from minitorch_unet.backend.precision import named_dtype, set_float32_matmul_precision
from minitorch_unet.backend.reference import Kernels

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))

DEVICE = os.environ.get("MINITORCH_UNET_TEST_DEVICE", "simulate")
REFERENCE = Kernels(np)
UNIT = {"bfloat16": 2**-8, "float16": 2**-10, "float32": 2**-22}  # relative error of the result's rounding
FACTOR = {"bfloat16": 2**-20, "float16": 2**-20, "float32": 2**-10}  # of products and their sum: TF32 rounds factors
MODES = [("fast", 67), ("check", 10)]  # and how many draws for each of three types: 200 and 30 for each pass


@pytest.fixture(scope="module")
def kernels() -> Iterator[CudaKernels]:
    kernels = CudaKernels(library(DEVICE))
    if kernels.compute_capability // 10 != 9:
        pytest.skip(f"needs a GPU of compute capability 9.x; this one has {kernels.compute_capability}")
    set_float32_matmul_precision("high")
    yield kernels
    set_float32_matmul_precision("highest")


class Draws:
    """Random arguments on the device. Around every view there is NaN, so that reading outside of it shows."""

    def __init__(self, kernels: CudaKernels, name: str, seed: int) -> None:
        self.xp, self.dtype, self.rng = kernels.xp, named_dtype(name), np.random.default_rng(seed)
        self.vector = 16 // self.dtype.itemsize  # channels in 16 bytes, of which there are whole ones

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def int(self, low: int, high: int) -> int:
        """low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def channels(self, most: int) -> int:
        return self.vector * self.int(1, most // self.vector)

    def map(self, shape: tuple[int, int, int, int]) -> Any:
        """(N, C, H, W) on the device, contiguous in (N, H, W, C) or cropped from something larger."""
        n, c, h, w = shape
        values = self.rng.standard_normal((n, h, w, c)).astype(self.dtype)
        top, bottom, left, right = (self.int(0, 2) for _ in range(4)) if self.chance(0.5) else (0, 0, 0, 0)
        before, after = (self.vector * self.int(0, 1) for _ in range(2)) if self.chance(0.3) else (0, 0)
        whole = np.full((n, top + h + bottom, left + w + right, before + c + after), np.nan, self.dtype)
        view = slice(None), slice(top, top + h), slice(left, left + w), slice(before, before + c)
        whole[view] = values
        return self.xp.asarray(whole)[view].transpose(0, 3, 1, 2)

    def weight(self, k: int, c: int, kernel: tuple[int, int]) -> Any:
        """(K, C, R, S), float32, rounded to the maps' type: in (K, R, S, C) memory, some channels of more, or as is."""
        values = self.rng.standard_normal((k, *kernel, c)).astype(self.dtype).astype("float32")
        if self.chance(0.2):
            return self.xp.asarray(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))
        before = self.int(0, 3) * 4 if self.chance(0.4) else 0
        whole = np.full((k, *kernel, before + c), np.nan, "float32")
        whole[..., before:] = values
        return self.xp.asarray(whole)[..., before:].transpose(0, 3, 1, 2)

    def window(self, touching: float = 0.2) -> Window:
        if self.chance(touching):
            kernel = [(2, 2), (1, 2), (2, 1)][self.int(0, 2)]
            return Window(kernel, kernel)
        kernel = self.int(1, 3), self.int(1, 3)
        padding = (self.int(0, 2), self.int(0, 2)) if self.chance(0.5) else (0, 0)
        dilation = (self.int(1, 2), self.int(1, 2)) if self.chance(0.3) else (1, 1)
        return Window(kernel, (1, 1), padding, dilation)

    def sizes(self, window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
        """((H, W), (P, Q)): mostly one tile, sometimes more."""
        reach = [
            d * (k - 1) + 1 - 2 * p for d, k, p in zip(window.dilation, window.kernel, window.padding, strict=True)
        ]
        p = max(self.int(1, 20 if self.chance(0.4) else 9), 2 - reach[0])
        q = max(self.int(1, 12 if self.chance(0.4) else 8), 2 - reach[1])
        sh, sw = window.stride
        return ((p - 1) * sh + reach[0], (q - 1) * sw + reach[1]), (p, q)

    def conv_plan(self, tile: Tile) -> Any:
        """In place of `conv_plan`: any way to cut, as long as it is a legal one."""

        def plan(_: Any, pixels: tuple[int, int, int], outputs: int, boxes: int, share: int, copies: int) -> Plan:
            splits = self.int(1, min(3, boxes)) if copies == 1 and self.chance(0.4) else 1
            items = tile.number(pixels, outputs) * copies * splits
            return Plan(tile, splits, self.int(1, items) if self.chance(0.5) else items)

        return plan

    def weight_plan(self, filters: int) -> Any:
        def plan(_: Any, shape: tuple[int, int, int, int], columns: int) -> WeightPlan:
            steps = shape[0] * tiles(shape[2], 8) * tiles(shape[3], 8)
            return WeightPlan(filters, self.int(1, min(3, steps)))

        return plan


def host(x: Any) -> np.ndarray:
    """Values on the device, in float64; None stays None."""
    return x.get().astype("float64")


def check(name: str, found: Any, expected: np.ndarray, magnitude: np.ndarray, unit: float) -> None:
    assert found.shape == expected.shape
    excess = np.abs(host(found) - expected) - unit * np.abs(expected) - FACTOR[name] * magnitude - 1e-30
    assert not (excess > 0).any() and not np.isnan(excess).any(), f"{np.nanmax(excess)} above the bound"


@pytest.fixture(params=MODES, ids=[mode for mode, _ in MODES])
def seeds(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The seeds of a mode's draws; for every other one the simulator's threads run in an order of its own."""
    mode, count = request.param
    if DEVICE != "simulate" and mode != "fast":
        pytest.skip("there are no modes on a GPU")

    def each() -> Iterator[int]:
        for number in range(count):
            simulator.set_seed(number if number % 2 else 0)
            yield number

    simulator.set_mode(mode)
    yield each()
    simulator.set_mode(None)
    simulator.set_seed(None)


@pytest.mark.parametrize(("name", "tile"), [("bfloat16", SMALL), ("float16", LARGE), ("float32", NARROW)])
def test_forward(
    kernels: CudaKernels, seeds: Iterator[int], name: str, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in seeds:
        draws = Draws(kernels, name, seed)
        monkeypatch.setattr(hopper, "conv_plan", draws.conv_plan(tile))
        window = draws.window()
        size, _ = draws.sizes(window)
        n, two = draws.int(1, 2), not by_taps(window) and draws.chance(0.4)
        sources = [draws.map((n, draws.channels(80 * 2 // draws.dtype.itemsize), *size)) for _ in range(1 + two)]
        k, c = draws.channels(136), sum(x.shape[1] for x in sources)
        weight = draws.weight(k, c, window.kernel)
        bias = kernels.xp.asarray(draws.rng.standard_normal(k).astype("float32")) if draws.chance(0.7) else None
        relu = draws.chance(0.5)
        y = hopper.forward(kernels, sources, weight, bias, window, relu)
        b = None if bias is None else host(bias)
        x, w = np.concatenate([host(source) for source in sources], 1), host(weight)
        rest = (window.stride, window.padding, window.dilation, 1)
        magnitude = REFERENCE.conv2d(np.abs(x), np.abs(w), None if b is None else np.abs(b), *rest)
        check(name, y, REFERENCE.conv2d(x, w, b, *rest, relu), magnitude, UNIT[name])
        assert y.dtype == draws.dtype


@pytest.mark.parametrize(("name", "tile"), [("bfloat16", NARROW), ("float16", SMALL), ("float32", NARROW)])
def test_input_grad(
    kernels: CudaKernels, seeds: Iterator[int], name: str, tile: Tile, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in seeds:
        draws = Draws(kernels, name, 1000 + seed)
        monkeypatch.setattr(hopper, "conv_plan", draws.conv_plan(tile))
        window = draws.window()
        size, out_size = draws.sizes(window)
        n, k, c = draws.int(1, 2), draws.channels(80 * 2 // draws.dtype.itemsize), draws.channels(136)
        gy, weight = draws.map((n, k, *out_size)), draws.weight(k, c, window.kernel)
        bias = kernels.xp.asarray(draws.rng.standard_normal(c).astype("float32")) if draws.chance(0.3) else None
        mask = draws.map((n, c, *size)) if draws.chance(0.5) else None
        gx = hopper.input_grad(kernels, gy, weight, size, window, bias, mask)
        b, m = (None if array is None else host(array) for array in (bias, mask))
        rest = (size, window.stride, window.padding, window.dilation, 1)
        expected = REFERENCE.conv2d_input_grad(host(gy), host(weight), *rest, b, m)
        magnitude = REFERENCE.conv2d_input_grad(
            np.abs(host(gy)), np.abs(host(weight)), *rest, None if b is None else np.abs(b)
        )
        check(name, gx, expected, magnitude, UNIT[name])
        assert gx.dtype == draws.dtype


@pytest.mark.parametrize(("name", "filters"), [("bfloat16", 64), ("float16", 128), ("bfloat16", 128)])
def test_weight_grad(
    kernels: CudaKernels, seeds: Iterator[int], name: str, filters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in seeds:
        draws = Draws(kernels, name, 2000 + seed)
        monkeypatch.setattr(hopper, "weight_plan", draws.weight_plan(filters))
        window = draws.window()
        size, out_size = draws.sizes(window)
        n, k, two = draws.int(1, 3), draws.channels(136), not by_taps(window) and draws.chance(0.4)
        sources = [draws.map((n, draws.channels(80), *size)) for _ in range(1 + two)]
        gy = draws.map((n, k, *out_size))
        gw = hopper.weight_grad(kernels, sources, gy, window)
        x, g = np.concatenate([host(source) for source in sources], 1), host(gy)
        rest = (window.kernel, window.stride, window.padding, window.dilation, 1)
        magnitude = REFERENCE.conv2d_weight_grad(np.abs(x), np.abs(g), *rest)
        check(name, gw, REFERENCE.conv2d_weight_grad(x, g, *rest), magnitude, UNIT["float32"])
        assert gw.dtype == np.float32
        assert gw.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(
    ("algorithm", "name", "channels", "expected"),
    [
        ("auto", "float16", 64, ["conv_hopper", "conv_hopper", "conv_hopper_weights"]),
        ("hopper", "float32", 64, ["conv_hopper", "conv_hopper", "conv_mma_weight_grad"]),
        ("hopper", "float16", 24, ["conv_mma_forward", "conv_mma_input_grad", "conv_mma_weight_grad"]),
        ("mma", "float16", 64, ["conv_mma_forward", "conv_mma_input_grad", "conv_mma_weight_grad"]),
    ],
)
def test_the_ladder_ends_here_where_it_can(
    kernels: CudaKernels, algorithm: str, name: str, channels: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the routines of the backend, which all devices have."""
    monkeypatch.setattr(kernels, "algorithm", algorithm)
    launched: list[str] = []
    launch = kernels.launch

    def noted(file: str, kernel: str, *arguments: Any, **named: Any) -> None:
        launched.append(kernel)
        launch(file, kernel, *arguments, **named)

    monkeypatch.setattr(kernels, "launch", noted)
    draws, rest = Draws(kernels, name, 5), ((1, 1), (0, 0), (1, 1), 1)
    x, gy, weight = draws.map((1, channels, 9, 9)), draws.map((1, 64, 7, 7)), draws.weight(64, channels, (3, 3))
    x_, gy_, weight_ = host(x), host(gy), host(weight)
    found = (
        kernels.conv2d(x, weight, None, *rest, True),
        kernels.conv2d_input_grad(gy, weight, (9, 9), *rest, None, x),
        kernels.conv2d_weight_grad(x, gy, (3, 3), *rest),
    )
    y = REFERENCE.conv2d(x_, weight_, None, *rest, True)
    check(name, found[0], y, REFERENCE.conv2d(abs(x_), abs(weight_), None, *rest), UNIT[name])
    grad = REFERENCE.conv2d_input_grad(gy_, weight_, (9, 9), *rest, None, x_)
    check(name, found[1], grad, REFERENCE.conv2d_input_grad(abs(gy_), abs(weight_), (9, 9), *rest), UNIT[name])
    grad = REFERENCE.conv2d_weight_grad(x_, gy_, (3, 3), *rest)
    check(name, found[2], grad, REFERENCE.conv2d_weight_grad(abs(x_), abs(gy_), (3, 3), *rest), UNIT["float32"])
    assert [kernel for kernel in launched if kernel.startswith(("conv_hopper", "conv_mma"))] == expected
