// Products of small matrices, the part of every convolution that the time goes into.
//
// A register tile is R rows times NV vectors of columns. For each step of the sum NV vectors of B are loaded and R values
// of A broadcast, and every pair of them is multiplied and added to an accumulator of its own. R * NV accumulators must be
// enough to hide the latency of an addition and leave registers for the operands; the more rows share a vector of B, and
// the more columns share a value of A, the fewer loads there are beside the multiplications.
//
// Both matrices lie in the order in which they are read. Columns of B are cut into panels of NR: row after row of NR
// floats, zeros beyond the last column. Rows of A are cut into groups, each stored as [column / VL][row of the group][VL].
#pragma once
#include "simd.h"

namespace ISA {

constexpr int NR = 2 * VL;              // columns of a panel: two vectors
constexpr int MR = REGISTER_ROWS;       // rows of a register tile: 2 MR accumulators, 2 vectors of B, 1 broadcast of A
constexpr int CR = VL < 16 ? 4 : 8;     // rows of a register tile of the transposed product; divides VL

static inline int64_t panels(int64_t k) { return (k + NR - 1) / NR; }

// Visit the vectors of channels 0 .. n-1: work(first channel, number of channels in this vector).
template <class Work>
INLINE static inline void by_vectors(int64_t n, Work work) {
  int64_t c = 0;
  for (; c + VL <= n; c += VL) work(c, VL);
  if (c < n) work(c, int(n - c));
}

template <int R, int NV>
using Accumulators = Vec[R][NV];

template <int R, int NV, class Work>
INLINE static inline void each(Work work) {
  repeat<R>([&](auto r) INLINE { repeat<NV>([&](auto v) INLINE { work(r, v); }); });
}

// sum[r][v] += A[r] B[v] for one step: `a` points to row 0's value, the next row's is `next` floats on.
template <int R, int NV>
INLINE static inline void step(Accumulators<R, NV>& sum, const float* a, int64_t next, const float* b) {
  Vec columns[NV];
  repeat<NV>([&](auto v) INLINE { columns[v] = load(b + v * VL); });
  repeat<R>([&](auto r) INLINE {
    Vec value = broadcast(a[r * next]);
    repeat<NV>([&](auto v) INLINE { sum[r][v] += value * columns[v]; });
  });
}

// What the accumulators hold goes to o, or is added to it: a long sum in parts is more exact than one term after another.
template <int R, int NV>
INLINE static inline void finish(const Accumulators<R, NV>& sum, float* o, bool add) {
  each<R, NV>([&](auto r, auto v) INLINE {
    float* p = o + r * NR + v * VL;
    store(p, add ? load(p) + sum[r][v] : sum[r][v]);
  });
}

// o (R x NV vectors, rows NR apart) = [o +] a b for n columns of a group of `group` rows, n a multiple of VL.
template <int R, int NV>
static void multiply(const float* a, int64_t group, const float* b, int64_t n, float* o, bool add) {
  Accumulators<R, NV> sum{};
  for (int64_t c = 0; c < n; c += VL, a += group * VL)
#pragma GCC unroll 4
    for (int j = 0; j < VL; j++, b += NR) step<R, NV>(sum, a + j, VL, b);
  finish<R, NV>(sum, o, add);
}

// o (CR x NV vectors, rows NR apart) = [o +] a^T b for a (n x CR, rows VL apart) and b (n x NV vectors, rows NR apart).
template <int NV>
static void multiply_transposed(const float* a, const float* b, int64_t n, float* o, bool add) {
  Accumulators<CR, NV> sum{};
#pragma GCC unroll 4
  for (int64_t i = 0; i < n; i++) step<CR, NV>(sum, a + i * VL, 1, b + i * NR);
  finish<CR, NV>(sum, o, add);
}

// run.operator()<R>() for R = rows, which is 1 .. MR.
template <int R = MR, class Run>
INLINE static inline void with_rows(int64_t rows, Run run) {
  if (rows == R)
    run.template operator()<R>();
  else if constexpr (R > 1)
    with_rows<R - 1>(rows, run);
}

// o (rows x NR) = [o +] a b for `rows` rows of A in groups of `group` (at most MR), `pitch` floats from group to group.
// Only the first vector of columns is computed if `columns` are no more.
static void multiply_groups(const float* a, int64_t rows, int64_t group, int64_t pitch, const float* b, int64_t n, float* o,
                            int64_t columns, bool add) {
  for (int64_t first = 0; first < rows; first += group, a += pitch)
    with_rows(least(group, rows - first), [&]<int R>() {
      if (columns > VL)
        multiply<R, 2>(a, group, b, n, o + first * NR, add);
      else
        multiply<R, 1>(a, group, b, n, o + first * NR, add);
    });
}

// o (n x NR) = [o +] a^T b, n a multiple of VL: a is one group of `rows` rows, n / VL columns of vectors `pitch` apart.
static void multiply_transposed_group(const float* a, int64_t rows, int64_t pitch, const float* b, int64_t n, float* o,
                                      int64_t columns, bool add) {
  for (int64_t c = 0; c < n; c += VL, a += pitch)
    for (int part = 0; part < VL; part += CR)
      if (columns > VL)
        multiply_transposed<2>(a + part, b, rows, o + (c + part) * NR, add);
      else
        multiply_transposed<1>(a + part, b, rows, o + (c + part) * NR, add);
}

}  // namespace ISA
