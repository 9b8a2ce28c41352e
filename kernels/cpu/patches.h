// Convolutions as plain products of patches of pixels, a form for tiles.h: of any kernel, stride, dilation and padding, and
// up-convolutions. Patches are copied side by side (im2col), but only those of a block of tiles, where they stay in cache.
#pragma once
#include "tiles.h"

namespace ISA {

struct Patches {
  static constexpr int OUT = 1, XI = 1;
  using Place = Tiles<Patches>::Place;

  template <class Where>
  static inline void input(const Conv& conv, Place at, int64_t c0, int64_t c1, Where where, int64_t) {
    int64_t column = 0;
    for (const Maps& x : conv.x)
      for (int64_t i = 0; i < conv.patch_in[0]; i++)
        for (int64_t j = 0; j < conv.patch_in[1]; j++) {
          int64_t row = at.top * conv.stride[0] + i * conv.dilation[0] - conv.pad[0];
          int64_t left = at.left * conv.stride[1] + j * conv.dilation[1] - conv.pad[1];
          bool inside = row >= 0 && left >= 0 && row < conv.h && left < conv.w;
          const float* from = x.data + at.image * x.image + row * x.row + left * x.pixel;
          by_vectors(x.channels, [&](int64_t c, int n) INLINE {
            if (column >= c0 && column < c1) store(where(column), inside ? load_first(from + c, n) : Vec{});
            column += VL;
          });
        }
  }

  static inline Region region(const Conv& conv, Place at, int64_t side_by_side) {
    return {at.top * conv.stride[0] - conv.pad[0], (conv.patch_in[0] - 1) * conv.dilation[0] + 1,
            at.left * conv.stride[1] - conv.pad[1],
            (side_by_side - 1) * conv.stride[1] + (conv.patch_in[1] - 1) * conv.dilation[1] + 1};
  }
  // Every patch_out[1]-th pixel belongs to the tap; their lines hold the others' channels or are passed over.
  static inline Region output_region(const Conv& conv, Place at, int64_t side_by_side, int64_t tap) {
    return {at.top * conv.patch_out[0] + tap / conv.patch_out[1], 1, at.left * conv.patch_out[1], side_by_side * conv.patch_out[1]};
  }

  static inline void touch_weights(const Conv& conv, int64_t tap, int64_t c, int64_t channels, const Panel& panel) {
    touch(conv.weight, turned(conv, tap), c, channels, panel.first, panel.columns);
  }
  static inline void weights(const Conv& conv, int64_t tap, int64_t c, int rows, int64_t k, int columns, float* u, int64_t) {
    const Weight& w = conv.weight;
    const float* from = w.data + turned(conv, tap) * w.tap + c * w.row + k * w.column;
    if (w.column != 1)
      transpose_block(from, w.column, rows, columns, u, NR);
    else
      for (int i = 0; i < VL; i++) store(u + i * NR, i < rows && columns ? load_first(from + i * w.row, columns) : Vec{});
  }

  static inline void output(const Conv& conv, Place at, const Panel& panel, const float* m, int64_t) {
    float* out = pixel(conv, conv.y, at, panel.tap) + panel.first;
    const float* mask = conv.mask.data ? pixel(conv, conv.mask, at, panel.tap) + panel.first : nullptr;
    by_vectors(panel.columns, [&](int64_t k, int n) INLINE {
      Vec bias = conv.bias ? load_first(conv.bias + panel.first + k, n) : Vec{};
      Vec x = epilogue(conv, load(m + k), bias, mask + k, n);
      if (conv.stream && n == VL)
        stream(out + k, x);
      else
        store_first(out + k, x, n);
    });
  }

  static inline void gradient(const Conv& conv, Place at, int64_t tap, int64_t k, int n, float* g, int64_t) {
    store(g, load_first(pixel(conv, conv.y, at, tap) + k, n));
  }

  template <class Sum>
  static inline void taps(Sum sum, float* gw, int64_t, int n) {
    store_first(gw, sum(0), n);
  }

 private:
  static inline int64_t turned(const Conv& conv, int64_t tap) {
    return conv.weight.turned ? taps_in(conv) * taps_out(conv) - 1 - tap : tap;
  }
  static inline float* pixel(const Conv& conv, const Maps& maps, Place at, int64_t tap) {
    int64_t row = at.top * conv.patch_out[0] + tap / conv.patch_out[1], column = at.left * conv.patch_out[1] + tap % conv.patch_out[1];
    return maps.data + at.image * maps.image + row * maps.row + column * maps.pixel;
  }
};

}  // namespace ISA
