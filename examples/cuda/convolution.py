"""A 3x3 valid convolution of one image (H, W) -> (H - 2, W - 2): a block loads its part of the image, with a rim, once.

A block of 16 x 16 threads computes as many pixels. They need 18 x 18 input pixels, so some threads load two of them.

    minitorch-unet simulate examples/cuda/convolution.py --check
    minitorch-unet simulate examples/cuda/convolution.py --count
"""

import argparse

import cupy as cp
import numpy as np

SOURCE = r"""
#define SIDE 16
#define RIM (SIDE + 2)
#ifdef NARROW
#define ROWS SIDE
#else
#define ROWS RIM
#endif

extern "C" __global__ void convolution(const float* image, const float* filter, float* result, int height, int width) {
  __shared__ float part[ROWS][RIM];
  const int x0 = blockIdx.x * SIDE, y0 = blockIdx.y * SIDE;
  const int thread = threadIdx.y * SIDE + threadIdx.x;
  for (int i = thread; i < RIM * RIM; i += SIDE * SIDE) {
    const int y = i / RIM, x = i % RIM;
    part[y][x] = y0 + y < height && x0 + x < width ? image[(y0 + y) * width + x0 + x] : 0;
  }
  __syncthreads();
  float sum = 0;
  for (int r = 0; r < 3; r++)
    for (int s = 0; s < 3; s++) sum += part[threadIdx.y + r][threadIdx.x + s] * filter[r * 3 + s];
  const int p = y0 + threadIdx.y, q = x0 + threadIdx.x;
  if (p < height - 2 && q < width - 2) result[p * (width - 2) + q] = sum;
}
"""

parser = argparse.ArgumentParser(description="Convolve an image.")
parser.add_argument("--size", type=int, nargs=2, default=(50, 61), metavar=("H", "W"), help="(default: 50 61)")
parser.add_argument("--define", action="append", default=[], metavar="NAME", help="NARROW: shared memory too small")
options = parser.parse_args()

rng = np.random.default_rng(0)
height, width = options.size
image = cp.asarray(rng.standard_normal((height, width), dtype=np.float32))
weights = cp.asarray(rng.standard_normal((3, 3), dtype=np.float32))
result = cp.empty((height - 2, width - 2), np.float32)

kernel = cp.RawModule(code=SOURCE, options=tuple(f"-D{name}" for name in options.define)).get_function("convolution")
grid = (-(-(width - 2) // 16), -(-(height - 2) // 16))
kernel(grid, (16, 16), (image, weights, result, np.int32(height), np.int32(width)))

expected = sum(
    image[r : r + height - 2, s : s + width - 2] * weights[r, s] for r in range(3) for s in range(3)
)
print(f"{grid[0]} x {grid[1]} blocks; largest error {float(abs(result - expected).max()):.0e}")
