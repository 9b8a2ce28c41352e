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
// Taps of one column share a box (`share` = R of them): a box that is taller by (R - 1) |step_h| rows holds the pixels of
// each, since one row of 8 pixels further down is 8 * 128 = 1024 bytes further on, where the swizzle begins anew. That fetches
// a third of the pixels for 3 x 3 taps; and it is fetching, from the L2 cache, that limits this kernel: 32 x 8 pixels by 128
// outputs need (34 / 3 + 16) KiB for each 1024 cycles of the tensor cores. Where the taps reach further than HALO, share is 1.
//
// Two sources: the channels of map 0, then those of map 1, as if they had been joined. By tap, for windows that touch without
// overlap (2x2 with stride 2): tap t has a map of its own, of every second pixel. With `by_tap` 1 it is the input's (forward),
// with 2 the output's: each tile belongs to one tap, nothing is summed over taps (transposed convolution).
//
// A block has three warpgroups. One thread of the first ("producer") fills two rings by bulk loads, one of boxes of pixels and
// one of filters; the other two ("consumers") multiply, each ROWS / 2 rows of pixels. full: the loads of a stage have come in.
// empty: all eight consumer warps are done with it. Blocks walk through the tiles with the grid as their stride; the producer
// is by then loading the next tile, while the consumers store theirs: registers, to a swizzled tile in shared memory, to a
// bulk store. With FILTERS=64 two blocks share a multiprocessor: one multiplies while the other stores.
//
// Where there are few tiles, several blocks share the groups of steps of one (`splits`), each writing its sum to
// parts[split][pixel][output]; a second kernel (conv_finish.cu) adds these up in order and applies the epilogue.
//
//@ variants: T=bf16 FILTERS=64 ROWS=32; T=bf16 FILTERS=128 ROWS=16; T=bf16 FILTERS=128 ROWS=32; T=half FILTERS=128 ROWS=32; T=float FILTERS=64 ROWS=32; T=float FILTERS=128 ROWS=16; T=float FILTERS=128 ROWS=32; T=bf16 FILTERS=64 ROWS=32 TURNED=1; T=bf16 FILTERS=128 ROWS=16 TURNED=1; T=bf16 FILTERS=128 ROWS=32 TURNED=1; T=half FILTERS=64 ROWS=32 TURNED=1
//@ architectures: sm_90a
#include "hopper.cuh"

#ifndef T
#define T bf16
#endif
#ifndef FILTERS
#define FILTERS 128
#endif
#ifndef ROWS
#define ROWS 16
#endif
#ifndef TURNED
#define TURNED 0
#endif

static constexpr int CHUNK = 128 / sizeof(T);  // channels of a step
static constexpr int HALVES = ROWS / 16;       // 64-pixel pieces of a consumer
static constexpr int HALO = 2;                 // rows that a shared box may be taller
static constexpr int BOX_BYTES = (ROWS + HALO) * 8 * 128, FILTER_BYTES = FILTERS * 128;
static constexpr int PIECE_BYTES = 64 * 128;   // 64 pixels by CHUNK outputs: what one bulk store takes
static constexpr int BOXES = FILTERS == 64 ? 2 : ROWS == 32 ? 3 : 4, STAGES = FILTERS == 64 ? 3 : ROWS == 32 ? 5 : 6;
static constexpr int PIECES = FILTERS == 64 ? 1 : 2;  // of a consumer: tiles on their way out
static constexpr int BLOCKS = FILTERS == 64 ? 2 : 1;  // that share a multiprocessor
static constexpr int BARRIER_BYTES = 256, ALIGNMENT = 1024 + 128;  // what both take at most: DYN_SMEM is aligned to 128
static_assert(2 * (BOXES + STAGES) * sizeof(Barrier) <= BARRIER_BYTES, "more barriers than there is room for");
static constexpr int SHARED = ALIGNMENT + BOXES * BOX_BYTES + STAGES * FILTER_BYTES + 2 * PIECES * PIECE_BYTES;
static_assert(BLOCKS * (SHARED + 1024) <= 233472, "more shared memory than a multiprocessor has");
// A block has what its threads begin with; from that the consumers get what the producer gives up, or wait for ever.
static constexpr int REGISTERS = BLOCKS == 2 ? 80 : 168, PRODUCER_REGISTERS = BLOCKS == 2 ? 32 : 40;
static constexpr int CONSUMER_REGISTERS = BLOCKS == 2 ? 104 : 232;
static_assert(128 * PRODUCER_REGISTERS + 256 * CONSUMER_REGISTERS <= 384 * REGISTERS, "more registers than the block has");

// The sizes that all threads need; made from the kernel's arguments.
struct Shape {
  int n, p, q, k, taps, by_tap, chunks, groups, splits;  // chunks: of 128 bytes of channels; groups: of taps that share a box
  int rows_of_tiles, columns_of_tiles, filter_tiles;

  __device__ int items() const { return n * rows_of_tiles * columns_of_tiles * filter_tiles * splits * (by_tap == 2 ? taps : 1); }
};

// One piece of work: a tile and a share of its boxes.
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
    const long long boxes = shape.chunks * shape.groups;
    first = (int)(boxes * split / shape.splits), last = (int)(boxes * (split + 1) / shape.splits);
  }
};

// What becomes of a sum: + bias, ReLU, 0 where mask is not above 0. NaN stays NaN.
struct Epilogue {
  const float* bias;
  const T* mask;  // of y's shape, without gaps
  int relu;

  __device__ float operator()(float v, float b, long long at) const {
    v += b;
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
    *(unsigned*)to = pack2<T>(first, second);
  } else {
    *(float2*)to = make_float2(first, second);
  }
}

//@ budget: registers 168, shared 0, needs HGMMA UTMALDG UTMASTG SYNCS
extern "C" __global__ void __launch_bounds__(384, BLOCKS)
    conv_hopper(const __grid_constant__ TensorMaps x, const __grid_constant__ TensorMap weight, const __grid_constant__ TensorMaps y,
                float* __restrict__ parts, const float* __restrict__ bias, const T* __restrict__ mask, int relu, int n, int p, int q,
                int k, int r, int s, int origin_h, int origin_w, int step_h, int step_w, int channels, int more_channels, int share,
                int by_tap, int splits) {
  DYN_SMEM(unsigned char, raw);
  Barrier* const full_boxes = (Barrier*)raw;
  Barrier* const empty_boxes = full_boxes + BOXES;
  Barrier* const full = empty_boxes + BOXES;
  Barrier* const empty = full + STAGES;
  unsigned char* const boxes = raw + BARRIER_BYTES + (1024 - ((shared_address(raw) + BARRIER_BYTES) & 1023)) % 1024;
  unsigned char* const stages = boxes + BOXES * BOX_BYTES;
  unsigned char* const pieces = stages + STAGES * FILTER_BYTES;
  const int first_chunks = (channels + CHUNK - 1) / CHUNK, taps = r * s;
  const Shape shape = {n, p, q, k, taps, by_tap, first_chunks + (more_channels + CHUNK - 1) / CHUNK, by_tap == 2 ? 1 : taps / share,
                       splits, (p + ROWS - 1) / ROWS, (q + 7) / 8, (k + FILTERS - 1) / FILTERS};
  const int items = shape.items(), warpgroup = warpgroup_index();
  const int rows_down = share > 1 ? step_h : 0;  // in a box, from one of its taps to the next
  if (threadIdx.x == 0) {
    for (int i = 0; i < BOXES; i++) {
      barrier_init(full_boxes + i, 1);
      barrier_init(empty_boxes + i, 8);
    }
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);
    }
    barrier_init_done();
  }
  __syncthreads();
  Ring<BOXES> box;
  Ring<STAGES> at;
  if (warpgroup == 0) {  // the producer
    registers_fewer<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) {
      const int box_bytes = (ROWS + (share - 1) * abs(step_h)) * 8 * 128;
      const int box_top = min(0, (share - 1) * rows_down);
      for (int number = blockIdx.x; number < items; number += gridDim.x) {
        const Item item(shape, number);
        for (int group = item.first; group < item.last; group++) {
          const int chunk = group / shape.groups, member = group % shape.groups;  // member: a column of taps, or a tap
          const int source = chunk >= first_chunks, c = (chunk - source * first_chunks) * CHUNK;
          const int depth = source ? channels + c : c;  // the weights' channel
          barrier_wait(empty_boxes + box.stage, box.parity ^ 1);
          barrier_expect(full_boxes + box.stage, box_bytes);
          if (by_tap) {
            load_box(boxes + box.stage * BOX_BYTES, x.at + (by_tap == 1 ? member : 0), full_boxes + box.stage, c, item.q, item.p, item.image);
          } else {
            const int row = item.p + origin_h + (share > 1 ? box_top : member / s * step_h);
            const int column = item.q + origin_w + (share > 1 ? member : member % s) * step_w;
            load_box(boxes + box.stage * BOX_BYTES, x.at + source, full_boxes + box.stage, c, column, row, item.image);
          }
          box.advance();
          for (int i = 0; i < share; i++) {
            const int tap = by_tap == 2 ? item.tap : share > 1 ? i * s + member : member;
            unsigned char* const filters = stages + at.stage * FILTER_BYTES;
            Barrier* const arrival = full + at.stage;
            barrier_wait(empty + at.stage, at.parity ^ 1);
            barrier_expect(arrival, FILTER_BYTES);
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
    }
  } else {  // a consumer
    registers_more<CONSUMER_REGISTERS>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const Epilogue epilogue = {bias, mask, relu};
    unsigned char* const own = pieces + (warpgroup - 1) * PIECES * PIECE_BYTES;
    int stored = 0;
    for (int number = blockIdx.x; number < items; number += gridDim.x) {
      const Item item(shape, number);
      float sums[HALVES][FILTERS / 2];
      int previous = -1, previous_box = -1, accumulate = 0;
      for (int group = item.first; group < item.last; group++) {
        const unsigned char* const corner = boxes + box.stage * BOX_BYTES + (warpgroup - 1) * HALVES * 64 * 128;
        barrier_wait(full_boxes + box.stage, box.parity);
        for (int i = 0; i < share; i++) {
          const unsigned long long pixels = k_major(corner + (rows_down < 0 ? (i + 1 - share) * rows_down : i * rows_down) * 8 * 128);
          const unsigned char* const tile = stages + at.stage * FILTER_BYTES;
          const unsigned long long filters = TURNED ? mn_major(tile, 64 * 128) : k_major(tile);
          barrier_wait(full + at.stage, at.parity);
          wgmma_fence();
#pragma unroll
          for (int z = 0; z < 4; z++) {
#pragma unroll
            for (int m = 0; m < HALVES; m++)
              wgmma<T, FILTERS, false, TURNED>(sums[m], advanced(pixels, m * 64 * 128 + z * 32), advanced(filters, z * (TURNED ? 16 * 128 : 32)),
                                               accumulate);
            accumulate = 1;
          }
          wgmma_commit();
          wgmma_wait<1>();  // the products of the step before are complete: its stage can be filled again
          if (previous >= 0 && lane == 0) barrier_arrive(empty + previous);
          if (previous_box >= 0 && lane == 0) barrier_arrive(empty_boxes + previous_box);
          previous = at.stage;
          previous_box = i == share - 1 ? box.stage : -1;
          at.advance();
        }
        box.advance();
      }
      wgmma_wait<0>();
      if (lane == 0) {
        barrier_arrive(empty + previous);
        barrier_arrive(empty_boxes + previous_box);
      }

#pragma unroll
      for (int m = 0; m < HALVES; m++) {
        const int top = item.p + ((warpgroup - 1) * HALVES + m) * 8;  // the piece's first row of pixels; a warp has two of them
        const int column = item.q + lane / 4;
        long long pixel[2];  // among those of y
        bool inside[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int row = top + 2 * warp + i;
          inside[i] = row < p && column < q;
          pixel[i] = ((long long)item.image * p + row) * q + column;
          if (by_tap == 2) pixel[i] = (((long long)item.image * p + row) * r + item.tap / s) * q * s + column * s + item.tap % s;
        }
        if (parts) {
          float* const part = parts + (long long)item.split * n * p * q * k;
#pragma unroll
          for (int j = 0; j < FILTERS / 8; j++) {
            const int output = item.filter + j * 8 + lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < 2; i++)
              if (inside[i] && output < k) *(float2*)(part + pixel[i] * k + output) = make_float2(sums[m][j * 4 + i * 2], sums[m][j * 4 + i * 2 + 1]);
          }
        } else {
#pragma unroll
          for (int piece = 0; piece < FILTERS / CHUNK; piece++) {
            unsigned char* const tile = own + stored % PIECES * PIECE_BYTES;
            stored++;
            if (threadIdx.x % 128 == 0) store_wait<PIECES - 1>();  // the store that took its values from this tile has read them
            warpgroup_sync(warpgroup);
#pragma unroll
            for (int j = 0; j < CHUNK / 8; j++) {
              const int from = (piece * CHUNK / 8 + j) * 4, output = item.filter + piece * CHUNK + j * 8 + lane % 4 * 2;
              const bool there = output < k;
              const float2 b = bias && there ? *(const float2*)(bias + output) : make_float2(0, 0);
#pragma unroll
              for (int i = 0; i < 2; i++) {
                float first = 0, second = 0;  // outside of the map: not stored
                if (there && inside[i]) {
                  first = epilogue(sums[m][from + i * 2], b.x, pixel[i] * k + output);
                  second = epilogue(sums[m][from + i * 2 + 1], b.y, pixel[i] * k + output + 1);
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
