"""One 3x3 convolution of 64 to 64 channels at 64 pixels, forward and backward, in some small engines.

    python small_engines.py mygrad        (or dezero, tinygrad, minitorch_unet; run with a Python that has it)

Prints one JSON line: engine and version, median seconds of forward and of forward and backward together, and a
checksum: the sum of squares of the weight gradient of sum(y), by which it is seen that all computed the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Pair = tuple[Callable[[], Any], Callable[[], Any]]  # forward; forward and backward, which returns the weight's gradient


def mygrad(x: np.ndarray, w: np.ndarray) -> Pair:
    import mygrad as mg
    from mygrad.nnet.layers import conv_nd

    def forward() -> Any:
        with mg.no_autodiff:
            return conv_nd(mg.tensor(x), mg.tensor(w), stride=1)

    def both() -> Any:
        image, weight = mg.tensor(x), mg.tensor(w)
        conv_nd(image, weight, stride=1).sum().backward()
        return weight.grad

    return forward, both


def dezero(x: np.ndarray, w: np.ndarray) -> Pair:
    import dezero as dz
    from dezero import functions

    def forward() -> Any:
        with dz.no_grad():
            return functions.conv2d(dz.Variable(x), dz.Variable(w))

    def both() -> Any:
        image, weight = dz.Variable(x), dz.Variable(w)
        functions.sum(functions.conv2d(image, weight)).backward()
        return weight.grad.data

    return forward, both


def tinygrad(x: np.ndarray, w: np.ndarray) -> Pair:
    beside = Path(sys.executable).with_name("clang")  # `make engines` puts one there if the system has none
    if beside.exists():
        os.environ.setdefault("CC", str(beside))
    from tinygrad import Tensor

    image, weight = Tensor(x).realize(), Tensor(w).realize()
    image.requires_grad = weight.requires_grad = True

    def forward() -> Any:
        return image.conv2d(weight).realize()

    def both() -> Any:
        image.grad = weight.grad = None
        image.conv2d(weight).sum().backward()
        Tensor.realize(image.grad, weight.grad)
        return weight.grad.numpy()

    return forward, both


def minitorch_unet(x: np.ndarray, w: np.ndarray) -> Pair:
    import minitorch_unet as mt
    from minitorch_unet import functional as F

    image, weight = mt.Tensor(x, requires_grad=True), mt.Tensor(w, requires_grad=True)

    def forward() -> Any:
        with mt.no_grad():
            return F.conv2d(image, weight)

    def both() -> Any:
        image.grad = weight.grad = None
        F.conv2d(image, weight).sum().backward()
        return weight.grad.numpy()

    return forward, both


ENGINES = {engine.__name__: engine for engine in (minitorch_unet, mygrad, dezero, tinygrad)}


def median_seconds(work: Callable[[], Any], runs: int) -> float:
    work()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return round(statistics.median(times), 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 64, 64, 64), dtype=np.float32)
    w = rng.standard_normal((64, 64, 3, 3), dtype=np.float32)
    forward, both = ENGINES[options.engine](x, w)
    checksum = float(np.sum(np.square(np.asarray(both()), dtype=np.float64)))
    print(json.dumps({
        "engine": f"{options.engine} {metadata.version(options.engine.replace('_', '-'))}", "runs": options.runs,
        "forward_s": median_seconds(forward, options.runs), "both_s": median_seconds(both, options.runs),
        "checksum": float(f"{checksum:.4g}"),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
