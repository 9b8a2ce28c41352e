// 3x3 convolution by Winograd's minimal filtering F(M x M, 3 x 3), M = 2 or 4, and its weight gradient F(3 x 3, M x M):
// forms for tiles.h.
//
// The image is cut into tiles of M x M outputs, each computed from T x T inputs, T = M + 2. With the transforms B, G, A
//
//     Y = A^T [ (G g G^T) . (B^T d B) ] A        (. elementwise)
//
// a tile takes T*T products instead of 9*M*M: 36 instead of 144 for M = 4. Over all channels the elementwise product
// becomes T*T matrix products V[xi] (tiles x C) times U[xi] (C x K). The matrices come from polynomial interpolation at
// the points 0, +-a, +-b, infinity (Winograd 1980; Lavin and Gray 2016). a = 5/8, b = 3/2 lose about half as many digits as
// the usual 1 and 2 and cost the same.
#pragma once
#include "tiles.h"

namespace ISA {

// ---------------------------------------------------------------------------------------- one-dimensional transforms

template <int M>
struct Lines;

template <>
struct Lines<4> {
  static constexpr float a = 0.625f, b = 1.5f, aa = a * a, bb = b * b;
  // 1 / N_i, N_i = product of (point_i - the other points): 0, +-a, +-b
  static constexpr float n0 = 1 / (aa * bb), na = 1 / (2 * aa * (aa - bb)), nb = 1 / (2 * bb * (bb - aa));

  INLINE static inline void input(const Vec* d, Vec* v) {  // B^T d
    Vec even = d[4] - bb * d[2], odd = a * (d[3] - bb * d[1]);
    Vec even2 = d[4] - aa * d[2], odd2 = b * (d[3] - aa * d[1]);
    v[0] = d[4] - (aa + bb) * d[2] + (aa * bb) * d[0];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = even2 + odd2;
    v[4] = even2 - odd2;
    v[5] = d[5] - (aa + bb) * d[3] + (aa * bb) * d[1];
  }
  INLINE static inline void weight(const Vec* g, Vec* u) {  // G g
    Vec even = na * g[0] + (na * aa) * g[2], odd = (na * a) * g[1];
    Vec even2 = nb * g[0] + (nb * bb) * g[2], odd2 = (nb * b) * g[1];
    u[0] = n0 * g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = g[2];
  }
  INLINE static inline void output(const Vec* m, Vec* y) {  // A^T m
    Vec sum = m[1] + m[2], dif = m[1] - m[2], sum2 = m[3] + m[4], dif2 = m[3] - m[4];
    y[0] = m[0] + sum + sum2;
    y[1] = a * dif + b * dif2;
    y[2] = aa * sum + bb * sum2;
    y[3] = (aa * a) * dif + (bb * b) * dif2 + m[5];
  }
  INLINE static inline void gradient(const Vec* g, Vec* u) {  // the 4 output gradients as a filter: G' g
    Vec even = na * g[0] + (na * aa) * g[2], odd = (na * a) * g[1] + (na * aa * a) * g[3];
    Vec even2 = nb * g[0] + (nb * bb) * g[2], odd2 = (nb * b) * g[1] + (nb * bb * b) * g[3];
    u[0] = n0 * g[0];
    u[1] = even + odd;
    u[2] = even - odd;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = g[3];
  }
  INLINE static inline void taps(const Vec* m, Vec* y) {  // A'^T m: the 3 weight gradients
    Vec sum = m[1] + m[2], dif = m[1] - m[2], sum2 = m[3] + m[4], dif2 = m[3] - m[4];
    y[0] = m[0] + sum + sum2;
    y[1] = a * dif + b * dif2;
    y[2] = aa * sum + bb * sum2 + m[5];
  }
};

template <>
struct Lines<2> {  // points 0, 1, -1, infinity
  INLINE static inline void input(const Vec* d, Vec* v) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
  INLINE static inline void weight(const Vec* g, Vec* u) {
    Vec half = 0.5f * (g[0] + g[2]), odd = 0.5f * g[1];
    u[0] = g[0];
    u[1] = half + odd;
    u[2] = half - odd;
    u[3] = g[2];
  }
  INLINE static inline void output(const Vec* m, Vec* y) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2] + m[3];
  }
  INLINE static inline void gradient(const Vec* g, Vec* u) {
    u[0] = g[0];
    u[1] = 0.5f * (g[0] + g[1]);
    u[2] = 0.5f * (g[0] - g[1]);
    u[3] = g[1];
  }
  INLINE static inline void taps(const Vec* m, Vec* y) {
    y[0] = m[0] + m[1] + m[2];
    y[1] = m[1] - m[2];
    y[2] = m[1] + m[2] + m[3];
  }
};

// An IN x IN square of vectors, load(i, j), transformed along both its axes by `line` (IN -> OUT) and given to store(i, j, v).
template <int IN, int OUT, class Line, class Load, class Store>
INLINE static inline void both_ways(Line line, Load load, Store store) {
  Vec half[OUT][IN];
  repeat<IN>([&](auto j) INLINE {
    Vec in[IN], out[OUT];
    repeat<IN>([&](auto i) INLINE { in[i] = load(i, j); });
    line(in, out);
    repeat<OUT>([&](auto i) INLINE { half[i][j] = out[i]; });
  });
  repeat<OUT>([&](auto i) INLINE {
    Vec out[OUT];
    line(half[i], out);
    repeat<OUT>([&](auto j) INLINE { store(i, j, out[j]); });
  });
}

// ---------------------------------------------------------------------------------------------------- reading a square

// Where the pixels of a square start and how far apart they are.
struct Square {
  const float* data;
  int64_t row, pixel;
};

// The T x T pixels at (top, left) of an image, channels c .. c+n-1 of it: where they lie, or if some lie outside the h x w
// image or n is no whole vector, copied into `buffer`, zeros in the place of what is missing.
template <int T>
static inline Square square(const Maps& maps, int64_t image, int64_t top, int64_t left, int64_t h, int64_t w, int64_t c, int n,
                            float* buffer) {
  const float* base = maps.data + image * maps.image + c;
  if (top >= 0 && left >= 0 && top + T <= h && left + T <= w && n == VL)
    return {base + top * maps.row + left * maps.pixel, maps.row, maps.pixel};
  for (int i = 0; i < T; i++)
    for (int j = 0; j < T; j++) {
      int64_t row = top + i, column = left + j;
      bool inside = row >= 0 && column >= 0 && row < h && column < w;
      store(buffer + (i * T + j) * VL, inside ? load_first(base + row * maps.row + column * maps.pixel, n) : Vec{});
    }
  return {buffer, T * VL, VL};
}

// --------------------------------------------------------------------------------------------------------- the form

template <int M>
struct Winograd {
  static constexpr int OUT = M, T = M + 2, XI = T * T;
  using Place = typename Tiles<Winograd>::Place;

  template <class Where>
  static inline void input(const Conv& conv, Place at, int64_t c0, int64_t c1, Where where, int64_t step) {
    alignas(64) float buffer[XI * VL];
    int64_t start = 0;
    for (const Maps& maps : conv.x)
      by_vectors(maps.channels, [&](int64_t c, int n) {
        int64_t column = start;
        start += VL;
        if (column < c0 || column >= c1) return;
        Square d = square<T>(maps, at.image, at.top - conv.pad[0], at.left - conv.pad[1], conv.h, conv.w, c, n, buffer);
        float* v = where(column);
        both_ways<T, T>([](const Vec* in, Vec* out) INLINE { Lines<M>::input(in, out); },
                        [&](auto i, auto j) INLINE { return load(d.data + i * d.row + j * d.pixel); },
                        [&](auto i, auto j, Vec x) INLINE { store(v + (i * T + j) * step, x); });
      });
  }

  // What `side_by_side` tiles from `at` on are computed from, and where they go.
  static inline Region region(const Conv& conv, Place at, int64_t side_by_side) {
    return {at.top - conv.pad[0], T, at.left - conv.pad[1], side_by_side * M + 2};
  }
  static inline Region output_region(const Conv&, Place at, int64_t side_by_side, int64_t) {
    return {at.top, M, at.left, side_by_side * M};
  }

  static inline void touch_weights(const Conv& conv, int64_t, int64_t c, int64_t channels, const Panel& panel) {
    for (int tap = 0; tap < 9; tap++) touch(conv.weight, tap, c, channels, panel.first, panel.columns);
  }
  // Channels c .. c+rows-1 times filters k .. k+columns-1, VL of each at most; zeros up to VL.
  static inline void weights(const Conv& conv, int64_t, int64_t c, int rows, int64_t k, int columns, float* u, int64_t step) {
    const Weight& w = conv.weight;
    alignas(64) float buffer[9 * VL * VL];
    const float* taps[9];
    int64_t next = VL;
    for (int tap = 0; tap < 9; tap++) {
      const float* from = w.data + (w.turned ? 8 - tap : tap) * w.tap + c * w.row + k * w.column;
      float* to = buffer + tap * VL * VL;
      taps[tap] = to;
      if (w.column != 1)
        transpose_block(from, w.column, rows, columns, to, VL);
      else if (rows == VL && columns == VL)
        taps[tap] = from, next = w.row;
      else
        for (int i = 0; i < VL; i++) store(to + i * VL, i < rows && columns ? load_first(from + i * w.row, columns) : Vec{});
    }
    for (int i = 0; i < VL; i++)
      both_ways<3, T>([](const Vec* in, Vec* out) INLINE { Lines<M>::weight(in, out); },
                      [&](auto r, auto s) INLINE { return load(taps[r * 3 + s] + i * next); },
                      [&](auto r, auto s, Vec x) INLINE { store(u + i * NR + (r * T + s) * step, x); });
  }

  static inline void output(const Conv& conv, Place at, const Panel& panel, const float* m, int64_t step) {
    int64_t rows = least(M, conv.p - at.top), columns = least(M, conv.q - at.left);
    by_vectors(panel.columns, [&](int64_t k, int n) {
      Vec bias = conv.bias ? load_first(conv.bias + panel.first + k, n) : Vec{};
      float* out = pixel(conv.y, at) + panel.first + k;
      const float* mask = pixel(conv.mask, at) + panel.first + k;
      auto tile = [&](auto store_at) INLINE {
        both_ways<T, M>([](const Vec* in, Vec* out) INLINE { Lines<M>::output(in, out); },
                        [&](auto i, auto j) INLINE { return load(m + k + (i * T + j) * step); },
                        [&](auto i, auto j, Vec x) INLINE { store_at(i, j, x); });
      };
      auto finished = [&](int i, int j, Vec x) INLINE {
        return epilogue(conv, x, bias, mask + i * conv.mask.row + j * conv.mask.pixel, n);
      };
      bool whole = rows == M && columns == M && n == VL;
      if (whole && conv.stream)
        tile([&](int i, int j, Vec x) INLINE { stream(out + i * conv.y.row + j * conv.y.pixel, finished(i, j, x)); });
      else if (whole)
        tile([&](int i, int j, Vec x) INLINE { store(out + i * conv.y.row + j * conv.y.pixel, finished(i, j, x)); });
      else
        tile([&](int i, int j, Vec x) INLINE {
          if (i < rows && j < columns) store_first(out + i * conv.y.row + j * conv.y.pixel, finished(i, j, x), n);
        });
    });
  }

  static inline void gradient(const Conv& conv, Place at, int64_t, int64_t k, int n, float* g, int64_t step) {
    alignas(64) float buffer[M * M * VL];
    Square d = square<M>(conv.y, at.image, at.top, at.left, conv.p, conv.q, k, n, buffer);
    both_ways<M, T>([](const Vec* in, Vec* out) INLINE { Lines<M>::gradient(in, out); },
                    [&](auto i, auto j) INLINE { return load(d.data + i * d.row + j * d.pixel); },
                    [&](auto i, auto j, Vec x) INLINE { store(g + (i * T + j) * step, x); });
  }

  template <class Sum>
  static inline void taps(Sum sum, float* gw, int64_t tap, int n) {
    both_ways<T, 3>([](const Vec* in, Vec* out) INLINE { Lines<M>::taps(in, out); },
                    [&](auto i, auto j) INLINE { return sum(i * T + j); },
                    [&](auto i, auto j, Vec x) INLINE { store_first(gw + (i * 3 + j) * tap, x, n); });
  }

 private:
  static inline float* pixel(const Maps& maps, Place at) {
    return maps.data + at.image * maps.image + at.top * maps.row + at.left * maps.pixel;
  }
};

}  // namespace ISA
