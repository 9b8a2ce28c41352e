// What the Python side hands to the kernels: plain structs of pointers and sizes, all sizes 64-bit, strides in floats.
// Symbols: N images, C input channels, K filters, H W input rows columns, P Q output rows columns.
#pragma once
#include <cstdint>

// A batch of images whose channels are neighbours in memory; rows and pixels may lie apart (a crop, a part of the channels).
struct Maps {
  float* data;
  int64_t image, row, pixel;  // strides
  int64_t channels;
};

// A 3x3 convolution of stride 1: y[p,q] = epilogue(sum_{r,s} x[p + r - pad, q + s - pad] w[r,s]).
// The input is one source, or two whose channels follow one another (skip map and upsampled map, never concatenated).
struct Conv {
  Maps x[2];
  Maps y;
  int64_t images, h, w, p, q;
  int64_t pad;          // zeros above and left of x; below and right as many as p and q ask for
  const float* weight;  // (3, 3, C, K)
  const float* bias;    // (K) or null
  int64_t relu;         // 1: y = max(y, 0)
};

// Any convolution of an input that is padded already: y[p,q] = epilogue(sum_{i,j} x[p sh + i dh, q sw + j dw] w[i,j]).
struct Window {
  Maps x, y;
  int64_t images, p, q, r, s, stride_h, stride_w, dilation_h, dilation_w;
  const float* bias;
  int64_t relu;
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
