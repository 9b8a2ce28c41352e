// Convolution in direct arithmetic, blocked in registers: any kernel size, stride and dilation, any channel counts.
//
// MR neighbouring output pixels times NR filters are accumulated in registers over all taps and channels (an implicit
// matrix product: no im2col). The input must be padded already; a transposed convolution whose stride is its kernel size
// is one call a tap with a 1x1 kernel, the output's pixels `stride` apart.
#pragma once
#include "products.h"
#include "shapes.h"

namespace ISA {

// Panels first .. last-1 of a weight (taps, C, K): packed[panel][tap][c][NR], zeros beyond K.
static void pack_weights(const float* weight, int64_t taps, int64_t channels, int64_t filters, int64_t first, int64_t last,
                         float* packed) {
  for (int64_t panel = first; panel < last; panel++)
    for (int64_t row = 0; row < taps * channels; row++)
      for (int part = 0; part < 2; part++) {
        int64_t k = panel * NR + part * VL;
        int n = int(least(VL, most(0, filters - k)));
        store(packed + (panel * taps * channels + row) * NR + part * VL, load_first(weight + row * filters + k, n));
      }
}

// turned (taps, K, C) = weight (taps, C, K) with the taps in reverse order and each matrix transposed: what the input
// gradient convolves with. Taps first .. last-1 of `turned`, in small rectangles: their rows often lie a power of two
// apart, in the same few sets of the inner cache, which holds eight such lines.
static void turn_weights(const float* weight, int64_t taps, int64_t channels, int64_t filters, int64_t first, int64_t last,
                         float* turned) {
  for (int64_t tap = first; tap < last; tap++) {
    const float* in = weight + (taps - 1 - tap) * channels * filters;
    float* out = turned + tap * channels * filters;
    for (int64_t c0 = 0; c0 < channels; c0 += 8)
      for (int64_t k0 = 0; k0 < filters; k0 += 16)
        for (int64_t k = k0; k < least(k0 + 16, filters); k++)
          for (int64_t c = c0; c < least(c0 + 8, channels); c++) out[k * channels + c] = in[c * filters + k];
  }
}

// R pixels of one output row, one panel of filters; `x` is the input pixel under the first tap of the first of them.
template <int R>
static inline void direct_tile(const Window* win, const float* x, const float* packed, float* y, int64_t k) {
  const Maps &in = win->x, &out = win->y;
  Vec left[R], right[R];
  for (int r = 0; r < R; r++) left[r] = right[r] = Vec{};
  const float* b = packed;
  for (int64_t i = 0; i < win->r; i++)
    for (int64_t j = 0; j < win->s; j++) {
      const float* a = x + i * win->dilation_h * in.row + j * win->dilation_w * in.pixel;
      for (int64_t c = 0; c < in.channels; c++, b += NR) {
        Vec b0 = load(b), b1 = load(b + VL);
        for (int r = 0; r < R; r++) {
          Vec s = broadcast(a[r * win->stride_w * in.pixel + c]);
          left[r] += s * b0;
          right[r] += s * b1;
        }
      }
    }
  for (int part = 0; part < 2; part++) {
    int64_t first = k + part * VL;
    int n = int(least(VL, out.channels - first));
    if (n <= 0) break;
    Vec bias = win->bias ? load_first(win->bias + first, n) : Vec{};
    for (int r = 0; r < R; r++) {
      Vec value = (part ? right[r] : left[r]) + bias;
      store_first(y + r * out.pixel + first, win->relu ? relu(value) : value, n);
    }
  }
}

// Output rows first .. last-1, counted through all images.
static void direct_rows(const Window* win, const float* packed, int64_t first, int64_t last) {
  int64_t panel_size = win->r * win->s * win->x.channels * NR;
  for (int64_t panel = 0; panel < panels(win->y.channels); panel++)
    for (int64_t line = first; line < last; line++) {
      int64_t image = line / win->p, p = line % win->p;
      const float* x = win->x.data + image * win->x.image + p * win->stride_h * win->x.row;
      float* y = win->y.data + image * win->y.image + p * win->y.row;
      by_rows(win->q, [&]<int R>(int64_t q) {
        direct_tile<R>(win, x + q * win->stride_w * win->x.pixel, packed + panel * panel_size, y + q * win->y.pixel, panel * NR);
      });
    }
}

// sum[panel][tap][c][NR] += x (under the tap)^T gy over output rows first .. last-1; win->y is the gradient, read.
// Pixels are taken 64 at a time, their gradients packed into panels. scratch: 64 * NR floats.
static void direct_gradient_rows(const Window* win, int64_t first, int64_t last, int64_t first_panel, int64_t last_panel,
                                 float* sum, float* scratch) {
  const Maps &in = win->x, &gy = win->y;
  constexpr int64_t BLOCK = 64;
  for (int64_t panel = first_panel; panel < last_panel; panel++)
    for (int64_t line = first; line < last; line++) {
      int64_t image = line / win->p, p = line % win->p;
      for (int64_t q = 0; q < win->q; q += BLOCK) {
        int64_t count = least(BLOCK, win->q - q);
        const float* g = gy.data + image * gy.image + p * gy.row + q * gy.pixel + panel * NR;
        for (int64_t i = 0; i < count; i++)
          for (int part = 0; part < 2; part++) {
            int n = int(least(VL, most(0, gy.channels - panel * NR - part * VL)));
            store(scratch + i * NR + part * VL, load_first(g + i * gy.pixel + part * VL, n));
          }
        for (int64_t i = 0; i < win->r; i++)
          for (int64_t j = 0; j < win->s; j++) {
            const float* x = in.data + image * in.image + (p * win->stride_h + i * win->dilation_h) * in.row +
                             (q * win->stride_w + j * win->dilation_w) * in.pixel;
            float* o = sum + ((panel * win->r + i) * win->s + j) * in.channels * NR;
            by_rows(in.channels, [&]<int R>(int64_t c) {
              multiply_transposed<R>(x + c, win->stride_w * in.pixel, scratch, count, o + c * NR, NR);
            });
          }
      }
    }
}

// gw (taps, C, K) = sum of `parts` sums, `part` floats apart, panels first .. last-1.
static void direct_gradient_taps(const Window* win, const float* sum, int64_t parts, int64_t part, int64_t first,
                                 int64_t last, float* gw) {
  int64_t rows = win->r * win->s * win->x.channels, filters = win->y.channels;
  for (int64_t panel = first; panel < last; panel++)
    for (int64_t row = 0; row < rows; row++)
      for (int half = 0; half < 2; half++) {
        int64_t k = panel * NR + half * VL;
        int n = int(least(VL, filters - k));
        if (n <= 0) break;
        Vec total{};
        for (int64_t i = 0; i < parts; i++) total += load(sum + i * part + (panel * rows + row) * NR + half * VL);
        store_first(gw + row * filters + k, total, n);
      }
}

// The textbook's loops, one output at a time: the first rung of the ladder.
static void naive_rows(const Window* win, const float* weight, int64_t first, int64_t last) {
  for (int64_t line = first; line < last; line++)
    for (int64_t q = 0; q < win->q; q++)
      for (int64_t k = 0; k < win->y.channels; k++) {
        int64_t image = line / win->p, p = line % win->p;
        float total = win->bias ? win->bias[k] : 0.0f;
        for (int64_t i = 0; i < win->r; i++)
          for (int64_t j = 0; j < win->s; j++)
            for (int64_t c = 0; c < win->x.channels; c++)
              total += win->x.data[image * win->x.image + (p * win->stride_h + i * win->dilation_h) * win->x.row +
                                   (q * win->stride_w + j * win->dilation_w) * win->x.pixel + c] *
                       weight[((i * win->s + j) * win->x.channels + c) * win->y.channels + k];
        win->y.data[image * win->y.image + p * win->y.row + q * win->y.pixel + k] =
            win->relu && total < 0 ? 0.0f : total;
      }
}

}  // namespace ISA
