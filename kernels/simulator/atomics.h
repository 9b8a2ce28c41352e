// Atomic operations: a fiber is never interrupted, so plain reads and writes will do. The checker is told of them, since
// atomic operations on one word do not race with each other.
#pragma once
#include "runtime.h"

namespace cusim {

void atomic(const void* p, size_t n);  // for the checker: bounds, alignment, conflicts with plain accesses

template <class T, class F> CUSIM_QUIET static inline T unchecked_exchange(T* p, F change) {
  const T old = *p;
  *p = change(old);
  return old;
}
template <class T, class F> static __forceinline__ T exchange(T* p, F change) {  // inlined for the sake of its line
  atomic(p, sizeof *p);
  return unchecked_exchange(p, change);
}

// Sums of integers wrap around as on the GPU: computed without sign, where that is no error.
template <class T>
CUSIM_QUIET static inline T wrapping_sum(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    using U = std::make_unsigned_t<T>;
    return (T)((U)a + (U)b);
  } else {
    return a + b;
  }
}

template <class T> struct Itself { using type = T; };
template <class T> using Value = typename Itself<T>::type;  // keeps an argument out of the deduction of T

}  // namespace cusim

#define CUSIM_ATOMIC(NAME, EXPRESSION)                                          \
  template <class T> static __forceinline__ T NAME(T* p, cusim::Value<T> v) {   \
    return cusim::exchange(p, [v](T o) CUSIM_QUIET -> T { return EXPRESSION; }); \
  }
CUSIM_ATOMIC(atomicAdd, cusim::wrapping_sum<T>(o, v))
CUSIM_ATOMIC(atomicSub, cusim::wrapping_sum<T>(o, cusim::wrapping_sum<T>(~v, 1)))  // ~v + 1 is -v
CUSIM_ATOMIC(atomicMax, v > o ? v : o)
CUSIM_ATOMIC(atomicMin, v < o ? v : o)
CUSIM_ATOMIC(atomicAnd, o & v)
CUSIM_ATOMIC(atomicOr, o | v)
CUSIM_ATOMIC(atomicXor, o ^ v)
CUSIM_ATOMIC(atomicExch, ((void)o, v))
#undef CUSIM_ATOMIC
template <class T> static __forceinline__ T atomicCAS(T* p, cusim::Value<T> compare, cusim::Value<T> v) {
  return cusim::exchange(p, [compare, v](T o) CUSIM_QUIET { return o == compare ? v : o; });
}
// Counts up to `limit`, then from 0 again; counts down to 0, then from `limit` again.
static __forceinline__ unsigned atomicInc(unsigned* p, unsigned limit) {
  return cusim::exchange(p, [limit](unsigned o) CUSIM_QUIET { return o >= limit ? 0u : o + 1u; });
}
static __forceinline__ unsigned atomicDec(unsigned* p, unsigned limit) {
  return cusim::exchange(p, [limit](unsigned o) CUSIM_QUIET { return o == 0 || o > limit ? limit : o - 1u; });
}
