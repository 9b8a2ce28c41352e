"""The smallest kernel: c = a + b, one thread for each element.

    python examples/cuda/vector_add.py                      on a GPU, with CuPy
    minitorch-unet simulate examples/cuda/vector_add.py     on any machine
"""

import argparse

import cupy as cp
import numpy as np

SOURCE = r"""
extern "C" __global__ void vector_add(const float* a, const float* b, float* c, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
#ifndef NO_TEST
  if (i >= n) return;  // the last block has more threads than there are elements left
#endif
  c[i] = a[i] + b[i];
}
"""

parser = argparse.ArgumentParser(description="Add two vectors.")
parser.add_argument("--n", type=int, default=1000, help="how many elements (default: 1000)")
parser.add_argument("--define", action="append", default=[], metavar="NAME", help="NO_TEST: no comparison with n")
options = parser.parse_args()

rng = np.random.default_rng(0)
a, b = (cp.asarray(rng.standard_normal(options.n, dtype=np.float32)) for _ in range(2))
c = cp.empty_like(a)

kernel = cp.RawModule(code=SOURCE, options=tuple(f"-D{name}" for name in options.define)).get_function("vector_add")
threads = 256
blocks = -(-options.n // threads)  # rounded up
kernel((blocks,), (threads,), (a, b, c, np.int32(options.n)))

print(f"{blocks} blocks of {threads} threads; largest error {float(abs(c - (a + b)).max()):.1e}")
