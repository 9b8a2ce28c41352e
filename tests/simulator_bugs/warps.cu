// Warp operations that not all named lanes come to, and lanes that rely on moving together.

extern "C" __global__ void missing_syncwarp(float* y) {
  __shared__ float s[32];
  s[threadIdx.x] = threadIdx.x;  // <- missing_syncwarp: race
  if (!BUGGY) __syncwarp();
  y[threadIdx.x] = s[31 - threadIdx.x];
}

extern "C" __global__ void diverged(float* y) {
  float v = 1;
  if (threadIdx.x < 16 || !BUGGY)
    v = __shfl_xor_sync(0xffffffffu, v, 1);
  else
    v = (float)__ballot_sync(0xffffffffu, 1);  // <- diverged: warp
  y[threadIdx.x] = v;
}

extern "C" __global__ void not_in_mask(float* y) {
  const unsigned mask = BUGGY ? 0x0000ffffu : 0xffffffffu;
  y[threadIdx.x] = __shfl_down_sync(mask, 1.0f, 1);  // <- not_in_mask: warp
}

extern "C" __global__ void inactive_source(float* y) {
  if (BUGGY && threadIdx.x % 2) return;
  y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (float)threadIdx.x, 1);  // <- inactive_source: warp
}

extern "C" __global__ void half_the_lanes(float* y) {
  if (threadIdx.x < 16 || !BUGGY) __syncwarp();
  y[threadIdx.x] = 1;
  __syncthreads();  // <- half_the_lanes: warp
}

extern "C" __global__ void bad_width(float* y) {
  y[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 0, BUGGY ? 12 : 16);  // <- bad_width: warp
}
