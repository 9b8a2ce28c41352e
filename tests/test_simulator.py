"""The simulator finds planted mistakes of kernels, names kind and line, and says nothing about their clean twins."""

import functools
import re
from pathlib import Path

import numpy as np
import pytest

from minitorch_unet.simulator import KernelError, Module, build

pytestmark = pytest.mark.skipif(build.unavailable_reason() is not None, reason=str(build.unavailable_reason()))
BUGS = Path(__file__).parent / "simulator_bugs"
F = np.float32


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=F).reshape(shape)


def zeros(n: int, dtype: type = F) -> np.ndarray:
    return np.zeros(n, dtype)


I = np.int32  # noqa: E741
MATRICES = lambda: (floats(20, 20), floats(20, 20), np.zeros((20, 20), F), I(20))  # noqa: E731

# kernel: (file, blocks, threads, arguments, bytes of dynamic shared memory)
CASES = {
    "product_before": ("barriers", (2, 2), (16, 16), MATRICES, 0),
    "product_after": ("barriers", (2, 2), (16, 16), MATRICES, 0),
    "double_buffer": ("barriers", 1, 64, lambda: (floats(5, 64), zeros(64), I(5)), 0),
    "divergent_barrier": ("barriers", 1, 64, lambda: (zeros(64),), 0),
    "half_a_warp": ("barriers", 1, 64, lambda: (zeros(64),), 0),
    "early_return": ("barriers", 1, 64, lambda: (zeros(50), I(50)), 0),
    "static_shared": ("memory", 1, 32, lambda: (zeros(32),), 0),
    "static_index": ("memory", 1, 32, lambda: (zeros(32),), 0),
    "dynamic_shared": ("memory", 1, 32, lambda: (zeros(32),), 128),
    "global_read": ("memory", 2, 32, lambda: (floats(50), zeros(50), I(50)), 0),
    "global_write": ("memory", 2, 32, lambda: (zeros(50), I(50)), 0),
    "negative_index": ("memory", 1, 32, lambda: (floats(32), zeros(32), I(32)), 0),
    "null_pointer": ("memory", 1, 32, lambda: (np.uintp(0), zeros(32)), 0),
    "uninitialised": ("memory", 1, 64, lambda: (zeros(64),), 0),
    "misaligned": ("memory", 1, 8, lambda: (aligned(36), zeros(8)), 0),
    "overflow": ("memory", 1, 32, lambda: (floats(7), zeros(32), I(50000)), 0),
    "divided": ("memory", 1, 32, lambda: (zeros(32, I), I(0)), 0),
    "shifted": ("memory", 1, 32, lambda: (zeros(32, I), I(0)), 0),
    "others_local": ("memory", 1, 32, lambda: (zeros(32),), 0),
    "endless": ("memory", 1, 32, lambda: (zeros(1, I), zeros(32)), 0),
    "missing_syncwarp": ("warps", 1, 32, lambda: (zeros(32),), 0),
    "diverged": ("warps", 1, 32, lambda: (zeros(32),), 0),
    "not_in_mask": ("warps", 1, 32, lambda: (zeros(32),), 0),
    "inactive_source": ("warps", 1, 32, lambda: (zeros(32),), 0),
    "half_the_lanes": ("warps", 1, 32, lambda: (zeros(32),), 0),
    "bad_width": ("warps", 1, 32, lambda: (zeros(32),), 0),
    "one_word": ("blocks", 2, 32, lambda: (zeros(1),), 0),
    "halo": ("blocks", 2, 32, lambda: (floats(64), zeros(64), I(64)), 0),
    "last_block": ("blocks", 5, 32, lambda: (floats(5), zeros(5), zeros(1), zeros(1, np.uint32)), 0),
    "mixed": ("blocks", 1, 64, lambda: (zeros(1, I), zeros(64, I)), 0),
    "halves": ("ordering", 1, 128, lambda: (zeros(128),), 0),
    "message": ("ordering", 1, 64, lambda: (zeros(64),), 0),
    "handed_back": ("ordering", 1, 64, lambda: (zeros(64),), 0),
    "missing_wait": ("async", 1, 32, lambda: (aligned(128), zeros(32)), 512),
    "waits_too_little": ("async", 1, 32, lambda: (floats(4, 32), zeros(32), I(4)), 256),
    "no_barrier": ("async", 1, 32, lambda: (aligned(64), zeros(32)), 256),
    "source_outside": ("async", 1, 32, lambda: (floats(30), zeros(32), I(30)), 128),
    "misaligned_copy": ("async", 1, 8, lambda: (aligned(36), zeros(8)), 128),
    "matrix_outside": ("async", 1, 32, lambda: (zeros(32),), 512),
}


def aligned(n: int) -> np.ndarray:
    """n floats from an address that is a multiple of 64."""
    whole = floats(n + 16)
    first = -whole.ctypes.data % 64 // 4
    return whole[first : first + n]


@functools.cache
def module(file: str, buggy: int, mode: str = "check") -> Module:
    return Module(BUGS / f"{file}.cu", mode, defines=(f"BUGGY={buggy}",))


def launch(name: str, buggy: int, mode: str = "check", seed: int = 0) -> tuple:
    file, blocks, threads, arguments, shared = CASES[name]
    built = module(file, buggy, mode)
    built.seed = seed
    args = arguments()
    built.get_function(name)(blocks, threads, args, shared_mem=shared)
    return args


def expected(name: str) -> tuple[str, int]:
    """Kind and line of the mark in the kernel's file."""
    lines = (BUGS / f"{CASES[name][0]}.cu").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if found := re.search(rf"// <- {name}: ([\w ]+)$", line):
            return found[1], number
    raise AssertionError(f"no mark for {name}")


@pytest.mark.parametrize("name", CASES)
def test_planted_mistake_is_found(name: str) -> None:
    with pytest.raises(KernelError) as caught:
        launch(name, 1)
    error = caught.value
    assert (error.kind, error.line) == expected(name), error
    assert error.kernel == name and Path(error.file).name == f"{CASES[name][0]}.cu"


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", CASES)
def test_clean_twin_passes(name: str, seed: int) -> None:
    launch(name, 0, seed=seed)
