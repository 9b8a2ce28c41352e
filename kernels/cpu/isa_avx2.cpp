// AVX2 and FMA: x86-64 processors since about 2013.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define VECTOR_FLOATS 8
#define REGISTER_ROWS 6  // 12 accumulators, 2 vectors of B and 1 of A in 16 registers
#include "interface.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
