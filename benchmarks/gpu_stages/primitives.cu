// Each primitive of primitives.cuh alone: matrices are given and handed back whole, so that the host needs no fragments.
// The fragments are filled here by the formulas in primitives.cuh, which is what is being checked.
#include "primitives.cuh"

//@ budget: registers 40, shared 0
extern "C" __global__ void conversions(const float* x, unsigned short* halves, unsigned short* bf16s, unsigned* tf32s, float* from_halves, float* from_bf16s, unsigned* pairs, int n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    halves[i] = from_float<half>(x[i]).bits;
    bf16s[i] = from_float<bf16>(x[i]).bits;
    tf32s[i] = to_tf32(x[i]);
    from_halves[i] = to_float(from_float<half>(x[i]));
    from_bf16s[i] = to_float(from_float<bf16>(x[i]));
    float low, high;
    unpack2<bf16>(pack2<bf16>(x[i], x[n - 1 - i]), low, high);
    pairs[i] = pack2<half>(low, high);
  }
}

//@ budget: registers 40, shared 0, needs HMMA
extern "C" __global__ void mma_tf32(const float* a, const float* b, float* c) {  // (16, 8) (8, 8) -> (16, 8)
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned fa[4], fb[2];
  for (int i = 0; i < 4; i++) fa[i] = to_tf32(a[(g + i % 2 * 8) * 8 + t + i / 2 * 4]);
  for (int i = 0; i < 2; i++) fb[i] = to_tf32(b[(t + i * 4) * 8 + g]);
  float fc[4];
  for (int i = 0; i < 4; i++) fc[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_m16n8k8_tf32(fc, fa, fb);
  for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}

template <class Element> __device__ void mma_short(const float* a, const float* b, float* c) {  // (16, 16) (16, 8) -> (16, 8)
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned fa[4], fb[2];
  for (int i = 0; i < 4; i++) {
    const float* at = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    fa[i] = pack2<Element>(at[0], at[1]);
  }
  for (int i = 0; i < 2; i++) fb[i] = pack2<Element>(b[(2 * t + i * 8) * 8 + g], b[(2 * t + i * 8 + 1) * 8 + g]);
  float fc[4];
  for (int i = 0; i < 4; i++) fc[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_m16n8k16<Element>(fc, fa, fb);
  for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = fc[i];
}
//@ budget: registers 40, shared 0, needs HMMA
extern "C" __global__ void mma_bf16(const float* a, const float* b, float* c) { mma_short<bf16>(a, b, c); }
//@ budget: registers 40, shared 0, needs HMMA
extern "C" __global__ void mma_half(const float* a, const float* b, float* c) { mma_short<half>(a, b, c); }

// The matrices (COUNT, 8, 8) of 16-bit elements, and what each lane gets: (32, COUNT) registers.
template <int COUNT, bool TRANSPOSED> __device__ void fragments(const unsigned short* matrices, unsigned* out) {
  __shared__ __align__(16) unsigned short tile[COUNT * 64];
  for (int i = threadIdx.x; i < COUNT * 64; i += 32) tile[i] = matrices[i];
  __syncthreads();
  unsigned d[COUNT];
  const unsigned short* row = tile + (int)threadIdx.x % (8 * COUNT) * 8;
  if constexpr (COUNT == 4) ldmatrix_x4<TRANSPOSED>(d, row);
  else ldmatrix_x2<TRANSPOSED>(d, row);
  for (int i = 0; i < COUNT; i++) out[threadIdx.x * COUNT + i] = d[i];
}
//@ budget: registers 32, shared 512, needs LDSM
extern "C" __global__ void ldmatrix_4(const unsigned short* matrices, unsigned* out) { fragments<4, false>(matrices, out); }
//@ budget: registers 32, shared 512, needs LDSM
extern "C" __global__ void ldmatrix_4_transposed(const unsigned short* matrices, unsigned* out) { fragments<4, true>(matrices, out); }
//@ budget: registers 32, shared 256, needs LDSM
extern "C" __global__ void ldmatrix_2(const unsigned short* matrices, unsigned* out) { fragments<2, false>(matrices, out); }
//@ budget: registers 32, shared 256, needs LDSM
extern "C" __global__ void ldmatrix_2_transposed(const unsigned short* matrices, unsigned* out) { fragments<2, true>(matrices, out); }

// Thread i copies BYTES from its place in x to its place in the result, or zeros if ok[i] is 0; in two groups.
template <int BYTES> __device__ void copied(const unsigned char* x, const int* ok, unsigned char* y, int half_of_all) {
  __shared__ __align__(16) unsigned char room[128 * 16];
  const int i = threadIdx.x;
  for (int k = 0; k < BYTES; k++) room[i * BYTES + k] = 255;
  if (i < half_of_all) cp_async<BYTES>(room + i * BYTES, x + i * BYTES, ok[i]);
  cp_async_commit();
  if (i >= half_of_all) cp_async<BYTES>(room + i * BYTES, x + i * BYTES, ok[i]);
  cp_async_commit();
  cp_async_wait<1>();
  __syncthreads();
  if (i < half_of_all)  // of the first group only: the other may be under way
    for (int k = 0; k < BYTES; k++) y[i * BYTES + k] = room[(half_of_all - 1 - i) * BYTES + k];
  cp_async_wait<0>();
  __syncthreads();
  if (i >= half_of_all)
    for (int k = 0; k < BYTES; k++) y[i * BYTES + k] = room[i * BYTES + k];
}
//@ budget: registers 32, shared 2048, needs LDGSTS
extern "C" __global__ void cp_async_4(const unsigned char* x, const int* ok, unsigned char* y, int half_of_all) { copied<4>(x, ok, y, half_of_all); }
//@ budget: registers 32, shared 2048, needs LDGSTS
extern "C" __global__ void cp_async_8(const unsigned char* x, const int* ok, unsigned char* y, int half_of_all) { copied<8>(x, ok, y, half_of_all); }
//@ budget: registers 40, shared 2048, needs LDGSTS
extern "C" __global__ void cp_async_16(const unsigned char* x, const int* ok, unsigned char* y, int half_of_all) { copied<16>(x, ok, y, half_of_all); }
