// Rung 1: the definition. One thread for one value of the result, which it sums up by itself from global memory.
//
// Any stride, padding and dilation, also of the input gradient, which the higher rungs compute for stride 1 (and for windows
// that touch without overlap) only. Neighbouring threads have neighbouring channels: a warp's writes, and its reads of what
// has the result's channels, are one piece of memory; what they share is read by all from one address. Only a forward pass's
// weights are neither: from filter to filter they lie R S C values apart, and a warp touches 32 sectors for 32 values.
//
// Arithmetic intensity: two operations (a multiplication, an addition) for two values loaded: 1 a value, 1/4 a byte of float32.
// Bound: the loads. Each is served by a cache at best, hundreds of times slower than the arithmetic could be fed from
// registers, and every sum waits for its last addition. Hence rung 2: read once, use many times.
//@ variants: T=float; T=half; T=bf16
#include "conv_shapes.cuh"

#ifndef T
#define T float
#endif

// The pixel (n, h, w) of a map, or null in the border.
__device__ inline const T* pixel(const T* map, const Layout& at, int n, int h, int w, int rows, int columns) {
  if (h < 0 || h >= rows || w < 0 || w >= columns) return nullptr;
  return map + n * at.image + (long long)h * at.row + (long long)w * at.pixel;
}

__device__ inline float dot(const T* map, const float* weight, int channels) {
  float sum = 0;
  for (int c = 0; c < channels; c++) sum += to_float(map[c]) * weight[c];
  return sum;
}

__device__ inline long long thread_number() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// y[n,p,q,k] = epilogue(sum over r, s, c of x[n, p * stride_h + r * dilation_h - pad_h, ..., c] * weight[k,r,s,c])
//@ budget: registers 64, shared 0
extern "C" __global__ void __launch_bounds__(256)
conv_naive_forward(const T* x, const T* x2, const float* weight, const float* bias, T* y, const Convolution conv) {
  const long long m = thread_number() / conv.columns;
  const int k = (int)(thread_number() - m * conv.columns);
  if (m >= conv.rows) return;
  const int np = (int)m / conv.q, q = (int)m - np * conv.q, n = np / conv.p, p = np - n * conv.p;  // np = n * P + p
  float sum = 0;
  for (int r = 0; r < conv.r; r++)
    for (int s = 0; s < conv.s; s++) {
      const int h = p * conv.stride_h + r * conv.dilation_h - conv.pad_h;
      const int w = q * conv.stride_w + s * conv.dilation_w - conv.pad_w;
      const float* tap = weight + (long long)k * conv.filter + (long long)(r * conv.s + s) * conv.tap;
      const T* from = pixel(x, conv.x, n, h, w, conv.h, conv.w);
      if (!from) continue;
      sum += dot(from, tap, conv.x.channels);
      if (x2) sum += dot(pixel(x2, conv.x2, n, h, w, conv.h, conv.w), tap + conv.x.channels, conv.x2.channels);
    }
  const float sums[1] = {sum};
  Output<T>{y, nullptr, bias, nullptr, conv}.store((int)m, k, sums);
}

// gx[n,h,w,c] = epilogue(sum of gy[n,p,q,k] * weight[k,r,s,c] over k and the p, q, r, s for which output pixel (p, q) meets
// (h, w) under tap (r, s)). Here h, w of `conv` are the size of gx, p, q that of gy, and x is the layout of gy.
//@ budget: registers 64, shared 0
extern "C" __global__ void __launch_bounds__(256)
conv_naive_input_grad(const T* gy, const float* weight, const float* bias, const T* mask, T* gx, const Convolution conv) {
  const long long m = thread_number() / conv.columns;
  const int c = (int)(thread_number() - m * conv.columns);
  if (m >= conv.rows) return;
  const int nh = (int)m / conv.w, w = (int)m - nh * conv.w, n = nh / conv.h, h = nh - n * conv.h;  // nh = n * H + h
  float sum = 0;
  for (int r = 0; r < conv.r; r++)
    for (int s = 0; s < conv.s; s++) {
      const int ph = h + conv.pad_h - r * conv.dilation_h, qw = w + conv.pad_w - s * conv.dilation_w;
      if (ph % conv.stride_h != 0 || qw % conv.stride_w != 0) continue;
      const T* from = pixel(gy, conv.x, n, ph / conv.stride_h, qw / conv.stride_w, conv.p, conv.q);
      if (!from) continue;
      const float* tap = weight + (long long)(r * conv.s + s) * conv.tap + c;
      for (int k = 0; k < conv.x.channels; k++) sum += to_float(from[k]) * tap[(long long)k * conv.filter];
    }
  const float sums[1] = {sum};
  Output<T>{gx, nullptr, bias, mask, conv}.store((int)m, c, sums);
}

// gw[k,r,s,c] = sum over n, p, q of gy[n,p,q,k] * x[n, p * stride_h + r * dilation_h - pad_h, ..., c]; gy without gaps.
//@ budget: registers 64, shared 0
extern "C" __global__ void __launch_bounds__(256)
conv_naive_weight_grad(const T* x, const T* x2, const T* gy, float* gw, const Convolution conv) {
  const int channels = conv.x.channels + conv.x2.channels;
  const long long k = thread_number() / conv.columns;
  const int column = (int)(thread_number() - k * conv.columns), tap = column / channels, c = column - tap * channels;
  if (k >= conv.rows) return;
  const bool second = c >= conv.x.channels;
  const int h0 = tap / conv.s * conv.dilation_h - conv.pad_h, w0 = tap % conv.s * conv.dilation_w - conv.pad_w;
  float sum = 0;
  for (int n = 0; n < conv.images; n++)
    for (int p = 0; p < conv.p; p++)
      for (int q = 0; q < conv.q; q++) {
        const int h = p * conv.stride_h + h0, w = q * conv.stride_w + w0;
        const T* from = pixel(second ? x2 : x, second ? conv.x2 : conv.x, n, h, w, conv.h, conv.w);
        const long long m = ((long long)n * conv.p + p) * conv.q + q;
        if (from) sum += to_float(from[second ? c - conv.x.channels : c]) * to_float(gy[m * conv.rows + k]);
      }
  const float sums[1] = {sum};
  Output<float>{gw, nullptr, nullptr, nullptr, conv}.store((int)k, column, sums);
}
