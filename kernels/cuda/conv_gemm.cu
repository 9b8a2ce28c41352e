// Rung 3: blocked in registers. A block makes a BM x BN tile of the product, a thread 8 x 8 values of it, in float32.
//
// What the rung adds: (1) a thread keeps 64 sums in registers; for each z it reads 8 + 8 values from shared memory and does 64
// multiply-adds, where rung 2 reads 2 for one. (2) Global memory is read in vectors of four. (3) Two buffers: while the
// block multiplies one piece of z, the next is on its way from global memory into registers, and is then laid into the
// other buffer. One barrier a step is left.
//
// Arithmetic intensity, 128 x 128: 2 * 128 * 128 operations for 2 * 128 values of each z: 128 a value, 32 a byte in float32,
// eight times as much as rung 2. (The balance of an H100 is about 20 operations a byte for float32 multiply-adds.)
// Bound: the float32 multiply-add units, which are as busy as one can wish; only other units are faster (rung 4).
//
// BM = 64 serves weight gradients of 64 filters, BN = 64 maps of 64 channels. With VEC = 1 every value is loaded by itself:
// for channel counts that are no multiple of 4 (the first layer's single channel, the head's two classes) and maps that do
// not begin at multiples of four values.
//@ variants: T=float; T=float BN=64; T=float BM=64; T=float VEC=1; T=half BN=64; T=bf16 VEC=1
#include "conv_operands.cuh"

#ifndef T
#define T float
#endif
#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef VEC
#define VEC 4
#endif

constexpr int DEPTH = 8, THREADS = BM * BN / 64;
template <int EXTENT> using ByRows = Tile<true, VEC, DEPTH, EXTENT, THREADS>;
template <int EXTENT> using ByColumns = Tile<false, VEC, DEPTH, EXTENT, THREADS>;
template <int EXTENT> using Buffer = float[DEPTH][EXTENT + 4];  // 4 more: a transposed write meets rows in other banks

// A thread's part of an operand's next tile, on its way through registers.
template <class Operand> struct Transit {
  float value[Operand::COUNT][VEC];

  __device__ void fetch(const Operand& operand) {
#pragma unroll
    for (int i = 0; i < Operand::COUNT; i++) {
      const typename Operand::Type* from;
      Vector<typename Operand::Type, VEC> loaded{};
      if (operand.find(i, from)) loaded = *(const Vector<typename Operand::Type, VEC>*)from;
#pragma unroll
      for (int e = 0; e < VEC; e++) value[i][e] = to_float(loaded.value[e]);
    }
  }

  // An operand by rows is transposed on the way: the products want the values of one z side by side.
  __device__ void lay(const Operand& operand, Buffer<Operand::EXTENT>& tile) const {
#pragma unroll
    for (int i = 0; i < Operand::COUNT; i++) {
      const int line = operand.line + i * Operand::STRIDE;
      if (Operand::BY_ROWS) {
#pragma unroll
        for (int e = 0; e < VEC; e++) tile[operand.lane * VEC + e][line] = value[i][e];
      } else {
        *(Vector<float, VEC>*)&tile[line][operand.lane * VEC] = *(const Vector<float, VEC>*)value[i];
      }
    }
  }
};

// The block's share of z, added up: the thread's rows are y to y + 3 and the same half a tile further, and
// so its columns.
template <class A, class B> __device__ void multiply(A& a, B& b, int steps, float (&sums)[8][8]) {
  __shared__ __align__(16) Buffer<BM> left[2];
  __shared__ __align__(16) Buffer<BN> right[2];
  const int y = threadIdx.x / (BN / 8) * 4, x = threadIdx.x % (BN / 8) * 4;
  const int first = (int)((long long)steps * blockIdx.z / gridDim.z);
  const int last = (int)((long long)steps * (blockIdx.z + 1) / gridDim.z);
  Transit<A> next_a;
  Transit<B> next_b;
  for (int step = first; step <= last; step++) {
    const int buffer = step & 1;
    if (step < last) {
      a.move_to(step);
      b.move_to(step);
      next_a.fetch(a);
      next_b.fetch(b);
    }
    if (step > first) {  // the piece before, while the loads are under way
#pragma unroll
      for (int z = 0; z < DEPTH; z++) {
        float u[8], v[8];
#pragma unroll
        for (int part = 0; part < 2; part++) {
          *(Vector<float, 4>*)&u[part * 4] = *(const Vector<float, 4>*)&left[buffer ^ 1][z][part * (BM / 2) + y];
          *(Vector<float, 4>*)&v[part * 4] = *(const Vector<float, 4>*)&right[buffer ^ 1][z][part * (BN / 2) + x];
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
          for (int j = 0; j < 8; j++) sums[i][j] += u[i] * v[j];
      }
    }
    if (step < last) {  // nobody reads this buffer: its last readers have passed the barrier since
      next_a.lay(a, left[buffer]);
      next_b.lay(b, right[buffer]);
    }
    __syncthreads();
  }
}

// Registers have no addresses: instead of unrolling the epilogue for all rows (some ten thousand instructions), the sums
// move up by a row after each.
template <class Value> __device__ void write(const Output<Value>& output, int m0, int j0, float (&sums)[8][8]) {
  const int y = threadIdx.x / (BN / 8) * 4, x = threadIdx.x % (BN / 8) * 4;
#pragma unroll 1
  for (int i = 0; i < 8; i++) {
#pragma unroll
    for (int part = 0; part < 2; part++) {
      const float four[4] = {sums[0][part * 4], sums[0][part * 4 + 1], sums[0][part * 4 + 2], sums[0][part * 4 + 3]};
      output.store(m0 + i / 4 * (BM / 2) + y + i % 4, j0 + part * (BN / 2) + x, four);
    }
#pragma unroll
    for (int row = 0; row < 7; row++)
#pragma unroll
      for (int j = 0; j < 8; j++) sums[row][j] = sums[row + 1][j];
  }
}

//@ budget: registers 128, shared 16896
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
conv_gemm_forward(const T* x, const T* x2, const float* weight, const float* bias, T* y, float* parts,
                  const Convolution conv) {
  const int m0 = blockIdx.x * BM, j0 = blockIdx.y * BN;
  PixelRows<T, ByRows<BM>> a(x, x2, conv, m0);
  FilterRows<float, ByRows<BN>> b(weight, conv, j0);
  float sums[8][8] = {};
  multiply(a, b, a.z.steps, sums);
  write(Output<T>{y, parts, bias, nullptr, conv}, m0, j0, sums);
}

//@ budget: registers 128, shared 16896
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
conv_gemm_input_grad(const T* gy, const float* weight, const float* bias, const T* mask, T* gx, float* parts,
                     const Convolution conv) {
  const int m0 = blockIdx.x * BM, j0 = blockIdx.y * BN;
  PixelRows<T, ByRows<BM>> a(gy, nullptr, conv, m0);
  FilterColumns<float, ByColumns<BN>> b(weight, conv, j0);
  float sums[8][8] = {};
  multiply(a, b, a.z.steps, sums);
  write(Output<T>{gx, parts, bias, mask, conv}, m0, j0, sums);
}

//@ budget: registers 128, shared 16896
extern "C" __global__ void __launch_bounds__(THREADS, 512 / THREADS)
conv_gemm_weight_grad(const T* x, const T* x2, const T* gy, float* gw, float* parts, const Convolution conv) {
  const int m0 = blockIdx.x * BM, j0 = blockIdx.y * BN;
  GradientColumns<T, ByColumns<BM>> a(gy, conv, m0);
  PatchColumns<T, ByColumns<BN>> b(x, x2, conv, j0);
  float sums[8][8] = {};
  multiply(a, b, (conv.pixels() + DEPTH - 1) / DEPTH, sums);
  write(Output<float>{gw, parts, nullptr, nullptr, conv}, m0, j0, sums);
}
