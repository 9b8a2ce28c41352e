"""Time one forward pass and one training step of the U-Net, and print them as one JSON line.

    python benchmarks/step.py --size 572 --base 64 --runs 5

A step is loss (softmax cross-entropy), backward and SGD with momentum 0.99. Times are medians in seconds; `peak_mib` is
the process's peak resident memory, `import_mib` what it was just after the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.special  # noqa: F401  (loaded before memory is read, as training loads it)

import minitorch_unet as mt
from minitorch_unet import functional as F
from minitorch_unet.backend.compiled import status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=572, help="input pixels a side")
    parser.add_argument("--base", type=int, default=64, help="channels of the first block")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores at hand")
    parser.add_argument("--recompute", action="store_true", help="compute each block's first convolution twice")
    parser.add_argument("--profile", action="store_true", help="print the slowest functions of a step instead")
    options = parser.parse_args()
    if options.threads:
        mt.set_num_threads(options.threads)
    import_mib = peak_mib()

    mt.manual_seed(0)
    network = mt.UNet(base=options.base, recompute=options.recompute)
    rng = np.random.default_rng(0)
    image = mt.Tensor(rng.standard_normal((options.batch, 1, options.size, options.size), dtype=np.float32))
    out = network.sizes.output_size(options.size)
    label = rng.integers(0, 2, (options.batch, out, out))
    optimizer = mt.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99)

    def forward() -> None:
        with mt.no_grad():
            network(image)

    def step() -> None:
        optimizer.backward_and_step(F.cross_entropy(network(image), label))

    if options.profile:
        profile(step)
        return
    times = {"forward_s": median_seconds(forward, options.runs), "step_s": median_seconds(step, options.runs)}
    row = {
        "engine": f"minitorch_unet {mt.__version__}", "kernels": status(),
        "size": options.size, "base": options.base, "batch": options.batch, "runs": options.runs,
        "recompute": options.recompute, "threads": mt.get_num_threads(),
        "coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "output": [options.batch, 2, out, out], **{name: round(value, 5) for name, value in times.items()},
        "peak_mib": round(peak_mib()), "import_mib": round(import_mib),
    }  # fmt: skip
    print(json.dumps(row))


def median_seconds(work: Callable[[], None], runs: int) -> float:
    """Median of `runs` timed calls after one that is not counted."""
    work()
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def peak_mib() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def profile(step: Callable[[], None]) -> None:
    """Time by function over one step, on one thread so that every function's own time is seen."""
    import cProfile
    import pstats

    mt.set_num_threads(1)
    step()
    profiler = cProfile.Profile()
    profiler.runcall(step)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
