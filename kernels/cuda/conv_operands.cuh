// The two operands of a convolution seen as a product (conv_shapes.cuh), as tiles that a block loads from memory.
//
// A block makes a tile of the product and walks along z, the index that is summed over, DEPTH at a time: `move_to(step)`
// chooses the piece z = step * DEPTH ... In it each thread loads COUNT vectors of VEC neighbouring values; `at(i)` is the
// address of its i-th one, or null where there is nothing but zeros (the border, or beyond the end). Two kinds of operands:
//
//   by rows      neighbours in memory follow one another along z: the tile has EXTENT rows of DEPTH values
//   by columns   neighbours in memory follow one another across z: the tile has DEPTH rows of EXTENT values
//
// In both, the thread's i-th vector is number `lane` of the tile's row `row + i * STRIDE`.
#pragma once
#include "conv_shapes.cuh"

// How THREADS threads share a tile of ROWS rows of WIDTH values.
template <int VEC, int ROWS, int WIDTH, int THREADS> struct Share {
  static constexpr int LANES = WIDTH / VEC, STRIDE = THREADS / LANES, COUNT = ROWS / STRIDE;
  static_assert(WIDTH % VEC == 0 && THREADS % LANES == 0 && ROWS % STRIDE == 0, "the threads do not share a tile evenly");
  static_assert(COUNT > 0, "more threads than vectors");
  int row, lane;
  __device__ Share() : row(threadIdx.x / LANES), lane(threadIdx.x % LANES) {}
};

// How z runs over taps and channels: first over those of source 0 (tap by tap, the channels of each), then over those of
// source 1. Each source begins with a step of its own, so that a step never has both.
struct Contraction {
  Divider channels, more, columns;  // of source 0 and 1 (1 where there is none); S
  int taps, first, steps;           // steps of source 0; of both

  __device__ Contraction(const Window& win, int c, int c2, int depth)
      : channels(c), more(max(c2, 1)), columns(win.s), taps(win.r * win.s), first((taps * c + depth - 1) / depth),
        steps(first + (taps * c2 + depth - 1) / depth) {}
};

// A place on the way: the tap and the channel of a thread's vector.
struct Place {
  int source, tap, r, s, channel;
  bool inside;

  template <int DEPTH> __device__ void move_to(const Contraction& z, int step, int offset) {
    source = step >= z.first;
    const Divider& channels = source ? z.more : z.channels;
    const int at = (source ? step - z.first : step) * DEPTH + offset;
    tap = channels.quotient(at);
    channel = at - tap * channels.divisor;
    r = z.columns.quotient(tap);
    s = tap - r * z.columns.divisor;
    inside = tap < z.taps;
  }
};

// By rows: the input pixels under the output pixels m0, m0 + 1, ... At most 32 taps.
template <class T, int VEC_, int DEPTH, int EXTENT, int THREADS> struct PixelRows : Share<VEC_, EXTENT, DEPTH, THREADS> {
  static constexpr bool BY_ROWS = true;
  static constexpr int VEC = VEC_;
  using Sharing = Share<VEC, EXTENT, DEPTH, THREADS>;
  using Sharing::COUNT, Sharing::STRIDE, Sharing::row, Sharing::lane;
  const Maps<T>&x, &x2;
  const Window& win;
  const Contraction& z;
  int images, m0, source, pixel;
  Place place;
  const T* corner[COUNT];  // the pixel under tap (0, 0), which may lie outside of the map
  unsigned inside[COUNT];  // bit t: tap t meets a pixel of the map
  long long image_row, offset;

  __device__ PixelRows(const Maps<T>& map, const Maps<T>& map2, const Window& window, const Contraction& contraction, int n,
                       int first)
      : x(map), x2(map2), win(window), z(contraction), images(n), m0(first), source(-1) {}

  __device__ void move_to(int step) {
    place.move_to<DEPTH>(z, step, lane * VEC);
    if (place.source != source) enter(place.source ? x2 : x);
    source = place.source;
    offset = place.r * win.dilation_h * image_row + place.s * win.dilation_w * pixel + place.channel;
  }

  __device__ const T* at(int i) const {
    return place.inside && inside[i] >> place.tap & 1 ? corner[i] + offset : nullptr;
  }

  // Look up the thread's pixels in a source: at the beginning, and where the sum goes over to the second one.
  __device__ void enter(const Maps<T>& map) {
    image_row = map.row;
    pixel = map.pixel;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const int m = m0 + row + i * STRIDE, line = m / win.q, n = line / win.p;  // line = n * P + p
      const int h = (line - n * win.p) * win.stride_h - win.pad_h, w = (m - line * win.q) * win.stride_w - win.pad_w;
      corner[i] = map.data + n * map.image + h * map.row + (long long)w * map.pixel;
      inside[i] = n < images ? taps_inside(h, w) : 0;
    }
  }

  __device__ unsigned taps_inside(int h, int w) const {
    unsigned in_row = 0, all = 0;
    for (int s = 0; s < win.s; s++) in_row |= (unsigned)((unsigned)(w + s * win.dilation_w) < (unsigned)win.w) << s;
    for (int r = 0; r < win.r; r++)
      if ((unsigned)(h + r * win.dilation_h) < (unsigned)win.h) all |= in_row << r * win.s;
    return all;
  }
};

// A weight: element (k, tap, c) lies at data + k * filter + tap * pitch + c. A view of some channels of a larger one has the
// larger one's strides.
template <class T> struct Filters {
  const T* data;
  int filter, pitch, count, channels;  // count: how many filters; channels: of source 0 (forward), or all (input gradient)
};

// By rows: the filters j0, j0 + 1, ... of a forward pass.
template <class T, int VEC_, int DEPTH, int EXTENT, int THREADS> struct FilterRows : Share<VEC_, EXTENT, DEPTH, THREADS> {
  static constexpr bool BY_ROWS = true;
  static constexpr int VEC = VEC_;
  using Sharing = Share<VEC, EXTENT, DEPTH, THREADS>;
  using Sharing::COUNT, Sharing::STRIDE, Sharing::row, Sharing::lane;
  const Filters<T>& weight;
  const Contraction& z;
  int j0;
  Place place;
  const T* from;

  __device__ FilterRows(const Filters<T>& w, const Contraction& contraction, int first)
      : weight(w), z(contraction), j0(first) {}

  __device__ void move_to(int step) {
    place.move_to<DEPTH>(z, step, lane * VEC);
    const int channel = place.channel + (place.source ? weight.channels : 0);
    from = weight.data + (long long)(j0 + row) * weight.filter + place.tap * weight.pitch + channel;
  }

  __device__ const T* at(int i) const {
    const bool inside = place.inside && j0 + row + i * STRIDE < weight.count;
    return inside ? from + (long long)i * STRIDE * weight.filter : nullptr;
  }
};

// By columns: the channels j0, j0 + 1, ... of an input gradient's weight; z runs over taps, which are turned, and filters.
template <class T, int VEC_, int DEPTH, int EXTENT, int THREADS> struct FilterColumns : Share<VEC_, DEPTH, EXTENT, THREADS> {
  static constexpr bool BY_ROWS = false;
  static constexpr int VEC = VEC_;
  using Sharing = Share<VEC, DEPTH, EXTENT, THREADS>;
  using Sharing::COUNT, Sharing::STRIDE, Sharing::row, Sharing::lane;
  const Filters<T>& weight;
  const Contraction& z;
  int j, z0;

  __device__ FilterColumns(const Filters<T>& w, const Contraction& contraction, int first)
      : weight(w), z(contraction), j(first + lane * VEC) {}

  __device__ void move_to(int step) { z0 = step * DEPTH + row; }

  __device__ const T* at(int i) const {
    const int index = z0 + i * STRIDE, tap = z.channels.quotient(index), k = index - tap * z.channels.divisor;
    if (tap >= z.taps || j >= weight.channels) return nullptr;
    return weight.data + (long long)k * weight.filter + (z.taps - 1 - tap) * weight.pitch + j;
  }
};

// By columns: the filters m0, m0 + 1, ... of a weight gradient's gy, (pixels, filters) without gaps; z runs over pixels.
template <class T, int VEC_, int DEPTH, int EXTENT, int THREADS> struct GradientColumns : Share<VEC_, DEPTH, EXTENT, THREADS> {
  static constexpr bool BY_ROWS = false;
  static constexpr int VEC = VEC_;
  using Sharing = Share<VEC, DEPTH, EXTENT, THREADS>;
  using Sharing::COUNT, Sharing::STRIDE, Sharing::row, Sharing::lane;
  const T* gy;
  int pixels, filters, k, z0;

  __device__ GradientColumns(const T* gradient, int pixel_count, int filter_count, int first)
      : gy(gradient), pixels(pixel_count), filters(filter_count), k(first + lane * VEC) {}

  __device__ void move_to(int step) { z0 = step * DEPTH + row; }

  __device__ const T* at(int i) const {
    const int pixel = z0 + i * STRIDE;
    return pixel < pixels && k < filters ? gy + (long long)pixel * filters + k : nullptr;
  }
};

// By columns: a weight gradient's x. Column j0 + ... is a tap and a channel, those of both sources side by side, as in the
// (K, R, S, C) gradient; z runs over pixels. A thread's columns are the same in all steps: it reads one tap of one source.
template <class T, int VEC_, int DEPTH, int EXTENT, int THREADS> struct PatchColumns : Share<VEC_, DEPTH, EXTENT, THREADS> {
  static constexpr bool BY_ROWS = false;
  static constexpr int VEC = VEC_;
  using Sharing = Share<VEC, DEPTH, EXTENT, THREADS>;
  using Sharing::COUNT, Sharing::STRIDE, Sharing::row, Sharing::lane;
  const Window& win;
  Divider p, q;
  Maps<T> map;
  int pixels, h0, w0, z0;

  __device__ PatchColumns(const Maps<T>& x, const Maps<T>& x2, const Window& window, int pixel_count, int first)
      : win(window), p(window.p), q(window.q), pixels(pixel_count) {
    const int channels = x.channels + x2.channels, j = first + lane * VEC, tap = j / channels;
    const int c = j - tap * channels, r = tap / win.s, s = tap - r * win.s;
    map = c < x.channels ? x : x2;
    map.data += c < x.channels ? c : c - x.channels;
    h0 = r * win.dilation_h - win.pad_h;
    w0 = s * win.dilation_w - win.pad_w;
    if (r >= win.r) pixels = 0;
  }

  __device__ void move_to(int step) { z0 = step * DEPTH + row; }

  __device__ const T* at(int i) const {
    const int m = z0 + i * STRIDE, line = q.quotient(m), n = p.quotient(line);
    const int h = (line - n * p.divisor) * win.stride_h + h0, w = (m - line * q.divisor) * win.stride_w + w0;
    const bool inside = m < pixels && (unsigned)h < (unsigned)win.h && (unsigned)w < (unsigned)win.w;
    return inside ? map.data + n * map.image + h * map.row + (long long)w * map.pixel : nullptr;
  }
};
