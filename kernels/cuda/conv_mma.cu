// Rung 4: tensor cores through mma.sync, fed by asynchronous copies. A block makes a BM x BN tile of the product, each of
// its warps a part of that.
//
// What the rung adds: (1) a warp multiplies 16 x 8 pieces by one instruction: factors of TF32, bfloat16 or float16, float32
// sums. (2) cp.async copies go from global to shared memory past the registers, so that several pieces of z can be on their
// way at once (STAGES) and hide the memory's latency. (3) ldmatrix brings the factors into the registers where the tensor
// cores expect them; an exchange of chunks keeps it clear of bank conflicts. (4) The epilogue (bias, ReLU, mask) goes through
// shared memory and out in vectors.
//
// Types. Maps and packed weights are T: bf16 or half, or float, whose factors are rounded to TF32. With EXACT=1 ("3xTF32")
// each float32 factor is split into two TF32 numbers, and three of the four products are added: nearly all of float32's
// accuracy for three times the products, which the tensor cores still do faster than the float32 units do one.
//
// Arithmetic intensity, 128 x 128: 128 operations a value loaded, as in rung 3: 64 a byte in 16 bits. From shared memory a
// warp reads 64 + 64 values of each z for 64 * 64 multiply-adds: 32 a value.
// Bound: for wide layers the tensor cores as far as mma.sync can use them (on Hopper about six tenths of their peak; rung 5's
// wgmma can do better), next to it shared memory, which is written once and read twice, by two warps each. Layers of 64
// channels have so few products per byte that global memory bounds them.
//
// Channels: neighbours are copied 16 bytes at a time, so channel counts (and the strides of views) are multiples of 4 (float)
// or 8; others are served by rung 3. The number of filters of a forward pass may be anything.
//@ variants: T=float; T=float EXACT=1; T=bf16; T=half; T=float BN=64; T=float BN=64 EXACT=1; T=bf16 BN=64; T=bf16 BM=64; T=float BM=64 EXACT=1
#include "primitives.cuh"

#ifndef T
#define T float
#endif
#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 128
#endif
#ifndef STAGES
#define STAGES 3
#endif
#ifndef EXACT
#define EXACT 0
#endif

#include "conv_mma.cuh"

constexpr int BLOCKS = BM + BN == 256 || EXACT ? 2 : 3;  // that a multiprocessor should hold: this bounds the registers

//@ budget: registers 255, shared 0, needs HMMA LDGSTS LDSM
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
conv_mma_forward(const T* x, const T* x2, const T* weight, const float* bias, T* y, float* parts,
                 const Convolution conv) {
  DYN_SMEM(unsigned char, stages);
  const int m0 = blockIdx.x * BM, j0 = blockIdx.y * BN;
  PixelRows<T, ByRows<BM>> a(x, x2, conv, m0);
  FilterRows<T, ByRows<BN>> b(weight, conv, j0);
  float sums[MI][NI][4] = {};
  multiply(a, b, a.z.steps, stages, sums);
  write<VEC>(Output<T>{y, parts, bias, nullptr, conv}, m0, j0, sums, stages);
}

//@ budget: registers 255, shared 0, needs HMMA LDGSTS LDSM
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
conv_mma_input_grad(const T* gy, const T* weight, const float* bias, const T* mask, T* gx, float* parts,
                    const Convolution conv) {
  DYN_SMEM(unsigned char, stages);
  const int m0 = blockIdx.x * BM, j0 = blockIdx.y * BN;
  PixelRows<T, ByRows<BM>> a(gy, nullptr, conv, m0);
  FilterColumns<T, ByColumns<BN>> b(weight, conv, j0);
  float sums[MI][NI][4] = {};
  multiply(a, b, a.z.steps, stages, sums);
  write<VEC>(Output<T>{gx, parts, bias, mask, conv}, m0, j0, sums, stages);
}

//@ budget: registers 255, shared 0, needs HMMA LDGSTS
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
conv_mma_weight_grad(const T* x, const T* x2, const T* gy, float* gw, float* parts, const Convolution conv) {
  DYN_SMEM(unsigned char, stages);
  const int m0 = blockIdx.x * BM, j0 = blockIdx.y * BN;
  GradientColumns<T, ByColumns<BM>> a(gy, conv, m0);
  PatchColumns<T, ByColumns<BN>> b(x, x2, conv, j0);
  float sums[MI][NI][4] = {};
  multiply(a, b, (conv.pixels() + DEPTH - 1) / DEPTH, stages, sums);
  write<4>(Output<float>{gw, parts, nullptr, nullptr, conv}, m0, j0, sums, stages);
}
