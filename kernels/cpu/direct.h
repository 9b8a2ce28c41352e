// Convolution in direct arithmetic, blocked in registers: any kernel size, stride and dilation, any channel counts.
//
// MR neighbouring output pixels times a panel of filters are accumulated in registers over all taps and channels (an
// implicit matrix product: no im2col). The input must be padded already.
#pragma once
#include "parallel.h"
#include "products.h"
#include "shapes.h"

namespace ISA {

constexpr int64_t LINE_PIECES = 64;  // ranges of output rows, a fixed number, so that sums do not depend on the threads

// packed[panel][tap][c][NR] of a weight (taps, C, K), zeros beyond K.
static void pack_weights(const Weight& w, int64_t taps, int64_t channels, int64_t filters, int64_t threads, float* packed) {
  parallel(threads, panels(filters), [&](int64_t panel, int64_t) {
    for (int64_t tap = 0; tap < taps; tap++) {
      const float* from = w.data + (w.turned ? taps - 1 - tap : tap) * w.tap + panel * NR * w.column;
      float* to = packed + (panel * taps + tap) * channels * NR;
      for (int64_t c = 0; c < channels; c++)
        for (int64_t k = 0; k < NR; k++) to[c * NR + k] = panel * NR + k < filters ? from[c * w.row + k * w.column] : 0;
    }
  });
}

// R pixels of one output row, one panel of filters; `x` is the input pixel under the first tap of the first of them.
template <int R, int NV>
static void direct_tile(const Window& win, const float* x, const float* packed, float* y, int64_t k) {
  const Maps &in = win.x, &out = win.y;
  Accumulators<R, NV> sum{};
  const float* b = packed;
  for (int64_t i = 0; i < win.r; i++)
    for (int64_t j = 0; j < win.s; j++) {
      const float* a = x + i * win.dilation_h * in.row + j * win.dilation_w * in.pixel;
      for (int64_t c = 0; c < in.channels; c++, b += NR) step<R, NV>(sum, a + c, win.stride_w * in.pixel, b);
    }
  repeat<NV>([&](auto v) INLINE {
    int64_t first = k + v * VL;
    int n = int(least(VL, out.channels - first));
    if (n <= 0) return;
    Vec bias = win.bias ? load_first(win.bias + first, n) : Vec{};
    repeat<R>([&](auto r) INLINE {
      Vec value = sum[r][v] + bias;
      if (win.relu) value = relu(value);
      if (win.stream && n == VL)
        stream(y + r * out.pixel + first, value);
      else
        store_first(y + r * out.pixel + first, value, n);
    });
  });
}

// Few weights: all filters of a pixel after one another, so that it is written at once. Many: one panel after another, so
// that its weights stay in cache.
static void direct(const Window& win, const float* packed, int64_t threads) {
  int64_t panel_size = win.r * win.s * win.x.channels * NR, count = panels(win.y.channels);
  bool few = count * panel_size <= 1 << 12;
  parallel_ranges(threads, win.images * win.p, LINE_PIECES, [&](int64_t first, int64_t last, int64_t, int64_t) {
    auto tile = [&](int64_t line, int64_t q, int64_t panel) {
      const float* x = win.x.data + line / win.p * win.x.image + line % win.p * win.stride_h * win.x.row + q * win.stride_w * win.x.pixel;
      float* y = win.y.data + line / win.p * win.y.image + line % win.p * win.y.row + q * win.y.pixel;
      with_rows(least(MR, win.q - q), [&]<int R>() {
        if (win.y.channels - panel * NR > VL)
          direct_tile<R, 2>(win, x, packed + panel * panel_size, y, panel * NR);
        else
          direct_tile<R, 1>(win, x, packed + panel * panel_size, y, panel * NR);
      });
    };
    for (int64_t outer = 0; outer < (few ? 1 : count); outer++)
      for (int64_t line = first; line < last; line++)
        for (int64_t q = 0; q < win.q; q += MR)
          for (int64_t panel = outer; panel < (few ? count : outer + 1); panel++) tile(line, q, panel);
  });
}

// ---------------------------------------------------------------------------------------------------- weight gradient
// win.y is the gradient of the output, read. Each of `parts` ranges of rows has a sum of its own: s[panel][tap][c][NR].

constexpr int64_t PIXELS = 64;  // output pixels packed at a time

// `count` pixels, `pixel` apart, channels 0 .. n-1 of them, as packed[i * next .. + width], zeros beyond n.
static inline void pack_pixels(const float* from, int64_t pixel, int64_t count, int64_t n, int64_t width, float* to,
                               int64_t next) {
  for (int64_t i = 0; i < count; i++)
    for (int64_t c = 0; c < width; c += VL)
      store(to + i * next + c, load_first(from + i * pixel + c, int(least(VL, most(0, n - c)))));
}

// s[tap][c][NR] += x^T gy for `count` pixels of a row: x is packed for each tap, gy was packed into g.
static void add_gradient(const Window& win, const float* x, int64_t count, const float* g, int64_t columns, float* a, float* s) {
  const Maps& in = win.x;
  int64_t width = rounded_up(in.channels, VL);
  for (int64_t i = 0; i < win.r; i++)
    for (int64_t j = 0; j < win.s; j++, s += width * NR) {
      const float* under = x + i * win.dilation_h * in.row + j * win.dilation_w * in.pixel;
      for (int64_t c = 0; c < in.channels; c += VL)
        pack_pixels(under + c, win.stride_w * in.pixel, count, in.channels - c, VL, a + c * PIXELS, VL);
      multiply_transposed_group(a, count, PIXELS * VL, g, width, s, columns, true);
    }
}

// The same for few channels, where a register tile holds R of the (tap, channel) pairs: the pixels are read as they lie.
template <int R, int NV>
static void add_few(const float* x, const int64_t* offsets, int64_t next, const float* g, int64_t pixel, int64_t count, float* const* s) {
  Accumulators<R, NV> sum;
  const float* at[R];
  each<R, NV>([&](auto r, auto v) INLINE { sum[r][v] = load(s[r] + v * VL); });
  repeat<R>([&](auto r) INLINE { at[r] = x + offsets[r]; });
  for (int64_t q = 0; q < count; q++, g += pixel) {
    Vec columns[NV];
    repeat<NV>([&](auto v) INLINE { columns[v] = load(g + v * VL); });
    repeat<R>([&](auto r) INLINE {
      Vec value = broadcast(at[r][q * next]);
      repeat<NV>([&](auto v) INLINE { sum[r][v] += value * columns[v]; });
    });
  }
  each<R, NV>([&](auto r, auto v) INLINE { store(s[r] + v * VL, sum[r][v]); });
}

static void add_gradient_few(const Window& win, const float* x, int64_t count, const float* g, int64_t pixel, int64_t columns,
                             float* s) {
  const Maps& in = win.x;
  int64_t width = rounded_up(in.channels, VL), pairs = win.r * win.s * in.channels, offsets[MR];
  float* sums[MR];
  for (int64_t first = 0; first < pairs; first += MR) {
    int64_t rows = least(MR, pairs - first);
    for (int64_t i = 0; i < rows; i++) {
      int64_t tap = (first + i) / in.channels, c = (first + i) % in.channels;
      offsets[i] = tap / win.s * win.dilation_h * in.row + tap % win.s * win.dilation_w * in.pixel + c;
      sums[i] = s + (tap * width + c) * NR;
    }
    with_rows(rows, [&]<int R>() {
      if (columns > VL)
        add_few<R, 2>(x, offsets, win.stride_w * in.pixel, g, pixel, count, sums);
      else
        add_few<R, 1>(x, offsets, win.stride_w * in.pixel, g, pixel, count, sums);
    });
  }
}

// The same for few filters and many channels, in whole vectors: the roles exchanged, s[panel of C][tap][K][NR].
static void add_gradient_few_filters(const Window& win, const float* x, const float* g, int64_t panel, float* s) {
  const Maps &in = win.x, &gy = win.y;
  int64_t offsets[MR], columns = in.channels - panel * NR;
  float* sums[MR];
  for (int64_t tap = 0; tap < win.r * win.s; tap++) {
    const float* under = x + tap / win.s * win.dilation_h * in.row + tap % win.s * win.dilation_w * in.pixel + panel * NR;
    for (int64_t k = 0; k < gy.channels; k++) offsets[k] = k, sums[k] = s + (tap * gy.channels + k) * NR;
    with_rows(gy.channels, [&]<int R>() {
      if (columns > VL)
        add_few<R, 2>(g, offsets, gy.pixel, under, win.stride_w * in.pixel, win.q, sums);
      else
        add_few<R, 1>(g, offsets, gy.pixel, under, win.stride_w * in.pixel, win.q, sums);
    });
  }
}

static void direct_gradient_few_filters(const Window& win, int64_t threads, int64_t parts, float* sums, float* gw) {
  const Maps &in = win.x, &gy = win.y;
  int64_t count = panels(in.channels), taps = win.r * win.s, size = taps * gy.channels * NR, lines = win.images * win.p;
  parallel(threads, parts, [&](int64_t part, int64_t) {
    float* s = sums + part * count * size;
    std::memset(s, 0, sizeof(float) * count * size);
    for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; line++) {
      int64_t image = line / win.p, p = line % win.p;
      const float* x = in.data + image * in.image + p * win.stride_h * in.row;
      for (int64_t panel = 0; panel < count; panel++)
        add_gradient_few_filters(win, x, gy.data + image * gy.image + p * gy.row, panel, s + panel * size);
    }
  });
  for (int64_t tap = 0; tap < taps; tap++)
    for (int64_t c = 0; c < in.channels; c++)
      for (int64_t k = 0; k < gy.channels; k++) {
        float total = 0;
        for (int64_t part = 0; part < parts; part++)
          total += sums[(part * count + c / NR) * size + (tap * gy.channels + k) * NR + c % NR];
        gw[(tap * in.channels + c) * gy.channels + k] = total;
      }
}

// gw (taps, C, K). With C rounded up to vectors and K to panels: sums: parts * taps * C * K floats; scratch:
// PIXELS * (C + NR) for each thread.
static void direct_gradient(const Window& win, int64_t threads, int64_t parts, float* sums, float* scratch, float* gw) {
  const Maps &in = win.x, &gy = win.y;
  int64_t width = rounded_up(in.channels, VL), count = panels(gy.channels), taps = win.r * win.s;
  int64_t panel_size = taps * width * NR, lines = win.images * win.p, each = PIXELS * (width + NR);
  if (gy.channels <= least(MR, 8) && in.channels % VL == 0)
    return direct_gradient_few_filters(win, threads, parts, sums, gw);
  parallel(threads, parts * count, [&](int64_t piece, int64_t thread) {
    int64_t part = piece / count, panel = piece % count, columns = least(NR, gy.channels - panel * NR);
    float *s = sums + piece * panel_size, *a = scratch + thread * each, *packed = a + PIXELS * width;
    std::memset(s, 0, sizeof(float) * panel_size);
    for (int64_t line = lines * part / parts; line < lines * (part + 1) / parts; line++) {
      int64_t image = line / win.p, p = line % win.p;
      const float* x = in.data + image * in.image + p * win.stride_h * in.row;
      const float* g = gy.data + image * gy.image + p * gy.row + panel * NR;
      bool whole = columns % VL == 0;
      if (in.channels < 8 && whole)
        add_gradient_few(win, x, win.q, g, gy.pixel, columns, s);
      else
        for (int64_t q = 0; q < win.q; q += PIXELS) {
          int64_t pixels = least(PIXELS, win.q - q);
          const float* under = x + q * win.stride_w * in.pixel;
          pack_pixels(g + q * gy.pixel, gy.pixel, pixels, columns, NR, packed, NR);
          if (in.channels < 8)
            add_gradient_few(win, under, pixels, packed, NR, columns, s);
          else
            add_gradient(win, under, pixels, packed, columns, a, s);
        }
    }
  });
  parallel_ranges(threads, taps * in.channels, LINE_PIECES, [&](int64_t first, int64_t last, int64_t, int64_t) {
    for (int64_t row = first; row < last; row++)
      by_vectors(gy.channels, [&](int64_t k, int n) {
        int64_t panel = k / NR, tap = row / in.channels, c = row % in.channels;
        Vec total{};
        for (int64_t part = 0; part < parts; part++)
          total += load(sums + (part * count + panel) * panel_size + (tap * width + c) * NR + k % NR);
        store_first(gw + row * gy.channels + k, total, n);
      });
  });
}

// The textbook's loops, one output at a time, weight (taps, C, K): the first rung of the ladder.
static void naive(const Window& win, const float* weight, int64_t threads) {
  parallel_ranges(threads, win.images * win.p, LINE_PIECES, [&](int64_t first, int64_t last, int64_t, int64_t) {
    for (int64_t line = first; line < last; line++)
      for (int64_t q = 0; q < win.q; q++)
        for (int64_t k = 0; k < win.y.channels; k++) {
          int64_t image = line / win.p, p = line % win.p;
          float total = win.bias ? win.bias[k] : 0.0f;
          for (int64_t i = 0; i < win.r; i++)
            for (int64_t j = 0; j < win.s; j++)
              for (int64_t c = 0; c < win.x.channels; c++)
                total += win.x.data[image * win.x.image + (p * win.stride_h + i * win.dilation_h) * win.x.row +
                                    (q * win.stride_w + j * win.dilation_w) * win.x.pixel + c] *
                         weight[((i * win.s + j) * win.x.channels + c) * win.y.channels + k];
          win.y.data[image * win.y.image + p * win.y.row + q * win.y.pixel + k] = win.relu && total < 0 ? 0.0f : total;
        }
  });
}

}  // namespace ISA
