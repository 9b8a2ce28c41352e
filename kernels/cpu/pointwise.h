// What is not a convolution: each in one pass over memory, cut into independent ranges of rows or values.
#pragma once
#include "products.h"
#include "shapes.h"

namespace ISA {

// Channels in tiles of U vectors, U 4, 2 or 1: work<U>(first channel, number of channels in each vector).
template <class Work>
static inline void by_vector_groups(int64_t channels, Work work) {
  int64_t c = 0;
  for (; c + 4 * VL <= channels; c += 4 * VL) work.template operator()<4>(c, VL);
  for (; c + 2 * VL <= channels; c += 2 * VL) work.template operator()<2>(c, VL);
  for (; c + VL <= channels; c += VL) work.template operator()<1>(c, VL);
  if (c < channels) work.template operator()<1>(c, int(channels - c));
}

// The same for rows first .. last-1 (of all images, h rows each), in blocks of pixels: work<U>(image, row, first pixel,
// end, first channel, number of channels in each vector).
template <class Work>
static inline void by_blocks(int64_t channels, int64_t h, int64_t w, int64_t first, int64_t last, int64_t block, Work work) {
  for (int64_t line = first; line < last; line++)
    for (int64_t start = 0; start < w; start += block)
      by_vector_groups(channels, [&]<int U>(int64_t c, int n) {
        work.template operator()<U>(line / h, line % h, start, least(start + block, w), c, n);
      });
}

// out = gy where y > 0, else 0, over rows first .. last-1 (of all images, h rows each); sums[c] += sum of out.
// The gradient through bias and ReLU of a convolution, in one pass. y may have no data: then there was no ReLU, and
// out is not written.
static void relu_bias_backward(const Maps* gy, const Maps* y, const Maps* out, int64_t h, int64_t w, int64_t first,
                               int64_t last, double* sums) {
  auto work = [&]<int U>(int64_t image, int64_t line, int64_t q, int64_t end, int64_t c, int n) INLINE {
    const float* g = gy->data + image * gy->image + line * gy->row + c;
    const float* v = y->data ? y->data + image * y->image + line * y->row + c : nullptr;
    float* o = y->data ? out->data + image * out->image + line * out->row + c : nullptr;
    Vec total[U]{};
    for (; q < end; q++)
      for (int u = 0; u < U; u++) {
        Vec value = load_first(g + q * gy->pixel + u * VL, n);
        if (v) {
          value = load_first(v + q * y->pixel + u * VL, n) > Vec{} ? value : Vec{};
          store_first(o + q * out->pixel + u * VL, value, n);
        }
        total[u] += value;
      }
    for (int u = 0; u < U; u++)
      for (int i = 0; i < n; i++) sums[c + u * VL + i] += total[u][i];
  };
  by_blocks(gy->channels, h, w, first, last, 64, work);
}

// 2x2 max pooling with stride 2 of output rows first .. last-1 (p an image): y and the winning tap 0..3. The first of
// equals wins; NaN wins over everything, and the last one of several, as in PyTorch.
static void max_pool_rows(const Maps* x, const Maps* y, uint8_t* winners, int64_t p, int64_t q, int64_t first, int64_t last) {
  const int64_t taps[4] = {0, x->pixel, x->row, x->row + x->pixel};
  for (int64_t line = first; line < last; line++) {
    const float* in = x->data + line / p * x->image + line % p * 2 * x->row;
    float* out = y->data + line / p * y->image + line % p * y->row;
    for (int64_t j = 0; j < q; j++, in += 2 * x->pixel) {
      uint8_t* winner = winners + (line * q + j) * x->channels;
      by_vectors(x->channels, [&](int64_t k, int n) {
        Vec best = load_first(in + k, n);
        Mask number{};
        for (int tap = 1; tap < 4; tap++) {
          Vec candidate = load_first(in + taps[tap] + k, n);
          Mask better = (candidate > best) | (candidate != candidate);
          best = better ? candidate : best;
          number = better ? Mask{} + tap : number;
        }
        store_first(out + j * y->pixel + k, best, n);
        Bytes narrow = __builtin_convertvector(number, Bytes);
        std::memcpy(winner + k, &narrow, n);
      });
    }
  }
}

// The gradient of that pooling, rows first .. last-1 of gy: all four pixels of every window are written.
static void max_pool_backward_rows(const Maps* gy, const Maps* gx, const uint8_t* winners, int64_t p, int64_t q,
                                   int64_t first, int64_t last) {
  const int64_t taps[4] = {0, gx->pixel, gx->row, gx->row + gx->pixel};
  for (int64_t line = first; line < last; line++) {
    const float* g = gy->data + line / p * gy->image + line % p * gy->row;
    float* out = gx->data + line / p * gx->image + line % p * 2 * gx->row;
    for (int64_t j = 0; j < q; j++, out += 2 * gx->pixel) {
      const uint8_t* winner = winners + (line * q + j) * gy->channels;
      by_vectors(gy->channels, [&](int64_t k, int n) {
        Vec value = load_first(g + j * gy->pixel + k, n);
        Bytes narrow{};
        std::memcpy(&narrow, winner + k, n);
        Mask number = __builtin_convertvector(narrow, Mask);
        for (int tap = 0; tap < 4; tap++) store_first(out + taps[tap] + k, number == tap ? value : Vec{}, n);
      });
    }
  }
}

// Rows first .. last-1 of out (h_out an image) = x moved by (top, left), zeros where x does not reach.
static void pad_rows(const Maps* x, const Maps* out, int64_t h, int64_t w, int64_t h_out, int64_t w_out, int64_t top,
                     int64_t left, int64_t first, int64_t last) {
  const int64_t c = x->channels;
  // Columns begin .. end-1 of out hold pixels of x. Pixels that are neighbours in both are copied as one.
  const int64_t begin = most(0, least(left, w_out)), end = most(begin, least(left + w, w_out));
  const bool together = x->pixel == c && out->pixel == c;
  for (int64_t line = first; line < last; line++) {
    int64_t image = line / h_out, row = line % h_out - top;
    float* o = out->data + image * out->image + line % h_out * out->row;
    const bool inside = row >= 0 && row < h;
    const int64_t from = inside ? begin : w_out, to = inside ? end : w_out;
    auto zeros = [&](int64_t q, int64_t stop) {
      if (out->pixel == c)
        std::memset(o + q * c, 0, sizeof(float) * c * (stop - q));
      else
        for (; q < stop; q++) std::memset(o + q * out->pixel, 0, sizeof(float) * c);
    };
    zeros(0, from);
    if (from < to) {
      const float* in = x->data + image * x->image + row * x->row + (from - left) * x->pixel;
      const int64_t count = together ? 1 : to - from, size = together ? c * (to - from) : c;
      for (int64_t q = 0; q < count; q++)
        std::memcpy(o + (from + q) * out->pixel, in + q * x->pixel, sizeof(float) * size);
    }
    zeros(to, w_out);
  }
}

// p -= lr v, v = momentum v + g (v = g if first), g += decay p; nesterov: p -= lr (g + momentum v). n values.
static void sgd(float* p, const float* g, float* v, int64_t n, float lr, float momentum, float dampening, float decay,
                int64_t nesterov, int64_t first) {
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] + decay * p[i];
    v[i] = first ? d : momentum * v[i] + (1 - dampening) * d;
    p[i] -= lr * (nesterov ? d + momentum * v[i] : v[i]);
  }
}

// Adam: m, s running means of g and g^2; p -= rate m / (sqrt(s) / root + eps); decoupled decay shrinks p first.
static void adam(float* p, const float* g, float* m, float* s, int64_t n, float rate, float root, float beta1, float beta2,
                 float eps, float decay, float shrink) {
  for (int64_t i = 0; i < n; i++) {
    p[i] *= shrink;
    float d = g[i] + decay * p[i];
    m[i] = beta1 * m[i] + (1 - beta1) * d;
    s[i] = beta2 * s[i] + (1 - beta2) * d * d;
    p[i] -= rate * m[i] / (__builtin_sqrtf(s[i]) / root + eps);
  }
}

}  // namespace ISA
