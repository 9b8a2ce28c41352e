// Rung 2: shared memory. A block of 16 x 16 threads makes a 16 x 16 tile of the product, a thread one value of it.
//
// What the rung adds: the naive kernel's threads read every value from global memory again and again (each pixel under a tap
// once for every filter, each weight once for every pixel). Here a block loads a 16 x 16 tile of either operand into shared
// memory, and each loaded value then serves the 16 threads of its row or column. This is also where convolution becomes a
// product of matrices (conv_shapes.cuh): the three passes are one loop over different operands (conv_operands.cuh).
//
// Arithmetic intensity: 2 * 16^3 operations for 2 * 16^2 values loaded, i.e. 16 operations a value, 4 a byte in float32; the
// naive kernel has 1 operation a value (what the caches catch, aside).
// Bound: shared memory. A multiply-add needs two values from it, and a multiprocessor reads one value for each of 32 threads
// in the time in which it multiplies and adds for 128: an eighth of the peak at most. Hence rung 3 keeps more in registers.
//@ variants: T=float; T=half; T=bf16
#include "conv_operands.cuh"

#ifndef T
#define T float
#endif

constexpr int TILE = 16;
using ByRows = Tile<true, 1, TILE, TILE, TILE * TILE>;
using ByColumns = Tile<false, 1, TILE, TILE, TILE * TILE>;

template <class Operand> __device__ float load(const Operand& operand) {
  const typename Operand::Type* from;
  return operand.find(0, from) ? to_float(*from) : 0.f;
}

// The thread's value of the tile: row threadIdx.x / 16, column threadIdx.x % 16. Both operands load one value a thread.
template <class A, class B> __device__ float multiply(A& a, B& b, int steps) {
  __shared__ float left[TILE][TILE + 1], right[TILE][TILE + 1];  // [row or column][z], a row in other banks than the next
  const int m = threadIdx.x / TILE, j = threadIdx.x % TILE;
  float sum = 0;
  for (int step = 0; step < steps; step++) {
    a.move_to(step);
    b.move_to(step);
    (A::BY_ROWS ? left[a.line][a.lane] : left[a.lane][a.line]) = load(a);
    (B::BY_ROWS ? right[b.line][b.lane] : right[b.lane][b.line]) = load(b);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILE; i++) sum += left[m][i] * right[j][i];
    __syncthreads();  // nobody may still read the tiles that the next step overwrites
  }
  return sum;
}

template <class To> __device__ void write(const Output<To>& output, int m0, int j0, float sum) {
  const float sums[1] = {sum};
  output.store(m0 + threadIdx.x / TILE, j0 + threadIdx.x % TILE, sums);
}

//@ budget: registers 96, shared 2304
extern "C" __global__ void __launch_bounds__(256)
conv_tiled_forward(const T* x, const T* x2, const float* weight, const float* bias, T* y, const Convolution conv) {
  const int m0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
  PixelRows<T, ByRows> a(x, x2, conv, m0);
  FilterRows<float, ByRows> b(weight, conv, j0);
  write(Output<T>{y, nullptr, bias, nullptr, conv}, m0, j0, multiply(a, b, a.z.steps));
}

//@ budget: registers 96, shared 2304
extern "C" __global__ void __launch_bounds__(256)
conv_tiled_input_grad(const T* gy, const float* weight, const float* bias, const T* mask, T* gx, const Convolution conv) {
  const int m0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
  PixelRows<T, ByRows> a(gy, nullptr, conv, m0);
  FilterColumns<float, ByColumns> b(weight, conv, j0);
  write(Output<T>{gx, nullptr, bias, mask, conv}, m0, j0, multiply(a, b, a.z.steps));
}

//@ budget: registers 96, shared 2304
extern "C" __global__ void __launch_bounds__(256)
conv_tiled_weight_grad(const T* x, const T* x2, const T* gy, float* gw, const Convolution conv) {
  const int m0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
  GradientColumns<T, ByColumns> a(gy, conv, m0);
  PatchColumns<T, ByColumns> b(x, x2, conv, j0);
  write(Output<float>{gw, nullptr, nullptr, nullptr, conv}, m0, j0, multiply(a, b, (conv.pixels() + TILE - 1) / TILE));
}
