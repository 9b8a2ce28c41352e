"""Make many random calls of the compiled kernels, built with sanitizers; `make sanitize` runs it.

    LD_PRELOAD=libasan.so python tests/sanitize/run_kernels.py LIBRARY [--draws 60]

Every buffer that the kernels are given is a heap block of exactly its size, so that the address sanitizer sees the
first float read or written beyond it. All instruction sets of this processor take their turn, each in a process of
its own. What a sanitizer finds ends the process with its report. The results are checked in tests/test_cpu_kernels.py.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from cpu_kernel_cases import CONVOLUTIONS, OVERRIDES, draw, outcome  # noqa: E402

from minitorch_unet import set_num_threads  # noqa: E402
from minitorch_unet.backend import compiled, cpu, direct, tiled  # noqa: E402

# Constants that send small convolutions through every way that large ones take.
WAYS: tuple[dict[str, int], ...] = (
    {},
    {"SOME_TILES": 10**9, "SHARED_BYTES": 30_000, "WEIGHT_BYTES": 200_000, "MANY_TILES": 10**9, "BLOCK_BYTES": 0,
     "GRADIENT_SHARED_BYTES": 10_000, "PIECE_CHANNELS": 16, "WEIGHT_COST": 0},
    {"SOME_TILES": 0, "STREAM_BYTES": 1, "MANY_TILES": 0, "WEIGHT_COST": 0},
)  # fmt: skip
USUAL = {name: getattr(tiled, name) for way in WAYS for name in way}


def exact_scratch(purpose: str, size: int) -> np.ndarray:
    """In the place of backend.compiled.scratch: a new block each time, not one that is large enough."""
    return np.empty(size, np.float32)


def make_calls(draws: int) -> int:
    """Every method and algorithm on `draws` random arguments for each way; returns the number of calls."""
    count = 0
    kernels = cpu.CpuKernels()
    for name, way, seed in itertools.product(OVERRIDES, WAYS, range(draws)):
        for constant, value in (USUAL | way).items():
            setattr(tiled, constant, value)
        for algorithm in cpu.ALGORITHMS if name in CONVOLUTIONS else ("auto",):
            kernels.algorithm = algorithm
            outcome(kernels, name, draw(name, seed, n=None if seed else 0))
            count += 1
    return count


def main() -> None:
    """Run this file again for each instruction set, or make the calls in the process of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, help="the kernels, built with sanitizers")
    parser.add_argument("--draws", type=int, default=60, help="random calls of each method, algorithm and way")
    arguments = parser.parse_args()
    library = arguments.library.resolve()
    if "MINITORCH_UNET_KERNELS" not in os.environ:
        probe = ctypes.CDLL(str(library))
        for name in compiled.INSTRUCTION_SETS:
            if name == "baseline" or getattr(probe, f"supports_{name}")():
                environment = os.environ | {"MINITORCH_UNET_KERNELS": name}
                done = subprocess.run([sys.executable, *sys.argv], env=environment, check=False)
                if done.returncode:
                    sys.exit(done.returncode)
        return
    compiled.library_path = lambda: library
    for module in (cpu, tiled, direct):
        module.scratch = exact_scratch
    cpu.PIECE_VALUES = 16  # so that small arrays are cut into pieces too
    set_num_threads(3)
    count = make_calls(arguments.draws)
    print(f"{library.name}, {os.environ['MINITORCH_UNET_KERNELS']}: {count} calls, nothing found")


if __name__ == "__main__":
    main()
