"""C = A B by tiles in shared memory: every element is read from global memory once for each tile, not for each product.

A block computes 16 x 16 elements of C. It goes along the rows of A and down the columns of B in steps of 16; each of
its 256 threads loads one element of both tiles. Both barriers are needed: the first, because a thread multiplies what
others have loaded; the second, because the next tile must not overwrite what others still multiply.

    minitorch-unet simulate examples/cuda/matrix_product.py --check
    minitorch-unet simulate examples/cuda/matrix_product.py --check -- --define NO_SECOND_BARRIER
"""

import argparse

import cupy as cp
import numpy as np

SOURCE = r"""
#define TILE 16

extern "C" __global__ void __launch_bounds__(TILE * TILE)
matrix_product(const float* a, const float* b, float* c, int m, int n, int k) {  // (m, k), (k, n) -> (m, n)
  __shared__ float tile_a[TILE][TILE], tile_b[TILE][TILE];
  const int x = threadIdx.x, y = threadIdx.y;
  const int row = blockIdx.y * TILE + y, column = blockIdx.x * TILE + x;
  float sum = 0;
  for (int k0 = 0; k0 < k; k0 += TILE) {
    tile_a[y][x] = row < m && k0 + x < k ? a[row * k + k0 + x] : 0;
    tile_b[y][x] = k0 + y < k && column < n ? b[(k0 + y) * n + column] : 0;
#ifndef NO_FIRST_BARRIER
    __syncthreads();
#endif
    for (int i = 0; i < TILE; i++) sum += tile_a[y][i] * tile_b[i][x];
#ifndef NO_SECOND_BARRIER
    __syncthreads();
#endif
  }
  if (row < m && column < n) c[row * n + column] = sum;
}
"""

parser = argparse.ArgumentParser(description="Multiply two matrices.")
parser.add_argument("--size", type=int, default=50, help="rows and columns (default: 50)")
parser.add_argument("--define", action="append", default=[], metavar="NAME", help="NO_FIRST_BARRIER, NO_SECOND_BARRIER")
options = parser.parse_args()

rng = np.random.default_rng(0)
m = n = k = options.size
a, b = (cp.asarray(rng.standard_normal(shape, dtype=np.float32)) for shape in ((m, k), (k, n)))
c = cp.empty((m, n), np.float32)

kernel = cp.RawModule(code=SOURCE, options=tuple(f"-D{name}" for name in options.define)).get_function("matrix_product")
kernel((-(-n // 16), -(-m // 16)), (16, 16), (a, b, c, np.int32(m), np.int32(n), np.int32(k)))

print(f"largest error {float(abs(c - a @ b).max()):.0e}")
