// The two operands of a convolution seen as a product (conv_shapes.cuh), as tiles that a block loads from memory.
//
// A block makes a tile of the product and walks along z, the index that is summed over, DEPTH at a time: `move_to(step)`
// goes to the piece z = step * DEPTH ... of an operand. Of it each thread loads COUNT vectors of VEC neighbouring values;
// `at(i)` is the address of its i-th one, or null where there are only zeros (the border, or beyond the end). `data` is an
// address that is always legal.
//
//   PixelRows        forward: x, input gradient: gy      a row is a pixel
//   FilterRows       forward: weight                     a row is a filter
//   FilterColumns    input gradient: weight              a column is a channel
//   GradientColumns  weight gradient: gy                 a column is a filter
//   PatchColumns     weight gradient: x                  a column is a tap and a channel
#pragma once
#include "conv_shapes.cuh"

// A tile of an operand, EXTENT rows or columns of the product by DEPTH of z, and how THREADS threads share in loading it.
// Neighbours in memory follow one another along z in an operand by rows, across z in one by columns: its tile has EXTENT
// lines of DEPTH values, or DEPTH lines of EXTENT. The thread's i-th vector is number `lane` of line `line + i * STRIDE`.
template <bool ROWS, int VECTOR_, int DEPTH_, int EXTENT_, int THREADS> struct Tile {
  static constexpr bool BY_ROWS = ROWS;
  static constexpr int VECTOR = VECTOR_, DEPTH = DEPTH_, EXTENT = EXTENT_;
  static constexpr int LINES = ROWS ? EXTENT : DEPTH, WIDTH = ROWS ? DEPTH : EXTENT;
  static constexpr int LANES = WIDTH / VECTOR, STRIDE = THREADS / LANES, COUNT = LINES / STRIDE;
  static_assert(WIDTH % VECTOR == 0 && THREADS % LANES == 0 && LINES % STRIDE == 0, "the threads cannot share the tile evenly");
  int line, lane;
  __device__ Tile() : line(threadIdx.x / LANES), lane(threadIdx.x % LANES) {}
};

// How z runs over taps and channels: first over those of source 0 (tap by tap, the channels of each), then over those of
// source 1, which begins with a step of its own, so that no step has values of both.
struct Contraction {
  Divider channels, channels2, columns;  // of source 0 and 1 (1 where there is none); S
  int taps, first, steps;                // steps of source 0; of both

  __device__ Contraction(const Convolution& conv, int depth)
      : channels(conv.x.channels), channels2(max(conv.x2.channels, 1)), columns(conv.s), taps(conv.taps()),
        first((taps * conv.x.channels + depth - 1) / depth),
        steps(first + (taps * conv.x2.channels + depth - 1) / depth) {}
};

// Where on that way a thread's vector lies.
struct Place {
  int source, tap, r, s, channel;
  bool inside;

  __device__ Place(const Contraction& z, int depth, int step, int offset) : source(step >= z.first) {
    const Divider& channels = source ? z.channels2 : z.channels;
    const int at = (source ? step - z.first : step) * depth + offset;
    tap = channels.quotient(at);
    channel = at - tap * channels.divisor;
    r = z.columns.quotient(tap);
    s = tap - r * z.columns.divisor;
    inside = tap < z.taps;
  }
};

// By rows: the input pixels under the output pixels m0, m0 + 1, ... At most 32 taps.
template <class Value, class Shape> struct PixelRows : Shape {
  using Shape::COUNT, Shape::STRIDE, Shape::line, Shape::lane;
  const Value *data, *data2;
  const Convolution& conv;
  const Contraction& z;
  int m0, source, pixel, tap;
  long long row, offset;
  bool inside;
  const Value* corner[COUNT];  // the pixel under tap (0, 0), which may lie outside of the map
  unsigned meets[COUNT];       // bit t: tap t meets a pixel of the map

  __device__ PixelRows(const Value* x, const Value* x2, const Convolution& shape, const Contraction& way, int start)
      : data(x), data2(x2), conv(shape), z(way), m0(start), source(-1) {}

  __device__ void move_to(int step) {
    const Place place(z, Shape::DEPTH, step, lane * Shape::VECTOR);
    if (place.source != source) {
      source = place.source;
      source ? enter(data2, conv.x2) : enter(data, conv.x);
    }
    offset = place.r * conv.dilation_h * row + place.s * conv.dilation_w * pixel + place.channel;
    tap = place.tap;
    inside = place.inside;
  }

  __device__ const Value* at(int i) const { return inside && meets[i] >> tap & 1 ? corner[i] + offset : nullptr; }

  // Look up the thread's pixels in a source: at the beginning, and where the sum goes over to the second one.
  __device__ void enter(const Value* map, const Layout& at) {
    row = at.row;
    pixel = at.pixel;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const int m = m0 + line + i * STRIDE, np = m / conv.q, n = np / conv.p;  // np = n * P + p
      const int h = (np - n * conv.p) * conv.stride_h - conv.pad_h, w = (m - np * conv.q) * conv.stride_w - conv.pad_w;
      corner[i] = map + n * at.image + h * row + (long long)w * pixel;
      meets[i] = n < conv.images ? taps_inside(h, w) : 0;
    }
  }

  __device__ unsigned taps_inside(int h, int w) const {
    unsigned in_row = 0, all = 0;
    for (int s = 0; s < conv.s; s++) in_row |= (unsigned)((unsigned)(w + s * conv.dilation_w) < (unsigned)conv.w) << s;
    for (int r = 0; r < conv.r; r++)
      if ((unsigned)(h + r * conv.dilation_h) < (unsigned)conv.h) all |= in_row << r * conv.s;
    return all;
  }
};

// By rows: the filters j0, j0 + 1, ... of a forward pass's weight.
template <class Value, class Shape> struct FilterRows : Shape {
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value *data, *from;
  const Convolution& conv;
  const Contraction& z;
  int j0;
  bool inside;

  __device__ FilterRows(const Value* weight, const Convolution& shape, const Contraction& way, int start)
      : data(weight), conv(shape), z(way), j0(start) {}

  __device__ void move_to(int step) {
    const Place place(z, Shape::DEPTH, step, lane * Shape::VECTOR);
    const int channel = place.channel + (place.source ? conv.x.channels : 0);
    from = data + (long long)(j0 + line) * conv.filter + place.tap * conv.tap + channel;
    inside = place.inside;
  }

  __device__ const Value* at(int i) const {
    const bool exists = inside && j0 + line + i * STRIDE < conv.columns;
    return exists ? from + (long long)i * STRIDE * conv.filter : nullptr;
  }
};

// By columns: the channels j0, j0 + 1, ... of an input gradient's weight; z runs over taps, which are turned, and filters.
template <class Value, class Shape> struct FilterColumns : Shape {
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value* data;
  const Convolution& conv;
  const Contraction& z;
  int j, z0;

  __device__ FilterColumns(const Value* weight, const Convolution& shape, const Contraction& way, int start)
      : data(weight), conv(shape), z(way), j(start + lane * Shape::VECTOR) {}

  __device__ void move_to(int step) { z0 = step * Shape::DEPTH + line; }

  __device__ const Value* at(int i) const {
    const int index = z0 + i * STRIDE, tap = z.channels.quotient(index), k = index - tap * z.channels.divisor;
    if (tap >= z.taps || j >= conv.columns) return nullptr;
    return data + (long long)k * conv.filter + (z.taps - 1 - tap) * conv.tap + j;
  }
};

// By columns: the filters m0, m0 + 1, ... of a weight gradient's gy, (pixels, filters) without gaps; z runs over pixels.
template <class Value, class Shape> struct GradientColumns : Shape {
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value* data;
  const Convolution& conv;
  int pixels, k, z0;

  __device__ GradientColumns(const Value* gy, const Convolution& shape, int start)
      : data(gy), conv(shape), pixels(shape.pixels()), k(start + lane * Shape::VECTOR) {}

  __device__ void move_to(int step) { z0 = step * Shape::DEPTH + line; }

  __device__ const Value* at(int i) const {
    const int m = z0 + i * STRIDE;
    return m < pixels && k < conv.rows ? data + (long long)m * conv.rows + k : nullptr;
  }
};

// By columns: a weight gradient's x. Column j0 + ... is a tap and a channel, those of both sources side by side, as in the
// (K, R, S, C) gradient; z runs over pixels. A thread has the same columns in all steps: one tap of one source.
template <class Value, class Shape> struct PatchColumns : Shape {
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value* data;
  Layout layout;
  const Convolution& conv;
  Divider p, q;
  int pixels, h0, w0, z0;

  __device__ PatchColumns(const Value* x, const Value* x2, const Convolution& shape, int start)
      : conv(shape), p(shape.p), q(shape.q), pixels(shape.pixels()) {
    const int channels = conv.x.channels + conv.x2.channels, j = start + lane * Shape::VECTOR, tap = j / channels;
    const int c = j - tap * channels, r = tap / conv.s, s = tap - r * conv.s;
    data = c < conv.x.channels ? x + c : x2 + (c - conv.x.channels);
    layout = c < conv.x.channels ? conv.x : conv.x2;
    h0 = r * conv.dilation_h - conv.pad_h;
    w0 = s * conv.dilation_w - conv.pad_w;
    if (j >= conv.columns) pixels = 0;
  }

  __device__ void move_to(int step) { z0 = step * Shape::DEPTH + line; }

  __device__ const Value* at(int i) const {
    const int m = z0 + i * STRIDE, np = q.quotient(m), n = p.quotient(np);  // np = n * P + p
    const int h = (np - n * p.divisor) * conv.stride_h + h0, w = (m - np * q.divisor) * conv.stride_w + w0;
    const bool exists = m < pixels && (unsigned)h < (unsigned)conv.h && (unsigned)w < (unsigned)conv.w;
    return exists ? data + n * layout.image + h * layout.row + (long long)w * layout.pixel : nullptr;
  }
};
