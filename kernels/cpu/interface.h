// The C interface, once for each instruction set: every function's name ends in that set's name, and Python chooses.
// `threads`: how many may work at a time. Scratch memory is the caller's; tiles.h and direct.h say how much of it.
#include "direct.h"
#include "loss.h"
#include "norm.h"
#include "patches.h"
#include "pointwise.h"
#include "winograd.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(result, name) extern "C" __attribute__((visibility("default"))) result JOIN(name, ISA)
#define FORM(name, F)                                                                                                        \
  EXPORT(void, name##_weights)(const Conv* conv, int64_t threads, float* u) { ISA::all_weights<ISA::F>(*conv, threads, u); } \
  EXPORT(void, name##_by_tiles)(const Conv* conv, int64_t threads, int64_t block, const float* u, float* scratch) {          \
    ISA::by_tiles<ISA::F>(*conv, threads, block, u, scratch);                                                                \
  }                                                                                                                          \
  EXPORT(void, name##_by_filters)                                                                                            \
  (const Conv* conv, int64_t threads, int64_t tiles, int64_t group, int64_t channels, float* shared, float* scratch) {       \
    ISA::by_filters<ISA::F>(*conv, threads, tiles, group, channels, shared, scratch);                                        \
  }                                                                                                                          \
  EXPORT(void, name##_gradient_by_tiles)                                                                                     \
  (const Conv* conv, int64_t threads, int64_t parts, int64_t groups, int64_t block, float* sums, float* scratch, float* gw) {\
    ISA::gradient_by_tiles<ISA::F>(*conv, threads, parts, groups, block, sums, scratch, gw);                                 \
  }                                                                                                                          \
  EXPORT(void, name##_gradient_by_channels)                                                                                  \
  (const Conv* conv, int64_t threads, int64_t channels, int64_t piece_channels, int64_t block, float* shared,                \
   float* scratch, float* gw) {                                                                                              \
    ISA::gradient_by_channels<ISA::F>(*conv, threads, channels, piece_channels, block, shared, scratch, gw);                 \
  }

FORM(winograd2, Winograd<2>)
FORM(winograd4, Winograd<4>)
FORM(patches, Patches)

EXPORT(int64_t, panel_width)() { return ISA::NR; }
EXPORT(int64_t, vector_width)() { return ISA::VL; }
EXPORT(int64_t, register_rows)() { return ISA::MR; }

EXPORT(void, pack_weights)
(const Weight* weight, int64_t taps, int64_t channels, int64_t filters, int64_t threads, float* packed) {
  ISA::pack_weights(*weight, taps, channels, filters, threads, packed);
}
EXPORT(void, direct)(const Window* win, const float* packed, int64_t threads) { ISA::direct(*win, packed, threads); }
EXPORT(void, direct_gradient)
(const Window* win, int64_t threads, int64_t parts, float* sums, float* scratch, float* gw) {
  ISA::direct_gradient(*win, threads, parts, sums, scratch, gw);
}
EXPORT(void, naive)(const Window* win, const float* weight, int64_t threads) { ISA::naive(*win, weight, threads); }

// What goes once through memory: `pieces` ranges of 0 .. n-1 rows, pixels or values; sums have one row for each piece.
EXPORT(void, relu_bias_backward)
(const Maps* gy, const Maps* y, const Maps* out, int64_t h, int64_t w, int64_t threads, int64_t n, int64_t pieces,
 double* sums) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t piece, int64_t) {
    ISA::relu_bias_backward(gy, y, out, h, w, first, last, sums + piece * gy->channels);
  });
}
EXPORT(void, max_pool)
(const Maps* x, const Maps* y, uint8_t* winners, int64_t p, int64_t q, int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::max_pool_rows(x, y, winners, p, q, first, last);
  });
}
EXPORT(void, max_pool_backward)
(const Maps* gy, const Maps* gx, const uint8_t* winners, int64_t p, int64_t q, int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::max_pool_backward_rows(gy, gx, winners, p, q, first, last);
  });
}
EXPORT(void, pad)
(const Maps* x, const Maps* out, int64_t h, int64_t w, int64_t h_out, int64_t w_out, int64_t top, int64_t left,
 int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::pad_rows(x, out, h, w, h_out, w_out, top, left, first, last);
  });
}
EXPORT(void, sgd)
(float* p, const float* g, float* v, float lr, float momentum, float dampening, float decay, int64_t nesterov, int64_t begin,
 int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::sgd(p + first, g + first, v + first, last - first, lr, momentum, dampening, decay, nesterov, begin);
  });
}
EXPORT(void, adam)
(float* p, const float* g, float* m, float* s, float rate, float root, float beta1, float beta2, float eps, float decay,
 float shrink, int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::adam(p + first, g + first, m + first, s + first, last - first, rate, root, beta1, beta2, eps, decay, shrink);
  });
}

// scratch: classes * NR floats for each thread; sums: 3 for each piece.
EXPORT(void, softmax_cross_entropy)
(const Scores* scores, float* gradient, float factor, int64_t threads, int64_t n, int64_t pieces, float* scratch, double* sums) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t piece, int64_t thread) {
    float* room = scratch + thread * scores->classes * ISA::NR;
    ISA::softmax_cross_entropy(scores, first, last, room, sums + 3 * piece, gradient, factor);
  });
}
EXPORT(void, channel_moments)
(const Maps* x, const float* shift, int64_t h, int64_t w, int64_t threads, int64_t n, int64_t pieces, double* sums) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t piece, int64_t) {
    ISA::channel_moments(x, shift, h, w, first, last, sums + 2 * piece * x->channels);
  });
}
EXPORT(void, scale_shift)
(const Maps* x, const Maps* y, const float* centre, const float* scale, const float* shift, int64_t relu, int64_t h,
 int64_t w, int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::scale_shift(x, y, centre, scale, shift, relu, h, w, first, last);
  });
}
EXPORT(void, batch_norm_sums)
(const Maps* gy, const Maps* y, const Maps* x, const float* centre, int64_t h, int64_t w, int64_t threads, int64_t n,
 int64_t pieces, double* sums) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t piece, int64_t) {
    ISA::batch_norm_sums(gy, y, x, centre, h, w, first, last, sums + 2 * piece * x->channels);
  });
}
EXPORT(void, batch_norm_input_grad)
(const Maps* gy, const Maps* y, const Maps* x, const Maps* gx, const float* centre, const float* scale,
 const float* slope, const float* constant, int64_t h, int64_t w, int64_t threads, int64_t n, int64_t pieces) {
  ISA::parallel_ranges(threads, n, pieces, [&](int64_t first, int64_t last, int64_t, int64_t) {
    ISA::batch_norm_input_grad(gy, y, x, gx, centre, scale, slope, constant, h, w, first, last);
  });
}
