// Vectors by the compiler's own vector types: the same source becomes AVX-512, AVX2 + FMA, NEON or SSE2 code, depending
// on the instruction set that the including file has switched on (see isa_*.cpp).
#pragma once
#include <cstdint>
#include <cstring>

using std::int32_t;
using std::int64_t;
using std::uint8_t;

namespace ISA {

constexpr int VL = VECTOR_FLOATS;  // floats in a vector
constexpr int NR = 2 * VL;         // columns of a register tile: two vectors
constexpr int MR = REGISTER_ROWS;  // rows of a register tile: MR * 2 accumulators, 2 vectors of B, 1 broadcast of A

typedef float Vec __attribute__((vector_size(VECTOR_FLOATS * 4)));
typedef int32_t Mask __attribute__((vector_size(VECTOR_FLOATS * 4)));  // what comparing two Vec gives: 0 or -1
typedef uint8_t Bytes __attribute__((vector_size(VECTOR_FLOATS)));
typedef float UnalignedVec __attribute__((vector_size(VECTOR_FLOATS * 4), aligned(4), may_alias));

static inline Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
static inline void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
// s - 0 rather than 0 + s: only the former is s for every s, so that the compiler drops it.
static inline Vec broadcast(float s) { return s - Vec{}; }

// The first n (<= VL) floats at p, zeros behind them.
static inline Vec load_first(const float* p, int n) {
  if (n == VL) return load(p);
  Vec v{};
  std::memcpy(&v, p, sizeof(float) * n);
  return v;
}
static inline void store_first(float* p, Vec v, int n) {
  if (n == VL)
    store(p, v);
  else
    std::memcpy(p, &v, sizeof(float) * n);
}

// max(a, 0); NaN stays NaN, as in NumPy and PyTorch.
static inline Vec relu(Vec a) { return a < Vec{} ? Vec{} : a; }

// No functions of the standard library: they would be compiled for this file's instruction set and shared with others.
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

}  // namespace ISA
