// What the Python side hands to the kernels: plain structs of pointers and sizes, all sizes 64-bit, strides in floats.
// Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns, R S kernel rows columns.
#pragma once
#include <cstdint>

// A batch of images whose channels are neighbours in memory; rows and pixels may lie apart (a crop, a part of the channels).
struct Maps {
  float* data;
  int64_t image, row, pixel;  // strides
  int64_t channels;
};

// w[r, s, c, k] = data[(r * S + s) * tap + c * row + k * column], the taps in reverse order if `turned`. Either c or k is
// the axis of neighbours (stride 1): k of a convolution, c of an input gradient, which reads the same weight transposed.
struct Weight {
  const float* data;
  int64_t tap, row, column, turned;
};

// A convolution whose output is computed tile by tile (kernels/cpu/tiles.h). The input is one source, or two whose channels
// follow one another (skip map and upsampled map, never concatenated).
//
//   Winograd: 3x3, stride 1: y[p, q] = epilogue(sum_{r,s} x[p + r - pad, q + s - pad] w[r, s]); both patches are 1x1.
//   Patches: a patch of x, patch_in pixels `dilation` apart at (p, q) * stride - pad, becomes patch_out pixels of y at
//   (p, q) * patch_out. patch_in is the kernel of a convolution, patch_out that of an up-convolution; the other one is 1x1.
//
// For a weight gradient, y is the gradient of the output, read.
struct Conv {
  Maps x[2];
  Maps y;
  int64_t images, h, w, p, q;
  int64_t pad[2];  // zeros above and left of x; below and right as many as p and q ask for
  int64_t patch_in[2], patch_out[2], stride[2], dilation[2];
  Weight weight;
  const float* bias;  // (K) or null
  int64_t relu;       // 1: y = max(y, 0)
  Maps mask;          // as large as y, or without data: y = 0 where it is not above 0 (the gradient through a ReLU)
  int64_t stream;     // 1: write y past the caches; every vector of it is aligned
};

// Any convolution of an input that is padded already: y[p,q] = epilogue(sum_{i,j} x[p sh + i dh, q sw + j dw] w[i,j]).
struct Window {
  Maps x, y;
  int64_t images, p, q, r, s, stride_h, stride_w, dilation_h, dilation_w;
  const float* bias;
  int64_t relu, stream;  // as in Conv
};

// Class scores, their labels and weights. All pixels stand in one row: labels and weights are (images, pixels).
struct Scores {
  const float* data;
  int64_t image, channel, pixel;  // strides of the scores
  int64_t classes, pixels;        // pixels of one image
  const void* labels;
  int64_t label_bytes;        // 1: uint8_t, 8: int64_t
  int64_t ignore_index;       // pixels with this label count nothing
  const float* class_weight;  // (classes) or null
  const float* pixel_weight;  // or null
};
