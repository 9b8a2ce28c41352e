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

constexpr int TILE = 16, THREADS = TILE * TILE;

// The thread's value of the tile: row threadIdx.x / 16, column threadIdx.x % 16. Both operands load one value a thread.
template <class A, class B> __device__ float multiply(A& a, B& b, int steps) {
  __shared__ float left[TILE][TILE + 1], right[TILE][TILE + 1];  // [row or column][z]; one more, so that columns lie in other banks
  const int m = threadIdx.x / TILE, j = threadIdx.x % TILE;
  float sum = 0;
  for (int step = 0; step < steps; step++) {
    a.move_to(step);
    b.move_to(step);
    const auto* from_a = a.at(0);
    const auto* from_b = b.at(0);
    (A::BY_ROWS ? left[a.row][a.lane] : left[a.lane][a.row]) = from_a ? to_float(*from_a) : 0.f;
    (B::BY_ROWS ? right[b.row][b.lane] : right[b.lane][b.row]) = from_b ? to_float(*from_b) : 0.f;
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
conv_tiled_forward(const T* x, long long x_image, long long x_row, int x_pixel, int x_channels,
                   const T* x2, long long x2_image, long long x2_row, int x2_pixel, int x2_channels, int images,
                   int h, int w, int p, int q, int r, int s, int stride_h, int stride_w, int pad_h, int pad_w,
                   int dilation_h, int dilation_w, const float* weight, int weight_filter, int weight_tap,
                   const float* bias, const T* mask, int relu, T* y, int columns, int patch_r, int patch_s) {
  const Maps<T> map{x, x_image, x_row, x_pixel, x_channels}, map2{x2, x2_image, x2_row, x2_pixel, x2_channels};
  const Window window{h, w, p, q, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w};
  const Filters<float> filters{weight, weight_filter, weight_tap, columns, x_channels};
  const Output<T> output{y, nullptr, bias, mask, relu, images * p * q, columns, patch_r, patch_s, q};
  const Contraction z(window, x_channels, x2_channels, TILE);
  const int m0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
  PixelRows<T, 1, TILE, TILE, THREADS> a(map, map2, window, z, images, m0);
  FilterRows<float, 1, TILE, TILE, THREADS> b(filters, z, j0);
  write(output, m0, j0, multiply(a, b, z.steps));
}

//@ budget: registers 96, shared 2304
extern "C" __global__ void __launch_bounds__(256)
conv_tiled_input_grad(const T* x, long long x_image, long long x_row, int x_pixel, int x_channels, int images,
                      int h, int w, int p, int q, int r, int s, int stride_h, int stride_w, int pad_h, int pad_w,
                      int dilation_h, int dilation_w, const float* weight, int weight_filter, int weight_tap,
                      const float* bias, const T* mask, int relu, T* y, int columns, int patch_r, int patch_s) {
  const Maps<T> map{x, x_image, x_row, x_pixel, x_channels};
  const Window window{h, w, p, q, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w};
  const Filters<float> filters{weight, weight_filter, weight_tap, x_channels, columns};
  const Output<T> output{y, nullptr, bias, mask, relu, images * p * q, columns, patch_r, patch_s, q};
  const Contraction z(window, x_channels, 0, TILE);
  const int m0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
  PixelRows<T, 1, TILE, TILE, THREADS> a(map, map, window, z, images, m0);
  FilterColumns<float, 1, TILE, TILE, THREADS> b(filters, z, j0);
  write(output, m0, j0, multiply(a, b, z.steps));
}

//@ budget: registers 96, shared 2304
extern "C" __global__ void __launch_bounds__(256)
conv_tiled_weight_grad(const T* x, long long x_image, long long x_row, int x_pixel, int x_channels,
                       const T* x2, long long x2_image, long long x2_row, int x2_pixel, int x2_channels, int images,
                       int h, int w, int p, int q, int r, int s, int stride_h, int stride_w, int pad_h, int pad_w,
                       int dilation_h, int dilation_w, const T* gy, int filters, float* gw) {
  const Maps<T> map{x, x_image, x_row, x_pixel, x_channels}, map2{x2, x2_image, x2_row, x2_pixel, x2_channels};
  const Window window{h, w, p, q, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w};
  const int pixels = images * p * q, columns = r * s * (x_channels + x2_channels);
  const Output<float> output{gw, nullptr, nullptr, nullptr, 0, filters, columns, 1, 1, 1};
  const int m0 = blockIdx.x * TILE, j0 = blockIdx.y * TILE;
  GradientColumns<T, 1, TILE, TILE, THREADS> a(gy, pixels, filters, m0);
  PatchColumns<T, 1, TILE, TILE, THREADS> b(map, map2, window, pixels, j0);
  write(output, m0, j0, multiply(a, b, (pixels + TILE - 1) / TILE));
}
