// Vectors by the compiler's own vector types: the same source becomes AVX-512, AVX2 + FMA, NEON or SSE2 code, depending
// on the instruction set that the including file has switched on (see isa_*.cpp).
#pragma once
#include <cstdint>
#include <cstring>

using std::int32_t;
using std::int64_t;
using std::uint8_t;

#define INLINE __attribute__((always_inline))

namespace ISA {

constexpr int VL = VECTOR_FLOATS;  // floats in a vector

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
// Past the caches, straight to memory: for results so large that nothing of them would still be there when it is read. `p`
// is aligned to a vector.
static inline void stream(float* p, Vec v) {
#if VECTOR_FLOATS == 16
  __builtin_ia32_movntps512(p, v);
#elif VECTOR_FLOATS == 8
  __builtin_ia32_movntps256(p, v);
#else
  store(p, v);
#endif
}
static inline void store_first(float* p, Vec v, int n) {
  if (n == VL)
    store(p, v);
  else
    std::memcpy(p, &v, sizeof(float) * n);
}

// Bring the cache lines of n floats at p near, by reading one float of each. Where vectors are read from memory in any but
// the plainest order, neither the processor's own guesses nor its prefetch instructions keep up with it; they do with this.
static inline void touch(const float* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 16) (void)*static_cast<const volatile float*>(p + i);
}

// max(a, 0); NaN stays NaN, as in NumPy and PyTorch.
static inline Vec relu(Vec a) { return a < Vec{} ? Vec{} : a; }

// work(0), work(1) ... work(N - 1) with constants as arguments: a loop that is unrolled for certain, so that the vectors of
// an array indexed by its counter live in registers.
template <int I>
struct Constant {
  constexpr operator int() const { return I; }
};
template <int N, int I = 0, class Work>
INLINE static inline void repeat(Work work) {
  if constexpr (I < N) {
    work(Constant<I>());
    repeat<N, I + 1>(work);
  }
}

// Matrix of VL vectors, transposed in place: blocks of half the size change places, then those of a quarter, and so on.
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define CAN_SHUFFLE 1
#endif
#endif
#if CAN_SHUFFLE
template <int S, class Work>
INLINE static inline void with_lanes(Work work) {
  if constexpr (VL == 4) work.template operator()<S, 0, 1, 2, 3>();
  if constexpr (VL == 8) work.template operator()<S, 0, 1, 2, 3, 4, 5, 6, 7>();
  if constexpr (VL == 16) work.template operator()<S, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>();
}
template <int S = VL / 2>
INLINE static inline void transpose(Vec* rows) {
  with_lanes<S>([&]<int HALF, int... L>() INLINE {
    repeat<VL>([&](auto i) INLINE {
      if constexpr (!(i & HALF)) {
        Vec a = rows[i], b = rows[i + HALF];
        rows[i] = __builtin_shufflevector(a, b, (L & HALF ? VL + L - HALF : L)...);
        rows[i + HALF] = __builtin_shufflevector(a, b, (L & HALF ? VL + L : L + HALF)...);
      }
    });
  });
  if constexpr (S > 1) transpose<S / 2>(rows);
}
#else
static inline void transpose(Vec* rows) {
  for (int i = 0; i < VL; i++)
    for (int j = 0; j < i; j++) {
      float kept = rows[i][j];
      rows[i][j] = rows[j][i], rows[j][i] = kept;
    }
}
#endif

// No functions of the standard library: they would be compiled for this file's instruction set and shared with others.
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t rounded_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace ISA
