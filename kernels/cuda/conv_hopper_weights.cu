// Rung 5: the gradient of a convolution's weights, by Hopper's copy engine and warpgroup products. 16-bit maps only.
//
// Symbols: N images, C input channels, K filters, P Q output rows columns, R S kernel rows columns.
//
//   gw[k, r, s, c] = sum over n, p, q of gy[n, p, q, k] x[n, p + origin_h + r step_h, q + origin_w + s step_w, c]
//
// The product of filters by columns, a column being a tap and a channel, summed over pixels. Its factors lie in memory with
// what is summed over outermost, as rows of channels per pixel: both are MN-major (hopper.cuh), and again neither is
// rearranged. A step of the sum is a box of 8 x 8 pixels of gy, and for each tap the box of x shifted by it; border and
// rest of the map come as zeros, in gy at the least, so that they add nothing.
//
// A block makes FILTERS filters by three blocks of 64 columns. For kernels of three rows these are the taps of one column
// (`share`): their boxes overlap, and one box of 8 + 2 step_h rows holds all three. A row of 8 pixels further down is 1024
// bytes further on in it, and so is, for the product, the next block. Other kernels' blocks are numbered tap by tap, and
// have boxes of their own. Each of the two consumers has 64 filters. With FILTERS=64 both have the same, one the upper half of
// each box of pixels, one the lower: they make two sums.
//
// The pixels are split over blocks (and those two halves): part `split` of the sum goes to out + split * part_stride, and
// conv_finish.cu adds the parts up in order. With a single part, `out` is the gradient itself. `by_tap`: see conv_hopper.cu.
//
//@ variants: T=bf16 FILTERS=64; T=bf16 FILTERS=128; T=half FILTERS=64; T=half FILTERS=128
//@ architectures: sm_90a
#include "hopper.cuh"

#ifndef T
#define T bf16
#endif
#ifndef FILTERS
#define FILTERS 128
#endif

static constexpr int TILE_BYTES = 64 * 128;  // 64 pixels by 64 channels
static constexpr int OWN = FILTERS / 64, BLOCKS = 3, STAGE_BYTES = (OWN + BLOCKS) * TILE_BYTES;
static constexpr int STAGES = FILTERS == 64 ? 6 : 5;
static constexpr int BARRIER_BYTES = 256, ALIGNMENT = 1024 + 128;  // what both take at most: DYN_SMEM is aligned to 128
static constexpr int SHARED = ALIGNMENT + STAGES * STAGE_BYTES;
static_assert(SHARED <= 232448, "more shared memory than a block can have");
static constexpr int REGISTERS = 168, PRODUCER_REGISTERS = 40, CONSUMER_REGISTERS = 232;  // see conv_hopper.cu
static_assert(128 * PRODUCER_REGISTERS + 256 * CONSUMER_REGISTERS <= 384 * REGISTERS, "more registers than the block has");

//@ budget: registers 168, shared 0, needs HGMMA UTMALDG SYNCS
extern "C" __global__ void __launch_bounds__(384, 1)
    conv_hopper_weights(const __grid_constant__ TensorMap gy, const __grid_constant__ TensorMaps x, float* __restrict__ out, int n,
                        int p, int q, int k, int c, int r, int s, int origin_h, int origin_w, int step_h, int step_w, int share,
                        int by_tap, int splits, long long part_stride, int filter_stride, int tap_stride) {
  DYN_SMEM(unsigned char, raw);
  Barrier* const full = (Barrier*)raw;
  Barrier* const empty = full + STAGES;
  unsigned char* const ring = raw + BARRIER_BYTES + (1024 - ((shared_address(raw) + BARRIER_BYTES) & 1023)) % 1024;
  const int warpgroup = warpgroup_index();
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 8);
    }
    barrier_init_done();
  }
  // Which filters and columns: neighbouring blocks share gy, and nearly the same pixels of x.
  const int blocks_per_tap = (c + 63) / 64, blocks = blocks_per_tap * (share ? s : r * s);
  const int column_tiles = share ? blocks : (blocks + BLOCKS - 1) / BLOCKS, filter_tiles = (k + FILTERS - 1) / FILTERS;
  const int first_block = blockIdx.x % column_tiles * (share ? 1 : BLOCKS);
  const int filter = blockIdx.x / column_tiles % filter_tiles * FILTERS, split = blockIdx.x / column_tiles / filter_tiles;
  // Which pixels.
  const int rows_of_tiles = (p + 7) / 8, columns_of_tiles = (q + 7) / 8;
  const long long tiles = (long long)n * rows_of_tiles * columns_of_tiles;
  const int first = (int)(tiles * split / splits), last = (int)(tiles * (split + 1) / splits);
  __syncthreads();
  Ring<STAGES> at;
  if (warpgroup == 0) {  // the producer
    registers_fewer<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0) {
      for (int tile = first; tile < last; tile++) {
        const int column = tile % columns_of_tiles * 8, line = tile / columns_of_tiles;
        const int row = line % rows_of_tiles * 8, image = line / rows_of_tiles;
        unsigned char* const gradients = ring + at.stage * STAGE_BYTES;
        unsigned char* const pixels = gradients + OWN * TILE_BYTES;
        Barrier* const arrival = full + at.stage;
        barrier_wait(empty + at.stage, at.parity ^ 1);
        barrier_expect(arrival, share ? OWN * TILE_BYTES + (8 + 2 * step_h) * 8 * 128 : STAGE_BYTES);
#pragma unroll
        for (int i = 0; i < OWN; i++) load_box(gradients + i * TILE_BYTES, &gy, arrival, filter + i * 64, column, row, image);
        if (share) {
          const int of_taps = first_block / blocks_per_tap;  // the column of taps
          load_box(pixels, x.at, arrival, (first_block - of_taps * blocks_per_tap) * 64, column + origin_w + of_taps * step_w, row + origin_h,
                   image);
        } else {
#pragma unroll
          for (int i = 0; i < BLOCKS; i++) {
            // A block beyond the last tap lies beyond the last channel as well: zeros.
            const int block = first_block + i, tap = block < blocks ? block / blocks_per_tap : 0;
            const int channel = (block - tap * blocks_per_tap) * 64;
            const int down = by_tap ? 0 : origin_h + tap / s * step_h, right = by_tap ? 0 : origin_w + tap % s * step_w;
            load_box(pixels + i * TILE_BYTES, x.at + (by_tap ? tap : 0), arrival, channel, column + right, row + down, image);
          }
        }
        at.advance();
      }
    }
  } else {  // a consumer
    registers_more<CONSUMER_REGISTERS>();
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, own = warpgroup - 1;
    const int first_step = FILTERS == 64 ? own * 2 : 0, steps = FILTERS == 64 ? 2 : 4;  // of 16 pixels
    const int next = share ? step_h * 8 * 128 : TILE_BYTES;  // from one block's pixels to the next one's
    float sums[BLOCKS * 32];
    int previous = -1;
    for (int tile = first; tile < last; tile++) {
      const unsigned char* const stage = ring + at.stage * STAGE_BYTES + first_step * 16 * 128;
      const unsigned long long gradients = mn_major(stage + (FILTERS == 64 ? 0 : own * TILE_BYTES), TILE_BYTES);
      const unsigned long long pixels = mn_major(stage + OWN * TILE_BYTES, next);
      barrier_wait(full + at.stage, at.parity);
      wgmma_fence();
#pragma unroll
      for (int z = 0; z < steps; z++)
        wgmma<T, BLOCKS * 64, true, true>(sums, advanced(gradients, z * 16 * 128), advanced(pixels, z * 16 * 128), tile > first || z > 0);
      wgmma_commit();
      wgmma_wait<1>();  // the products of the tile before are complete: its stage can be filled again
      if (previous >= 0 && lane == 0) barrier_arrive(empty + previous);
      previous = at.stage;
      at.advance();
    }
    wgmma_wait<0>();
    float* const part = out + (FILTERS == 64 ? split * 2 + own : split) * part_stride;
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = filter + (FILTERS == 64 ? 0 : own * 64) + 16 * warp + lane / 4 + 8 * i;
#pragma unroll
      for (int b = 0; b < BLOCKS; b++) {
        const int block = share ? first_block : first_block + b, place = block / blocks_per_tap;
        const int tap = share ? b * s + place : place;
        float* const to = part + (long long)row * filter_stride + (long long)tap * tap_stride;
#pragma unroll
        for (int j = 0; j < 8; j++) {
          const int channel = (block - place * blocks_per_tap) * 64 + j * 8 + lane % 4 * 2, from = (b * 8 + j) * 4 + i * 2;
          if (row < k && block < blocks && channel < c) *(float2*)(to + channel) = make_float2(sums[from], sums[from + 1]);
        }
      }
    }
  }
}
