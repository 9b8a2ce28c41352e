// Convolutions computed tile by tile: what Winograd's minimal filtering and plain products of pixels have in common.
//
// A form F (winograd.h, patches.h) says how a tile of the input becomes XI rows of numbers, how the weights become XI
// matrices, and how XI products become a tile of the output:
//
//     V[xi] (tiles x C)  times  U[xi] (C x K)  gives  M[xi] (tiles x K),      xi = 0 .. XI-1
//
// and for the weight gradient S[xi] (C x K) = sum over tiles of V[xi]^T G[xi], G made of the output's gradient.
// Channels are rounded up to vectors for each source and tap, zeros in the gaps.
//
// Everything depends on where the matrices lie while they are multiplied. With few channels a block of tiles and all the
// weights fit into the second-level cache: `by_tiles` transforms a block, multiplies it with one panel of filters after
// another and transforms the products back, while the next thread does the next block. With many channels the weights are
// the larger part: `by_filters` shares the transformed input of many tiles among all threads, and a thread transforms the
// weights of its panel right before they are used, so that they never all exist at once. The weight gradient has the same
// two ways: `gradient_by_tiles`, each thread with its tiles and a whole sum, and `gradient_by_channels`, each with its
// filters and channels and all tiles.
#pragma once
#include "parallel.h"
#include "products.h"
#include "shapes.h"

namespace ISA {

// Floats from one of XI matrices of `size` floats to the next: their elements are written and read XI at a time, and with
// a power of two between them all would compete for the same few places of a cache.
static inline int64_t apart(int64_t size) { return rounded_up(size, 16) + 16; }

static inline int64_t padded(const Maps& maps) { return rounded_up(maps.channels, VL); }
static inline int64_t taps_in(const Conv& conv) { return conv.patch_in[0] * conv.patch_in[1]; }
static inline int64_t taps_out(const Conv& conv) { return conv.patch_out[0] * conv.patch_out[1]; }
static inline int64_t columns_of_v(const Conv& conv) { return taps_in(conv) * (padded(conv.x[0]) + padded(conv.x[1])); }
static inline int64_t panels_of(const Conv& conv) { return taps_out(conv) * panels(conv.y.channels); }

// One panel of filters: those of one tap of the output patch.
struct Panel {
  int64_t tap, first, columns;  // columns: up to NR
  Panel(const Conv& conv, int64_t number) {
    int64_t each = panels(conv.y.channels);
    tap = number / each, first = number % each * NR;
    columns = least(NR, conv.y.channels - first);
  }
};

// The tiles of a convolution, row by row, image by image.
template <class F>
struct Tiles {
  int64_t down, across, count;
  explicit Tiles(const Conv& conv)
      : down((conv.p + F::OUT - 1) / F::OUT), across((conv.q + F::OUT - 1) / F::OUT), count(conv.images * down * across) {}
  struct Place {
    int64_t image, top, left;  // of the tile's output
  };
  Place operator[](int64_t tile) const {
    return {tile / (down * across), tile / across % down * F::OUT, tile % across * F::OUT};
  }
  // work(i, place) for i = 0 .. count-1 and the place of tile first + i, without a division for each.
  template <class Work>
  INLINE void each(int64_t first, int64_t count, Work work) const {
    if (count <= 0) return;
    Place at = (*this)[first];
    for (int64_t i = 0; i < count; i++) {
      work(i, at);
      at.left += F::OUT;
      if (at.left < across * F::OUT) continue;
      at.left = 0, at.top += F::OUT;
      if (at.top == down * F::OUT) at.top = 0, at.image++;
    }
  }
  // Tiles first .. first+count-1 row by row of tiles: work(place of the first, how many side by side).
  template <class Work>
  void by_rows(int64_t first, int64_t count, Work work) const {
    for (int64_t end = first + count; first < end;) {
      int64_t side_by_side = least(end - first, across - first % across);
      work((*this)[first], side_by_side);
      first += side_by_side;
    }
  }
};

// Rows top .. top+rows-1 and columns left .. left+columns-1 of an image.
struct Region {
  int64_t top, rows, left, columns;
};

// Read through channels c0 .. c1-1 of a region, as far as it lies within h x w pixels.
static inline void touch(const Maps& maps, int64_t image, Region at, int64_t h, int64_t w, int64_t c0, int64_t c1) {
  for (int64_t i = most(0, at.top); i < least(h, at.top + at.rows); i++)
    for (int64_t j = most(0, at.left); j < least(w, at.left + at.columns); j++)
      touch(maps.data + image * maps.image + i * maps.row + j * maps.pixel + c0, c1 - c0);
}

// V of tiles first .. first+count-1 in groups of `group`: v[xi][tile / group][c / VL][tile % group][VL], `step` between xi;
// only channels c0 .. c1-1 (multiples of VL).
template <class F>
static void input_tiles(const Conv& conv, int64_t first, int64_t count, int64_t group, int64_t c0, int64_t c1, float* v,
                        int64_t step) {
  Tiles<F> tiles(conv);
  tiles.by_rows(first, count, [&](auto place, int64_t side_by_side) {
    int64_t before = 0;  // columns of V before this source's
    for (const Maps& maps : conv.x) {
      int64_t from = most(0, c0 - before), to = least(maps.channels, c1 - before);
      if (taps_in(conv) > 1) from = 0, to = maps.channels;  // c0 and c1 count taps, too: read all
      if (from < to) touch(maps, place.image, F::region(conv, place, side_by_side), conv.h, conv.w, from, to);
      before += padded(maps);
    }
  });
  float* row = v;  // of the tile in its group
  int64_t left = group;
  tiles.each(first, count, [&](int64_t, auto place) INLINE {
    F::input(conv, place, c0, c1, [&](int64_t c) INLINE { return row + (c - c0) * group; }, step);
    row += VL;
    if (!--left) left = group, row += group * (c1 - c0 - VL);
  });
}

// VL x VL floats turned: out[i * next + j] = in[j * row + i] for i < rows, j < columns; zeros elsewhere.
static inline void transpose_block(const float* in, int64_t row, int rows, int columns, float* out, int64_t next) {
  Vec lines[VL];
  for (int j = 0; j < VL; j++) lines[j] = j < columns ? load_first(in + j * row, rows) : Vec{};
  transpose(lines);
  for (int i = 0; i < VL; i++) store(out + i * next, lines[i]);
}

// Read through one tap of a weight, channels c .. c+channels-1, filters k .. k+filters-1: often 128 bytes every few KB.
static inline void touch(const Weight& w, int64_t tap, int64_t c, int64_t channels, int64_t k, int64_t filters) {
  const float* from = w.data + tap * w.tap + c * w.row + k * w.column;
  if (w.column == 1)
    for (int64_t i = 0; i < channels; i++) touch(from + i * w.row, filters);
  else
    for (int64_t i = 0; i < filters; i++) touch(from + i * w.column, channels);
}

// The columns c0 .. c1-1 of V by their origin: work(tap of the input patch, first channel in all sources together, channels,
// column of the first). c0 and c1 are multiples of VL.
template <class Work>
static inline void by_origin(const Conv& conv, int64_t c0, int64_t c1, Work work) {
  int64_t start = 0, before = 0;
  for (const Maps& maps : conv.x) {
    for (int64_t tap = 0; tap < taps_in(conv); tap++, start += padded(maps)) {
      int64_t from = most(0, c0 - start), to = least(maps.channels, c1 - start);
      if (from < to) work(tap, before + from, to - from, start + from);
    }
    before += maps.channels;
  }
}

// U[panel], channels c0 .. c1-1: u[xi][c - c0][NR], `step` floats between xi.
template <class F>
static void weights(const Conv& conv, int64_t panel, int64_t c0, int64_t c1, float* u, int64_t step) {
  Panel p(conv, panel);
  by_origin(conv, c0, c1, [&](int64_t tap, int64_t first, int64_t channels, int64_t column) {
    F::touch_weights(conv, tap + p.tap, first, channels, p);
    for (int64_t c = 0; c < channels; c += VL)
      for (int part = 0; part < NR; part += VL)
        F::weights(conv, tap + p.tap, first + c, int(least(VL, channels - c)), p.first + part,
                   int(most(0, least(VL, p.columns - part))), u + (column + c - c0) * NR + part, step);
  });
}

template <class F>
static void all_weights(const Conv& conv, int64_t threads, float* u) {
  int64_t c = columns_of_v(conv);
  parallel(threads, panels_of(conv),
           [&](int64_t panel, int64_t) { weights<F>(conv, panel, 0, c, u + panel * F::XI * c * NR, c * NR); });
}

template <class F>
static void output_tiles(const Conv& conv, int64_t first, int64_t count, int64_t panel, const float* m, int64_t step) {
  Tiles<F> tiles(conv);
  Panel p(conv, panel);
  if (conv.mask.data)
    tiles.by_rows(first, count, [&](auto place, int64_t side_by_side) {
      Region at = F::output_region(conv, place, side_by_side, p.tap);
      touch(conv.mask, place.image, at, conv.p * conv.patch_out[0], conv.q * conv.patch_out[1], p.first, p.first + p.columns);
    });
  tiles.each(first, count, [&](int64_t i, auto place) INLINE { F::output(conv, place, p, m + i * NR, step); });
}

// What a convolution does to a vector of its result, filters k .. k+n-1, before it is written; `mask` points into conv.mask.
INLINE static inline Vec epilogue(const Conv& conv, Vec x, Vec bias, const float* mask, int n) {
  x += bias;
  if (conv.relu) x = relu(x);
  if (conv.mask.data) x = load_first(mask, n) > Vec{} ? x : Vec{};
  return x;
}

// ------------------------------------------------------------------------------------------------------- convolution

// Blocks of `block` tiles, a multiple of MR; u[panel][xi][c][NR] from all_weights.
// scratch: XI * (apart(block * C) + apart(block * NR)) floats for each thread.
template <class F>
static void by_tiles(const Conv& conv, int64_t threads, int64_t block, const float* u, float* scratch) {
  int64_t c = columns_of_v(conv), count = Tiles<F>(conv).count;
  int64_t v_step = apart(block * c), m_step = apart(block * NR), each = F::XI * (v_step + m_step);
  parallel(threads, (count + block - 1) / block, [&](int64_t piece, int64_t thread) {
    float *v = scratch + thread * each, *m = v + F::XI * v_step;
    int64_t first = piece * block, rows = least(block, count - first);
    input_tiles<F>(conv, first, rows, MR, 0, c, v, v_step);
    for (int64_t panel = 0; panel < panels_of(conv); panel++) {
      Panel p(conv, panel);
      for (int xi = 0; xi < F::XI; xi++)
        multiply_groups(v + xi * v_step, rows, MR, MR * c, u + (panel * F::XI + xi) * c * NR, c, m + xi * m_step, p.columns, false);
      output_tiles<F>(conv, first, rows, panel, m, m_step);
    }
  });
}

// `tiles` tiles at a time, their V in groups of `group`; weights are transformed for `channels` channels at a time.
// v: XI * apart(tiles rounded up to groups * C) floats; scratch: XI * (apart(channels * NR) + apart(tiles * NR)) a thread.
template <class F>
static void by_filters(const Conv& conv, int64_t threads, int64_t tiles, int64_t group, int64_t channels, float* v,
                       float* scratch) {
  int64_t c = columns_of_v(conv), count = Tiles<F>(conv).count;
  int64_t v_step = apart(rounded_up(tiles, group) * c), u_step = apart(channels * NR), m_step = apart(tiles * NR);
  int64_t each = F::XI * (u_step + m_step);
  for (int64_t first = 0; first < count; first += tiles) {
    int64_t rows = least(tiles, count - first);
    parallel(threads, (rows + group - 1) / group, [&](int64_t piece, int64_t) {
      int64_t start = piece * group;
      input_tiles<F>(conv, first + start, least(group, rows - start), group, 0, c, v + start * c, v_step);
    });
    parallel(threads, panels_of(conv), [&](int64_t panel, int64_t thread) {
      float *u = scratch + thread * each, *m = u + F::XI * u_step;
      Panel p(conv, panel);
      for (int64_t c0 = 0; c0 < c; c0 += channels) {
        int64_t n = least(channels, c - c0);
        weights<F>(conv, panel, c0, c0 + n, u, u_step);
        for (int xi = 0; xi < F::XI; xi++)
          multiply_groups(v + xi * v_step + c0 * group, rows, group, group * c, u + xi * u_step, n, m + xi * m_step, p.columns, c0 > 0);
      }
      output_tiles<F>(conv, first, rows, panel, m, m_step);
    });
  }
}

// --------------------------------------------------------------------------------------------------- weight gradient

// G of `count` tiles for one panel: g[xi][tile][NR], zeros beyond the last column.
template <class F>
static void gradient_tiles(const Conv& conv, int64_t panel, int64_t first, int64_t count, float* g, int64_t step) {
  Tiles<F> tiles(conv);
  Panel p(conv, panel);
  tiles.by_rows(first, count, [&](auto place, int64_t side_by_side) {
    Region at = F::output_region(conv, place, side_by_side, p.tap);
    touch(conv.y, place.image, at, conv.p * conv.patch_out[0], conv.q * conv.patch_out[1], p.first, p.first + p.columns);
  });
  tiles.each(first, count, [&](int64_t i, auto place) INLINE {
    for (int part = 0; part < NR && part < p.columns; part += VL)
      F::gradient(conv, place, p.tap, p.first + part, int(least(VL, p.columns - part)), g + i * NR + part, step);
  });
}

// gw (R, S, C, K) for one panel and channels c0 .. c1-1 from the sum over `parts` of s[xi][c - c0][NR], `step` between xi.
template <class F>
static void gradient_taps(const Conv& conv, int64_t panel, int64_t c0, int64_t c1, const float* s, int64_t step,
                          int64_t parts, int64_t part, float* gw) {
  Panel p(conv, panel);
  int64_t total = conv.x[0].channels + conv.x[1].channels, k = conv.y.channels;
  by_origin(conv, c0, c1, [&](int64_t tap, int64_t first, int64_t channels, int64_t column) {
    for (int64_t c = 0; c < channels; c++)
      for (int half = 0; half < NR && half < p.columns; half += VL) {
        const float* from = s + (column + c - c0) * NR + half;
        F::taps(
            [&](int xi) INLINE {
              Vec sum = load(from + xi * step);
              for (int64_t j = 1; j < parts; j++) sum += load(from + xi * step + j * part);
              return sum;
            },
            gw + ((tap + p.tap) * total + first + c) * k + p.first + half, total * k, int(least(VL, p.columns - half)));
      }
  });
}

// Many tiles: they are cut into `parts` ranges, each with a sum of its own, and go through it in blocks of `block`. The
// filters are cut into `groups` for the sake of more threads; each group transforms the input anew.
// sums: parts * panels * XI * apart(C * NR) floats; scratch: XI * (apart(block * C) + apart(block * NR)) for each thread.
template <class F>
static void gradient_by_tiles(const Conv& conv, int64_t threads, int64_t parts, int64_t groups, int64_t block, float* sums,
                              float* scratch, float* gw) {
  int64_t c = columns_of_v(conv), count = Tiles<F>(conv).count, all = panels_of(conv);
  int64_t v_step = apart(block * c), g_step = apart(block * NR), s_step = apart(c * NR), each = F::XI * (v_step + g_step);
  int64_t part = all * F::XI * s_step;
  parallel(threads, parts * groups, [&](int64_t piece, int64_t thread) {
    int64_t number = piece / groups, group = piece % groups;
    float *v = scratch + thread * each, *g = v + F::XI * v_step, *s = sums + number * part;
    int64_t begin = count * number / parts, end = count * (number + 1) / parts;
    for (int64_t first = begin; first < end; first += block) {
      int64_t rows = least(block, end - first);
      input_tiles<F>(conv, first, rows, rows, 0, c, v, v_step);
      for (int64_t panel = all * group / groups; panel < all * (group + 1) / groups; panel++) {
        gradient_tiles<F>(conv, panel, first, rows, g, g_step);
        for (int xi = 0; xi < F::XI; xi++)
          multiply_transposed_group(v + xi * v_step, rows, rows * VL, g + xi * g_step, c, s + (panel * F::XI + xi) * s_step,
                                    Panel(conv, panel).columns, first > begin);
      }
    }
  });
  int64_t pieces = c / VL;
  parallel(threads, all * pieces, [&](int64_t piece, int64_t) {
    int64_t panel = piece / pieces, c0 = piece % pieces * VL;
    gradient_taps<F>(conv, panel, c0, c0 + VL, sums + panel * F::XI * s_step + c0 * NR, s_step, parts, part, gw);
  });
}

// Many channels: V of all tiles for `channels` channels at a time is shared; a piece of the work is one panel of filters
// and `piece_channels` channels, whose sum stays in the second-level cache while the tiles pass by in blocks of `block`.
// v: XI * apart(tiles * channels) floats; scratch: XI * (apart(block * NR) + apart(piece_channels * NR)) for each thread.
template <class F>
static void gradient_by_channels(const Conv& conv, int64_t threads, int64_t channels, int64_t piece_channels, int64_t block,
                                 float* v, float* scratch, float* gw) {
  int64_t c = columns_of_v(conv), count = Tiles<F>(conv).count;
  int64_t v_step = apart(count * channels), g_step = apart(block * NR), s_step = apart(piece_channels * NR);
  int64_t each = F::XI * (g_step + s_step);
  for (int64_t c0 = 0; c0 < c; c0 += channels) {
    int64_t n = least(channels, c - c0);
    constexpr int64_t RUN = 16;  // tiles
    parallel(threads, (count + RUN - 1) / RUN, [&](int64_t piece, int64_t) {
      int64_t start = piece * RUN;
      input_tiles<F>(conv, start, least(RUN, count - start), count, c0, c0 + n, v + start * VL, v_step);
    });
    int64_t pieces = (n + piece_channels - 1) / piece_channels;
    parallel(threads, panels_of(conv) * pieces, [&](int64_t piece, int64_t thread) {
      float *g = scratch + thread * each, *s = g + F::XI * g_step;
      int64_t panel = piece / pieces, from = piece % pieces * piece_channels, own = least(piece_channels, n - from);
      for (int64_t first = 0; first < count; first += block) {
        int64_t rows = least(block, count - first);
        gradient_tiles<F>(conv, panel, first, rows, g, g_step);
        for (int xi = 0; xi < F::XI; xi++)
          multiply_transposed_group(v + xi * v_step + from * count + first * VL, rows, count * VL, g + xi * g_step, own,
                                    s + xi * s_step, Panel(conv, panel).columns, first > 0);
      }
      gradient_taps<F>(conv, panel, c0 + from, c0 + from + own, s, s_step, 1, 0, gw);
    });
  }
}

}  // namespace ISA
