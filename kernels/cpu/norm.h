// Batch normalisation: sums over all pixels of each channel, and maps changed channel by channel, each in one pass.
#pragma once
#include "loss.h"
#include "pointwise.h"
#include "shapes.h"

namespace ISA {

// Elementwise work goes through memory in order: pixel by pixel, unless one tile holds all channels.
static inline int64_t elementwise_block(int64_t channels) { return channels <= 4 * VL ? 4096 : 1; }
constexpr int64_t SUM_BLOCK = 32;

// Sums of U vectors in double precision.
template <int U>
struct Sums {
  Half low[U]{}, high[U]{};
  void add(int u, Vec v) {
    low[u] += lower(v);
    high[u] += upper(v);
  }
  void add_product(int u, Vec a, Vec b) {
    low[u] += lower(a) * lower(b);
    high[u] += upper(a) * upper(b);
  }
  void into(double* sums, int n) const {  // sums += these, the first n of each vector
    for (int u = 0; u < U; u++)
      for (int i = 0; i < n; i++) sums[u * VL + i] += i < VL / 2 ? low[u][i] : high[u][i - VL / 2];
  }
};

// sums[0][c] += sum of x - shift[c], sums[1][c] += sum of (x - shift[c])^2. With some x of the channel as its shift, the
// variance from these two is accurate: it loses no more digits than log10 of the number of pixels.
static void channel_moments(const Maps* x, const float* shift, int64_t h, int64_t w, int64_t first, int64_t last,
                            double* sums) {
  auto work = [&]<int U>(int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) INLINE {
    const float* in = x->data + image * x->image + row * x->row + c;
    Vec from[U];
    Sums<U> total, squares;
    for (int u = 0; u < U; u++) from[u] = load_first(shift + c + u * VL, n);
    for (; q < end; q++)
      for (int u = 0; u < U; u++) {
        Vec d = load_first(in + q * x->pixel + u * VL, n) - from[u];
        total.add(u, d);
        squares.add_product(u, d, d);
      }
    total.into(sums + c, n);
    squares.into(sums + x->channels + c, n);
  };
  by_blocks(x->channels, h, w, first, last, SUM_BLOCK, work);
}

// y = (x - centre[c]) * scale[c] + shift[c], then max(y, 0) if relu.
static void scale_shift(const Maps* x, const Maps* y, const float* centre, const float* scale, const float* shift,
                        int64_t relu_after, int64_t h, int64_t w, int64_t first, int64_t last) {
  auto work = [&]<int U>(int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) INLINE {
    const float* in = x->data + image * x->image + row * x->row + c;
    float* out = y->data + image * y->image + row * y->row + c;
    Vec from[U], factor[U], plus[U];
    for (int u = 0; u < U; u++) {
      from[u] = load_first(centre + c + u * VL, n);
      factor[u] = load_first(scale + c + u * VL, n);
      plus[u] = load_first(shift + c + u * VL, n);
    }
    for (; q < end; q++)
      for (int u = 0; u < U; u++) {
        Vec value = (load_first(in + q * x->pixel + u * VL, n) - from[u]) * factor[u] + plus[u];
        store_first(out + q * y->pixel + u * VL, relu_after ? relu(value) : value, n);
      }
  };
  by_blocks(x->channels, h, w, first, last, elementwise_block(x->channels), work);
}

// gy where y > 0, else 0; all of gy where y has no data.
static inline Vec masked(const Maps* gy, const Maps* y, int64_t image, int64_t row, int64_t q, int64_t c, int n) {
  Vec g = load_first(gy->data + image * gy->image + row * gy->row + q * gy->pixel + c, n);
  if (!y->data) return g;
  return load_first(y->data + image * y->image + row * y->row + q * y->pixel + c, n) > Vec{} ? g : Vec{};
}

// sums[0][c] += sum of g, sums[1][c] += sum of g (x - centre[c]), g = gy where y > 0.
static void batch_norm_sums(const Maps* gy, const Maps* y, const Maps* x, const float* centre, int64_t h, int64_t w,
                            int64_t first, int64_t last, double* sums) {
  auto work = [&]<int U>(int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) INLINE {
    const float* in = x->data + image * x->image + row * x->row + c;
    Vec from[U];
    Sums<U> total, products;
    for (int u = 0; u < U; u++) from[u] = load_first(centre + c + u * VL, n);
    for (; q < end; q++)
      for (int u = 0; u < U; u++) {
        Vec g = masked(gy, y, image, row, q, c + u * VL, n);
        total.add(u, g);
        products.add_product(u, g, load_first(in + q * x->pixel + u * VL, n) - from[u]);
      }
    total.into(sums + c, n);
    products.into(sums + x->channels + c, n);
  };
  by_blocks(x->channels, h, w, first, last, SUM_BLOCK, work);
}

// gx = scale[c] g - slope[c] (x - centre[c]) - constant[c], g = gy where y > 0. gx may be gy.
static void batch_norm_input_grad(const Maps* gy, const Maps* y, const Maps* x, const Maps* gx, const float* centre,
                                  const float* scale, const float* slope, const float* constant, int64_t h, int64_t w,
                                  int64_t first, int64_t last) {
  auto work = [&]<int U>(int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) INLINE {
    const float* in = x->data + image * x->image + row * x->row + c;
    float* out = gx->data + image * gx->image + row * gx->row + c;
    Vec from[U], factor[U], a[U], b[U];
    for (int u = 0; u < U; u++) {
      from[u] = load_first(centre + c + u * VL, n);
      factor[u] = load_first(scale + c + u * VL, n);
      a[u] = load_first(slope + c + u * VL, n);
      b[u] = load_first(constant + c + u * VL, n);
    }
    for (; q < end; q++)
      for (int u = 0; u < U; u++) {
        Vec g = masked(gy, y, image, row, q, c + u * VL, n);
        Vec centred = load_first(in + q * x->pixel + u * VL, n) - from[u];
        store_first(out + q * gx->pixel + u * VL, factor[u] * g - a[u] * centred - b[u], n);
      }
  };
  by_blocks(x->channels, h, w, first, last, elementwise_block(x->channels), work);
}

}  // namespace ISA
