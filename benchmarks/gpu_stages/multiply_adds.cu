// Multiply-adds and nothing else: every thread keeps eight independent sums x = x * factor + term in registers.
//@ budget: registers 32, shared 0, needs FFMA
extern "C" __global__ void __launch_bounds__(256) multiply_adds(float* y, float factor, float term, int rounds) {
  float x[8];
#pragma unroll
  for (int i = 0; i < 8; i++) x[i] = (float)(threadIdx.x + i);
#pragma unroll 16
  for (int step = 0; step < rounds; step++)
#pragma unroll
    for (int i = 0; i < 8; i++) x[i] = x[i] * factor + term;
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < 8; i++) sum += x[i];
  if (blockIdx.x == 0) y[threadIdx.x] = sum;  // all blocks compute the same; one writes
}
