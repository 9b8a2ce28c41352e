// What is not a convolution: each in one pass over memory, cut into independent ranges of rows or values.
#pragma once
#include "products.h"
#include "shapes.h"

namespace ISA {

// out = gy where y > 0, else 0, over rows first .. last-1 (of all images, h rows each); sums[c] += sum of out.
// The gradient through bias and ReLU of a convolution, in one pass. y may have no data: then there was no ReLU, and
// out is not written.
static void relu_bias_backward(const Maps* gy, const Maps* y, const Maps* out, int64_t h, int64_t w, int64_t first,
                               int64_t last, double* sums) {
  constexpr int64_t BLOCK = 64;  // pixels whose channels stay in the inner cache
  for (int64_t line = first; line < last; line++) {
    int64_t image = line / h, row = line % h;
    for (int64_t start = 0; start < w; start += BLOCK) {
      int64_t end = least(start + BLOCK, w);
      const float* g = gy->data + image * gy->image + row * gy->row;
      const float* v = y->data ? y->data + image * y->image + row * y->row : nullptr;
      float* o = y->data ? out->data + image * out->image + row * out->row : nullptr;
      by_vectors(gy->channels, [&](int64_t c, int n) {
        Vec total{};
        for (int64_t q = start; q < end; q++) {
          Vec value = load_first(g + q * gy->pixel + c, n);
          if (v) {
            value = load_first(v + q * y->pixel + c, n) > Vec{} ? value : Vec{};
            store_first(o + q * out->pixel + c, value, n);
          }
          total += value;
        }
        for (int i = 0; i < n; i++) sums[c + i] += total[i];
      });
    }
  }
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
  for (int64_t line = first; line < last; line++) {
    int64_t image = line / h_out, row = line % h_out - top;
    float* o = out->data + image * out->image + line % h_out * out->row;
    for (int64_t q = 0; q < w_out; q++) {
      bool inside = row >= 0 && row < h && q - left >= 0 && q - left < w;
      const float* in = x->data + image * x->image + row * x->row + (q - left) * x->pixel;
      if (inside)
        std::memcpy(o + q * out->pixel, in, sizeof(float) * x->channels);
      else
        std::memset(o + q * out->pixel, 0, sizeof(float) * x->channels);
    }
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
