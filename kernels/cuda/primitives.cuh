// The instructions behind the fast kernels, each for two machines: PTX for the GPU, C++ for the simulator (CUSIM).
//
// Storage types half and bf16 with conversions; dynamic shared memory; matrix products of a warp (mma.sync); loads of matrix
// fragments (ldmatrix); copies from global to shared memory that run beside the threads (cp.async). All of it exists from
// sm_80 on. Names of template parameters are long because kernels are compiled with macros such as T.
//
// Fragments. With lane = 4 g + t (g: 0 to 7, t: 0 to 3), a lane holds of the accumulator C (16x8)
//   c[0] C[g][2t]   c[1] C[g][2t+1]   c[2] C[g+8][2t]   c[3] C[g+8][2t+1]
// and of the factors, in 32-bit registers, for tf32 (A 16x8, B 8x8)
//   a[0] A[g][t]   a[1] A[g+8][t]   a[2] A[g][t+4]   a[3] A[g+8][t+4]        b[0] B[t][g]   b[1] B[t+4][g]
// for 16-bit types (A 16x16, B 16x8), two elements each, the one with the smaller k in the low half
//   a[0] A[g][2t..]  a[1] A[g+8][2t..]  a[2] A[g][2t+8..]  a[3] A[g+8][2t+8..]  b[0] B[2t..][g]  b[1] B[2t+8..][g]
#pragma once

#define PRIMITIVE __device__ __forceinline__

#if defined(CUSIM)
#define DYN_SMEM(Type, name) Type* name = (Type*)cusim::dyn_smem
#else
// One array serves all kernels of a source. A kernel that needs more than 128-byte alignment rounds the pointer up itself.
#define DYN_SMEM(Type, name)                                          \
  extern __shared__ __align__(128) unsigned char dynamic_shared_memory[]; \
  Type* name = reinterpret_cast<Type*>(dynamic_shared_memory)
#endif

// ---- half and bf16: rounded to nearest even; infinities stay, a NaN becomes the NaN 0x7fff (to 16 bits) or stays one

struct half { unsigned short bits; };
struct bf16 { unsigned short bits; };

PRIMITIVE float to_float(float value) { return value; }
PRIMITIVE float to_float(bf16 value) { return __uint_as_float((unsigned)value.bits << 16); }
PRIMITIVE float to_float(half value) {
#if !defined(CUSIM)
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#else
  const unsigned sign = (value.bits & 0x8000u) << 16, rest = value.bits & 0x7fffu;
  if (rest >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
  if (rest < 0x0400u) return __uint_as_float(sign | __float_as_uint((float)rest * 0x1p-24f));  // subnormal: steps of 2^-24
  return __uint_as_float(sign | (rest + ((127u - 15u) << 10)) << 13);                        // another bias of the exponent
#endif
}

PRIMITIVE unsigned short bf16_bits(float value) {
#if !defined(CUSIM)
  unsigned short result;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result) : "f"(value));
  return result;
#else
  const unsigned u = __float_as_uint(value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (unsigned short)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);  // half a step more, less one bit where the result is even
#endif
}
PRIMITIVE unsigned short half_bits(float value) {
#if !defined(CUSIM)
  unsigned short result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result) : "f"(value));
  return result;
#else
  const unsigned u = __float_as_uint(value), sign = u >> 16 & 0x8000u, rest = u & 0x7fffffffu;
  if (rest > 0x7f800000u) return 0x7fff;
  if (rest >= 0x47800000u) return (unsigned short)(sign | 0x7c00u);  // 65536 and more
  if (rest < 0x38800000u)  // below 2^-14: at 0.5 a float has steps of 2^-24, those of a subnormal half
    return (unsigned short)(sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - __float_as_uint(0.5f)));
  return (unsigned short)(sign | (rest - ((127u - 15u) << 23) + 0xfffu + (rest >> 13 & 1u)) >> 13);
#endif
}

template <class Element> struct Conversion;
template <> struct Conversion<float> {
  static __device__ __forceinline__ float from(float value) { return value; }
};
template <> struct Conversion<half> {
  static __device__ __forceinline__ half from(float value) { return half{half_bits(value)}; }
};
template <> struct Conversion<bf16> {
  static __device__ __forceinline__ bf16 from(float value) { return bf16{bf16_bits(value)}; }
};
// from_float<bf16>(x), from_float<half>(x), from_float<float>(x)
template <class Element> PRIMITIVE Element from_float(float value) { return Conversion<Element>::from(value); }

// Two elements in a register, the first in the low half.
template <class Element> PRIMITIVE unsigned pack2(float first, float second) {
  static_assert(sizeof(Element) == 2, "pack2 is for half and bf16");
  return (unsigned)from_float<Element>(first).bits | (unsigned)from_float<Element>(second).bits << 16;
}
template <class Element> PRIMITIVE void unpack2(unsigned both, float& first, float& second) {
  first = to_float(Element{(unsigned short)both});
  second = to_float(Element{(unsigned short)(both >> 16)});
}

// The nearest number with 10 bits behind the point, ties away from zero: what the tf32 product would otherwise cut off.
PRIMITIVE unsigned to_tf32(float value) {
#if !defined(CUSIM)
  unsigned result;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(value));
  return result;
#else
  unsigned u = __float_as_uint(value);
  if ((u & 0x7f800000u) != 0x7f800000u) u += 0x1000u;
  else if (u & 0x007fffffu) u |= 0x00400000u;  // a NaN whose upper bits are 0 would become infinity
  return u & 0xffffe000u;
#endif
}

// ---- products of a warp: c(16x8) += a * b, accumulated in float32

#if defined(CUSIM)
namespace primitives {
struct Factors {
  unsigned a[4], b[2];
  float c[4];
};
// All lanes bring their fragments; the last one multiplies, with `element` taking number i out of a register.
template <int DEPTH, class Unpack> CUSIM_QUIET static void multiply(cusim::Round& round, Unpack element) {
  float a[16][DEPTH], b[DEPTH][8], c[16][8];
  constexpr int PER_REGISTER = DEPTH / 8;
  for (int lane = 0; lane < 32; lane++) {
    const Factors& f = *(const Factors*)round.s[lane].b;
    const int g = lane >> 2, t = lane & 3;
    for (int e = 0; e < PER_REGISTER; e++) {
      const int k = t * PER_REGISTER + e;
      for (int i = 0; i < 4; i++) a[g + (i & 1) * 8][k + (i >> 1) * DEPTH / 2] = element(f.a[i], e);
      for (int i = 0; i < 2; i++) b[k + i * DEPTH / 2][g] = element(f.b[i], e);
    }
    for (int i = 0; i < 4; i++) c[g + (i >> 1) * 8][2 * t + (i & 1)] = f.c[i];
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < DEPTH; k++)
      for (int n = 0; n < 8; n++) c[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++) {
    float* result = (float*)round.r[lane].b;
    for (int i = 0; i < 4; i++) result[i] = c[(lane >> 2) + (i >> 1) * 8][2 * (lane & 3) + (i & 1)];
  }
}
PRIMITIVE void meet(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], const char* what,
                    cusim::WarpOp multiply, int line) {
  const Factors mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
  const cusim::Round& round = cusim::rendezvous(0xffffffffu, what, line, &mine, sizeof mine, multiply, false);
  std::memcpy(c, round.r[cusim::cur->lane].b, sizeof c);
}
}  // namespace primitives
// A collective knows the line from which it was called, so that lanes that meet in different ones are found.
#define CALLED_FROM , int line = __builtin_LINE()
#define MMA(NAME, PTX_SHAPE, PTX_TYPES, DEPTH, ELEMENT)                                                        \
  PRIMITIVE void NAME(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2] CALLED_FROM) {            \
    primitives::meet(c, a, b, #NAME, [](cusim::Round& round) {                                                 \
      primitives::multiply<DEPTH>(round, [](unsigned packed, int which) CUSIM_QUIET -> float { return ELEMENT; }); \
    }, line);                                                                                                  \
  }
#else
#define CALLED_FROM
#define MMA(NAME, PTX_SHAPE, PTX_TYPES, DEPTH, ELEMENT)                                                        \
  PRIMITIVE void NAME(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {                        \
    asm volatile("mma.sync.aligned." PTX_SHAPE ".row.col.f32." PTX_TYPES ".f32 "                              \
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                            \
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                          \
  }
#endif
MMA(mma_m16n8k8_tf32, "m16n8k8", "tf32.tf32", 8, ((void)which, __uint_as_float(packed & 0xffffe000u)))  // reads 19 bits
MMA(mma_m16n8k16_bf16, "m16n8k16", "bf16.bf16", 16, to_float(bf16{(unsigned short)(packed >> 16 * which)}))
MMA(mma_m16n8k16_f16, "m16n8k16", "f16.f16", 16, to_float(half{(unsigned short)(packed >> 16 * which)}))
#undef MMA

template <class Element> PRIMITIVE void mma_m16n8k16(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
template <> __device__ __forceinline__ void mma_m16n8k16<bf16>(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k16_bf16(c, a, b);
}
template <> __device__ __forceinline__ void mma_m16n8k16<half>(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k16_f16(c, a, b);
}

// ---- matrix fragments from shared memory

#if !defined(CUSIM)
PRIMITIVE unsigned address_in_shared(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }
#endif

#if defined(CUSIM)
namespace primitives {
// Lane 8 i + j brings row j of matrix i; each lane takes two neighbouring elements of every matrix (of its transpose).
template <int COUNT, bool TRANSPOSED>
PRIMITIVE void load_matrices(unsigned (&d)[COUNT], const void* row, const char* what, int line) {
  const int lane = cusim::cur->lane, g = lane >> 2, t = lane & 3;
  cusim::Slot mine = {};
  if (lane < 8 * COUNT) {
    if ((size_t)row % 16) cusim::fail_as("misaligned", "%s: the address of a row must be a multiple of 16", what);
    cusim::touch(row, 16, false);
    cusim::Unchecked books;
    std::memcpy(mine.b, row, 16);
  }
  const cusim::Round& round = cusim::rendezvous(0xffffffffu, what, line, mine.b, 16, nullptr, false);
  cusim::Unchecked books;
  for (int i = 0; i < COUNT; i++) {
    const auto element = [&round, i](int r, int c) -> unsigned { return ((const unsigned short*)round.s[8 * i + r].b)[c]; };
    d[i] = TRANSPOSED ? element(2 * t, g) | element(2 * t + 1, g) << 16 : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
  }
}
}  // namespace primitives
#endif

// Four 8x8 matrices of 16-bit elements: lane 8 i + j gives the address of row j of matrix i, a multiple of 16 in shared memory.
// With lane = 4 g + t, d[i] receives elements [g][2t] and [g][2t+1] of matrix i; TRANSPOSED: [2t][g] and [2t+1][g].
template <bool TRANSPOSED> PRIMITIVE void ldmatrix_x4(unsigned (&d)[4], const void* row CALLED_FROM) {
#if defined(CUSIM)
  primitives::load_matrices<4, TRANSPOSED>(d, row, "ldmatrix_x4", line);
#else
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(address_in_shared(row)) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(address_in_shared(row)) : "memory");
#endif
}
// Two matrices: the addresses of lanes 0 to 15 count.
template <bool TRANSPOSED> PRIMITIVE void ldmatrix_x2(unsigned (&d)[2], const void* row CALLED_FROM) {
#if defined(CUSIM)
  primitives::load_matrices<2, TRANSPOSED>(d, row, "ldmatrix_x2", line);
#else
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(d[0]), "=r"(d[1]) : "r"(address_in_shared(row)) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(d[0]), "=r"(d[1]) : "r"(address_in_shared(row)) : "memory");
#endif
}

// ---- copies from global to shared memory that run beside the threads

// 4, 8 or 16 bytes, both addresses multiples of that. Without `ok` nothing is read and the destination becomes 0. The bytes
// may be used after a wait for their group, by other threads after a barrier behind that wait.
template <int BYTES> PRIMITIVE void cp_async(void* to, const void* from, bool ok = true) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#if defined(CUSIM)
  cusim::async_copy(to, from, BYTES, ok ? BYTES : 0);
#else
  if (BYTES == 16)  // .cg: past the first-level cache
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(address_in_shared(to)), "l"(from), "r"(ok ? 16 : 0) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :: "r"(address_in_shared(to)), "l"(from), "n"(BYTES), "r"(ok ? BYTES : 0) : "memory");
#endif
}
PRIMITIVE void cp_async16(void* to, const void* from, bool ok = true) { cp_async<16>(to, from, ok); }
PRIMITIVE void cp_async8(void* to, const void* from, bool ok = true) { cp_async<8>(to, from, ok); }
PRIMITIVE void cp_async4(void* to, const void* from, bool ok = true) { cp_async<4>(to, from, ok); }

// Closes a group: the copies that this thread began since the last one.
PRIMITIVE void cp_async_commit() {
#if defined(CUSIM)
  cusim::async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most KEEP of this thread's groups are under way, the last ones.
template <int KEEP> PRIMITIVE void cp_async_wait() {
#if defined(CUSIM)
  cusim::async_wait(KEEP);
#else
  asm volatile("cp.async.wait_group %0;" :: "n"(KEEP) : "memory");
#endif
}
#undef CALLED_FROM
