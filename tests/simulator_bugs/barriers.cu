// Barriers that are missing, or that not all threads come to. BUGGY is 0 or 1; "<- kind" marks the line to be reported.

// C = A B of (n, n) row-major matrices by tiles of 16x16; n may be any number
static __device__ void product(const float* a, const float* b, float* c, int n, bool before, bool after) {
  __shared__ float ta[16][16], tb[16][16];
  const int tx = threadIdx.x, ty = threadIdx.y;
  const int row = blockIdx.y * 16 + ty, column = blockIdx.x * 16 + tx;
  float sum = 0;
  for (int k0 = 0; k0 < n; k0 += 16) {
    ta[ty][tx] = row < n && k0 + tx < n ? a[row * n + k0 + tx] : 0;  // <- product_before: race
    tb[ty][tx] = column < n && k0 + ty < n ? b[(k0 + ty) * n + column] : 0;
    if (before) __syncthreads();
    for (int k = 0; k < 16; k++) sum += ta[ty][k] * tb[k][tx];  // <- product_after: race
    if (after) __syncthreads();
  }
  if (row < n && column < n) c[row * n + column] = sum;
}
extern "C" __global__ void product_before(const float* a, const float* b, float* c, int n) { product(a, b, c, n, !BUGGY, true); }
extern "C" __global__ void product_after(const float* a, const float* b, float* c, int n) { product(a, b, c, n, true, !BUGGY); }

// Two buffers in turn, one barrier a round: enough. With one buffer it is not.
extern "C" __global__ void double_buffer(const float* x, float* y, int rounds) {
  __shared__ float buffer[2][64];
  const int t = threadIdx.x;
  float sum = 0;
  for (int i = 0; i < rounds; i++) {
    float* stage = buffer[BUGGY ? 0 : i % 2];
    stage[t] = x[i * 64 + t];
    __syncthreads();
    sum += stage[63 - t];  // <- double_buffer: race
  }
  y[t] = sum;
}

extern "C" __global__ void divergent_barrier(float* y) {
  if (threadIdx.x < 40 || !BUGGY)
    __syncthreads();
  else
    __syncthreads();  // <- divergent_barrier: barrier
  y[threadIdx.x] = 1;
}

extern "C" __global__ void half_a_warp(float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = 1;
  if (threadIdx.x % 2 == 0 || !BUGGY) __syncthreads();  // <- half_a_warp: barrier
  y[threadIdx.x] = s[63 - threadIdx.x];
}

extern "C" __global__ void early_return(float* y, int n) {
  if (BUGGY && threadIdx.x >= n) return;
  __shared__ float s[64];
  s[threadIdx.x] = 1;
  __syncthreads();  // <- early_return: barrier
  if (threadIdx.x < n) y[threadIdx.x] = s[n - 1 - threadIdx.x];
}
