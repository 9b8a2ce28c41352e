// AVX-512: 32 registers of 16 floats.
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#endif
#define ISA avx512
#define VECTOR_FLOATS 16
#define REGISTER_ROWS 12  // 24 accumulators
#include "interface.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
