// What blocks do to each other.

extern "C" __global__ void one_word(float* y) {
  if (threadIdx.x) return;
  if (BUGGY) *y += 1;  // <- one_word: race
  else atomicAdd(y, 1.0f);
}

extern "C" __global__ void halo(float* x, float* y, int n) {  // in place instead of from x to y
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  const float sum = x[i] + (i + 1 < n ? x[i + 1] : 0);
  __syncthreads();
  (BUGGY ? x : y)[i] = sum;  // <- halo: race
}

// The last block to come adds up what all have written: it must not see its ticket before the others' results.
extern "C" __global__ void last_block(const float* x, float* part, float* sum, unsigned* ticket) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    part[blockIdx.x] = x[blockIdx.x];
    if (!BUGGY) __threadfence();
    last = atomicAdd(ticket, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || threadIdx.x) return;
  float all = 0;
  for (int i = 0; i < gridDim.x; i++) all += part[i];  // <- last_block: race
  *sum = all;
}

extern "C" __global__ void mixed(int* count, int* y) {  // atomic and plain accesses to one word
  __shared__ int n;
  if (threadIdx.x == 0) n = 0;
  if (!BUGGY) __syncthreads();
  atomicAdd(&n, 1);  // <- mixed: race
  __syncthreads();
  y[threadIdx.x] = n;
}
