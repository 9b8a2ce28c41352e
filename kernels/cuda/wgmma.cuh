// The wgmma instruction itself: d (64 x N) = A (64 x K) B (N x K)^T [+ d], A and B tiles in shared memory given by descriptors
// (hopper.cuh), K = 32 bytes of elements. Written out for each N, because an instruction names its N / 2 registers.
#pragma once
#include "primitives.cuh"

// How a type's factors are called: 16-bit types, or float read as TF32 (whose lower 13 bits are ignored).
template <class Type> struct Factor;
template <> struct Factor<bf16> { enum { KIND = 0, WIDE = 0 }; };
template <> struct Factor<half> { enum { KIND = 1, WIDE = 0 }; };
template <> struct Factor<float> { enum { KIND = 2, WIDE = 1 }; };

#if !defined(CUSIM)
#define WGMMA_8(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define WGMMA_32(i) WGMMA_8(i), WGMMA_8(i + 8), WGMMA_8(i + 16), WGMMA_8(i + 24)
#define R0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define R32 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define R64 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define R96 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// A, B, KEEP: the operands' numbers; LAYOUTS: of the two transposition bits, which only 16-bit types have.
#define WGMMA(SHAPE, TYPE, REGISTERS, A, B, KEEP, LAYOUTS, ...)                                                                     \
  asm volatile("{\n\t.reg .pred keep;\n\tsetp.ne.b32 keep, " KEEP ", 0;\n\twgmma.mma_async.sync.aligned." SHAPE ".f32." TYPE "." TYPE \
               " {" REGISTERS "}, " A ", " B ", keep, 1, 1" LAYOUTS ";\n\t}"                                                         \
               : __VA_ARGS__                                                                                                        \
               : "l"(a), "l"(b), "r"(accumulate), "n"(A_MN), "n"(B_MN))
#define WGMMA_N64(TYPE, K, LAYOUTS) WGMMA("m64n64" K, TYPE, R0, "%32", "%33", "%34", LAYOUTS(", %35, %36"), WGMMA_32(0))
#define WGMMA_N128(TYPE, K, LAYOUTS) WGMMA("m64n128" K, TYPE, R0 "," R32, "%64", "%65", "%66", LAYOUTS(", %67, %68"), WGMMA_32(0), WGMMA_32(32))
#define WGMMA_N192(TYPE, K, LAYOUTS) \
  WGMMA("m64n192" K, TYPE, R0 "," R32 "," R64, "%96", "%97", "%98", LAYOUTS(", %99, %100"), WGMMA_32(0), WGMMA_32(32), WGMMA_32(64))
#define WGMMA_N256(TYPE, K, LAYOUTS)                                                                                           \
  WGMMA("m64n256" K, TYPE, R0 "," R32 "," R64 "," R96, "%128", "%129", "%130", LAYOUTS(", %131, %132"), WGMMA_32(0), WGMMA_32(32), \
        WGMMA_32(64), WGMMA_32(96))
#define WGMMA_BOTH(text) text
#define WGMMA_NONE(text) ""
#define WGMMA_OF_TYPE(ISSUE)                                           \
  if constexpr (Factor<Type>::KIND == 0) ISSUE("bf16", "k16", WGMMA_BOTH); \
  else if constexpr (Factor<Type>::KIND == 1) ISSUE("f16", "k16", WGMMA_BOTH); \
  else ISSUE("tf32", "k8", WGMMA_NONE)
#endif

// Issued by all threads of a warpgroup; complete only after wgmma_commit and wgmma_wait. Without `accumulate` d is overwritten.
template <class Type, int N, bool A_MN, bool B_MN>
static __device__ __forceinline__ void wgmma(float (&d)[N / 2], unsigned long long a, unsigned long long b, int accumulate) {
  static_assert(N == 64 || N == 128 || N == 192 || N == 256, "this N is not written out");
  static_assert(!(Factor<Type>::WIDE && (A_MN || B_MN)), "TF32 operands must be K-major");
#if !defined(CUSIM)
  if constexpr (N == 64) {
    WGMMA_OF_TYPE(WGMMA_N64);
  } else if constexpr (N == 128) {
    WGMMA_OF_TYPE(WGMMA_N128);
  } else if constexpr (N == 192) {
    WGMMA_OF_TYPE(WGMMA_N192);
  } else {
    WGMMA_OF_TYPE(WGMMA_N256);
  }
#else
  cusim::hopper::wgmma(d, N, {a, A_MN}, {b, B_MN}, (cusim::hopper::Kind)Factor<Type>::KIND, accumulate);
#endif
}

#if !defined(CUSIM)
#undef R0
#undef R32
#undef R64
#undef R96
#endif
