// What the kernels share that go once through maps: 16-byte accesses, each thread's share of the work, sums over a block.
//
// A map (N, C, H, W) lies channels-last, perhaps cropped from a larger one: element (n, h, w, c) is n * image + h * row +
// w * pixel + c elements from its beginning. A kernel is told of one shape for all its maps, images x rows x columns pixels
// of `channels`, in which the caller has merged the axes that follow one another in memory: a batch of dense maps is one
// row of pixels. A thread serves V neighbouring channels, V values filling 16 bytes where all maps allow it ("wide"), else 1.
#pragma once
#include "primitives.cuh"

#define DEVICE static __device__ __forceinline__

constexpr int THREADS = 256;  // of every block

// N neighbouring values, read or written by one instruction; the address must be a multiple of their size.
template <class Type, int N> struct alignas(sizeof(Type) * N) Pack {
  Type value[N];
};

template <int N, class Type> DEVICE void load(const Type* from, float (&v)[N]) {
  Pack<Type, N> pack = *reinterpret_cast<const Pack<Type, N>*>(from);
#pragma unroll
  for (int i = 0; i < N; i++) v[i] = to_float(pack.value[i]);
}

template <int N, class Type> DEVICE void store(Type* to, const float (&v)[N]) {
  Pack<Type, N> pack;
#pragma unroll
  for (int i = 0; i < N; i++) pack.value[i] = from_float<Type>(v[i]);
  *reinterpret_cast<Pack<Type, N>*>(to) = pack;
}

// How far a map's neighbours lie apart, in elements.
struct Strides {
  long long image, row;
  int pixel;
};

// Which pixels and channels a thread serves. Grid: (pieces of an image's pixels, tiles of its channels, images). Within a
// block, neighbouring threads serve the channels of one pixel (2^lane_bits of them), then those of the next.
struct Share {
  unsigned first, last, step;  // pixels first, first + step, ... below last
  unsigned columns;
  int channel;

  // Offset of the pixel, and of this thread's channels, in a map.
  __device__ long long at(unsigned pixel, const Strides& map) const {
    unsigned row = 0;
    if (columns <= pixel) {  // never true for maps of one row, which then cost no division
      row = pixel / columns;
      pixel -= row * columns;
    }
    return blockIdx.z * map.image + row * map.row + (long long)pixel * map.pixel + channel;
  }
};

template <int V> DEVICE Share share_of_thread(int lane_bits, int pixels_per_block, int pixels, int columns, int channels) {
  unsigned lane = threadIdx.x & ((1u << lane_bits) - 1);
  unsigned begin = blockIdx.x * (unsigned)pixels_per_block;
  Share share;
  share.columns = columns;
  share.step = THREADS >> lane_bits;
  share.first = begin + (threadIdx.x >> lane_bits);
  share.last = min(begin + (unsigned)pixels_per_block, (unsigned)pixels);
  share.channel = (int)((blockIdx.y << lane_bits) + lane) * V;
  if (share.channel >= channels) share.last = 0;  // a lane beyond the last channel: no work, but it reaches every barrier
  return share;
}

// The sums over all threads of a block that serve the same channels, given to those of the first pixel (threadIdx.x <
// 2^lane_bits). In a fixed order, so that a result never changes. room: V * THREADS values of shared memory, free again
// on return.
template <int V> DEVICE void sum_over_pixels(double (&v)[V], double* room, int lane_bits) {
  unsigned thread = threadIdx.x;
#pragma unroll
  for (int i = 0; i < V; i++) room[i * THREADS + thread] = v[i];
  __syncthreads();
  for (unsigned half = THREADS / 2; half >> lane_bits; half >>= 1) {
    if (thread < half) {
#pragma unroll
      for (int i = 0; i < V; i++) room[i * THREADS + thread] += room[i * THREADS + thread + half];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = room[i * THREADS + thread];
  __syncthreads();
}

// Sums over the first index of parts[count][size] for the `lane`-th of 32 neighbouring columns, the parts dealt out to the
// warps; the result is warp 0's. To be launched with one block of THREADS for 32 columns. room: THREADS values.
DEVICE double sum_of_parts(const double* parts, int count, long long size, long long column, double* room) {
  double total[1] = {0};
  if (column < size)
    for (int part = threadIdx.x >> 5; part < count; part += THREADS / 32) total[0] += parts[part * size + column];
  sum_over_pixels<1>(total, room, 5);
  return total[0];
}
