// Small kernels for tests/test_simulator_module.py.
#include "various.h"

struct Pair {
  int a;
  double b;
};
extern "C" __global__ void __launch_bounds__(64) arguments(
    const float* __restrict__ x, float* y, Pair pair, long long wide, const unsigned char* bytes,  // a comment, with commas
    float factor) {
  const int i = threadIdx.x;
  y[i] = x[i] * factor + pair.a + (float)pair.b + (float)wide + (bytes ? bytes[i] : 0);
}
__global__ void cxx_linkage(float* y) { y[0] = 1; }
template <class Type> __global__ void no_entry_point(Type* y) { y[0] = 1; }

extern __shared__ float whole_file[];
extern "C" __global__ void dynamic_of_the_file(float* y) {
  whole_file[threadIdx.x] = (float)threadIdx.x;
  __syncthreads();
  y[threadIdx.x] = whole_file[blockDim.x - 1 - threadIdx.x];
}
extern "C" __global__ void dynamic_of_the_kernel(int* y) {
  extern __shared__ __align__(16) int own[];
  own[threadIdx.x] = threadIdx.x * FACTOR;
  __syncthreads();
  y[threadIdx.x] = own[blockDim.x - 1 - threadIdx.x];
}

// rows x columns elements of an array with a row stride
extern "C" __global__ void double_view(float* x, int rows, int columns, long long stride) {
  for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) x[i / columns * stride + i % columns] *= 2;
}
extern "C" __global__ void through_table(float* const* table, int count) {  // one pointer for each block
  if (blockIdx.x < count) table[blockIdx.x][threadIdx.x] = blockIdx.x + 1;
}

extern "C" __global__ void order(unsigned* ticket, unsigned* of_block) {
  if (threadIdx.x == 0) of_block[blockIdx.x] = atomicAdd(ticket, 1);
}
extern "C" __global__ void lane_order(unsigned* ticket, unsigned* of_lane) {
  of_lane[threadIdx.x] = atomicAdd(ticket, 1);
}
extern "C" __global__ void never_written(float* y, int count) {  // count 0
  __shared__ float s[32];
  if (threadIdx.x < count) s[threadIdx.x] = 1;
  y[threadIdx.x] = s[threadIdx.x];
}
extern "C" __global__ void large_locals(float* y) {
  volatile float big[70000];
  for (int i = 0; i < 70000; i++) big[i] = (float)i;
  y[threadIdx.x] = big[threadIdx.x];
}

// x is (n, n) row-major in shared memory with a stride of n + PAD; every thread of a warp reads down its column
extern "C" __global__ void banks(const float* x, float* y, int step) {
  __shared__ float tile[32 * 33];
  for (int i = threadIdx.x; i < 32 * 33; i += 32) tile[i] = x[0];
  __syncthreads();
  y[threadIdx.x] = tile[threadIdx.x * step];
}
extern "C" __global__ void strided(const float* x, float* y, int step) { y[threadIdx.x] = x[threadIdx.x * step]; }
extern "C" __global__ void vectors(const float4* x, float4* y) { y[threadIdx.x] = x[threadIdx.x]; }

extern "C" __global__ void intrinsics(const unsigned* x, unsigned* y) {
  const unsigned a = x[0], b = x[1];
  unsigned results[] = {
      (unsigned)__popc(a), (unsigned)__clz((int)a), (unsigned)__ffs((int)a), __brev(a), __byte_perm(a, b, 0x7340),
      __funnelshift_l(a, b, 9), __funnelshift_r(a, b, 9), __umulhi(a, b), (unsigned)__float2int_rn(2.5f),
      (unsigned)__float2int_rz(-2.5f), (unsigned)__float2int_rn(3e9f), (unsigned)__float2int_rz(__int_as_float(0x7fc00000)),
      (unsigned)min(3, 4L), (unsigned)(max(1.0f, __int_as_float(0x7fc00000)) == 1.0f), __float_as_uint(rsqrtf(4.0f)),
      __float_as_uint(__saturatef(-1.0f)),
  };
  for (int i = 0; i < 16; i++) y[i] = results[i];
}
// Votes and reductions of a block of 40 threads: the second warp has 8 lanes.
extern "C" __global__ void votes(unsigned* y) {
  const unsigned all = 0xffffffffu;
  const int t = threadIdx.x;
  unsigned r[] = {__ballot_sync(all, t % 3 == 0), (unsigned)__any_sync(all, t == 33), (unsigned)__all_sync(all, t < 32),
                  __reduce_add_sync(all, (unsigned)t), (unsigned)__reduce_min_sync(all, -t), __reduce_max_sync(all, (unsigned)t),
                  (unsigned)__shfl_up_sync(all, t, 1), (unsigned)__shfl_down_sync(all, t, 2, 4), (unsigned)__shfl_sync(all, t, 5, 8),
                  (unsigned)__syncthreads_count(t % 2), (unsigned)__syncthreads_or(t == 39), (unsigned)__syncthreads_and(t < 39)};
  for (int i = 0; i < 12; i++) y[t * 12 + i] = r[i];
}
extern "C" __global__ void atomics(unsigned* u, int* s, float* f) {
  const int t = threadIdx.x;
  atomicAdd(u, 1), atomicSub(u + 1, 1), atomicMax(u + 2, t), atomicOr(u + 3, 1u << t % 32), atomicXor(u + 4, 1u << t % 32);
  atomicInc(u + 5, 9), atomicDec(u + 6, 9), atomicExch(u + 7, 5), atomicCAS(u + 8, 0, 7), atomicAnd(u + 9, ~(1u << t % 32));
  atomicMin(s, -t), atomicAdd(s + 1, 0x7fffffff), atomicAdd(f, 0.5f);
}
