// 3x3 convolution by Winograd's minimal filtering F(M x M, 3 x 3), M = 2 or 4, and its weight gradient F(3 x 3, M x M).
//
// The image is cut into tiles of M x M outputs, each computed from T x T inputs, T = M + 2. With the transforms B, G, A
//
//     Y = A^T [ (G g G^T) . (B^T d B) ] A        (. elementwise)
//
// a tile takes T*T products instead of 9*M*M: 36 instead of 144 for M = 4. Over all channels the elementwise product
// becomes T*T matrix products V[xi] (tiles x C) times U[xi] (C x K). The matrices come from polynomial interpolation at
// the points 0, +-a, +-b, infinity (Winograd 1980; Lavin and Gray 2016). a = 5/8, b = 3/2 lose about half as many digits as
// the usual 1 and 2 and cost the same.
//
// Everything stays in cache: a block of tiles is transformed, multiplied and transformed back before the next begins.
#pragma once
#include "products.h"
#include "shapes.h"

namespace ISA {

// ---------------------------------------------------------------------------------------- one-dimensional transforms
// Each works on a run of vectors, in and out `step` apart, and is applied to the columns and then the rows of a tile.

template <int M>
struct Winograd;

template <>
struct Winograd<4> {
  static constexpr int T = 6;
  static constexpr float a = 0.625f, b = 1.5f, aa = a * a, bb = b * b;
  // 1 / N_i, N_i = product of (point_i - the other points): 0, +-a, +-b
  static constexpr float n0 = 1 / (aa * bb), na = 1 / (2 * aa * (aa - bb)), nb = 1 / (2 * bb * (bb - aa));

  static inline void input(const Vec* d, int s, Vec* v, int t) {  // B^T d
    Vec d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
    Vec even = d4 - bb * d2, odd = a * (d3 - bb * d1);
    Vec even2 = d4 - aa * d2, odd2 = b * (d3 - aa * d1);
    v[0] = d4 - (aa + bb) * d2 + (aa * bb) * d0;
    v[t] = even + odd;
    v[2 * t] = even - odd;
    v[3 * t] = even2 + odd2;
    v[4 * t] = even2 - odd2;
    v[5 * t] = d5 - (aa + bb) * d3 + (aa * bb) * d1;
  }
  static inline void weight(const Vec* g, int s, Vec* u, int t) {  // G g
    Vec g0 = g[0], g1 = g[s], g2 = g[2 * s];
    Vec even = na * g0 + (na * aa) * g2, odd = (na * a) * g1;
    Vec even2 = nb * g0 + (nb * bb) * g2, odd2 = (nb * b) * g1;
    u[0] = n0 * g0;
    u[t] = even + odd;
    u[2 * t] = even - odd;
    u[3 * t] = even2 + odd2;
    u[4 * t] = even2 - odd2;
    u[5 * t] = g2;
  }
  static inline void output(const Vec* m, int s, Vec* y, int t) {  // A^T m
    Vec sum = m[s] + m[2 * s], dif = m[s] - m[2 * s], sum2 = m[3 * s] + m[4 * s], dif2 = m[3 * s] - m[4 * s];
    y[0] = m[0] + sum + sum2;
    y[t] = a * dif + b * dif2;
    y[2 * t] = aa * sum + bb * sum2;
    y[3 * t] = (aa * a) * dif + (bb * b) * dif2 + m[5 * s];
  }
  static inline void gradient(const Vec* g, int s, Vec* u, int t) {  // the 4 output gradients as a filter: G' g
    Vec g0 = g[0], g1 = g[s], g2 = g[2 * s], g3 = g[3 * s];
    Vec even = na * g0 + (na * aa) * g2, odd = (na * a) * g1 + (na * aa * a) * g3;
    Vec even2 = nb * g0 + (nb * bb) * g2, odd2 = (nb * b) * g1 + (nb * bb * b) * g3;
    u[0] = n0 * g0;
    u[t] = even + odd;
    u[2 * t] = even - odd;
    u[3 * t] = even2 + odd2;
    u[4 * t] = even2 - odd2;
    u[5 * t] = g3;
  }
  static inline void taps(const Vec* m, int s, Vec* y, int t) {  // A'^T m: the 3 weight gradients
    Vec sum = m[s] + m[2 * s], dif = m[s] - m[2 * s], sum2 = m[3 * s] + m[4 * s], dif2 = m[3 * s] - m[4 * s];
    y[0] = m[0] + sum + sum2;
    y[t] = a * dif + b * dif2;
    y[2 * t] = aa * sum + bb * sum2 + m[5 * s];
  }
};

template <>
struct Winograd<2> {  // points 0, 1, -1, infinity
  static constexpr int T = 4;
  static inline void input(const Vec* d, int s, Vec* v, int t) {
    Vec d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s];
    v[0] = d0 - d2;
    v[t] = d1 + d2;
    v[2 * t] = d2 - d1;
    v[3 * t] = d3 - d1;
  }
  static inline void weight(const Vec* g, int s, Vec* u, int t) {
    Vec half = 0.5f * (g[0] + g[2 * s]), odd = 0.5f * g[s];
    u[0] = g[0];
    u[t] = half + odd;
    u[2 * t] = half - odd;
    u[3 * t] = g[2 * s];
  }
  static inline void output(const Vec* m, int s, Vec* y, int t) {
    y[0] = m[0] + m[s] + m[2 * s];
    y[t] = m[s] - m[2 * s] + m[3 * s];
  }
  static inline void gradient(const Vec* g, int s, Vec* u, int t) {
    u[0] = g[0];
    u[t] = 0.5f * (g[0] + g[s]);
    u[2 * t] = 0.5f * (g[0] - g[s]);
    u[3 * t] = g[s];
  }
  static inline void taps(const Vec* m, int s, Vec* y, int t) {
    y[0] = m[0] + m[s] + m[2 * s];
    y[t] = m[s] - m[2 * s];
    y[2 * t] = m[s] + m[2 * s] + m[3 * s];
  }
};

// --------------------------------------------------------------------------------------------------- tile transforms

template <int M>
struct Tiles {
  static constexpr int T = Winograd<M>::T, XI = T * T;
  int64_t down, across, count;
  explicit Tiles(const Conv& conv)
      : down((conv.p + M - 1) / M), across((conv.q + M - 1) / M), count(conv.images * down * across) {}
  void place(int64_t tile, int64_t& image, int64_t& top, int64_t& left) const {
    image = tile / (down * across);
    top = tile / across % down * M;
    left = tile % across * M;
  }
};

// Floats between the tiles of V, and between its T * T matrices of `rows` tiles. Distances of many kilobytes that are a
// multiple of 2 KB would put all T * T of them into the same few sets of the inner cache; a cache line more spreads them.
static inline int64_t pitch(int64_t channels) { return channels % 512 ? channels : channels + 16; }
static inline int64_t lead(int64_t rows, int64_t channels) { return rows * pitch(channels) + 16; }

// The T x T pixels at (top, left) of one image of `maps`, channels c .. c+n-1; zeros outside the h x w image.
template <int T>
static inline void load_tile(const Maps& maps, int64_t image, int64_t top, int64_t left, int64_t h, int64_t w, int64_t c,
                             int n, Vec* d) {
  const float* base = maps.data + image * maps.image + c;
  bool inside = top >= 0 && left >= 0 && top + T <= h && left + T <= w && n == VL;
  for (int i = 0; i < T; i++)
    for (int j = 0; j < T; j++) {
      int64_t row = top + i, column = left + j;
      const float* p = base + row * maps.row + column * maps.pixel;
      if (inside)
        d[i * T + j] = load(p);
      else if (row < 0 || column < 0 || row >= h || column >= w)
        d[i * T + j] = Vec{};
      else
        d[i * T + j] = load_first(p, n);
    }
}

// V[xi][tile - first][c] = B^T d B for tiles first .. last-1; `step` floats between xi, pitch(C) between tiles.
template <int M>
static void transform_input(const Conv& conv, int64_t first, int64_t last, float* v, int64_t step) {
  constexpr int T = Tiles<M>::T;
  Tiles<M> tiles(conv);
  int64_t channels = conv.x[0].channels + conv.x[1].channels;
  for (int64_t tile = first; tile < last; tile++) {
    int64_t image, top, left;
    tiles.place(tile, image, top, left);
    float* out = v + (tile - first) * pitch(channels);
    for (int source = 0; source < 2; source++) {
      const Maps& maps = conv.x[source];
      by_vectors(maps.channels, [&](int64_t c, int n) {
        Vec d[T * T], u[T * T];
        load_tile<T>(maps, image, top - conv.pad, left - conv.pad, conv.h, conv.w, c, n, d);
        for (int j = 0; j < T; j++) Winograd<M>::input(d + j, T, u + j, T);
        for (int i = 0; i < T; i++) Winograd<M>::input(u + i * T, 1, d + i * T, 1);
        for (int xi = 0; xi < T * T; xi++)
          store_first(out + xi * step + c, d[xi], n);
      });
      out += maps.channels;
    }
  }
}

// y tiles first .. last-1 of one panel of filters from M[xi][tile - first][NR], `step` floats between xi; bias and ReLU.
template <int M>
static void transform_output(const Conv& conv, int64_t first, int64_t last, int64_t panel, const float* m, int64_t step) {
  constexpr int T = Tiles<M>::T;
  Tiles<M> tiles(conv);
  int64_t filters = least(NR, conv.y.channels - panel * NR);
  for (int64_t tile = first; tile < last; tile++) {
    int64_t image, top, left;
    tiles.place(tile, image, top, left);
    int64_t rows = least(M, conv.p - top), columns = least(M, conv.q - left);
    by_vectors(filters, [&](int64_t k, int n) {
      const float* in = m + (tile - first) * NR + k;
      Vec d[T * T], half[M * T], y[M * M];
      for (int xi = 0; xi < T * T; xi++) d[xi] = load(in + xi * step);
      for (int j = 0; j < T; j++) Winograd<M>::output(d + j, T, half + j, T);
      for (int i = 0; i < M; i++) Winograd<M>::output(half + i * T, 1, y + i * M, 1);
      Vec bias{};
      if (conv.bias) bias = load_first(conv.bias + panel * NR + k, n);
      float* out = conv.y.data + image * conv.y.image + top * conv.y.row + left * conv.y.pixel + panel * NR + k;
      for (int i = 0; i < rows; i++)
        for (int j = 0; j < columns; j++) {
          Vec value = y[i * M + j] + bias;
          if (conv.relu) value = relu(value);
          store_first(out + i * conv.y.row + j * conv.y.pixel, value, n);
        }
    });
  }
}

// One panel of U: u[xi][c - c0][column] = G g G^T for filters panel*NR .. and channels c0 .. c1-1, zeros beyond K.
template <int M>
static void transform_weight(const float* weight, int64_t channels, int64_t filters, int64_t panel, int64_t c0, int64_t c1,
                             float* u, int64_t step) {
  constexpr int T = Tiles<M>::T;
  for (int64_t c = c0; c < c1; c++)
    for (int part = 0; part < 2; part++) {
      int64_t k = panel * NR + part * VL;
      int n = int(least(VL, most(0, filters - k)));
      Vec g[9], half[T * 3], out[T * T];
      for (int tap = 0; tap < 9; tap++) g[tap] = load_first(weight + (tap * channels + c) * filters + k, n);
      for (int s = 0; s < 3; s++) Winograd<M>::weight(g + s, 3, half + s, 3);
      for (int i = 0; i < T; i++) Winograd<M>::weight(half + i * 3, 1, out + i * T, 1);
      for (int xi = 0; xi < T * T; xi++) store(u + xi * step + (c - c0) * NR + part * VL, out[xi]);
    }
}

// ------------------------------------------------------------------------------------------------------- convolution

// Whole transformed weight, panels first .. last-1: u[panel][xi][c][NR].
template <int M>
static void winograd_weights(const Conv* conv, int64_t first, int64_t last, float* u) {
  int64_t channels = conv->x[0].channels + conv->x[1].channels, size = channels * NR;
  for (int64_t panel = first; panel < last; panel++)
    transform_weight<M>(conv->weight, channels, conv->y.channels, panel, 0, channels, u + panel * Tiles<M>::XI * size, size);
}

// Many tiles, weights that fit into the outer cache: tiles first .. last-1 in blocks of `block`, of each block one panel of
// filters after another. scratch: XI * (lead(block, C) + lead(block, NR)) floats.
template <int M>
static void winograd_by_tiles(const Conv* conv, const float* u, int64_t first, int64_t last, int64_t block, float* scratch) {
  constexpr int XI = Tiles<M>::XI;
  int64_t channels = conv->x[0].channels + conv->x[1].channels;
  int64_t v_step = lead(block, channels), m_step = lead(block, NR);
  float *v = scratch, *m = scratch + XI * v_step;
  for (int64_t tile = first; tile < last; tile += block) {
    int64_t count = least(block, last - tile);
    transform_input<M>(*conv, tile, tile + count, v, v_step);
    for (int64_t panel = 0; panel < panels(conv->y.channels); panel++) {
      for (int xi = 0; xi < XI; xi++) {
        const float *a = v + xi * v_step, *b = u + (panel * XI + xi) * channels * NR;
        float* o = m + xi * m_step;
        by_rows(count, [&]<int R>(int64_t row) {
          multiply<R>(a + row * pitch(channels), pitch(channels), b, channels, o + row * NR, NR, false);
        });
      }
      transform_output<M>(*conv, tile, tile + count, panel, m, m_step);
    }
  }
}

// Transformed input of tiles first .. last-1 into the shared v[xi][tile][c] of all `total` tiles of a group at `start`:
// XI * lead(total, C) floats.
template <int M>
static void winograd_inputs(const Conv* conv, int64_t start, int64_t total, int64_t first, int64_t last, float* v) {
  int64_t channels = conv->x[0].channels + conv->x[1].channels;
  transform_input<M>(*conv, first, last, v + (first - start) * pitch(channels), lead(total, channels));
}

// Few tiles, large weights: for each panel of filters the weights are transformed a block of channels at a time, right
// before their product with the shared v of the tiles start .. start+total-1.
// scratch: XI * (channel block * NR + lead(total, NR)) floats.
template <int M>
static void winograd_by_filters(const Conv* conv, const float* v, int64_t start, int64_t total, int64_t first, int64_t last,
                                int64_t channel_block, float* scratch) {
  constexpr int XI = Tiles<M>::XI;
  int64_t channels = conv->x[0].channels + conv->x[1].channels, filters = conv->y.channels;
  int64_t v_step = lead(total, channels), m_step = lead(total, NR);
  float *u = scratch, *m = scratch + XI * channel_block * NR;
  for (int64_t panel = first; panel < last; panel++) {
    for (int64_t c = 0; c < channels; c += channel_block) {
      int64_t n = least(channel_block, channels - c);
      transform_weight<M>(conv->weight, channels, filters, panel, c, c + n, u, channel_block * NR);
      for (int xi = 0; xi < XI; xi++) {
        const float *a = v + xi * v_step + c, *b = u + xi * channel_block * NR;
        float* o = m + xi * m_step;
        by_rows(total, [&]<int R>(int64_t row) {
          multiply<R>(a + row * pitch(channels), pitch(channels), b, n, o + row * NR, NR, c > 0);
        });
      }
    }
    transform_output<M>(*conv, start, start + total, panel, m, m_step);
  }
}

// --------------------------------------------------------------------------------------------------- weight gradient
// Here conv.y holds the gradient of the output, read; its tiles are transformed like 4x4 filters.

// Y[panel][xi][tile - first][NR] = G' g G'^T of tiles first .. last-1; zeros beyond K. `step`: floats between xi.
template <int M>
static void transform_gradient(const Conv& conv, int64_t panel, int64_t first, int64_t last, float* out, int64_t step) {
  constexpr int T = Tiles<M>::T;
  Tiles<M> tiles(conv);
  for (int64_t tile = first; tile < last; tile++) {
    int64_t image, top, left;
    tiles.place(tile, image, top, left);
    for (int part = 0; part < 2; part++) {
      int64_t k = panel * NR + part * VL;
      int n = int(least(VL, most(0, conv.y.channels - k)));
      Vec g[M * M], half[T * M], u[T * T];
      load_tile<M>(conv.y, image, top, left, conv.p, conv.q, k, n, g);
      for (int j = 0; j < M; j++) Winograd<M>::gradient(g + j, M, half + j, M);
      for (int i = 0; i < T; i++) Winograd<M>::gradient(half + i * M, 1, u + i * T, 1);
      for (int xi = 0; xi < T * T; xi++) store(out + xi * step + (tile - first) * NR + part * VL, u[xi]);
    }
  }
}

// sum[panel][xi][c][NR] += V^T Y over tiles first .. last-1, in blocks. scratch: XI * (lead(block, C) + lead(block, NR)).
template <int M>
static void winograd_gradient_by_tiles(const Conv* conv, int64_t first, int64_t last, int64_t block, float* sum,
                                       float* scratch) {
  constexpr int XI = Tiles<M>::XI;
  int64_t channels = conv->x[0].channels + conv->x[1].channels;
  int64_t v_step = lead(block, channels), g_step = lead(block, NR);
  float *v = scratch, *g = scratch + XI * v_step;
  for (int64_t tile = first; tile < last; tile += block) {
    int64_t count = least(block, last - tile);
    transform_input<M>(*conv, tile, tile + count, v, v_step);
    for (int64_t panel = 0; panel < panels(conv->y.channels); panel++) {
      transform_gradient<M>(*conv, panel, tile, tile + count, g, g_step);
      for (int xi = 0; xi < XI; xi++) {
        const float *a = v + xi * v_step, *b = g + xi * g_step;
        float* o = sum + (panel * XI + xi) * channels * NR;
        by_rows(channels, [&]<int R>(int64_t c) {
          multiply_transposed<R>(a + c, pitch(channels), b, count, o + c * NR, NR);
        });
      }
    }
  }
}

// The same for panels first .. last-1 only, of which sum holds nothing but those, from the shared v of tiles
// start .. start+total-1, in blocks of tiles.
// scratch: XI * lead(block, NR) floats.
template <int M>
static void winograd_gradient_by_filters(const Conv* conv, const float* v, int64_t start, int64_t total, int64_t first,
                                         int64_t last, int64_t block, float* sum, float* scratch) {
  constexpr int XI = Tiles<M>::XI;
  int64_t channels = conv->x[0].channels + conv->x[1].channels;
  for (int64_t panel = first; panel < last; panel++)
    for (int64_t tile = 0; tile < total; tile += block) {
      int64_t count = least(block, total - tile);
      transform_gradient<M>(*conv, panel, start + tile, start + tile + count, scratch, lead(block, NR));
      for (int xi = 0; xi < XI; xi++) {
        const float* a = v + xi * lead(total, channels) + tile * pitch(channels);
        const float* b = scratch + xi * lead(block, NR);
        float* o = sum + ((panel - first) * XI + xi) * channels * NR;
        by_rows(channels, [&]<int R>(int64_t c) {
          multiply_transposed<R>(a + c, pitch(channels), b, count, o + c * NR, NR);
        });
      }
    }
}

// gw (3, 3, C, K), panels first .. last-1 = A'^T (sum of `parts` sums, `part` floats apart) A'; `sum` begins at `first`.
template <int M>
static void winograd_gradient_taps(const Conv* conv, const float* sum, int64_t parts, int64_t part, int64_t first,
                                   int64_t last, float* gw) {
  constexpr int T = Tiles<M>::T, XI = T * T;
  int64_t channels = conv->x[0].channels + conv->x[1].channels, filters = conv->y.channels;
  for (int64_t panel = first; panel < last; panel++)
    for (int64_t c = 0; c < channels; c++)
      for (int half = 0; half < 2; half++) {
        int64_t k = panel * NR + half * VL;
        int n = int(least(VL, filters - k));
        if (n <= 0) break;
        Vec d[XI], rows[3 * T], g[9];
        for (int xi = 0; xi < XI; xi++) {
          const float* p = sum + (((panel - first) * XI + xi) * channels + c) * NR + half * VL;
          d[xi] = load(p);
          for (int64_t i = 1; i < parts; i++) d[xi] += load(p + i * part);
        }
        for (int j = 0; j < T; j++) Winograd<M>::taps(d + j, T, rows + j, T);
        for (int i = 0; i < 3; i++) Winograd<M>::taps(rows + i * T, 1, g + i * 3, 1);
        for (int tap = 0; tap < 9; tap++) store_first(gw + (tap * channels + c) * filters + k, g[tap], n);
      }
}

}  // namespace ISA
