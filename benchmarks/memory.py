"""Memory over a training step, predicted and measured: JSON and a picture.

    python benchmarks/memory.py -o benchmarks/results/memory-572.json --picture docs/images/memory-over-a-step.png

The prediction is `minitorch_unet.planner`'s, made without the network. Measured are, in a real step, the bytes of all
large arrays at each moment (they must be what was predicted) and the process's resident memory beyond its imports, at
each moment and at its peak over all steps.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special  # noqa: F401  (loaded before memory is read, as training loads it)

import minitorch_unet as mt
from minitorch_unet import planner
from minitorch_unet.plots import memory_over_a_step

MIB = 2**20


class ResidentToo(planner.Recorder):
    """Also notes the resident memory whenever a large array is made or dies."""

    def __init__(self, depth: int) -> None:
        super().__init__(depth)
        self.resident = [resident_bytes()]

    def __call__(self, number: int, change: int) -> None:
        super().__call__(number, change)
        self.resident.append(resident_bytes())


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=572, help="input pixels a side")
    parser.add_argument("--base", type=int, default=64, help="channels of the first block")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores at hand")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON")
    parser.add_argument("--picture", type=Path, help="PNG")
    options = parser.parse_args()
    if options.threads:
        mt.set_num_threads(options.threads)
    at_import = peak_bytes()
    depth = 4
    measured, resident = measure(options, depth)
    peak = peak_bytes() - at_import
    # Last, for the dry run asks the system for nothing but would leave the interpreter's own growth in the figures.
    plan = planner.plan(
        options.size, options.base, options.batch, depth, options.recompute, threads=mt.get_num_threads()
    )
    constant = plan.parameters + plan.state
    curves = {
        "live, measured": [constant + m.live for m in measured],
        "resident, measured": [r - at_import for r in resident],
    }
    row = {
        "engine": f"minitorch_unet {mt.__version__}", "threads": mt.get_num_threads(),
        "size": options.size, "base": options.base, "batch": options.batch, "recompute": options.recompute,
        "predicted_mib": round(plan.total / MIB, 1), "measured_mib": round(peak / MIB, 1),
        "predicted_live_mib": round((constant + max(m.live for m in plan.moments)) / MIB, 1),
        "measured_live_mib": round(max(curves["live, measured"]) / MIB, 1),
        "parameters_and_state_mib": round(constant / MIB, 1), "scratch_mib": round(plan.scratch / MIB, 1),
    }  # fmt: skip
    print(json.dumps(row))
    predicted = [(m.phase, m.stage, m.kept, m.gradients, m.temporaries) for m in plan.moments]
    lines: dict[str, Any] = {"predicted": predicted, **curves}
    body = ",\n".join(f" {json.dumps(name)}: {json.dumps(line)}" for name, line in lines.items())
    options.output.write_text(f"{json.dumps(row, indent=1)[:-2]},\n{body}\n}}\n", encoding="utf-8")
    if options.picture:
        title = f"Memory over a training step: {options.size} x {options.size} pixels, base {options.base}"
        title += ", areas predicted, lines measured"
        same = len(measured) == len(plan.moments)
        memory_over_a_step(plan.moments, options.picture, constant, title, curves if same else None)


def measure(options: argparse.Namespace, depth: int) -> tuple[list[planner.Moment], list[int]]:
    """The moments of a real step and the resident memory at each; two other steps go before."""
    network = mt.UNet(base=options.base, depth=depth, recompute=options.recompute)
    rng = np.random.default_rng(0)
    image = mt.Tensor(rng.standard_normal((options.batch, 1, options.size, options.size), dtype=np.float32))
    out = network.sizes.output_size(options.size)
    label = rng.integers(0, 2, (options.batch, out, out))
    optimizer = mt.optim.SGD(network.parameters(), lr=1e-4, momentum=0.99)
    for _ in range(3):
        recorder = ResidentToo(depth)
        moments = planner.record_step(network, image, label, optimizer, recorder)
    return moments, recorder.resident


def peak_bytes() -> int:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
