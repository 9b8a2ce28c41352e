// The primitives of hopper.cuh together, for one warpgroup that multiplies and one that fetches: barriers, boxes fetched
// by the copy engine, a product by wgmma, and the result stored by the copy engine. FILTERS: the N of the instruction.
//@ architectures: sm_90a
//@ variants: T=bf16 FILTERS=64; T=bf16 FILTERS=128; T=bf16 FILTERS=192; T=bf16 FILTERS=256; T=half FILTERS=64; T=float FILTERS=64; T=bf16 FILTERS=64 TURN_A=1; T=bf16 FILTERS=128 TURN_B=1; T=half FILTERS=128 TURN_A=1 TURN_B=1
#include "hopper.cuh"
#ifndef TURN_A
#define TURN_A 0
#endif
#ifndef TURN_B
#define TURN_B 0
#endif

static constexpr int TILE = 8192;                     // 64 rows of 128 bytes
static constexpr int PIECES = FILTERS / 64;           // tiles of b, which has FILTERS rows
static constexpr int STAGE = (1 + PIECES) * TILE;
static constexpr int STAGES = 2;

// y (64, FILTERS) = the sum over `steps` of a (64, DEPTH) b (FILTERS, DEPTH)^T, DEPTH being what 128 bytes hold. The maps see
// (DEPTH, 1, 64 steps), or turned (64, 1, DEPTH steps); y is a map (64, 8, 8, 1) of float of which columns 0..31 of rows go
// out by the copy engine, the others by ordinary stores.
//@ budget: registers 232, shared 0, needs HGMMA UTMALDG UTMASTG
extern "C" __global__ void __launch_bounds__(256, 1) hopper_product(const __grid_constant__ TensorMap a, const __grid_constant__ TensorMap b, const __grid_constant__ TensorMap out, float* y, int steps) {
  DYN_SMEM(unsigned char, raw);
  unsigned char* ring = raw + (1024 - (shared_address(raw) & 1023)) % 1024;
  unsigned char* result = ring + STAGES * STAGE;      // 64 rows of 32 floats
  Barrier* full = (Barrier*)(result + TILE);
  Barrier* empty = full + STAGES;
  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      barrier_init(full + i, 1);
      barrier_init(empty + i, 128);
    }
    barrier_init_done();
  }
  __syncthreads();
  if (threadIdx.x >= 128) {
    registers_fewer<40>();
    if (threadIdx.x == 128) {
      Ring<STAGES> at;
      for (int step = 0; step < steps; step++, at.advance()) {
        barrier_wait(empty + at.stage, at.parity ^ 1);
        barrier_expect(full + at.stage, STAGE);
        unsigned char* tile = ring + at.stage * STAGE;
        load_box(tile, &a, full + at.stage, 0, 0, 64 * step);
        for (int i = 0; i < PIECES; i++)
          load_box(tile + (1 + i) * TILE, &b, full + at.stage, TURN_B ? 64 * i : 0, 0, TURN_B ? 64 * step : FILTERS * step + 64 * i);
      }
    }
  } else {
    registers_more<232>();
    float sums[FILTERS / 2];
    Ring<STAGES> at;
    for (int step = 0; step < steps; step++, at.advance()) {
      barrier_wait(full + at.stage, at.parity);
      const unsigned char* tile = ring + at.stage * STAGE;
      wgmma_fence();
#pragma unroll
      for (int z = 0; z < 4; z++)  // 32 bytes of depth, or 16 rows of 128 bytes, at a time
        wgmma<T, FILTERS, TURN_A, TURN_B>(sums, TURN_A ? mn_major(tile + z * 2048, TILE) : k_major(tile + z * 32),
                                      TURN_B ? mn_major(tile + TILE + z * 2048, TILE) : k_major(tile + TILE + z * 32), step + z > 0);
      wgmma_commit();
      wgmma_wait<0>();
      barrier_arrive(empty + at.stage);
    }
    const int w = threadIdx.x / 32, l = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < FILTERS / 2; i++) {
      const int row = 16 * w + l / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + l % 4 * 2 + i % 2;
      if (column < 32) {  // into the tile as the swizzle has it: 16-byte piece j of row r at piece j ^ (r % 8)
        const int piece = (column / 4) ^ (row % 8);
        ((float*)(result + row * 128 + piece * 16))[column % 4] = sums[i];
      } else {
        y[row * FILTERS + column] = sums[i];
      }
    }
    proxy_fence();
    warpgroup_sync(1);
    if (threadIdx.x == 0) {
      store_box(&out, result, 0, 0, 0, 0);
      store_commit();
      store_wait<0>();
    }
  }
}
