"""Every layer of the network on every rung of the ladder: time of each pass and its error against float64.

A rung is an algorithm with a precision: "float32" (as accurate as that), "tf32" (factors rounded to TF32), "bfloat16"
(maps of bfloat16). What an algorithm cannot do a lower one does: "kernels" names those that were launched. Rows hold
`flops` of direct arithmetic and the least `bytes` a pass can move; the shares of ceilings are taken in gpu_report.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from gpu_child import Failed, Item
from gpu_device import Array, Device, device_error, network_of, on_host, wide
from layers import make_passes
from network import KERNELS, Layer, unet_layers

from minitorch_unet.backend import Kernels, kernels_of, named_dtype, reference
from minitorch_unet.backend.cuda.conv import ALGORITHMS

from .whole_network import precision_set

FLOAT32_ONLY = ("naive", "tiled", "gemm")  # rungs without tensor cores, timed in float32 alone
NOT_FLOAT32 = ("hopper",)
# Of maps, and of weight gradients, whose sums run over all pixels: their rounding grows with the root of the number.
TOLERANCES = {"float32": (1e-5, 1e-4), "tf32": (2e-3, 2e-3), "bfloat16": (2e-2, 2e-2)}
LARGE_SLAB = 1 << 16  # output pixels that the float64 reference computes at a time on a GPU


class Rung(NamedTuple):
    """An algorithm and how exactly it computes."""

    algorithm: str
    precision: str

    @property
    def dtype(self) -> Any:
        """Of the maps."""
        return named_dtype("bfloat16" if self.precision == "bfloat16" else "float32")

    def __str__(self) -> str:
        return f"{self.algorithm} {self.precision}"


RUNGS = [
    Rung(algorithm, precision)
    for precision in ("float32", "tf32", "bfloat16")
    for algorithm in (*(name for name in ALGORITHMS if name != "auto"), "auto")
    if algorithm not in (NOT_FLOAT32 if precision == "float32" else FLOAT32_ONLY)
]


def items(settings: dict[str, Any]) -> list[Item]:
    d = Device(settings)
    layers = tiny_layers() if d.tiny else unet_layers(*network_of(settings)[:2])
    if not d.simulated:
        reference.SLAB_PIXELS = LARGE_SLAB
    return [
        (f"{layer.name}, {rung}", lambda layer=layer, rung=rung: measured(d, layer, rung))
        for layer in layers
        for rung in suited(layer)
    ]


def tiny_layers() -> list[Layer]:
    """One of each kind, with channels that fill no tile."""
    return [
        Layer("down 0 conv 1", "conv3", 1, 1, 8, 12), Layer("down 0 conv 2", "conv3", 2, 8, 16, 10),
        Layer("pool 1", "pool", 2, 16, 16, 8), Layer("up 0", "up", 2, 16, 8, 4),
        Layer("merge 0 conv 1", "conv3", 2, 16, 8, 8, skip=12), Layer("head", "head", 2, 8, 2, 6),
    ]  # fmt: skip


def suited(layer: Layer) -> list[Rung]:
    """A pooling has no rungs, only types of maps."""
    if layer.kind == "pool":
        return [Rung("auto", "float32"), Rung("auto", "bfloat16")]
    return RUNGS


def measured(d: Device, layer: Layer, rung: Rung) -> dict[str, Any]:
    """{"passes": {pass: timing, "error", "kernels"}} with the layer's record, its arithmetic and its bytes."""
    kernels = kernels_of(d.xp)
    itemsize = rung.dtype.itemsize
    weights = layer.k * layer.c * KERNELS.get(layer.kind, 0) ** 2
    maps = layer.n * (layer.c * layer.h**2 + layer.k * layer.p**2)
    row: dict[str, Any] = {
        **layer.record(), "algorithm": rung.algorithm, "precision": rung.precision,
        "bytes": itemsize * maps + 4 * weights, "passes": {},
    }  # fmt: skip
    d.restart()
    sets = [inputs(d, layer, rung.dtype)]
    sets += [inputs(d, layer, rung.dtype) for _ in range(d.copies(row["bytes"]) - 1)]
    with precision_set("tf32" if rung.precision == "tf32" else "float32"), algorithm_set(kernels, rung.algorithm):
        by_set = [make_passes(layer, kernels, arrays) for arrays in sets]
        truth = exact(d, layer, rung.dtype, sets[0]) if layer.kind != "pool" else {}
        for name in by_set[0]:
            with launched(kernels) as seen:
                found = by_set[0][name]()
            timing = d.seconds([passes[name] for passes in by_set], budget=0.06)
            row["passes"][name] = {**timing, "kernels": seen}
            if name in truth:
                error = device_error(*((np, on_host(found)) if d.simulated else (d.xp, found)), truth[name])
                row["passes"][name]["error"] = error
                legal = TOLERANCES[rung.precision][name == "weight_grad"]
                if not error < legal:  # NaN as well
                    raise Failed(f"{name}: error {error:.1e}, legal are at most {legal:.0e}", **row)
    d.xp.get_default_memory_pool().free_all_blocks()
    return row


@contextmanager
def algorithm_set(kernels: Any, algorithm: str) -> Iterator[None]:
    """Inside, convolutions are computed on this rung."""
    before, kernels.algorithm = kernels.algorithm, algorithm
    try:
        yield
    finally:
        kernels.algorithm = before


@contextmanager
def launched(kernels: Any) -> Iterator[list[str]]:
    """The kernels that are launched inside, by name and macros, each once."""
    seen: list[str] = []
    launch = kernels.launch

    def noted(file: str, kernel: str, grid: Any, block: Any, defines: Any = None, *more: Any, **arguments: Any) -> None:
        text = " ".join([kernel, *(f"{name}={value}" for name, value in sorted((defines or {}).items()))])
        if text not in seen:
            seen.append(text)
        launch(file, kernel, grid, block, defines, *more, **arguments)

    kernels.launch = noted
    try:
        yield seen
    finally:
        kernels.launch = launch


def inputs(d: Device, layer: Layer, dtype: Any) -> dict[str, Any]:
    """Arrays like the network's, channels-last in memory: maps after a ReLU, float32 weights of their initial size."""

    def maps(c: int, size: int, relu: bool = True) -> Array:
        x = d.random((layer.n, size, size, c))
        x = d.xp.maximum(x, 0, out=x) if relu else x
        return x.astype(dtype).transpose(0, 3, 1, 2)

    arrays: dict[str, Any] = {"gy": maps(layer.k, layer.p, relu=False)}
    if layer.skip:
        cut = (layer.skip - layer.h) // 2
        skip = maps(layer.c // 2, layer.skip)[:, :, cut : cut + layer.h, cut : cut + layer.h]
        arrays["x"] = (skip, maps(layer.c // 2, layer.h))
    else:
        arrays["x"] = maps(layer.c, layer.h)
    if layer.kind != "pool":
        r = KERNELS[layer.kind]
        outer, inner = (layer.c, layer.k) if layer.kind == "up" else (layer.k, layer.c)
        weight = d.random((outer, r, r, inner))
        weight *= np.float32(np.sqrt(2 / (layer.c * r * r)))
        arrays["weight"] = weight.transpose(0, 3, 1, 2)
        arrays["bias"] = d.random((layer.k,))
    return arrays


_exact: dict[tuple[str, str], dict[str, Array]] = {}  # of one layer


def exact(d: Device, layer: Layer, dtype: Any, arrays: dict[str, Any]) -> dict[str, Array]:
    """What the passes give in float64: the reference's, on a GPU by its own float64 products.

    Computed once for each type of maps, since the first set of inputs is the same on every rung.
    """
    key = (layer.name, np.dtype(dtype).name)
    if key not in _exact:
        if any(name != layer.name for name, _ in _exact):
            _exact.clear()
        xp = np if d.simulated else d.xp
        wide = {name: widened(xp, value) for name, value in arrays.items()}
        _exact[key] = {name: work() for name, work in make_passes(layer, Kernels(xp), wide).items()}
    return _exact[key]


def widened(xp: Any, value: Any) -> Any:
    """An array, or several, in float64, on the host where `xp` is NumPy; the memory order stays."""
    if isinstance(value, tuple):
        return tuple(widened(xp, part) for part in value)
    return wide(on_host(value) if xp is np else value)
