// Asynchronous copies used before they are there.
#include "primitives.cuh"

extern "C" __global__ void missing_wait(const float* x, float* y) {
  DYN_SMEM(float, s);
  const int t = threadIdx.x;
  cp_async16(s + 4 * t, x + 4 * t);
  cp_async_commit();
  if (!BUGGY) cp_async_wait<0>();
  __syncthreads();
  y[t] = s[t];  // <- missing_wait: async
}

extern "C" __global__ void waits_too_little(const float* x, float* y, int rounds) {
  DYN_SMEM(float, s);
  const int t = threadIdx.x;
  cp_async4(s + t, x + t);
  cp_async_commit();
  float sum = 0;
  for (int i = 0; i < rounds; i++) {
    if (i + 1 < rounds) cp_async4(s + (i + 1) % 2 * 32 + t, x + (i + 1) * 32 + t);
    cp_async_commit();  // an empty group in the last round: the count stays the same
    cp_async_wait<1 + BUGGY>();
    __syncthreads();
    sum += s[i % 2 * 32 + 31 - t];  // <- waits_too_little: async
    __syncthreads();
  }
  y[t] = sum;
}

extern "C" __global__ void no_barrier(const float* x, float* y) {  // its own copies are there, the others' perhaps not
  DYN_SMEM(float, s);
  const int t = threadIdx.x;
  cp_async8(s + 2 * t, x + 2 * t);  // <- no_barrier: race
  cp_async_commit();
  cp_async_wait<0>();
  if (!BUGGY) __syncthreads();
  y[t] = s[(2 * t + 2) % 64];
}

extern "C" __global__ void source_outside(const float* x, float* y, int n) {
  DYN_SMEM(float, s);
  const int t = threadIdx.x;
  cp_async4(s + t, x + t, BUGGY || t < n);  // <- source_outside: out of bounds
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  y[t] = s[t];
}

extern "C" __global__ void misaligned_copy(const float* x, float* y) {
  DYN_SMEM(float, s);
  cp_async16(s + 4 * threadIdx.x, x + 4 * threadIdx.x + BUGGY);  // <- misaligned_copy: misaligned
  cp_async_commit();
  cp_async_wait<0>();
  y[threadIdx.x] = s[4 * threadIdx.x];
}

extern "C" __global__ void matrix_outside(float* y) {
  DYN_SMEM(unsigned short, s);
  for (int i = threadIdx.x; i < 256; i += 32) s[i] = 0x3f80;
  __syncthreads();
  unsigned d[4];
  ldmatrix_x4<false>(d, s + 8 * (threadIdx.x + BUGGY));  // <- matrix_outside: out of bounds
  y[threadIdx.x] = to_float(bf16{(unsigned short)d[0]});
}
