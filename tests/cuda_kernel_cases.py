"""Random calls of the methods that CudaKernels overrides: what the parity tests and the GPU script run.

A case draws arguments in host memory; arrays are `Placed`, which says how they lie in device memory. Cases of other
files are found by their name, tests/cuda_*_cases.py: there, too, `@case` enters them in CASES. Symbols: N batch,
C channels, H W rows columns, P Q output rows columns, K classes.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitorch_unet.backend import devices, named_dtype
from minitorch_unet.backend.cuda.kernels import CudaKernels
from minitorch_unet.backend.devices import library
from minitorch_unet.backend.reference import Kernels

Random = np.random.Generator
Results = list[Any]

DEVICE = os.environ.get("MINITORCH_UNET_TEST_DEVICE", "simulate")
TYPES = ("float32", "float32", "float16", "bfloat16")  # to draw from


def overrides_of(faster: type[Kernels]) -> list[str]:
    """The methods that a class, with everything it inherits from, has in the place of the reference's."""
    names = (name for name in dir(Kernels) if not name.startswith("_") and callable(getattr(Kernels, name)))
    return sorted(name for name in names if getattr(faster, name) is not getattr(Kernels, name))


OVERRIDES = overrides_of(CudaKernels)


class Placed(NamedTuple):
    """Values and how they shall lie in device memory: see LAYOUTS."""

    values: np.ndarray
    layout: str = "last"

    def on(self, xp: Any) -> Any:
        """As an array of the library `xp`. What lies around a view is NaN."""
        return LAYOUTS[self.layout](xp, self.values)


def _last(xp: Any, values: np.ndarray) -> Any:
    order = (0, *range(2, values.ndim), 1) if values.ndim > 1 else (0,)
    return xp.asarray(np.ascontiguousarray(values.transpose(order))).transpose(np.argsort(order).tolist())


def _first(xp: Any, values: np.ndarray) -> Any:
    return xp.asarray(np.ascontiguousarray(values))


def _within(top: int, left: int, before: int, behind: int) -> Callable[[Any, np.ndarray], Any]:
    """A part of a larger channels-last map: rows and columns around it, channels before and behind its own."""

    def make(xp: Any, values: np.ndarray) -> Any:
        n, c, h, w = values.shape
        filled = np.full((n, h + top + 1, w + left + 2, before + c + behind), np.nan, np.float32).astype(values.dtype)
        around = xp.asarray(filled).transpose(0, 3, 1, 2)
        view = around[:, before : before + c, top : top + h, left : left + w]
        view[...] = xp.asarray(np.ascontiguousarray(values))
        return view

    return make


def _flipped(xp: Any, values: np.ndarray) -> Any:
    return _last(xp, values[:, :, ::-1, ::-1])[:, :, ::-1, ::-1]


LAYOUTS: dict[str, Callable[[Any, np.ndarray], Any]] = {
    "last": _last,  # (N, H, W, C) in memory, without gaps
    "first": _first,  # (N, C, H, W)
    "cropped": _within(1, 2, 0, 0),
    "crop aligned": _within(0, 0, 8, 8),
    "some channels": _within(0, 0, 3, 2),
    "flipped": _flipped,
}


class Case(NamedTuple):
    """How to call a method and how exact its results must be.

    A result may differ from the truth (the reference in float64) by `relative` of it, more if it is of 16 bits, and by
    `absolute` of the largest value there, also for the arguments' magnitudes, whose sums do not cancel. `share`: what
    part of the usual number of draws is enough.
    """

    make: Callable[[Random], tuple[Any, ...]]
    run: Callable[[Kernels, tuple[Any, ...]], Results]
    relative: float
    absolute: float
    share: float


CASES: dict[str, Case] = {}


def case(
    relative: float = 0.0, absolute: float = 0.0, run: Callable[[Kernels, tuple[Any, ...]], Results] | None = None,
    share: float = 1.0,
) -> Callable[[Callable[[Random], tuple[Any, ...]]], Callable[[Random], tuple[Any, ...]]]:  # fmt: skip
    """Enter a function that draws arguments as the case of the method it is named after."""

    def enter(make: Callable[[Random], tuple[Any, ...]]) -> Callable[[Random], tuple[Any, ...]]:
        name = make.__name__

        def call(kernels: Kernels, arguments: tuple[Any, ...]) -> Results:
            result = getattr(kernels, name)(*arguments)
            return list(result) if isinstance(result, tuple) else [result]

        CASES[name] = Case(make, run or call, relative, absolute, share)
        return make

    return enter


def find_cases() -> None:
    """Import all files with cases."""
    for path in sorted(Path(__file__).parent.glob("cuda_*_cases.py")):
        importlib.import_module(path.stem)


# ------------------------------------------------------------------ arguments


def values(rng: Random, *shape: int, dtype: str | None = None) -> np.ndarray:
    """Normal values that the type can hold exactly."""
    return rng.standard_normal(shape, dtype=np.float32).astype(named_dtype(dtype or str(rng.choice(TYPES))))


def image(rng: Random, *shape: int, dtype: str | None = None, layout: str | None = None) -> Placed:
    """A map of normal values in one of the layouts."""
    return Placed(values(rng, *shape, dtype=dtype), layout or str(rng.choice(list(LAYOUTS))))


def flag(rng: Random) -> bool:
    return bool(rng.random() < 0.5)


def shape(rng: Random) -> tuple[int, int, int, int]:
    """(N, C, H, W) of a map: C often a multiple of what fills 16 bytes, now and then more than a block's 32 lanes."""
    c = int(rng.choice([1, 2, 3, 4, 8, 13, 16, 24, 40, 64, 65, 136]))
    largest = 12 if c < 64 else 5
    n, h, w = int(rng.integers(1, 4)), *rng.integers(1, largest, 2).tolist()
    return n, c, h, w


def mapped(change: Callable[[Placed], Any], arguments: Any) -> Any:
    """The arguments with `change` applied to everything placed, in nested tuples and lists, too."""
    if isinstance(arguments, Placed):
        return change(arguments)
    if type(arguments) in (tuple, list):
        return type(arguments)(mapped(change, a) for a in arguments)
    return arguments


def on_device(xp: Any, arguments: Any) -> Any:
    """The arguments on a device."""
    return mapped(lambda placed: placed.on(xp), arguments)


def exactly(arguments: Any, magnitudes: bool = False) -> Any:
    """The arguments for the reference: floats in float64, or their magnitudes."""

    def change(placed: Placed) -> np.ndarray:
        x = placed.values
        if x.dtype.kind in "iub":
            return x.copy()
        x = x.astype(np.float64)
        return abs(x) if magnitudes else x

    return mapped(change, arguments)


def flat(results: Any) -> list[Any]:
    """The arrays in nested tuples and lists."""
    if isinstance(results, tuple | list):
        return [array for result in results for array in flat(result)]
    return [] if results is None else [results]


def problems(name: str, seed: int, kernels: Kernels) -> list[str]:
    """What is wrong with the results of this seed's call; empty if nothing is."""
    entry = CASES[name]
    rng = np.random.default_rng([seed, *name.encode()])
    arguments = entry.make(rng)
    found = flat(entry.run(kernels, on_device(kernels.xp, arguments)))
    truth, unit = (flat(entry.run(Kernels(np), exactly(arguments, magnitudes))) for magnitudes in (False, True))
    wrong = [] if len(found) == len(truth) else [f"{len(found)} results, {len(truth)} expected"]
    for i, (mine, right, scale) in enumerate(zip(found, truth, unit, strict=False)):
        mine, right, scale = (np.asarray(a.get() if hasattr(a, "get") else a) for a in (mine, right, scale))
        if mine.shape != right.shape:
            wrong.append(f"result {i} has shape {mine.shape}, not {right.shape}")
            continue
        relative = entry.relative + (0 if mine.dtype.kind != "V" and mine.dtype.itemsize != 2 else rounding(mine.dtype))
        with np.errstate(invalid="ignore"):
            off = abs(mine.astype(np.float64) - right)
            allowed = relative * abs(right) + entry.absolute * largest(right, scale)
            allowed = allowed + (2.0**-25 if mine.dtype == np.float16 else 0)  # half of float16's smallest number
            bad = ~((off <= allowed) | (np.isnan(mine.astype(np.float64)) & np.isnan(right)) | (mine == right))
        if bad.any():
            where = tuple(int(k[0]) for k in np.nonzero(bad)) if bad.ndim else ()
            wrong.append(f"result {i}{list(where)} is {mine[where]}, not {right[where]}; {int(bad.sum())} are wrong")
    return [f"{name}, seed {seed}: {text}" for text in wrong]


def largest(*arrays: np.ndarray) -> float:
    """The largest finite magnitude."""
    return max((float(abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays), default=0)


def rounding(dtype: Any) -> float:
    """The largest relative error of rounding to a 16-bit type, of normal numbers."""
    return 2.0**-8 if np.dtype(dtype).name == "bfloat16" else 2.0**-11


def new_kernels() -> CudaKernels:
    """CudaKernels for the device under test."""
    return CudaKernels(library(DEVICE))


@contextlib.contextmanager
def fresh_kernels() -> Iterator[CudaKernels]:
    """New kernels that serve Tensors on the device: what went wrong in other tests is not theirs."""
    xp = library(DEVICE)
    before = devices._kernels.get(xp)
    devices._kernels[xp] = kernels = new_kernels()
    try:
        yield kernels
    finally:
        devices._kernels.pop(xp)
        if before is not None:
            devices._kernels[xp] = before
