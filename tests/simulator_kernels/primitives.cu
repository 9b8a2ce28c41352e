// The primitives one by one, for tests/test_simulator_primitives.py.
#include "primitives.cuh"

// Element is half or bf16 by the macro T.
extern "C" __global__ void convert(const float* x, T* packed, float* back, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  packed[i] = from_float<T>(x[i]);
  back[i] = to_float(packed[i]);
}
extern "C" __global__ void widen(const T* x, float* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = to_float(x[i]);
}
extern "C" __global__ void pack(const float* x, unsigned* packed, float* back) {
  const int i = threadIdx.x;
  packed[i] = pack2<T>(x[2 * i], x[2 * i + 1]);
  unpack2<T>(packed[i], back[2 * i], back[2 * i + 1]);
}
extern "C" __global__ void round_tf32(const float* x, unsigned* y, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = to_tf32(x[i]);
}

// c (16, 8) += a (16, 16) b (16, 8), all row-major; fragments gathered by the definition, without ldmatrix
extern "C" __global__ void product(const T* a, const T* b, float* c) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  const auto both = [](T low, T high) { return (unsigned)low.bits | (unsigned)high.bits << 16; };
  unsigned fa[4], fb[2];
  for (int i = 0; i < 4; i++) {
    const T* p = a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
    fa[i] = both(p[0], p[1]);
  }
  for (int i = 0; i < 2; i++) {
    const T* p = b + (2 * t + i * 8) * 8 + g;
    fb[i] = both(p[0], p[8]);
  }
  float sum[4];
  for (int i = 0; i < 4; i++) sum[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_m16n8k16<T>(sum, fa, fb);
  for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}
// c (16, 8) += a (16, 8) b (8, 8)
extern "C" __global__ void product_tf32(const float* a, const float* b, float* c, int rounded) {
  const int g = threadIdx.x / 4, t = threadIdx.x % 4;
  unsigned fa[4], fb[2];
  for (int i = 0; i < 4; i++) {
    const float v = a[(g + i % 2 * 8) * 8 + t + i / 2 * 4];
    fa[i] = rounded ? to_tf32(v) : __float_as_uint(v);
  }
  for (int i = 0; i < 2; i++) {
    const float v = b[(t + i * 4) * 8 + g];
    fb[i] = rounded ? to_tf32(v) : __float_as_uint(v);
  }
  float sum[4];
  for (int i = 0; i < 4; i++) sum[i] = c[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  mma_m16n8k8_tf32(sum, fa, fb);
  for (int i = 0; i < 4; i++) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sum[i];
}

// The registers of every lane: out (32, 4), from count matrices of 8x8
extern "C" __global__ void matrices(const unsigned short* x, unsigned* out, int count, int transposed) {
  DYN_SMEM(unsigned short, s);
  for (int i = threadIdx.x; i < count * 64; i += 32) s[i] = x[i];
  __syncwarp();
  unsigned four[4] = {}, two[2] = {};
  const unsigned short* row = s + threadIdx.x % (8 * count) * 8;
  if (count == 4) {
    if (transposed) ldmatrix_x4<true>(four, row);
    else ldmatrix_x4<false>(four, row);
  } else {
    if (transposed) ldmatrix_x2<true>(two, row);
    else ldmatrix_x2<false>(two, row);
    four[0] = two[0];
    four[1] = two[1];
  }
  for (int i = 0; i < 4; i++) out[threadIdx.x * 4 + i] = four[i];
}

// Copies of 4, 8 and 16 bytes; those of odd threads are not ok and give zeros
extern "C" __global__ void copies(const float* x, float* y) {
  DYN_SMEM(float, s);
  const int t = threadIdx.x;
  const bool ok = t % 2 == 0;
  cp_async4(s + t, x + t, ok);
  cp_async8(s + 32 + 2 * t, x + 32 + 2 * t, ok);
  cp_async16(s + 96 + 4 * t, x + 96 + 4 * t, ok);
  cp_async_commit();
  cp_async_wait<0>();
  __syncthreads();
  for (int i = t; i < 224; i += 32) y[i] = s[i];
}
