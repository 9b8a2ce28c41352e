"""Cases of the convolutions as CudaKernels offers them: whatever rung serves a call, or the reference.

The rungs have tests of their own, test_cuda_conv.py and test_cuda_hopper.py. Symbols as in cuda_kernel_cases.py, and
K filters, R S kernel rows columns.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from cpu_kernel_cases import Geometry, geometry
from cuda_kernel_cases import Placed, Random, case, flag, image, values

FEW = 0.1  # of the draws: a convolution takes long in the simulator


def small(rng: Random) -> Geometry:
    """A convolution as the CPU's kernels are tested with, on fewer pixels; of one group, which kernels need."""
    while True:
        g = geometry(rng)
        if g.size[0] * g.size[1] <= 120 and g.groups == 1:
            return g


def weight(rng: Random, dtype: str, *shape: int) -> Placed:
    """Filters (K, C, R, S), float32, of values that the maps' type holds: rounding them there changes nothing."""
    return Placed(values(rng, *shape, dtype=dtype).astype(np.float32), str(rng.choice(["last", "first"])))


def vector(rng: Random, size: int) -> Placed | None:
    return Placed(values(rng, size, dtype="float32"), "first") if flag(rng) else None


def type_of(rng: Random) -> str:
    return str(rng.choice(["float32", "float16", "bfloat16"]))


def sources(rng: Random, dtype: str, n: int, channels: int, size: tuple[int, int]) -> Any:
    """A map, or two whose channels follow one another."""
    if channels < 2 or flag(rng):
        return image(rng, n, channels, *size, dtype=dtype)
    edges = (0, int(rng.integers(1, channels)), channels)
    return tuple(image(rng, n, last - first, *size, dtype=dtype) for first, last in pairwise(edges))


@case(absolute=2e-6, share=FEW)
def conv2d(rng: Random) -> tuple[Any, ...]:
    g, dtype = small(rng), type_of(rng)
    filters = weight(rng, dtype, g.filters, g.channels // g.groups, *g.kernel)
    x = sources(rng, dtype, int(rng.integers(1, 3)), g.channels, g.size)
    return x, filters, vector(rng, g.filters), *g.how, flag(rng)


@case(absolute=2e-6, share=FEW)
def conv2d_input_grad(rng: Random) -> tuple[Any, ...]:
    g, dtype, n = small(rng), type_of(rng), int(rng.integers(1, 3))
    if rng.random() < 0.3:  # an up-convolution
        size = int(rng.integers(1, 6)) * 2, int(rng.integers(1, 6)) * 2
        g = g._replace(kernel=(2, 2), size=size, stride=(2, 2), padding=(0, 0), dilation=(1, 1), groups=1)
    filters = weight(rng, dtype, g.filters, g.channels // g.groups, *g.kernel)
    mask = image(rng, n, g.channels, *g.size, dtype=dtype) if rng.random() < 0.4 else None
    gy = image(rng, n, g.filters, *g.out_size, dtype=dtype)
    return gy, filters, g.size, *g.how, vector(rng, g.channels), mask


@case(absolute=2e-6, share=FEW)
def conv2d_weight_grad(rng: Random) -> tuple[Any, ...]:
    g, dtype, n = small(rng), type_of(rng), int(rng.integers(1, 3))
    x = sources(rng, dtype, n, g.channels, g.size)
    return x, image(rng, n, g.filters, *g.out_size, dtype=dtype), g.kernel, *g.how
