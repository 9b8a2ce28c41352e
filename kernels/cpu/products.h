// Products of small matrices, the part of every convolution that the time goes into.
#pragma once
#include "simd.h"

namespace ISA {

// Columns of a matrix are handled in panels of NR; panel p of a (n x K) matrix is stored as n rows of NR, zeros beyond K.
static inline int64_t panels(int64_t k) { return (k + NR - 1) / NR; }

// Visit the vectors of channels 0 .. n-1: work(first channel, number of channels in this vector).
template <class Work>
static inline void by_vectors(int64_t n, Work work) {
  int64_t c = 0;
  for (; c + VL <= n; c += VL) work(c, VL);
  if (c < n) work(c, int(n - c));
}

// o (R x NR) = [o +] a (R x n, rows lda apart) * b (n x NR, contiguous). The accumulators live in registers.
template <int R>
static void multiply(const float* a, int64_t lda, const float* b, int64_t n, float* o, int64_t ldo, bool add) {
  Vec left[R], right[R];
  for (int r = 0; r < R; r++) {
    left[r] = add ? load(o + r * ldo) : Vec{};
    right[r] = add ? load(o + r * ldo + VL) : Vec{};
  }
  for (int64_t i = 0; i < n; i++) {
    Vec b0 = load(b + i * NR), b1 = load(b + i * NR + VL);
    for (int r = 0; r < R; r++) {
      Vec s = broadcast(a[r * lda + i]);
      left[r] += s * b0;
      right[r] += s * b1;
    }
  }
  for (int r = 0; r < R; r++) store(o + r * ldo, left[r]), store(o + r * ldo + VL, right[r]);
}

// o (R x NR, rows ldo apart) += a^T b for a (n x R, rows lda apart) and b (n x NR, contiguous).
template <int R>
static void multiply_transposed(const float* a, int64_t lda, const float* b, int64_t n, float* o, int64_t ldo) {
  Vec left[R], right[R];
  for (int r = 0; r < R; r++) left[r] = load(o + r * ldo), right[r] = load(o + r * ldo + VL);
  for (int64_t i = 0; i < n; i++) {
    Vec b0 = load(b + i * NR), b1 = load(b + i * NR + VL);
    for (int r = 0; r < R; r++) {
      Vec s = broadcast(a[i * lda + r]);
      left[r] += s * b0;
      right[r] += s * b1;
    }
  }
  for (int r = 0; r < R; r++) store(o + r * ldo, left[r]), store(o + r * ldo + VL, right[r]);
}

// Calls run<R>(first row) for rows 0 .. rows-1 in groups of MR, the last group with the R that is left.
template <int R = MR, class Run>
static inline void by_rows(int64_t rows, Run run, int64_t first = 0) {
  for (; rows - first >= R; first += R) run.template operator()<R>(first);
  if constexpr (R > 1)
    if (first < rows) by_rows<R - 1>(rows, run, first);
}

}  // namespace ISA
