// Batch normalisation: sums over all pixels of each channel, and maps changed channel by channel, each in one pass.
#pragma once
#include "loss.h"
#include "products.h"
#include "shapes.h"

namespace ISA {

// The channels' vectors of rows first .. last-1 (of all images, h rows each), in blocks of pixels whose channels stay in
// the inner cache: work(image, row, first pixel, end, first channel, number of channels).
template <class Work>
static inline void by_blocks(int64_t channels, int64_t h, int64_t w, int64_t first, int64_t last, Work work) {
  constexpr int64_t BLOCK = 64;
  for (int64_t line = first; line < last; line++)
    for (int64_t start = 0; start < w; start += BLOCK)
      by_vectors(channels, [&](int64_t c, int n) { work(line / h, line % h, start, least(start + BLOCK, w), c, n); });
}

// sums[0][c] += sum of x - shift[c], sums[1][c] += sum of (x - shift[c])^2. With some x of the channel as its shift, the
// variance from these two is accurate: it loses no more digits than log10 of the number of pixels.
static void channel_moments(const Maps* x, const float* shift, int64_t h, int64_t w, int64_t first, int64_t last,
                            double* sums) {
  by_blocks(x->channels, h, w, first, last, [&](int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) {
    const float* in = x->data + image * x->image + row * x->row + c;
    Vec from = load_first(shift + c, n);
    Doubles total{}, squares{};
    for (; q < end; q++) {
      Doubles d = __builtin_convertvector(load_first(in + q * x->pixel, n) - from, Doubles);
      total += d;
      squares += d * d;
    }
    for (int i = 0; i < n; i++) {
      sums[c + i] += total[i];
      sums[x->channels + c + i] += squares[i];
    }
  });
}

// y = (x - centre[c]) * scale[c] + shift[c], then max(y, 0) if relu.
static void scale_shift(const Maps* x, const Maps* y, const float* centre, const float* scale, const float* shift,
                        int64_t relu_after, int64_t h, int64_t w, int64_t first, int64_t last) {
  by_blocks(x->channels, h, w, first, last, [&](int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) {
    const float* in = x->data + image * x->image + row * x->row + c;
    float* out = y->data + image * y->image + row * y->row + c;
    Vec from = load_first(centre + c, n), factor = load_first(scale + c, n), plus = load_first(shift + c, n);
    for (; q < end; q++) {
      Vec value = (load_first(in + q * x->pixel, n) - from) * factor + plus;
      store_first(out + q * y->pixel, relu_after ? relu(value) : value, n);
    }
  });
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
  by_blocks(x->channels, h, w, first, last, [&](int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) {
    const float* in = x->data + image * x->image + row * x->row + c;
    Vec from = load_first(centre + c, n);
    Doubles total{}, products{};
    for (; q < end; q++) {
      Vec g = masked(gy, y, image, row, q, c, n);
      total += __builtin_convertvector(g, Doubles);
      products += __builtin_convertvector(g * (load_first(in + q * x->pixel, n) - from), Doubles);
    }
    for (int i = 0; i < n; i++) {
      sums[c + i] += total[i];
      sums[x->channels + c + i] += products[i];
    }
  });
}

// gx = scale[c] g - slope[c] (x - centre[c]) - constant[c], g = gy where y > 0. gx may be gy.
static void batch_norm_input_grad(const Maps* gy, const Maps* y, const Maps* x, const Maps* gx, const float* centre,
                                  const float* scale, const float* slope, const float* constant, int64_t h, int64_t w,
                                  int64_t first, int64_t last) {
  by_blocks(x->channels, h, w, first, last, [&](int64_t image, int64_t row, int64_t q, int64_t end, int64_t c, int n) {
    const float* in = x->data + image * x->image + row * x->row + c;
    float* out = gx->data + image * gx->image + row * gx->row + c;
    Vec from = load_first(centre + c, n), factor = load_first(scale + c, n), a = load_first(slope + c, n),
        b = load_first(constant + c, n);
    for (; q < end; q++) {
      Vec g = masked(gy, y, image, row, q, c, n);
      store_first(out + q * gx->pixel, factor * g - a * (load_first(in + q * x->pixel, n) - from) - b, n);
    }
  });
}

}  // namespace ISA
