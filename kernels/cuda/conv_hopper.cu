// Rung 5: convolution by Hopper's copy engine and warpgroup products, forward and input gradient in one kernel.
//
// Symbols: N images, P Q output rows columns, K outputs (the channels of y), R S kernel rows columns, C input channels.
//
// A tile of the product is ROWS x 8 output pixels by FILTERS outputs. Its sum runs over steps of one tap and 128 bytes of
// input channels (CHUNK of them). For stride 1, the pixels that a tap (r, s) reads are again a ROWS x 8 box of the input map,
// shifted by the tap, so one box of a 4-D tensor map (channel, column, row, image) is the left factor, pixels by channels, and
// no im2col is needed. Boxes may begin left of or above the map: the border is filled with zeros.
//
//   y[n, p, q, k] = epilogue( sum over taps (r, s) and channels c of x[n, p + origin_h + r step_h, q + origin_w + s step_w, c] w )
//
//   forward          origin = -padding, step = dilation;   w[k, tap, c]: depth c is innermost (a K-major factor)
//   input gradient   origin = +padding, step = -dilation;  x is gy, its channels are filters. The weights in memory have the
//                    depth outermost, w[filter, tap, output]: an MN-major factor (TURNED=1). TF32 has no such thing; there
//                    the host gives a copy with filters innermost, and the kernel is the forward one (TURNED=0).
//
// Two sources: the channels of map 0, then those of map 1, as if they had been joined. By tap, for windows that touch without
// overlap (2x2 with stride 2): tap t has a map of its own, of every second pixel. With `by_tap` 1 it is the input's (forward),
// with 2 the output's: each tile belongs to one tap, nothing is summed over taps (transposed convolution).
//
// A block has three warpgroups. One thread of the first ("producer") fills a ring of STAGES stages by bulk loads; the other
// two ("consumers") multiply, each ROWS / 2 rows of pixels. full[s]: the loads of stage s have come in. empty[s]: all eight
// consumer warps are done with it. Blocks walk through the tiles with the grid as their stride; the producer is by then
// loading the next tile, while the consumers store theirs: registers, to a swizzled tile in shared memory, to a bulk store.
//
// Where there are few tiles, several blocks share the steps of one (`splits`), each writing its sum to
// parts[split][pixel][output]; a second kernel (conv_finish.cu) adds these up in order and applies the epilogue.
//
//@ variants: T=bf16 FILTERS=64; T=bf16 FILTERS=128; T=bf16 FILTERS=256; T=half FILTERS=64; T=half FILTERS=128; T=half FILTERS=256; T=float FILTERS=64; T=float FILTERS=128; T=float FILTERS=256; T=bf16 FILTERS=64 TURNED=1; T=bf16 FILTERS=128 TURNED=1; T=bf16 FILTERS=256 TURNED=1; T=half FILTERS=64 TURNED=1; T=half FILTERS=128 TURNED=1; T=half FILTERS=256 TURNED=1
//@ architectures: sm_90a
#include "hopper.cuh"

#ifndef T
#define T bf16
#endif
#ifndef FILTERS
#define FILTERS 128
#endif
#ifndef TURNED
#define TURNED 0
#endif

static constexpr int CHUNK = 128 / sizeof(T);            // channels of a step
static constexpr int ROWS = FILTERS == 64 ? 32 : 16;     // of pixels of a tile; a tile has 8 columns
static constexpr int HALVES = ROWS / 16;                 // 64-pixel pieces of a consumer
static constexpr int PIXEL_BYTES = ROWS * 8 * 128, STAGE_BYTES = PIXEL_BYTES + FILTERS * 128;
static constexpr int PIECE_BYTES = 64 * 128;             // 64 pixels by CHUNK outputs: what one bulk store takes
static constexpr int STAGES = FILTERS == 128 ? 6 : 4;
static constexpr int SHARED = STAGES * STAGE_BYTES + 4 * PIECE_BYTES + 2 * STAGES * 8 + 1024;
static_assert(SHARED <= 232448, "more shared memory than a block can have");
static constexpr int PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;
static_assert(128 * PRODUCER_REGISTERS + 256 * CONSUMER_REGISTERS <= 65536, "more registers than a multiprocessor has");

// The sizes that all threads need; made from the kernel's arguments.
struct Shape {
  int n, p, q, k, columns, taps, by_tap, chunks, splits;  // columns: S; chunks: steps of one tap
  int rows_of_tiles, columns_of_tiles, filter_tiles;

  __device__ int items() const { return n * rows_of_tiles * columns_of_tiles * filter_tiles * splits * (by_tap == 2 ? taps : 1); }
};

// One piece of work: a tile and a share of its steps.
struct Item {
  int image, p, q, filter, tap, split, first, last;  // p, q: of the tile's first pixel; tap: the output's, where by_tap is 2

  // Neighbouring numbers share their pixels: splits first, then filters, then taps.
  __device__ Item(const Shape& shape, int number) {
    split = number % shape.splits, number /= shape.splits;
    filter = number % shape.filter_tiles * FILTERS, number /= shape.filter_tiles;
    tap = 0;
    if (shape.by_tap == 2) tap = number % shape.taps, number /= shape.taps;
    q = number % shape.columns_of_tiles * 8, number /= shape.columns_of_tiles;
    p = number % shape.rows_of_tiles * ROWS, image = number / shape.rows_of_tiles;
    const int steps = shape.chunks * (shape.by_tap == 2 ? 1 : shape.taps);
    first = (int)((long long)steps * split / shape.splits), last = (int)((long long)steps * (split + 1) / shape.splits);
  }
};

// What becomes of a sum: + bias, ReLU, 0 where mask is not above 0. NaN stays NaN.
struct Epilogue {
  const float* bias;
  const T* mask;  // of y's shape, without gaps
  int relu;

  __device__ float operator()(float v, int k, long long at) const {
    if (bias) v += bias[k];
    if (relu && v < 0) v = 0;
    if (mask && !(to_float(mask[at]) > 0)) v = 0;
    return v;
  }
};

// Two neighbours of a row of a tile in shared memory, from channel `column` on, to their swizzled place.
static __device__ __forceinline__ void put(unsigned char* tile, int row, int column, float first, float second) {
  const int at = column * (int)sizeof(T);
  unsigned char* to = tile + row * 128 + ((at >> 4 ^ (row & 7)) << 4) + (at & 15);
  if constexpr (sizeof(T) == 2) {
    struct alignas(4) { T a, b; } both = {from_float<T>(first), from_float<T>(second)};
    *(decltype(both)*)to = both;
  } else {
    *(float2*)to = make_float2(first, second);
  }
}

//@ budget: registers 168, shared 0, needs HGMMA UTMALDG UTMASTG SYNCS
extern "C" __global__ void __launch_bounds__(384, 1)
    conv_hopper(const __grid_constant__ TensorMaps x, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMaps y,
                float* __restrict__ parts, const float* __restrict__ bias, const T* __restrict__ mask, int relu, int n, int p, int q,
                int k, int r, int s, int origin_h, int origin_w, int step_h, int step_w, int channels, int more_channels, int by_tap,
                int splits) {
  DYN_SMEM(unsigned char, raw);
  unsigned char* const ring = raw + (1024 - (shared_address(raw) & 1023)) % 1024;
  unsigned char* const pieces = ring + STAGES * STAGE_BYTES;
  Barrier* const full = (Barrier*)(pieces + 4 * PIECE_BYTES);
  Barrier* const empty = full + STAGES;
  const int first_chunks = (channels + CHUNK - 1) / CHUNK;
  const Shape shape = {n, p, q, k, s, r * s, by_tap, first_chunks + (more_channels + CHUNK - 1) / CHUNK, splits,
                       (p + ROWS - 1) / ROWS, (q + 7) / 8, (k + FILTERS - 1) / FILTERS};
  const int items = shape.items(), warpgroup = threadIdx.x / 128;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);
    }
    barrier_init_done();
  }
  __syncthreads();
  Ring<STAGES> at;
  if (warpgroup == 0) {  // the producer
    registers_fewer<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) {
      for (int number = blockIdx.x; number < items; number += gridDim.x) {
        const Item item(shape, number);
        for (int step = item.first; step < item.last; step++) {
          const int tap = by_tap == 2 ? item.tap : step / shape.chunks, chunk = step % shape.chunks;
          const int source = chunk >= first_chunks, c = (chunk - source * first_chunks) * CHUNK;
          const int depth = source ? channels + c : c;  // the weights' channel
          unsigned char* const pixels = ring + at.stage * STAGE_BYTES;
          unsigned char* const filters = pixels + PIXEL_BYTES;
          Barrier* const arrival = full + at.stage;
          barrier_wait(empty + at.stage, at.parity ^ 1);
          barrier_expect(arrival, STAGE_BYTES);
          if (by_tap == 1) {
            load_box(pixels, x.at + tap, arrival, c, item.q, item.p, item.image);
          } else {
            const int row = item.p + origin_h + (by_tap ? 0 : tap / s * step_h), column = item.q + origin_w + (by_tap ? 0 : tap % s * step_w);
            load_box(pixels, x.at + source, arrival, c, column, row, item.image);
          }
          if constexpr (TURNED) {
#pragma unroll
            for (int j = 0; j < FILTERS / 64; j++) load_box(filters + j * 64 * 128, &weight, arrival, item.filter + j * 64, tap, depth);
          } else {
            load_box(filters, &weight, arrival, depth, tap, item.filter);
          }
          at.advance();
        }
      }
    }
  } else {  // a consumer
    registers_more<CONSUMER_REGISTERS>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const Epilogue epilogue = {bias, mask, relu};
    // Where an output pixel lies among those of y; in its patch, where each tap makes pixels of its own.
    const auto pixel_of = [=](const Item& item, int row, int column) -> long long {
      if (by_tap != 2) return ((long long)item.image * p + row) * q + column;
      return (((long long)item.image * p + row) * r + item.tap / s) * q * s + column * s + item.tap % s;
    };
    unsigned char* const own = pieces + (warpgroup - 1) * 2 * PIECE_BYTES;
    int stored = 0;
    for (int number = blockIdx.x; number < items; number += gridDim.x) {
      const Item item(shape, number);
      float sums[HALVES][FILTERS / 2];
      int previous = -1;
      for (int step = item.first; step < item.last; step++) {
        const unsigned char* const pixels = ring + at.stage * STAGE_BYTES + (warpgroup - 1) * HALVES * 64 * 128;
        const unsigned char* const filters = ring + at.stage * STAGE_BYTES + PIXEL_BYTES;
        barrier_wait(full + at.stage, at.parity);
        wgmma_fence();
#pragma unroll
        for (int z = 0; z < 4; z++)
#pragma unroll
          for (int m = 0; m < HALVES; m++)
            wgmma<T, FILTERS, false, TURNED>(sums[m], k_major(pixels + m * 64 * 128 + z * 32),
                                             TURNED ? mn_major(filters + z * 16 * 128, 64 * 128) : k_major(filters + z * 32),
                                             step > item.first || z > 0);
        wgmma_commit();
        wgmma_wait<1>();  // the products of the step before are complete: its stage can be filled again
        if (previous >= 0 && lane == 0) barrier_arrive(empty + previous);
        previous = at.stage;
        at.advance();
      }
      wgmma_wait<0>();
      if (lane == 0) barrier_arrive(empty + previous);

#pragma unroll
      for (int m = 0; m < HALVES; m++) {
        const int top = item.p + ((warpgroup - 1) * HALVES + m) * 8;  // the piece's first row of pixels; a warp has two of them
        const int column = item.q + lane / 4;
        if (parts) {
#pragma unroll
          for (int i = 0; i < 2; i++) {
            const int row = top + 2 * warp + i;
            float* const to = parts + (((long long)(item.split * n + item.image) * p + row) * q + column) * k;
#pragma unroll
            for (int j = 0; j < FILTERS / 8; j++) {
              const int output = item.filter + j * 8 + lane % 4 * 2;
              if (row < p && column < q && output < k) *(float2*)(to + output) = make_float2(sums[m][j * 4 + i * 2], sums[m][j * 4 + i * 2 + 1]);
            }
          }
        } else {
#pragma unroll
          for (int piece = 0; piece < FILTERS / CHUNK; piece++) {
            unsigned char* const tile = own + (stored++ & 1) * PIECE_BYTES;
            if (threadIdx.x % 128 == 0) store_wait<1>();  // the store before the last one has read its tile, which is this
            warpgroup_sync(warpgroup);
#pragma unroll
            for (int i = 0; i < 2; i++) {
              const int row = top + 2 * warp + i;
              const long long pixel = pixel_of(item, row, column) * k;
#pragma unroll
              for (int j = 0; j < CHUNK / 8; j++) {
                const int from = (piece * CHUNK / 8 + j) * 4 + i * 2, output = item.filter + piece * CHUNK + j * 8 + lane % 4 * 2;
                float first = 0, second = 0;  // outside of the map: not stored
                if (row < p && column < q && output < k) {
                  first = epilogue(sums[m][from], output, pixel + output);
                  second = epilogue(sums[m][from + 1], output + 1, pixel + output + 1);
                }
                put(tile, 16 * warp + 8 * i + lane / 4, j * 8 + lane % 4 * 2, first, second);
              }
            }
            proxy_fence();
            warpgroup_sync(warpgroup);
            if (threadIdx.x % 128 == 0) {
              if (top < p && item.filter + piece * CHUNK < k)
                store_box(y.at + item.tap, tile, item.filter + piece * CHUNK, item.q, top, item.image);
              store_commit();
            }
          }
        }
      }
    }
    if (threadIdx.x % 128 == 0) store_wait<0>();  // shared memory must outlive the stores' reading
  }
}
