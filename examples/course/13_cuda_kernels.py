# %% [markdown]
# # 13. The CUDA ladder, without a GPU
#
# A GPU multiplies faster than its memory can deliver. So the art of a kernel is to load a number once and use it often.
# This lesson writes one convolution in three ways, runs them in the package's simulator, which needs g++ but no GPU,
# and counts what memory had to do. Then it takes a barrier away, and lets the simulator find the race.

# %%
import matplotlib.pyplot as plt
import numpy as np

from minitorch_unet.backend import simulator_unavailable_reason
from minitorch_unet.course import show
from minitorch_unet.simulator import KernelError, Module

if simulator_unavailable_reason():  # no g++, or not Linux
    raise SystemExit(f"lesson 13 cannot run here: {simulator_unavailable_reason()}")

# %% [markdown]
# ## The work as one product
#
# A convolution is a product of matrices, y = A · B. A row of A belongs to a pixel m, a column of B to a filter k, and
# the sum runs over z: nine taps times C channels. A is never written down: `under` says where its element lies in x.
#
# A *kernel* (`__global__`) runs once for each *thread*. Threads come in *blocks*; a block shares a small fast memory,
# `__shared__`. `__syncthreads()` is a barrier: nobody passes it before all of the block are there.

# %%
SOURCE = r"""
enum { C = 16, K = 32, P = 16, Z = 9 * C };  // channels, filters, rows and columns of the result, length of the sums
__device__ int under(int m, int z) {         // the image has P + 2 rows and columns; its channels are neighbours
  const int row = m / P + z / C / 3, column = m % P + z / C % 3;
  return (row * (P + 2) + column) * C + z % C;
}

extern "C" __global__ void naive(const float* x, const float* w, float* y) {
  const int m = blockIdx.x * 8 + threadIdx.x / K, k = threadIdx.x % K;
  float sum = 0;
  for (int z = 0; z < Z; z++) sum += x[under(m, z)] * w[z * K + k];
  y[m * K + k] = sum;
}

// A block of 16 x 16 threads, 16 x 16 results. Each thread loads one element of A and one of B for all.
extern "C" __global__ void tiled(const float* x, const float* w, float* y, int second_barrier) {
  __shared__ float a[16][16], b[16][16];
  const int i = threadIdx.x / 16, j = threadIdx.x % 16, m = blockIdx.x * 16 + i, k = blockIdx.y * 16 + j;
  float sum = 0;
  for (int z0 = 0; z0 < Z; z0 += 16) {
    a[i][j] = x[under(m, z0 + j)];
    b[i][j] = w[(z0 + i) * K + k];
    __syncthreads();
    for (int z = 0; z < 16; z++) sum += a[i][z] * b[z][j];
    if (second_barrier) __syncthreads();
  }
  y[m * K + k] = sum;
}

// A block of 64 threads, 32 x 32 results: each thread keeps 4 x 4 sums in registers.
extern "C" __global__ void blocked(const float* x, const float* w, float* y) {
  __shared__ float a[16][33], b[16][32];
  const int t = threadIdx.x, i = t / 8 * 4, j = t % 8 * 4, m0 = blockIdx.x * 32;
  float sum[4][4] = {};
  for (int z0 = 0; z0 < Z; z0 += 16) {
    for (int e = t; e < 512; e += 64) {
      a[e % 16][e / 16] = x[under(m0 + e / 16, z0 + e % 16)];
      b[e / 32][e % 32] = w[(z0 + e / 32) * K + e % 32];
    }
    __syncthreads();
    for (int z = 0; z < 16; z++) {
      float u[4], v[4];
      for (int r = 0; r < 4; r++) u[r] = a[z][i + r], v[r] = b[z][j + r];
      for (int e = 0; e < 16; e++) sum[e / 4][e % 4] += u[e / 4] * v[e % 4];
    }
    __syncthreads();
  }
  for (int e = 0; e < 16; e++) y[(m0 + i + e / 4) * K + j + e % 4] = sum[e / 4][e % 4];
}
"""
rng = np.random.default_rng(0)
x, w = (rng.standard_normal(shape, dtype=np.float32) for shape in ((18, 18, 16), (144, 32)))
windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))
truth = windows.transpose(0, 1, 3, 4, 2).reshape(256, 144) @ w


def run(module, name, *more):
    blocks, threads = {"naive": (32, 256), "tiled": ((16, 2), 256), "blocked": (8, 64)}[name]
    y = np.zeros((256, 32), np.float32)
    module.get_function(name)(blocks, threads, (x, w, y, *more))
    return abs(y - truth).max()  # the largest error


# %% [markdown]
# ## Count
#
# `mode="count"` notes every access. Threads go through the code in *warps* of 32. A warp's load from global memory is
# answered in sectors of 32 bytes; one from shared memory takes a *pass*, or more where lanes meet in a bank.

# %%
module, counts = Module(SOURCE, mode="count"), {}
for name, more in (("naive", []), ("tiled", [np.int32(1)]), ("blocked", [])):
    error, found = run(module, name, *more), module.stats()
    loads = sum(row.bytes for row in module.traffic if (row.space, row.kind) == ("global", "load")) // 4
    sectors, passes = found["global_load_sectors"], found["shared_load_passes"] + found["shared_store_passes"]
    print(f"{name:8} error {error:.0e}   loads {loads:9,}   sectors {sectors:7,}   shared passes {passes:6,}")
    counts[name] = loads / 1179648, 2 * 1179648 / (32 * sectors), 32 * passes / 1179648  # of 256 * 32 * 144 products
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
titles = "global loads for each product", "operations for each byte loaded", "shared passes for a warp's 32 products"
for axis, title, values in zip(axes, titles, zip(*counts.values(), strict=True), strict=True):
    axis.bar_label(axis.bar(list(counts), values, color=["tab:grey", "tab:blue", "tab:green"]), fmt="%.3g")
    axis.set_title(title)
    axis.margins(y=0.15)
show(figure, "13_memory")

# %% [markdown]
# There are 256 · 32 · 144 products to add up. The naive kernel loads two numbers for each. In a tile of 16 × 16 results
# each loaded number serves 16 threads: the loads are 2/16 of the products. In one of 32 × 32 they are 2/32. *Sectors*
# are fewer than loads, as the lanes of a naive warp all want the same x, and neighbouring weights.
#
# In shared memory (right) `tiled` needs a pass for each factor of a warp's products. A thread that keeps 4 × 4 sums
# reads 8 numbers for 16 products. Counts are no times: the simulator has no caches and no clock. But they tell what a
# kernel asks for. The package's own kernels have larger tiles: [docs/cuda-kernels.md](../../docs/cuda-kernels.md).
#
# ## A race
#
# Why does `tiled` need a second barrier? Without it a fast thread goes on to the next z0 and overwrites `a` and `b`
# while others still read them. `mode="check"` knows for every word who used it last, and what orders the two uses.

# %%
checked = Module(SOURCE, mode="check")
print(f"with both barriers: error {run(checked, 'tiled', np.int32(1)):.0e}, nothing found")
try:
    run(checked, "tiled", np.int32(0))
except KernelError as error:
    print(f"without the second: {error.kind} in {error.kernel}, block {error.block}, thread {error.thread}")
    print(f"  {error.what}\n  line {error.line}: {error.place.code}")

# %% [markdown]
# Both places are named; the missing barrier would stand between them. On a GPU this kernel may pass a thousand tests.
# `minitorch-unet simulate SCRIPT.py --check` checks a script that was written for CuPy:
# [docs/simulator.md](../../docs/simulator.md).
#
# ## Questions
#
# `python -m minitorch_unet.course start 13` writes answers_13.py; fill it in, then
# `python -m minitorch_unet.course check 13`.
#
# 1. `under`: where A[m][z] lies in the image.
# 2. `global_loads`: how many values a tiled kernel loads.
# 3. `passes`: how many passes 32 lanes' words take in shared memory.
# 4. `barriers`: which of three places in a kernel need one.
