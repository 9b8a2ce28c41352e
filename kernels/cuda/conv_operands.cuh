// The two operands of a convolution seen as a product (conv_shapes.cuh), as tiles that a block loads from memory.
//
// A block makes a tile of the product and walks along z, the index that is summed over, DEPTH at a time: `move_to(step)`
// goes to the piece z = step * DEPTH ... of an operand. Of it each thread loads COUNT vectors of VEC neighbouring values;
// `find(i, from)` gives the address of its i-th one, or false where there are only zeros: in the border, beyond the end.
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
  static_assert(WIDTH % VECTOR == 0 && THREADS % LANES == 0 && LINES % STRIDE == 0, "threads cannot share the tile evenly");
  int line, lane;
  __device__ Tile() : line(threadIdx.x / LANES), lane(threadIdx.x % LANES) {}
};

// How z runs over taps and channels: first over those of source 0 (tap by tap, the channels of each), then over those of
// source 1, which begins with a step of its own, so that no step has values of both.
struct Contraction {
  int first, steps;  // steps of source 0; of both

  __device__ Contraction(const Convolution& conv, int depth)
      : first((conv.taps() * conv.x.channels + depth - 1) / depth),
        steps(first + (conv.taps() * conv.x2.channels + depth - 1) / depth) {}
};

// Where on that way a thread's vector lies.
struct Place {
  int source, tap, channel;
  bool inside;

  __device__ Place(const Convolution& conv, const Contraction& z, int depth, int step, int offset)
      : source(step >= z.first) {
    const Divider& channels = source ? conv.by_c2 : conv.by_c;
    const int at = (source ? step - z.first : step) * depth + offset;
    tap = channels.quotient(at);
    channel = at - tap * channels.divisor;
    inside = tap < conv.taps();
  }
};

// By rows: the input pixels under the output pixels m0, m0 + 1, ... At most 32 taps.
template <class Value, class Shape> struct PixelRows : Shape {
  using Type = Value;
  using Shape::COUNT, Shape::STRIDE, Shape::line, Shape::lane;
  const Value *x, *x2;
  const Convolution& conv;
  const Contraction z;
  int m0, source, row, pixel, tap, offset;
  bool inside;
  const Value* corner[COUNT];  // the pixel under tap (0, 0), which may lie outside of the map
  unsigned meets[COUNT];       // bit t: tap t meets a pixel of the map

  __device__ PixelRows(const Value* first, const Value* second, const Convolution& shape, int start)
      : x(first), x2(second), conv(shape), z(shape, Shape::DEPTH), m0(start), source(-1) {}

  __device__ void move_to(int step) {
    const Place place(conv, z, Shape::DEPTH, step, lane * Shape::VECTOR);
    if (place.source != source) enter(place.source);
    const int r = conv.by_s.quotient(place.tap), s = place.tap - r * conv.s;
    offset = r * conv.dilation_h * row + s * conv.dilation_w * pixel + place.channel;
    tap = place.tap;
    inside = place.inside;
  }

  __device__ bool find(int i, const Value*& from) const {
    from = corner[i] + offset;
    return inside && meets[i] >> tap & 1;
  }

  // Look up the thread's pixels in a source: at the beginning, and where the sum goes over to the second one.
  __device__ void enter(int which) {
    const Layout& at = which ? conv.x2 : conv.x;
    const Value* map = which ? x2 : x;
    source = which;
    row = at.row;
    pixel = at.pixel;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
      const int m = m0 + line + i * STRIDE, np = conv.by_q.quotient(m), n = conv.by_p.quotient(np);  // np = n * P + p
      const int h = (np - n * conv.p) * conv.stride_h - conv.pad_h, w = (m - np * conv.q) * conv.stride_w - conv.pad_w;
      corner[i] = map + n * at.image + (h * row + w * pixel);
      meets[i] = n < conv.images ? taps_inside(h, w) : 0;
    }
  }

  __device__ unsigned taps_inside(int h, int w) const {
    unsigned in_row = 0, all = 0;
#pragma unroll 1
    for (int s = 0; s < conv.s; s++) in_row |= (unsigned)((unsigned)(w + s * conv.dilation_w) < (unsigned)conv.w) << s;
#pragma unroll 1
    for (int r = 0; r < conv.r; r++)
      if ((unsigned)(h + r * conv.dilation_h) < (unsigned)conv.h) all |= in_row << r * conv.s;
    return all;
  }
};

// By rows: the filters j0, j0 + 1, ... of a forward pass's weight.
template <class Value, class Shape> struct FilterRows : Shape {
  using Type = Value;
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value *weight, *first;
  const Convolution& conv;
  const Contraction z;
  int j;
  bool inside;

  __device__ FilterRows(const Value* data, const Convolution& shape, int start)
      : weight(data), conv(shape), z(shape, Shape::DEPTH), j(start + line) {}

  __device__ void move_to(int step) {
    const Place place(conv, z, Shape::DEPTH, step, lane * Shape::VECTOR);
    const int channel = place.channel + (place.source ? conv.x.channels : 0);
    first = weight + (long long)j * conv.filter + (place.tap * conv.tap + channel);
    inside = place.inside;
  }

  __device__ bool find(int i, const Value*& from) const {
    from = first + (long long)(i * STRIDE) * conv.filter;
    return inside && j + i * STRIDE < conv.columns;
  }
};

// By columns: the channels j0, j0 + 1, ... of an input gradient's weight; z runs over taps, which are turned, and filters.
template <class Value, class Shape> struct FilterColumns : Shape {
  using Type = Value;
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value* weight;
  const Convolution& conv;
  int j, z0;

  __device__ FilterColumns(const Value* data, const Convolution& shape, int start)
      : weight(data), conv(shape), j(start + lane * Shape::VECTOR) {}

  __device__ void move_to(int step) { z0 = step * Shape::DEPTH + line; }

  __device__ bool find(int i, const Value*& from) const {
    const int z = z0 + i * STRIDE, tap = conv.by_c.quotient(z), k = z - tap * conv.x.channels;
    const int turned = conv.taps() - 1 - tap;
    from = weight + (long long)k * conv.filter + (turned * conv.tap + j);
    return turned >= 0 && j < conv.columns;
  }
};

// By columns: the filters m0, m0 + 1, ... of a weight gradient's gy, (pixels, filters) without gaps; z runs over pixels.
template <class Value, class Shape> struct GradientColumns : Shape {
  using Type = Value;
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value *gy, *first;
  const Convolution& conv;
  int pixels, k, z0;

  __device__ GradientColumns(const Value* data, const Convolution& shape, int start)
      : gy(data), conv(shape), pixels(shape.pixels()), k(start + lane * Shape::VECTOR) {}

  __device__ void move_to(int step) {
    z0 = step * Shape::DEPTH + line;
    first = gy + (long long)z0 * conv.rows + k;
  }

  __device__ bool find(int i, const Value*& from) const {
    from = first + (long long)(i * STRIDE) * conv.rows;
    return z0 + i * STRIDE < pixels && k < conv.rows;
  }
};

// By columns: a weight gradient's x. Column j0 + ... is a tap and a channel, those of both sources side by side, as in the
// (K, R, S, C) gradient; z runs over pixels. A thread has the same columns in all steps: one tap of one source.
template <class Value, class Shape> struct PatchColumns : Shape {
  using Type = Value;
  using Shape::STRIDE, Shape::line, Shape::lane;
  const Value* map;
  Layout layout;
  const Convolution& conv;
  int pixels, h0, w0, z0;

  __device__ PatchColumns(const Value* x, const Value* x2, const Convolution& shape, int start)
      : conv(shape), pixels(shape.pixels()) {
    const int channels = conv.x.channels + conv.x2.channels, j = start + lane * Shape::VECTOR, tap = j / channels;
    const int c = j - tap * channels, r = tap / conv.s, s = tap - r * conv.s;
    map = c < conv.x.channels ? x + c : x2 + (c - conv.x.channels);
    layout = c < conv.x.channels ? conv.x : conv.x2;
    h0 = r * conv.dilation_h - conv.pad_h;
    w0 = s * conv.dilation_w - conv.pad_w;
    if (j >= conv.columns) pixels = 0;
  }

  __device__ void move_to(int step) { z0 = step * Shape::DEPTH + line; }

  __device__ bool find(int i, const Value*& from) const {
    const int m = z0 + i * STRIDE, np = conv.by_q.quotient(m), n = conv.by_p.quotient(np);  // np = n * P + p
    const int h = (np - n * conv.p) * conv.stride_h + h0, w = (m - np * conv.q) * conv.stride_w + w0;
    from = map + n * layout.image + (h * layout.row + w * layout.pixel);
    return m < pixels && (unsigned)h < (unsigned)conv.h && (unsigned)w < (unsigned)conv.w;
  }
};
