// Accesses beside the memory that was meant, to memory that nobody wrote, and indices that do not fit.
#include "primitives.cuh"

extern "C" __global__ void static_shared(float* y) {
  __shared__ float s[2][32];
  s[0][threadIdx.x] = 1;
  s[1][threadIdx.x] = 2;
  __syncthreads();
  float* flat = &s[0][0];
  y[threadIdx.x] = flat[threadIdx.x + 32 + BUGGY];  // <- static_shared: out of bounds
}

extern "C" __global__ void static_index(float* y) {
  __shared__ float s[2][32];
  s[0][threadIdx.x] = 1;
  s[1][threadIdx.x] = 2;
  __syncthreads();
  y[threadIdx.x] = s[0][(threadIdx.x + BUGGY) % (32 + BUGGY)];  // <- static_index: index
}

extern "C" __global__ void dynamic_shared(float* y) {
  DYN_SMEM(float, s);
  s[threadIdx.x + BUGGY] = 1;  // <- dynamic_shared: out of bounds
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x + BUGGY];
}

extern "C" __global__ void global_read(const float* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  y[i] = x[i] + x[BUGGY || i + 1 < n ? i + 1 : i];  // <- global_read: out of bounds
}

extern "C" __global__ void global_write(float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n + BUGGY) y[i] = 1;  // <- global_write: out of bounds
}

extern "C" __global__ void negative_index(const float* x, float* y, int n) {
  const int i = threadIdx.x;
  const float left = i > 0 || BUGGY ? x[i - 1] : 0;  // <- negative_index: out of bounds
  if (i < n) y[i] = left;
}

extern "C" __global__ void null_pointer(const float* x, float* y) {
  y[threadIdx.x] = x || BUGGY ? x[threadIdx.x] : 0;  // <- null_pointer: null pointer
}

extern "C" __global__ void uninitialised(float* y) {
  __shared__ float s[64];
  if (threadIdx.x < 64 - BUGGY) s[threadIdx.x] = 1;
  __syncthreads();
  y[threadIdx.x] = s[threadIdx.x];  // <- uninitialised: uninitialised
}

extern "C" __global__ void misaligned(const float* x, float* y) {
  const float4 v = *(const float4*)(x + 4 * threadIdx.x + BUGGY);  // <- misaligned: misaligned
  y[threadIdx.x] = v.x + v.y + v.z + v.w;
}

extern "C" __global__ void overflow(const float* x, float* y, int big) {
  const size_t at = BUGGY ? (size_t)(big * big) : (size_t)big * big;  // <- overflow: overflow
  y[threadIdx.x] = x[at % 7];
}

extern "C" __global__ void divided(int* y, int n) {
  y[threadIdx.x] = 64 / (n + (BUGGY ? 0 : 1));  // <- divided: division
}

extern "C" __global__ void shifted(int* y, int n) {
  y[threadIdx.x] = 1 << (n + 31 + BUGGY);  // <- shifted: shift
}

extern "C" __global__ void others_local(float* y) {
  __shared__ float* pointers[32];
  float mine[1] = {(float)threadIdx.x};
  pointers[threadIdx.x] = mine;
  __syncthreads();
  y[threadIdx.x] = *pointers[BUGGY ? 31 - threadIdx.x : threadIdx.x];  // <- others_local: local memory
}

extern "C" __global__ void endless(volatile int* flag, float* y) {
  while (BUGGY && *flag == 0) __nanosleep(100);  // <- endless: hang
  y[threadIdx.x] = 1;
}
