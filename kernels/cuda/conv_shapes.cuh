// What the convolution kernels share: how maps lie in memory, which input pixel a tap reads, and how results are written.
//
// Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows columns.
//
// From the second rung on, every pass is seen as ONE product of two matrices, sum over z of A[m][z] B[z][j]:
//
//   pass              row m            column j        z, summed over            A                    B
//   forward           pixel (n,p,q)    filter k        tap (r,s), channel c      x under the tap      weight
//   input gradient    pixel (n,h,w)    channel c       turned tap, filter k      gy under the tap     weight
//   weight gradient   filter k         tap, channel    pixel (n,p,q)             gy                   x under the tap
//
// None of these matrices exists in memory (im2col would write one): conv_operands.cuh computes the addresses of their
// elements. The input gradient of a stride-1 convolution is itself a convolution, of gy with the taps turned by 180 degrees
// and a border of dilation * (R - 1) - pad; its kernels call gy "x", and the gradient's size p, q.
#pragma once
#include "primitives.cuh"

// x / divisor for 0 <= x < 2^31, by one multiplication instead of some thirty instructions. With l = ceil(log2 d) and the
// multiplier m = ceil(2^(31+l) / d), which is below 2^32, the quotient is x m / 2^(31+l), rounded down (Granlund and
// Montgomery 1994, theorem 4.2); here 2 x m / 2^32 / 2^l.
struct Divider {
  int divisor, l;
  unsigned multiplier;

  __device__ int quotient(int x) const { return (int)(__umulhi(2u * (unsigned)x, multiplier) >> l); }
};

// How a batch of channels-last images lies in memory: element (n, h, w, c) at n * image + h * row + w * pixel + c, counted
// in elements. The strides may be those of a larger map that this one is cropped from. An image spans less than 2^31 elements.
struct Layout {
  long long image;
  int row, pixel, channels;
};

// Everything about a convolution but its arrays; minitorch_unet/backend/cuda/conv_shapes.py fills it in. Output pixel (p, q)
// meets under tap (r, s) the input pixel (p * stride_h + r * dilation_h - pad_h, q * stride_w + s * dilation_w - pad_w).
struct Convolution {
  Layout x, x2;  // two sources whose channels follow one another; x2.channels is 0 where there is one
  int images, h, w, p, q, r, s, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
  int filter, tap;             // strides of the weight: (k, tap t, c) lies at k * filter + t * tap + c
  int rows, columns;           // of the product
  int patch_r, patch_s, relu;  // see Output
  Divider by_p, by_q, by_s, by_c, by_c2;  // c, c2: the channels of either source (1 where there is none)

  __device__ int pixels() const { return images * p * q; }
  __device__ int taps() const { return r * s; }
};

// N neighbouring values, read or written by one instruction for up to 16 bytes, which the address must be a multiple of.
template <class Value, int N> struct alignas(sizeof(Value) * N < 16 ? sizeof(Value) * N : 16) Vector {
  Value value[N];
};

// Where the product goes. Either to the finished map: y = epilogue(sum), (rows, columns) channels-last without gaps, with
//
//   epilogue(v) = v + bias[c]; then max(0, .) if relu; then 0 where mask, of y's shape, is not above 0.
//
// Or, where the sum over z is split over gridDim.z blocks, in parts: parts[blockIdx.z][m][j] in float32, which conv_finish
// adds up in a fixed order before the epilogue.
//
// Where a transposed convolution's windows touch without overlap (its stride is its kernel), each input pixel (p, q) becomes
// a patch of patch_r * patch_s output pixels, and the columns of its product are (tap, channel): column j of row (n, p, q)
// goes to the output pixel (p * patch_r + r, q * patch_s + s). Otherwise the patch is 1 x 1.
template <class Value> struct Output {
  Value* y;
  float* parts;       // or null: not split
  const float* bias;  // or null
  const Value* mask;      // or null
  const Convolution& conv;

  // N neighbouring sums of row m from column j on; whatever lies outside of the product is left out. Vectors are written
  // whole where they fit into the channels of a pixel without a rest, else value by value.
  template <int N> __device__ void store(int m, int j, const float (&sums)[N]) const {
    if (m >= conv.rows) return;
    const int channels = conv.columns / (conv.patch_r * conv.patch_s);
    if (N > 1 && channels % N != 0) {
#pragma unroll
      for (int i = 0; i < N; i++) {
        const float one[1] = {sums[i]};
        if (j + i < conv.columns) write(m, j + i, channels, one);
      }
    } else if (j < conv.columns) {
      write(m, j, channels, sums);
    }
  }

  template <int N> __device__ void write(int m, int j, int channels, const float (&sums)[N]) const {
    if (parts) {
      put(parts + ((long long)blockIdx.z * conv.rows + m) * conv.columns + j, sums);
    } else {
      finish(m, j, channels, sums);
    }
  }

  // The epilogue of N complete sums, and where they go.
  template <int N> __device__ void finish(int m, int j, int channels, const float (&sums)[N]) const {
    long long at = (long long)m * conv.columns + j;
    int c = j;
    if (conv.patch_r * conv.patch_s > 1) {
      const int tap = j / channels, line = m / conv.q, r = tap / conv.patch_s;  // line = n * P + p
      c = j - tap * channels;
      at = ((long long)line * conv.patch_r + r) * conv.q + (m - line * conv.q);
      at = (at * conv.patch_s + (tap - r * conv.patch_s)) * channels + c;
    }
    float v[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
      v[i] = bias ? sums[i] + bias[c + i] : sums[i];
      if (conv.relu && v[i] < 0) v[i] = 0;  // written so that NaN stays NaN
    }
    if (mask) {
      const Vector<Value, N> gate = *(const Vector<Value, N>*)(mask + at);
#pragma unroll
      for (int i = 0; i < N; i++)
        if (!(to_float(gate.value[i]) > 0)) v[i] = 0;
    }
    put(y + at, v);
  }

  template <int N, class To> __device__ static void put(To* to, const float (&v)[N]) {
    Vector<To, N> packed;
#pragma unroll
    for (int i = 0; i < N; i++) packed.value[i] = from_float<To>(v[i]);
    *(Vector<To, N>*)to = packed;
  }
};
