"""Hopper's copy engine and matrix units: how tiles and accumulators lie, against the tables in the PTX ISA.

In the simulator this says that it does what the tables say; on a GPU, that they were read rightly.
"""

from __future__ import annotations

import numpy as np
import pytest
from hopper_probe import DEVICE, probe, whole_numbers

from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.devices import library
from minitorch_unet.backend.precision import named_dtype

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))


@pytest.fixture(autouse=True)
def hopper() -> None:
    if library(DEVICE).cuda.Device().compute_capability != "90":
        pytest.skip("needs a GPU of compute capability 9.0")


def at(shape: tuple[int, ...], stride: tuple[int, ...], index: int) -> int:
    """The offset of an index in one mode of a layout: its digits, the first the fastest, times the strides."""
    offset = 0
    for length, step in zip(shape, stride, strict=True):
        offset += index % length * step
        index //= length
    return offset


def k_major(row: int, z: int, t: int, atom: int, sbo: int) -> int:
    """Swizzled K-major layout in elements: ((8,m),(T,2k)):((atom T,SBO),(1,T)); atom: 2, 4, 8 for 32, 64, 128 bytes."""
    return at((8, 1 << 20), (atom * t, sbo), row) + at((t, 1 << 20), (1, t), z)


def mn_major(row: int, z: int, t: int, atom: int, lbo: int, sbo: int) -> int:
    """Swizzled MN-major layout in elements: ((T,atom,m),(8,k)):((1,T,LBO),(atom T,SBO))."""
    return at((t, atom, 1 << 20), (1, t, lbo), row) + at((8, 1 << 20), (atom * t, sbo), z)


def test_layout_formulas_give_the_examples_of_the_ptx_isa() -> None:
    """PTX ISA, "Canonical Layouts": the exact layouts it gives for its parameters, element by element."""
    for row in range(16):
        for z in range(16):
            exact = at((8, 2), (8, 64), row) + at((4, 4), (1, 4), z)
            assert k_major(row, z, 4, 2, 64) == exact  # K-major, 32 bytes, tf32
            exact = at((8, 2, 2), (1, 8, 128), row) + at((8, 2), (16, 256), z)
            assert mn_major(row, z, 8, 2, 128, 256) == exact  # MN-major, 32 bytes, bf16
            exact = at((8, 4, 2), (1, 8, 256), row) + at((8, 2), (32, 512), z)
            assert mn_major(row, z, 8, 4, 256, 512) == exact  # MN-major, 64 bytes, bf16


@pytest.mark.parametrize(
    ("name", "mn"),
    [("float32", (False, False)), *(("bfloat16", (a, b)) for a in (False, True) for b in (False, True))],
)
def test_tiles_and_accumulators_lie_as_documented(name: str, mn: tuple[bool, bool]) -> None:
    """What the copy engine writes, read by the tables' formulas, is the matrices; and wgmma multiplies just these."""
    dtype = named_dtype(name)
    a, b = whole_numbers(64, dtype), whole_numbers(128, dtype)
    memory, d = probe(a, b, mn)
    t, size = 16 // dtype.itemsize, dtype.itemsize
    values = memory.view(dtype)
    for matrix, turned, tile in ((a, mn[0], 0), (b, mn[1], 8192)):
        for row, z in np.ndindex(matrix.shape):
            element = (
                mn_major(row, z, t, 8, 8192 // size, 1024 // size) if turned else k_major(row, z, t, 8, 1024 // size)
            )
            address = tile + element * size  # tiles begin at multiples of 1024, so offsets swizzle as addresses do
            address ^= (address >> 7 & 7) << 4  # Swizzle<3,4,3>
            assert values[address // size] == matrix[row, z]
    product = a.astype("float64") @ b.astype("float64").T
    for thread, register in np.ndindex(d.shape):
        warp, lane, (j, i, e) = thread // 32, thread % 32, (register // 4, register // 2 % 2, register % 2)
        assert d[thread, register] == product[16 * warp + lane // 4 + 8 * i, 8 * j + 2 * (lane % 4) + e]


def test_tf32_factors_are_rounded_on_their_way() -> None:
    """To the nearest of 11 bits: a quarter of the last bit is dropped, three quarters become one."""
    a, b = np.zeros((64, 32), "float32"), np.zeros((128, 32), "float32")
    a[0, 0], a[1, 0], b[0, 0] = 1 + 2**-10 / 4, 1 + 2**-10 * 3 / 4, 1
    _, d = probe(a, b)
    assert d[0, 0] == 1
    assert d[4, 0] == 1 + 2**-10
