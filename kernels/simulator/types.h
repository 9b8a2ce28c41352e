// Keywords and built-in types of CUDA C++.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

// __global__, __launch_bounds__ and __shared__ stay in the preprocessed text, where the builder
// (minitorch_unet/simulator/build.py) finds the kernels by them and then replaces them. A shared array becomes a static
// variable: one block runs at a time, so one copy serves all.
#define __device__
#define __host__
#define __constant__ static
#define __managed__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_ARCH__ 900

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// A vector of 2 or 4 is aligned to its size as on the GPU, where it moves in one instruction; of 3 only to its element.
#define CUSIM_VECTOR(T, NAME)                                              \
  struct NAME##1 { T x; };                                                 \
  struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                       \
  struct NAME##3 { T x, y, z; };                                           \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) NAME##4 { T x, y, z, w; }; \
  static inline NAME##1 make_##NAME##1(T x) { return {x}; }                \
  static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }        \
  static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; } \
  static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUSIM_VECTOR(signed char, char)
CUSIM_VECTOR(unsigned char, uchar)
CUSIM_VECTOR(short, short)
CUSIM_VECTOR(unsigned short, ushort)
CUSIM_VECTOR(int, int)
CUSIM_VECTOR(unsigned, uint)
CUSIM_VECTOR(long long, longlong)
CUSIM_VECTOR(unsigned long long, ulonglong)
CUSIM_VECTOR(float, float)
CUSIM_VECTOR(double, double)
#undef CUSIM_VECTOR

// A thread's index does not change while it lives, so the compiler may ask once and keep the answer (attribute const).
namespace cusim {
__attribute__((const)) uint3 thread_index();
__attribute__((const)) uint3 block_index();
__attribute__((const)) dim3 block_dim();
__attribute__((const)) dim3 grid_dim();
}  // namespace cusim
#define threadIdx (cusim::thread_index())
#define blockIdx (cusim::block_index())
#define blockDim (cusim::block_dim())
#define gridDim (cusim::grid_dim())
static constexpr int warpSize = 32;
