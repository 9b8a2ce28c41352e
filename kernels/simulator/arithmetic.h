// Arithmetic intrinsics. The approximate ones are computed exactly here: results differ from the GPU's in the last digits.
#pragma once
#include "runtime.h"
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace cusim {
template <class To, class From> static inline To bits_as(From value) {
  static_assert(sizeof(To) == sizeof(From), "");
  return __builtin_bit_cast(To, value);
}
}  // namespace cusim

// ---- memory with a hint: the hint means nothing here
#define CUSIM_LOAD(NAME) template <class T> static inline T NAME(const T* p) { return *p; }
#define CUSIM_STORE(NAME) template <class T> static inline void NAME(T* p, T value) { *p = value; }
CUSIM_LOAD(__ldg) CUSIM_LOAD(__ldca) CUSIM_LOAD(__ldcg) CUSIM_LOAD(__ldcs) CUSIM_LOAD(__ldlu) CUSIM_LOAD(__ldcv)
CUSIM_STORE(__stwb) CUSIM_STORE(__stcg) CUSIM_STORE(__stcs) CUSIM_STORE(__stwt)
#undef CUSIM_LOAD
#undef CUSIM_STORE

// ---- bits
static inline float __uint_as_float(unsigned u) { return cusim::bits_as<float>(u); }
static inline float __int_as_float(int i) { return cusim::bits_as<float>(i); }
static inline unsigned __float_as_uint(float f) { return cusim::bits_as<unsigned>(f); }
static inline int __float_as_int(float f) { return cusim::bits_as<int>(f); }
static inline double __longlong_as_double(long long i) { return cusim::bits_as<double>(i); }
static inline long long __double_as_longlong(double d) { return cusim::bits_as<long long>(d); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
  return r;
}
// Byte i of the result is byte s_i of the 8 bytes y:x, where s_i is the low 3 bits of nibble i; bit 3 repeats its sign.
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s) {
  const unsigned long long both = (unsigned long long)y << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) {
    const unsigned pick = s >> 4 * i & 15, byte = both >> 8 * (pick & 7) & 255;
    r |= (pick & 8 ? (byte & 128 ? 255u : 0u) : byte) << 8 * i;
  }
  return r;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned n) {
  return (unsigned)(((unsigned long long)high << 32 | low) << (n & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned n) {
  return (unsigned)(((unsigned long long)high << 32 | low) >> (n & 31));
}

// ---- integers
static inline int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}

// ---- floating point
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __saturatef(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
namespace cusim {
static inline float reciprocal_root(float x) { return 1.0f / sqrtf(x); }
static inline double reciprocal_root(double x) { return 1.0 / std::sqrt(x); }
// A float that no int can hold becomes the nearest one that can, NaN becomes 0: as the GPU converts.
static inline int to_int(float x) {
  return x != x ? 0 : x >= 2147483648.0f ? INT_MAX : x <= -2147483648.0f ? INT_MIN : (int)x;
}
static inline unsigned to_unsigned(float x) { return x > 0.0f ? (x >= 4294967296.0f ? UINT_MAX : (unsigned)x) : 0u; }
}  // namespace cusim
// Macros, because the C library declares some of these names itself.
#define rsqrtf(x) cusim::reciprocal_root((float)(x))
#define rsqrt(x) cusim::reciprocal_root(x)
#define __frsqrt_rn(x) cusim::reciprocal_root((float)(x))
#define __expf(x) expf(x)
#define __exp10f(x) powf(10.0f, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
static inline int __float2int_rz(float x) { return cusim::to_int(x); }
static inline int __float2int_rn(float x) { return cusim::to_int(rintf(x)); }
static inline int __float2int_rd(float x) { return cusim::to_int(floorf(x)); }
static inline int __float2int_ru(float x) { return cusim::to_int(ceilf(x)); }
static inline unsigned __float2uint_rz(float x) { return cusim::to_unsigned(x); }
static inline unsigned __float2uint_rn(float x) { return cusim::to_unsigned(rintf(x)); }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }

// min and max of two types compute in their common type; of a number and NaN the number is taken, as CUDA's do.
template <class A, class B> static inline auto min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return (T)std::fmin((T)a, (T)b);
  else return (T)a < (T)b ? (T)a : (T)b;
}
template <class A, class B> static inline auto max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return (T)std::fmax((T)a, (T)b);
  else return (T)a > (T)b ? (T)a : (T)b;
}
using std::isfinite;
using std::isinf;
using std::isnan;
