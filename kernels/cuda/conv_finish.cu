// What stands before and after a convolution's main loop: packing a weight, and adding up the parts of a sum that was split.
//
// Both go once through memory and are bound by it: a few operations for every value that is read or written.
//@ variants: T=float; T=half; T=bf16; T=float VEC=1; T=bf16 VEC=1
#include "conv_shapes.cuh"

#ifndef T
#define T float
#endif
#ifndef VEC
#define VEC 4
#endif

// y = epilogue(sum over the splits of parts[split][m][j]), see Output. The sums are always formed in the same order,
// whatever the order in which blocks ran: results repeat to the last bit. A thread adds VEC neighbouring columns.
//@ budget: registers 40, shared 0
extern "C" __global__ void __launch_bounds__(256)
conv_finish(const float* parts, int splits, const float* bias, const T* mask, T* y, const Convolution conv) {
  const long long size = (long long)conv.rows * conv.columns, at = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * VEC;
  if (at >= size) return;
  float sums[VEC] = {};
  for (int split = 0; split < splits; split++) {
    const Vector<float, VEC> part = *(const Vector<float, VEC>*)(parts + split * size + at);
#pragma unroll
    for (int i = 0; i < VEC; i++) sums[i] += part.value[i];
  }
  const int m = (int)(at / conv.columns);
  Output<T>{y, nullptr, bias, mask, conv}.store(m, (int)(at - (long long)m * conv.columns), sums);
}

// packed[k][r][s][c] = weight[k, c, r, s], of any strides (in elements), as the maps' type.
//@ budget: registers 40, shared 0
extern "C" __global__ void __launch_bounds__(256)
conv_pack_weight(const float* weight, long long stride_k, long long stride_c, long long stride_r, long long stride_s,
                 int k, int c, int r, int s, T* packed) {
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (long long)k * r * s * c) return;
  const long long line = i / c, filter = line / (r * s);  // line: filter and tap
  const int channel = (int)(i - line * c), tap = (int)(line - filter * (r * s)), row = tap / s;
  packed[i] = from_float<T>(weight[filter * stride_k + channel * stride_c + row * stride_r + (tap - row * s) * stride_s]);
}
