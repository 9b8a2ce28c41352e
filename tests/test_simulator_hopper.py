"""The simulator's copy engine and matrix units: layouts in shared memory, against an evaluation of the tables in the
PTX ISA, and what becomes of small kernels that are wrong.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.backend.cuda.tensor_map import Axis, TensorMap
from minitorch_unet.backend.precision import named_dtype
from minitorch_unet.simulator import KernelError, Module, standin

pytest.importorskip("ml_dtypes")
pytestmark = pytest.mark.skipif(simulator_unavailable_reason() is not None, reason=str(simulator_unavailable_reason()))

# One warpgroup multiplies A (64 x DEPTH) by B (128 x DEPTH)^T, DEPTH elements being 128 bytes, and hands out the tiles'
# bytes and the accumulators as they lie. `mistake`: see the tests.
PROBE = r"""
#include "hopper.cuh"
template <class Value, bool A_MN, bool B_MN>
__device__ void product(float (&sums)[64], const unsigned char* a, const unsigned char* b) {
  for (int z = 0; z < 4; z++)
    wgmma<Value, 128, A_MN, B_MN>(sums, A_MN ? mn_major(a + z * 2048, 8192) : k_major(a + z * 32),
                                  B_MN ? mn_major(b + z * 2048, 8192) : k_major(b + z * 32), z > 0);
}
extern "C" __global__ void probe(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, int a_mn,
                                 int b_mn, unsigned char* memory, float* d, int mistake) {
  DYN_SMEM(unsigned char, raw);
  unsigned char* tile = raw + (1024 - (shared_address(raw) & 1023)) % 1024;
  Barrier* arrived = (Barrier*)(tile + (mistake == 1 ? 8192 : 3 * 8192));
  if (threadIdx.x == 0 && mistake != 2) {
    barrier_init(arrived, 1);
    barrier_init_done();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    barrier_expect(arrived, 3 * 8192);
    if (mistake == 3) load_box(tile, &a, arrived, 0, 0, 0, 0);
    load_box(tile, &a, arrived, 0, 0, 0);
    load_box(tile + (mistake == 6 ? 16384 : 8192), &b, arrived, 0, 0, 0);
    if (b_mn) load_box(tile + 16384, &b, arrived, 64, 0, 0);
  }
  barrier_wait(arrived, 0);
  for (int i = threadIdx.x; i < 3 * 8192; i += 128) memory[i] = tile[i];
  float sums[64];
  wgmma_fence();
  const unsigned char* factor = mistake == 4 ? tile + threadIdx.x / 32 * 1024 : tile;
#if defined(PROBE_TF32)
  product<float, false, false>(sums, factor, tile + 8192);
#else
  if (a_mn && b_mn) product<bf16, true, true>(sums, factor, tile + 8192);
  else if (a_mn) product<bf16, true, false>(sums, factor, tile + 8192);
  else if (b_mn) product<bf16, false, true>(sums, factor, tile + 8192);
  else product<bf16, false, false>(sums, factor, tile + 8192);
#endif
  wgmma_commit();
  if (mistake != 5) wgmma_wait<0>();
  for (int i = 0; i < 64; i++) d[threadIdx.x * 64 + i] = sums[i];
  wgmma_wait<0>();
}
"""
SHARED = 3 * 8192 + 8 + 1024


def probe(
    a: np.ndarray, b: np.ndarray, mn: tuple[bool, bool] = (False, False), mistake: int = 0, mode: str = "check"
) -> Any:
    """(bytes of the tiles, accumulators as (128 threads, 64 registers)) of A (64, DEPTH) times B (128, DEPTH)^T."""
    maps = []
    for matrix, turned, name in ((a, mn[0], "a"), (b, mn[1], "b")):
        array = standin.asarray(np.ascontiguousarray(matrix.T if turned else matrix))
        (rows, inner), row = array.shape, array.strides[0]
        depth = 128 // array.itemsize
        axes = (Axis(inner, array.itemsize, depth), Axis(1, row, 1), Axis(rows, row, rows))
        maps.append((array, bytes(TensorMap(standin, array, axes, name, tf32=a.dtype == np.float32))))
    module = Module(PROBE, mode, ("PROBE_TF32",) if a.dtype == np.float32 else ())
    memory, d = np.zeros(3 * 8192, np.uint8), np.full((128, 64), np.nan, np.float32)
    arguments = (*(record for _, record in maps), np.int32(mn[0]), np.int32(mn[1]), memory, d, np.int32(mistake))
    module.get_function("probe")(1, 128, arguments, shared_mem=SHARED)
    return memory, d


def whole_numbers(rows: int, dtype: Any) -> np.ndarray:
    return np.random.default_rng(rows).integers(-8, 9, (rows, 128 // np.dtype(dtype).itemsize)).astype(dtype)


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
    """To nearest, ties away from zero: the 11 bits of 1 + 2^-11 become 1 + 2^-10, those of 1 + 2^-12 become 1."""
    a, b = np.zeros((64, 32), "float32"), np.zeros((128, 32), "float32")
    a[0, 0], a[1, 0], b[0, 0] = 1 + 2**-11, 1 + 2**-12, 1
    _, d = probe(a, b)
    assert d[0, 0] == 1 + 2**-10
    assert d[4, 0] == 1


@pytest.mark.parametrize(
    ("mistake", "kind", "text"),
    [
        (1, "tma", "covers the mbarrier at byte"),
        (2, "mbarrier", "was not initialised"),
        (3, "tma", "4 coordinates by a map of rank 3"),
        (6, "address", r"16384 bytes from byte \d+ on leave the 25608 bytes"),
        (4, "wgmma", "warps of a warpgroup issue wgmmas with different descriptors"),
    ],
)
def test_wrong_use_is_named(mistake: int, kind: str, text: str) -> None:
    bf16 = named_dtype("bfloat16")
    with pytest.raises(KernelError, match=text) as caught:
        probe(whole_numbers(64, bf16), whole_numbers(128, bf16), mistake=mistake)
    assert caught.value.kind == kind
    assert caught.value.line


def test_accumulators_read_too_early_are_nan() -> None:
    bf16 = named_dtype("bfloat16")
    _, d = probe(whole_numbers(64, bf16), whole_numbers(128, bf16), mistake=5)
    assert np.isnan(d).all()


def test_hang_names_barrier_parity_and_what_is_missing() -> None:
    bf16 = named_dtype("bfloat16")
    with pytest.raises(
        KernelError, match=r"parity 0 of the mbarrier at byte \d+ .* 0 arrivals of 1 and 8192 bytes are missing"
    ):
        probe(whole_numbers(64, bf16), whole_numbers(64, bf16))


def test_engines_are_counted() -> None:
    """Two boxes of whole matrices, four products of the warpgroup."""
    bf16 = named_dtype("bfloat16")
    count = Module(PROBE, "count")
    count.stats()
    probe(whole_numbers(64, bf16), whole_numbers(128, bf16), mode="count")
    counts = count.stats()
    assert (counts["bulk_loads"], counts["bulk_load_bytes"], counts["bulk_stores"]) == (2, (64 + 128) * 128, 0)
    assert counts["wgmmas"] == 4
