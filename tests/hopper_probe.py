"""A small kernel that shows how Hopper's copy engine and matrix units lay things out; see the tests that run it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from minitorch_unet.backend.cuda.sources import options
from minitorch_unet.backend.cuda.tensor_map import Axis, TensorMap
from minitorch_unet.backend.devices import library

DEVICE = os.environ.get("MINITORCH_UNET_TEST_DEVICE", "simulate")

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
#if defined(CUSIM)
  if (mistake != 5)
#endif
    wgmma_wait<0>();
  for (int i = 0; i < 64; i++) d[threadIdx.x * 64 + i] = sums[i];
  wgmma_wait<0>();
}
"""
SHARED = 3 * 8192 + 8 + 1024


def probe(a: np.ndarray, b: np.ndarray, mn: tuple[bool, bool] = (False, False), mistake: int = 0) -> Any:
    """(bytes of the tiles, accumulators as (128 threads, 64 registers)) of A (64, DEPTH) times B (128, DEPTH)^T."""
    xp = library(DEVICE)
    arrays, records = [], []
    for matrix, turned, name in ((a, mn[0], "a"), (b, mn[1], "b")):
        array = xp.asarray(np.ascontiguousarray(matrix.T if turned else matrix))
        (rows, inner), row, depth = array.shape, array.strides[0], 128 // array.itemsize
        axes = (Axis(inner, array.itemsize, depth), Axis(1, row, 1), Axis(rows, row, rows))
        arrays.append(array)
        records.append(np.frombuffer(bytes(TensorMap(xp, array, axes, name, tf32=a.dtype == np.float32)), "V128"))
    code = ("#define PROBE_TF32\n" if a.dtype == np.float32 else "") + PROBE
    kernel = xp.RawModule(code=code, options=(*options(), "-arch=sm_90a")).get_function("probe")
    memory, d = xp.zeros(3 * 8192, "uint8"), xp.zeros((128, 64), "float32")
    arguments = (*records, np.int32(mn[0]), np.int32(mn[1]), memory, d, np.int32(mistake))
    kernel((1,), (128,), arguments, shared_mem=SHARED)
    return memory.get(), d.get()


def whole_numbers(rows: int, dtype: Any) -> np.ndarray:
    return np.random.default_rng(rows).integers(-8, 9, (rows, 128 // np.dtype(dtype).itemsize)).astype(dtype)
