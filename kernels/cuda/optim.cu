// Updates of all parameters in one launch, and what scaling of the loss needs.
//
// The arrays of up to TENSORS parameters travel in one structure by value: no table has to be copied to the device first, and
// a launch recorded in a graph keeps its own. Each block serves one piece of `chunk` elements of one parameter. Arithmetic
// is rounded after every operation, as NumPy does it, so that no result depends on the device. What changes from step to step
// (learning rate, number of steps, whether to skip) is read from device memory, so that a recorded step can be replayed.
#include "streaming.cuh"

constexpr int TENSORS = 80;

// Parameters p, their gradients g, and what the optimiser keeps of them (null where it keeps less).
struct Tensors {
  float* p[TENSORS];
  const float* g[TENSORS];
  float* first[TENSORS];
  float* second[TENSORS];
  long long size[TENSORS];
  int begins[TENSORS + 1];  // parameter i has the blocks begins[i] .. begins[i + 1] - 1
  int count;
};

// What a step is told of time. steps counts the updates done so far, this one included; the others are 1 - beta^steps.
struct Clock {
  double lr, steps, correction1, correction2;
};

// The piece of a parameter that a block serves.
struct Piece {
  int tensor;
  long long begin, end;
  bool wide;  // all its arrays begin at multiples of 16 bytes: four elements at a time
};

DEVICE Piece piece_of_block(const Tensors& t, int chunk) {
  int low = 0, high = t.count;  // begins[low] <= block < begins[high]
  while (high - low > 1) {
    int middle = (low + high) / 2;
    (t.begins[middle] <= (int)blockIdx.x ? low : high) = middle;
  }
  Piece piece;
  piece.tensor = low;
  piece.begin = (long long)((int)blockIdx.x - t.begins[low]) * chunk;
  piece.end = piece.begin + chunk < t.size[low] ? piece.begin + chunk : t.size[low];
  unsigned long long addresses = (unsigned long long)t.p[low] | (unsigned long long)t.g[low] |
                                 (unsigned long long)t.first[low] | (unsigned long long)t.second[low];
  piece.wide = addresses % 16 == 0;  // and chunk is a multiple of 4
  return piece;
}

// Sums and products that are never contracted into fused ones.
DEVICE float plus(float a, float b) { return __fadd_rn(a, b); }
DEVICE float times(float a, float b) { return __fmul_rn(a, b); }

struct SgdSettings {
  float lr, momentum, rest, decay;  // rest = 1 - dampening
  bool first, nesterov, undamped;
  float unscale;
};

// See Kernels.sgd_update. V elements from i on.
template <int V>
DEVICE void sgd_elements(float* p, const float* g, float* velocity, const SgdSettings& s, long long i) {
  float value[V], change[V], v[V];
  load<V>(p + i, value);
  load<V>(g + i, change);
  if (velocity) load<V>(velocity + i, v);
#pragma unroll
  for (int k = 0; k < V; k++) {
    float step = times(change[k], s.unscale);
    if (s.decay != 0) step = plus(step, times(s.decay, value[k]));
    if (velocity) {
      v[k] = s.first ? step : plus(times(v[k], s.momentum), s.undamped ? step : times(s.rest, step));
      step = s.nesterov ? plus(step, times(s.momentum, v[k])) : v[k];
    }
    value[k] = plus(value[k], -times(s.lr, step));
  }
  if (velocity) store<V>(velocity + i, v);
  store<V>(p + i, value);
}

// g is multiplied by *unscale first, if that is given; nothing happens where *skip is not 0.
//@ budget: registers 40, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) sgd(
    const __grid_constant__ Tensors tensors, int chunk, const double* clock, float momentum, float rest, float decay,
    int nesterov, const float* unscale, const int* skip) {
  if (skip && *skip) return;
  const Clock* now = reinterpret_cast<const Clock*>(clock);
  SgdSettings s{(float)now->lr, momentum, rest, decay, now->steps == 1, nesterov != 0, rest == 1, unscale ? *unscale : 1};
  Piece piece = piece_of_block(tensors, chunk);
  float *p = tensors.p[piece.tensor], *velocity = tensors.first[piece.tensor];
  const float* g = tensors.g[piece.tensor];
  long long i = piece.begin;
  if (piece.wide)
    for (i += 4 * threadIdx.x; i + 4 <= piece.end; i += 4 * THREADS) sgd_elements<4>(p, g, velocity, s, i);
  // What is left: fewer than four elements after vectors (the one thread that ran past the last vector has them), or all.
  if (piece.wide)
    for (long long end = i + 4; i < piece.end && i < end; i++) sgd_elements<1>(p, g, velocity, s, i);
  else
    for (i += threadIdx.x; i < piece.end; i += THREADS) sgd_elements<1>(p, g, velocity, s, i);
}

struct AdamSettings {
  float rate, root, beta1, rest1, beta2, rest2, eps, decay, shrink, unscale;
};

// See Kernels.adam_update. V elements from i on.
template <int V>
DEVICE void adam_elements(float* p, const float* g, float* mean, float* square, const AdamSettings& s, long long i) {
  float value[V], gradient[V], m[V], q[V];
  load<V>(p + i, value);
  load<V>(g + i, gradient);
  load<V>(mean + i, m);
  load<V>(square + i, q);
#pragma unroll
  for (int k = 0; k < V; k++) {
    float d = times(gradient[k], s.unscale);
    value[k] = times(value[k], s.shrink);
    if (s.decay != 0) d = plus(d, times(s.decay, value[k]));
    m[k] = plus(times(m[k], s.beta1), times(s.rest1, d));
    q[k] = plus(times(q[k], s.beta2), times(times(s.rest2, d), d));
    float spread = plus(__fdiv_rn(__fsqrt_rn(q[k]), s.root), s.eps);
    value[k] = plus(value[k], -__fdiv_rn(times(s.rate, m[k]), spread));
  }
  store<V>(p + i, value);
  store<V>(mean + i, m);
  store<V>(square + i, q);
}

// weight_decay is added to the gradient (decay) or, decoupled, taken off p.
//@ budget: registers 56, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) adam(
    const __grid_constant__ Tensors tensors, int chunk, const double* clock, double beta1, double beta2, double eps,
    double weight_decay, int decoupled, const float* unscale, const int* skip) {
  if (skip && *skip) return;
  const Clock* now = reinterpret_cast<const Clock*>(clock);
  AdamSettings s;
  s.rate = (float)(now->lr / now->correction1);
  s.root = (float)sqrt(now->correction2);
  s.beta1 = (float)beta1, s.rest1 = (float)(1 - beta1), s.beta2 = (float)beta2, s.rest2 = (float)(1 - beta2);
  s.eps = (float)eps, s.decay = decoupled ? 0 : (float)weight_decay;
  s.shrink = decoupled && weight_decay != 0 ? (float)(1 - now->lr * weight_decay) : 1;
  s.unscale = unscale ? *unscale : 1;
  Piece piece = piece_of_block(tensors, chunk);
  float *p = tensors.p[piece.tensor], *mean = tensors.first[piece.tensor], *square = tensors.second[piece.tensor];
  const float* g = tensors.g[piece.tensor];
  long long i = piece.begin;
  if (piece.wide)
    for (i += 4 * threadIdx.x; i + 4 <= piece.end; i += 4 * THREADS) adam_elements<4>(p, g, mean, square, s, i);
  if (piece.wide)
    for (long long end = i + 4; i < piece.end && i < end; i++) adam_elements<1>(p, g, mean, square, s, i);
  else
    for (i += threadIdx.x; i < piece.end; i += THREADS) adam_elements<1>(p, g, mean, square, s, i);
}

// One more step, unless it is to be skipped: before an update. One thread.
//@ budget: registers 40, shared 0
extern "C" __global__ void count_step(double* clock, double beta1, double beta2, const int* skip) {
  if (skip && *skip) return;
  Clock* now = reinterpret_cast<Clock*>(clock);
  now->steps += 1;
  now->correction1 = 1 - pow(beta1, now->steps);
  now->correction2 = 1 - pow(beta2, now->steps);
}

// found = 1 where a gradient, here in the place of p, holds a value that is not finite; with `factor` all are multiplied by it
// first.
//@ budget: registers 40, shared 0
extern "C" __global__ void __launch_bounds__(THREADS) check_gradients(
    const __grid_constant__ Tensors tensors, int chunk, const float* factor, int* found) {
  Piece piece = piece_of_block(tensors, chunk);
  float* g = tensors.p[piece.tensor];
  int bad = 0;
  for (long long i = piece.begin + threadIdx.x; i < piece.end; i += THREADS) {
    float value = g[i];
    if (factor) g[i] = value = times(value, *factor);
    bad |= (__float_as_int(value) & 0x7f800000) == 0x7f800000;  // all bits of the exponent: infinite or NaN
  }
  if (__syncthreads_or(bad) && threadIdx.x == 0) atomicExch(found, 1);
}

// After a step with a scaled loss: factors = {scale, 1 / scale}, state = {found, steps without a find}. The scale shrinks after
// a find and grows after `interval` steps without, though not beyond float32; found is reset. One thread.
//@ budget: registers 16, shared 0
extern "C" __global__ void adjust_scale(float* factors, int* state, float growth, float backoff, int interval) {
  float next = factors[0];
  int streak = 0;
  if (state[0]) {
    next *= backoff;
  } else if (++state[1] >= interval) {
    float grown = next * growth;
    if (grown <= 3.4028234e38f) next = grown;
  } else {
    streak = state[1];
  }
  factors[0] = next;
  factors[1] = 1 / next;
  state[0] = 0;
  state[1] = streak;
}
