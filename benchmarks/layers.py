"""Time this engine's forward pass, input gradient and weight gradient of every layer of the U-Net, for every algorithm.

    python benchmarks/layers.py --size 572 --base 64 --algorithms auto,im2col,direct,winograd4

Prints one JSON line: the machine's peaks as measured here, and for every layer its arithmetic, and for every algorithm
the median seconds of each pass and its rms error against float64, relative to the rms of the exact result.

Forward includes bias and ReLU, as the network calls it; merges read the cropped skip map and the upsampled one from
where they lie. The naive loops are so slow that they compute only a slab of output rows, as many as cost NAIVE_FLOPS;
their time is scaled by the rows left out, and `slab_rows` says how many were computed. Errors are measured on a crop of
the layer, for float64 is slow: they do not see the growth of a weight gradient's sum with the number of pixels.

Symbols: N batch, C input channels, K output channels, H = W input size, P output size, R = S kernel size.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from network import KERNELS, Layer, unet_layers

import minitorch_unet as mt
from minitorch_unet.backend import Kernels, get_num_threads, kernels_of, memory, run_parallel
from minitorch_unet.backend.compiled import available, status
from minitorch_unet.backend.cpu import ALGORITHMS

PASSES = ("forward", "input_grad", "weight_grad")
NAIVE_FLOPS = 4e8  # about a second of naive loops
ERROR_OUTPUTS = (24, 12)  # P of the crop that errors are computed on, for up to LARGE_WEIGHT values of C*K and for more
LARGE_WEIGHT = 2**18
ONCE = {"dilation": (1, 1), "groups": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=572)
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores at hand")
    parser.add_argument("--algorithms", default=",".join(ALGORITHMS), help="commas between them")
    parser.add_argument("--layer", default="", help="only the layers whose name contains this")
    options = parser.parse_args()
    if options.threads:
        mt.set_num_threads(options.threads)
    # Without the compiled kernels NumPy's im2col is all there is.
    algorithms = options.algorithms.split(",") if available() else ["im2col"]
    unknown = set(algorithms) - set(ALGORITHMS)
    if unknown:
        parser.error(f"unknown algorithms {', '.join(sorted(unknown))}; legal are {', '.join(ALGORITHMS)}")
    layers = unet_layers(options.size, options.base, options.batch)
    row = {
        "engine": f"minitorch_unet {mt.__version__}", "kernels": status(), "size": options.size, "base": options.base,
        "batch": options.batch, "runs": options.runs, "threads": get_num_threads(),
        "coretype": os.environ.get("OPENBLAS_CORETYPE"), "algorithms": algorithms, "peak": machine_peak(),
        "layers": [measured(layer, algorithms, options.runs) for layer in layers if options.layer in layer.name],
    }  # fmt: skip
    print(json.dumps(row))


def machine_peak() -> dict[str, float]:
    """The best rate of a float32 matrix product and of a sum of two long arrays (12 bytes an element) seen here."""
    rng = np.random.default_rng(0)
    gflops = 0.0
    for n in (1024, 1536):
        a, b = (rng.standard_normal((n, n), dtype=np.float32) for _ in range(2))
        out = np.empty_like(a)
        gflops = max(gflops, 2e-9 * n**3 / best_seconds(lambda a=a, b=b, out=out: np.matmul(a, b, out=out)))
    x, y, z = (np.zeros(2**24, np.float32) for _ in range(3))  # 64 MiB each: larger than the caches
    pieces = np.array_split(np.arange(x.size), 8)
    slices = [slice(piece[0], piece[-1] + 1) for piece in pieces]
    add = best_seconds(lambda: run_parallel(lambda s: np.add(x[s], y[s], out=z[s]), slices))
    return {"gflops": round(gflops, 1), "stream_gbs": round(1e-9 * 12 * x.size / add, 1)}


def best_seconds(work: Callable[[], Any], runs: int = 3) -> float:
    """The quickest of some calls after one that is not counted."""
    work()
    return min(seconds(work) for _ in range(runs))


def seconds(work: Callable[[], Any]) -> float:
    """Wall clock of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ------------------------------------------------------------------------------------------------------ one layer


def make_inputs(layer: Layer) -> dict[str, Any]:
    """Arrays like the network's, channels-last in memory: maps after a ReLU, weights of their initial size."""
    rng = np.random.default_rng(0)

    def maps(c: int, size: int) -> np.ndarray:
        return normal(layer.n, size, size, c).transpose(0, 3, 1, 2)

    def normal(*shape: int) -> np.ndarray:
        """Values in memory as the engine's arrays have it: of its own heap, aligned."""
        array = memory.empty(shape, np.float32)
        array[...] = rng.standard_normal(shape, dtype=np.float32)
        return array

    arrays: dict[str, Any] = {"gy": maps(layer.k, layer.p)}
    if layer.skip:
        cut = (layer.skip - layer.h) // 2
        whole = maps(layer.c // 2, layer.skip)
        skip = np.maximum(whole, 0, out=whole)[:, :, cut : cut + layer.h, cut : cut + layer.h]
        arrays["x"] = (skip, maps(layer.c // 2, layer.h))
    else:
        arrays["x"] = maps(layer.c, layer.h)
        np.maximum(arrays["x"], 0, out=arrays["x"])
    if layer.kind != "pool":
        r = KERNELS[layer.kind]
        # Convolutions keep a (K, C, R, S) weight, up-convolutions (C, K, R, S); R and S are outermost in memory.
        ends = (layer.k, layer.c) if layer.kind == "up" else (layer.c, layer.k)
        scale = np.float32(np.sqrt(2 / (layer.c * r * r)))
        weight = normal(r, r, *ends)
        weight *= scale
        arrays["weight"] = weight.transpose(3, 2, 0, 1)
        arrays["bias"] = 0.1 * rng.standard_normal(layer.k, dtype=np.float32)
    return arrays


def make_passes(layer: Layer, kernels: Kernels, a: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """The passes of a layer as calls of the kernels on the arrays `a`."""
    x, gy, size = a["x"], a["gy"], (layer.h, layer.h)
    if layer.kind == "pool":
        how = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1)}
        winners = kernels.max_pool2d(x, (layer.p, layer.p), **how)[1]
        return {
            "forward": lambda: kernels.max_pool2d(x, (layer.p, layer.p), **how),
            "input_grad": lambda: kernels.max_pool2d_scatter(gy, winners, size, **how),
        }
    w, b = a["weight"], a["bias"]
    how = {"stride": (1, 1), "padding": (0, 0), **ONCE}
    if layer.kind == "up":  # the transposed convolution is the input gradient of a convolution from gy's maps to x's
        how["stride"] = (2, 2)
        return {
            "forward": lambda: kernels.conv2d_input_grad(x, w, (layer.p, layer.p), **how, bias=b),
            "input_grad": lambda: kernels.conv2d(gy, w, None, **how),
            "weight_grad": lambda: kernels.conv2d_weight_grad(gy, x, (2, 2), **how),
        }
    passes = {
        "forward": lambda: kernels.conv2d(x, w, b, relu=layer.kind == "conv3", **how),
        "input_grad": lambda: kernels.conv2d_input_grad(gy, w, size, **how),
        "weight_grad": lambda: kernels.conv2d_weight_grad(x, gy, w.shape[2:], **how),
    }
    return {name: work for name, work in passes.items() if not (name == "input_grad" and layer.first)}


def choose(kernels: Kernels, algorithm: str) -> None:
    """Make the kernels use an algorithm, where there is a choice."""
    if hasattr(kernels, "algorithm"):
        kernels.algorithm = algorithm


def suited(layer: Layer, algorithms: list[str]) -> list[str]:
    """The algorithms to time this layer with: the ladder is one of 3x3 convolutions."""
    if layer.kind == "conv3":
        return algorithms
    return [name for name in algorithms if name in ("auto", "im2col")] or ["auto"]


def measured(layer: Layer, algorithms: list[str], runs: int) -> dict[str, Any]:
    """The layer's record with "seconds" and "error", each {algorithm: {pass: value}}; "slab_rows" if there was one."""
    kernels = kernels_of(np)
    algorithms = suited(layer, algorithms)
    slab = slab_of(layer)
    whole = make_passes(layer, kernels, make_inputs(layer))
    part = naive_passes(slab, kernels) if "naive" in algorithms else {}
    times: dict[str, dict[str, list[float]]] = {name: {} for name in algorithms}
    for number in range(runs + 1):  # in turn, so that a drifting machine treats all alike; the first is not counted
        for algorithm in algorithms:
            choose(kernels, algorithm)
            for name, work in (part if algorithm == "naive" else whole).items():
                took = seconds(work)
                if number:
                    times[algorithm].setdefault(name, []).append(took)
    scale = {"naive": layer.n * layer.p / slab[1]}
    record = {
        **layer.record(),
        "seconds": {
            algorithm: {n: round(statistics.median(t) * scale.get(algorithm, 1), 7) for n, t in by_pass.items()}
            for algorithm, by_pass in times.items()
        },
        "error": errors(layer, kernels, algorithms) if layer.kind != "pool" else {},
    }
    if part:
        record["slab_rows"] = slab[1]
    choose(kernels, "auto")
    return record


def slab_of(layer: Layer) -> tuple[Layer, int]:
    """The layer for one image and the number of its output rows that the naive loops compute."""
    single = dataclasses.replace(layer, n=1)
    rows = int(NAIVE_FLOPS / max(1, single.flops) * single.p)
    return single, min(single.p, max(2, rows))


def naive_passes(slab: tuple[Layer, int], kernels: Kernels) -> dict[str, Callable[[], Any]]:
    """Forward and input gradient of the first rows; the naive rung has no weight gradient of its own."""
    layer, rows = slab
    arrays = make_inputs(dataclasses.replace(layer, skip=0))
    x, gy = arrays["x"][:, :, : rows + 2], arrays["gy"][:, :, :rows]
    how = {"stride": (1, 1), "padding": (0, 0), **ONCE}
    passes = {"forward": lambda: kernels.conv2d(x, arrays["weight"], arrays["bias"], relu=True, **how)}
    if not layer.first:
        size = (rows + 2, layer.h)
        passes["input_grad"] = lambda: kernels.conv2d_input_grad(gy, arrays["weight"], size, **how)
    return passes


# --------------------------------------------------------------------------------------------------------- accuracy


def errors(layer: Layer, kernels: Kernels, algorithms: list[str]) -> dict[str, dict[str, float]]:
    """{algorithm: {pass: rms of (float32 result - float64 result) / rms of the latter}} on a crop of the layer."""
    p = min(layer.p, ERROR_OUTPUTS[layer.c * layer.k > LARGE_WEIGHT])
    h = {"conv3": p + 2, "up": p // 2, "head": p}[layer.kind]
    crop = dataclasses.replace(layer, n=1, h=h, skip=0)
    arrays = make_inputs(crop)
    exact = {
        name: work()
        for name, work in make_passes(crop, Kernels(np), {n: a.astype(np.float64) for n, a in arrays.items()}).items()
    }
    found: dict[str, dict[str, float]] = {}
    for algorithm in algorithms:
        choose(kernels, algorithm)
        found[algorithm] = {
            name: float(f"{rms(work() - exact[name]) / rms(exact[name]):.3g}")
            for name, work in make_passes(crop, kernels, arrays).items()
            if not (algorithm == "naive" and name == "weight_grad")
        }
    return found


def rms(a: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(a, dtype=np.float64))))


if __name__ == "__main__":
    main()
