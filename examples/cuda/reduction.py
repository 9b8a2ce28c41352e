"""The sum of a vector: lanes of a warp add by shuffles, warps through shared memory, blocks by a second launch.

No atomic operation on floats: the order of the additions, and so every bit of the result, is the same in every run.

    minitorch-unet simulate examples/cuda/reduction.py --check
"""

import argparse

import cupy as cp
import numpy as np

SOURCE = r"""
// One number for each block: the sum of x[first], x[first + step], ...
extern "C" __global__ void block_sums(const float* x, float* sums, long long n) {
  __shared__ float warp_sums[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x, step = (long long)gridDim.x * blockDim.x;
  float sum = 0;
  for (long long i = first; i < n; i += step) sum += x[i];

  // After 5 steps every lane holds the sum of all 32.
  for (int bit = 16; bit > 0; bit /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bit);
  if (lane == 0) warp_sums[warp] = sum;
  __syncthreads();
#ifdef HALF_A_WARP
  if (threadIdx.x < warps) {  // not all lanes named in the mask come to the shuffles
#else
  if (warp == 0) {
#endif
    sum = lane < warps ? warp_sums[lane] : 0;
    for (int bit = 16; bit > 0; bit /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, bit);
    if (lane == 0) sums[blockIdx.x] = sum;
  }
}
"""

parser = argparse.ArgumentParser(description="Add up a vector.")
parser.add_argument("--n", type=int, default=100_000, help="how many elements (default: 100000)")
parser.add_argument("--define", action="append", default=[], metavar="NAME", help="HALF_A_WARP")
options = parser.parse_args()

rng = np.random.default_rng(0)
x = cp.asarray(rng.standard_normal(options.n, dtype=np.float32))
blocks, threads = 20, 256
sums, total = cp.empty(blocks, np.float32), cp.empty(1, np.float32)

kernel = cp.RawModule(code=SOURCE, options=tuple(f"-D{name}" for name in options.define)).get_function("block_sums")
kernel((blocks,), (threads,), (x, sums, np.int64(options.n)))
kernel((1,), (threads,), (sums, total, np.int64(blocks)))

print(f"sum {float(total[0]):.3f}, error {abs(float(total[0]) - float(x.astype(np.float64).sum())):.0e}")
