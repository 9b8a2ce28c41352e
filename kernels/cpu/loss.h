// Softmax and cross-entropy: a vector of pixels at a time, whatever the number of classes and the memory order.
#pragma once
#include "shapes.h"
#include "simd.h"

namespace ISA {

// Half a vector's floats in double precision: the same number of bytes as a vector.
typedef float HalfVec __attribute__((vector_size(VECTOR_FLOATS * 2)));
typedef double Half __attribute__((vector_size(VECTOR_FLOATS * 4)));

static inline Half lower(const Vec& v) {
  HalfVec half;
  std::memcpy(&half, &v, sizeof half);
  return __builtin_convertvector(half, Half);
}
static inline Half upper(const Vec& v) {
  HalfVec half;
  std::memcpy(&half, reinterpret_cast<const float*>(&v) + VL / 2, sizeof half);
  return __builtin_convertvector(half, Half);
}

// e^x for x <= 0, within 1.5 units in the last place; 0 below -87.33, where it would be smaller than the smallest normal
// number. NaN stays NaN. With x = n ln 2 + r and |r| <= ln 2 / 2: 2^n by its exponent, e^r = 1 + r + r^2 p(r), p the
// Chebyshev interpolation of degree 5.
static inline Vec exponential(Vec given) {
  constexpr float ROUND = 12582912;                          // 1.5 * 2^23: added, it leaves a whole number in the low bits
  constexpr float HIGH = 0.693359375f, LOW = -2.12194440e-4f;  // ln 2; n * HIGH is exact
  Vec x = given < -87.33f ? broadcast(-87.33f) : given;  // far below, whole numbers would not fit
  Vec shifted = x * 1.44269504f + ROUND, n = shifted - ROUND;
  Vec r = x - n * HIGH - n * LOW;
  Vec p = broadcast(1.98993919e-4f);
  p = p * r + 1.39337336e-3f;
  p = p * r + 8.33329838e-3f;
  p = p * r + 4.1666463e-2f;
  p = p * r + 0.166666672f;
  p = p * r + 0.5f;
  Mask power = ((Mask)shifted - (Mask)broadcast(ROUND) + 127) << 23;
  Vec y = (p * (r * r) + r + 1) * (Vec)power;
  return given < -87.33f ? Vec{} : y;
}

// log(1 + t) for t >= 0, within 2.5 units in the last place also where t is tiny; NaN stays NaN.
// 1 + t = 2^n (1 + f) with 1 + f from sqrt(1/2) to sqrt(2); log(1 + f) = f - f^2 / 2 + f^3 p(f), p the Chebyshev
// interpolation of degree 8. What rounding 1 + t to u loses is added as its share of u.
static inline Vec log_of_one_plus(Vec t) {
  constexpr float HIGH = 0.693359375f, LOW = -2.12194440e-4f;
  Vec u = t + 1;
  Mask n = ((Mask)u - 0x3f3504f3) >> 23;
  Vec f = (Vec)((Mask)u - (n << 23)) - 1;
  Vec p = broadcast(7.14975372e-2f);
  p = p * f - 0.115712009f;
  p = p * f + 0.116615109f;
  p = p * f - 0.124110505f;
  p = p * f + 0.142499372f;
  p = p * f - 0.166684806f;
  p = p * f + 0.200007081f;
  p = p * f - 0.249999896f;
  p = p * f + 0.333333313f;
  Vec whole = __builtin_convertvector(n, Vec), lost = (t - (u - 1)) / u;
  return whole * HIGH + (f + (f * f * (f * p - 0.5f) + (whole * LOW + lost)));
}

// Scores of n <= VL pixels as out[class][pixel], zeros beyond n.
template <int CLASSES>
static inline void take_neighbours(const float* x, int64_t classes, float* out) {
  int64_t count = CLASSES ? CLASSES : classes;
  for (int64_t c = 0; c < count; c++)
    for (int i = 0; i < VL; i++) out[c * VL + i] = x[i * count + c];
}
static void take_scores(const Scores* s, const float* x, int n, float* out) {
  if (n == VL && s->channel == 1 && s->pixel == s->classes) {
    switch (s->classes) {  // shuffles instead of single floats
      case 2: return take_neighbours<2>(x, 2, out);
      case 3: return take_neighbours<3>(x, 3, out);
      case 4: return take_neighbours<4>(x, 4, out);
      default: return take_neighbours<0>(x, s->classes, out);
    }
  }
  for (int64_t c = 0; c < s->classes; c++)
    if (s->pixel == 1)
      store(out + c * VL, load_first(x + c * s->channel, n));
    else
      for (int i = 0; i < VL; i++) out[c * VL + i] = i < n ? x[c * s->channel + i * s->pixel] : 0;
}
template <int CLASSES>
static inline void give_neighbours(const float* v, int64_t classes, int n, float* out) {
  int64_t count = CLASSES ? CLASSES : classes;
  for (int i = 0; i < n; i++)
    for (int64_t c = 0; c < count; c++) out[i * count + c] = v[c * VL + i];
}

// The labels of n <= VL pixels and their weights: 0 for ignored ones, illegal ones (whose number is returned) and those
// beyond n.
template <class Label>
static inline int take_labels(const Scores* s, int64_t at, int n, Mask* labels, Vec* weights) {
  const Label* given = static_cast<const Label*>(s->labels) + at;
  int illegal = 0;
  *labels = Mask{};
  *weights = Vec{};
  for (int i = 0; i < n; i++) {
    int64_t label = given[i];
    if (label == s->ignore_index) continue;
    if (label < 0 || label >= s->classes) {
      illegal++;
      continue;
    }
    (*labels)[i] = int32_t(label);
    (*weights)[i] = (s->class_weight ? s->class_weight[label] : 1) * (s->pixel_weight ? s->pixel_weight[at + i] : 1);
  }
  return illegal;
}

// Pixels first .. last-1 of all images, w the class weight of their label times their pixel weight, p the softmax:
// sums[0] += -w log p_label, sums[1] += w, sums[2] += 1 for every illegal label; and, if it is given,
// gradient[pixel][class] = factor w (p - [class is the label]). Where w is 0 the scores do not matter, be they infinite.
// scratch: classes * VL floats.
//
// With m the largest score, e_c = e^(s_c - m) and `others` the sum of e_c over all classes but the label:
// -log p_label = log(1 + (others + (e_label - 1))) + (m - s_label), p_label - 1 = -others / (others + e_label).
// Neither loses digits where p_label is nearly 1: there e_label is 1 and `others` tiny.
static void softmax_cross_entropy(const Scores* s, int64_t first, int64_t last, float* scratch, double* sums,
                                  float* gradient, float factor) {
  const int64_t classes = s->classes;
  Half energies{}, weight_sums{};
  int64_t illegal = 0;
  for (int64_t at = first; at < last;) {
    int64_t image = at / s->pixels, pixel = at % s->pixels;
    int n = int(least(VL, least(last - at, s->pixels - pixel)));
    Mask labels;
    Vec weights;
    illegal += s->label_bytes == 1 ? take_labels<uint8_t>(s, at, n, &labels, &weights)
                                   : take_labels<int64_t>(s, at, n, &labels, &weights);
    Mask counted = weights != Vec{};
    take_scores(s, s->data + image * s->image + pixel * s->pixel, n, scratch);
    Vec top = load(scratch), own{};
    for (int64_t c = 0; c < classes; c++) {
      Vec score = load(scratch + c * VL);
      top = score > top ? score : top;  // a NaN that is passed over here comes back through its exponential
      own = labels == int32_t(c) ? score : own;
    }
    Vec others{}, mine{};
    for (int64_t c = 0; c < classes; c++) {
      Vec e = exponential(load(scratch + c * VL) - top);
      others += labels == int32_t(c) ? Vec{} : e;
      mine = labels == int32_t(c) ? e : mine;
      store(scratch + c * VL, e);
    }
    Vec energy = weights * (log_of_one_plus(others + (mine - 1)) + (top - own));
    energy = counted ? energy : Vec{};
    energies += lower(energy) + upper(energy);
    weight_sums += lower(weights) + upper(weights);
    if (gradient) {
      Vec share = weights * factor / (others + mine);
      for (int64_t c = 0; c < classes; c++) {
        Vec g = (labels == int32_t(c) ? -others : load(scratch + c * VL)) * share;
        store(scratch + c * VL, counted ? g : Vec{});
      }
      switch (classes) {
        case 2: give_neighbours<2>(scratch, 2, n, gradient + at * 2); break;
        default: give_neighbours<0>(scratch, classes, n, gradient + at * classes);
      }
    }
    at += n;
  }
  for (int i = 0; i < VL / 2; i++) {
    sums[0] += energies[i];
    sums[1] += weight_sums[i];
  }
  sums[2] += double(illegal);
}

}  // namespace ISA
