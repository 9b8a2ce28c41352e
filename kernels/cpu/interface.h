// The C interface, once for each instruction set: every function's name ends in that set's name, and Python chooses.
// Each call does one piece of the work on one thread; the Python side cuts the work and runs the pieces on its threads.
#include "direct.h"
#include "loss.h"
#include "norm.h"
#include "pointwise.h"
#include "winograd.h"

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define EXPORT(result, name) extern "C" __attribute__((visibility("default"))) result JOIN(name, ISA)
#define WINOGRAD(M)                                                                                                     \
  EXPORT(void, winograd##M##_weights)(const Conv* conv, int64_t first, int64_t last, float* u) {                        \
    ISA::winograd_weights<M>(conv, first, last, u);                                                                     \
  }                                                                                                                     \
  EXPORT(void, winograd##M##_by_tiles)                                                                                  \
  (const Conv* conv, const float* u, int64_t first, int64_t last, int64_t block, float* scratch) {                      \
    ISA::winograd_by_tiles<M>(conv, u, first, last, block, scratch);                                                    \
  }                                                                                                                     \
  EXPORT(void, winograd##M##_inputs)                                                                                    \
  (const Conv* conv, int64_t start, int64_t total, int64_t first, int64_t last, float* v) {                             \
    ISA::winograd_inputs<M>(conv, start, total, first, last, v);                                                        \
  }                                                                                                                     \
  EXPORT(void, winograd##M##_by_filters)                                                                                \
  (const Conv* conv, const float* v, int64_t start, int64_t total, int64_t first, int64_t last, int64_t channel_block,  \
   float* scratch) {                                                                                                    \
    ISA::winograd_by_filters<M>(conv, v, start, total, first, last, channel_block, scratch);                            \
  }                                                                                                                     \
  EXPORT(void, winograd##M##_gradient_by_tiles)                                                                         \
  (const Conv* conv, int64_t first, int64_t last, int64_t block, float* sum, float* scratch) {                          \
    ISA::winograd_gradient_by_tiles<M>(conv, first, last, block, sum, scratch);                                         \
  }                                                                                                                     \
  EXPORT(void, winograd##M##_gradient_by_filters)                                                                       \
  (const Conv* conv, const float* v, int64_t start, int64_t total, int64_t first, int64_t last, int64_t block,          \
   float* sum, float* scratch) {                                                                                        \
    ISA::winograd_gradient_by_filters<M>(conv, v, start, total, first, last, block, sum, scratch);                      \
  }                                                                                                                     \
  EXPORT(void, winograd##M##_gradient_taps)                                                                             \
  (const Conv* conv, const float* sum, int64_t parts, int64_t part, int64_t first, int64_t last, float* gw) {           \
    ISA::winograd_gradient_taps<M>(conv, sum, parts, part, first, last, gw);                                            \
  }

WINOGRAD(2)
WINOGRAD(4)

EXPORT(int64_t, panel_width)() { return ISA::NR; }

EXPORT(void, pack_weights)
(const float* weight, int64_t taps, int64_t channels, int64_t filters, int64_t first, int64_t last, float* packed) {
  ISA::pack_weights(weight, taps, channels, filters, first, last, packed);
}
EXPORT(void, turn_weights)
(const float* weight, int64_t taps, int64_t channels, int64_t filters, int64_t first, int64_t last, float* turned) {
  ISA::turn_weights(weight, taps, channels, filters, first, last, turned);
}
EXPORT(void, direct_rows)(const Window* win, const float* packed, int64_t first, int64_t last) {
  ISA::direct_rows(win, packed, first, last);
}
EXPORT(void, direct_gradient_rows)
(const Window* win, int64_t first, int64_t last, int64_t first_panel, int64_t last_panel, float* sum, float* scratch) {
  ISA::direct_gradient_rows(win, first, last, first_panel, last_panel, sum, scratch);
}
EXPORT(void, direct_gradient_taps)
(const Window* win, const float* sum, int64_t parts, int64_t part, int64_t first, int64_t last, float* gw) {
  ISA::direct_gradient_taps(win, sum, parts, part, first, last, gw);
}
EXPORT(void, naive_rows)(const Window* win, const float* weight, int64_t first, int64_t last) {
  ISA::naive_rows(win, weight, first, last);
}

EXPORT(void, relu_bias_backward)
(const Maps* gy, const Maps* y, const Maps* out, int64_t h, int64_t w, int64_t first, int64_t last, double* sums) {
  ISA::relu_bias_backward(gy, y, out, h, w, first, last, sums);
}
EXPORT(void, max_pool_rows)
(const Maps* x, const Maps* y, uint8_t* winners, int64_t p, int64_t q, int64_t first, int64_t last) {
  ISA::max_pool_rows(x, y, winners, p, q, first, last);
}
EXPORT(void, max_pool_backward_rows)
(const Maps* gy, const Maps* gx, const uint8_t* winners, int64_t p, int64_t q, int64_t first, int64_t last) {
  ISA::max_pool_backward_rows(gy, gx, winners, p, q, first, last);
}
EXPORT(void, pad_rows)
(const Maps* x, const Maps* out, int64_t h, int64_t w, int64_t h_out, int64_t w_out, int64_t top, int64_t left,
 int64_t first, int64_t last) {
  ISA::pad_rows(x, out, h, w, h_out, w_out, top, left, first, last);
}
EXPORT(void, sgd)
(float* p, const float* g, float* v, int64_t n, float lr, float momentum, float dampening, float decay, int64_t nesterov,
 int64_t first) {
  ISA::sgd(p, g, v, n, lr, momentum, dampening, decay, nesterov, first);
}
EXPORT(void, adam)
(float* p, const float* g, float* m, float* s, int64_t n, float rate, float root, float beta1, float beta2, float eps,
 float decay, float shrink) {
  ISA::adam(p, g, m, s, n, rate, root, beta1, beta2, eps, decay, shrink);
}

EXPORT(void, softmax_cross_entropy)
(const Scores* scores, int64_t first, int64_t last, float* scratch, double* sums, float* gradient, float factor) {
  ISA::softmax_cross_entropy(scores, first, last, scratch, sums, gradient, factor);
}
EXPORT(void, channel_moments)
(const Maps* x, const float* shift, int64_t h, int64_t w, int64_t first, int64_t last, double* sums) {
  ISA::channel_moments(x, shift, h, w, first, last, sums);
}
EXPORT(void, scale_shift)
(const Maps* x, const Maps* y, const float* centre, const float* scale, const float* shift, int64_t relu, int64_t h,
 int64_t w, int64_t first, int64_t last) {
  ISA::scale_shift(x, y, centre, scale, shift, relu, h, w, first, last);
}
EXPORT(void, batch_norm_sums)
(const Maps* gy, const Maps* y, const Maps* x, const float* centre, int64_t h, int64_t w, int64_t first, int64_t last,
 double* sums) {
  ISA::batch_norm_sums(gy, y, x, centre, h, w, first, last, sums);
}
EXPORT(void, batch_norm_input_grad)
(const Maps* gy, const Maps* y, const Maps* x, const Maps* gx, const float* centre, const float* scale,
 const float* slope, const float* constant, int64_t h, int64_t w, int64_t first, int64_t last) {
  ISA::batch_norm_input_grad(gy, y, x, gx, centre, scale, slope, constant, h, w, first, last);
}
