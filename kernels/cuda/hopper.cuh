// What only Hopper (sm_90a) has: mbarriers, bulk tensor copies (TMA) and warpgroup products (wgmma). Each is an instruction
// of the PTX ISA for the GPU and a call of the simulator (kernels/simulator/hopper.h) for the CPU.
//
// A tile in shared memory always has rows of 128 bytes and begins at a multiple of 1024; the copy engine writes it in the
// 128-byte swizzle: the 16-byte piece j of row i stands at piece j ^ (i % 8), so that eight rows' pieces j lie in different
// banks. In terms of addresses: bits 4 to 6 are XORed with bits 7 to 9.
//
// wgmma reads a tile through a descriptor, in one of two ways (PTX ISA, "Shared Memory Matrix Layout": "Strides", "Canonical
// Layouts" and "Matrix Descriptor Format"). With e the element's size, T = 16 / e, all in bytes before the swizzle:
//
//   K-major   canonical ((8,m),(T,2k)):((8T,SBO),(1,T)): row i (of M or N), depth z lies at
//             (i / 8) SBO + (i % 8) 128 + z e. A row of the tile is a row of the matrix; the LBO is not used.
//             An instruction takes 32 bytes of depth: the next one begins 32 bytes further on.
//   MN-major  canonical ((T,8,m),(8,k)):((1,T,LBO),(8T,SBO)): row i, depth z lies at
//             (i / 8T) LBO + (i % 8T) e + (z / 8) SBO + (z % 8) 128. A row of the tile is one depth, and holds 8T = 64
//             neighbours of 16 bits of M or N; the next 64 are in the tile that lies LBO bytes further on.
//             An instruction takes a depth of 16: the next one begins 16 rows of 128 bytes further on. 16-bit types only.
//
// SBO, the distance of one group of eight tile rows to the next, is 8 * 128 = 1024 in both. Since every swizzle pattern
// begins at a multiple of 1024, the descriptor's base offset is 0. Bits: 0-13 address / 16, 16-29 LBO / 16, 32-45 SBO / 16,
// 49-51 base offset, 62-63 the swizzle (1: 128 bytes).
//
// Accumulators: thread t of the warpgroup, w = t / 32, l = t % 32, holds of d (64 x N) in register 4 j + 2 i + e the element
// of row 16 w + l / 4 + 8 i and column 8 j + 2 (l % 4) + e (PTX ISA, "Register Fragments and Shared Memory Matrix Layouts").
#pragma once
#include "primitives.cuh"
#if defined(CUSIM)
#include "hopper.h"
#endif

#define HOPPER static __device__ __forceinline__

struct alignas(64) TensorMap {  // made by the host (CUtensorMap, or the simulator's record of the same size)
  unsigned long long words[16];
};
struct TensorMaps {
  TensorMap at[4];
};
typedef unsigned long long Barrier;  // an mbarrier in shared memory

HOPPER unsigned shared_address(const void* p) {
#if !defined(CUSIM)
  return (unsigned)__cvta_generic_to_shared(p);
#else
  return cusim::hopper::shared_address(p);
#endif
}

// ------------------------------------------------------------------------------------------------------------- mbarriers
// A phase is complete when `arrivals` threads have arrived and all expected bytes have come in; then the next one begins.
// Phases have parity 0, 1, 0, ...; waiting for parity 1 of a fresh barrier returns at once.
HOPPER void barrier_init(Barrier* barrier, int arrivals) {
#if !defined(CUSIM)
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
#else
  cusim::hopper::barrier_init(barrier, arrivals);
#endif
}

// After the initialisations, before the block's barrier: makes them visible to the copy engine too.
HOPPER void barrier_init_done() {
#if !defined(CUSIM)
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
#endif
}

HOPPER void barrier_arrive(Barrier* barrier) {
#if !defined(CUSIM)
  asm volatile("{\n\t.reg .b64 state;\n\tmbarrier.arrive.shared::cta.b64 state, [%0];\n\t}" ::"r"(shared_address(barrier)) : "memory");
#else
  cusim::hopper::barrier_arrive(barrier);
#endif
}

// Arrive, and make the phase wait for `bytes` of bulk loads.
HOPPER void barrier_expect(Barrier* barrier, unsigned bytes) {
#if !defined(CUSIM)
  asm volatile("{\n\t.reg .b64 state;\n\tmbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n\t}" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
#else
  cusim::hopper::barrier_expect(barrier, bytes);
#endif
}

HOPPER void barrier_wait(Barrier* barrier, int parity) {
#if !defined(CUSIM)
  asm volatile(
      "{\n\t.reg .pred done;\n"
      "AGAIN:\n\tmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n\t@!done bra AGAIN;\n\t}" ::"r"(shared_address(barrier)), "r"(parity) : "memory");
#else
  cusim::hopper::barrier_wait(barrier, parity);
#endif
}

// A position in a ring of stages that is walked round and round: the stage, and the parity of its barriers' phases.
template <int STAGES> struct Ring {
  int stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// ----------------------------------------------------------------------------------------------------- bulk tensor copies
// A box of a tensor map, from the corner (c0 innermost) on, into a tile: whatever lies outside of the map becomes 0. Its
// bytes count towards the barrier's phase, those outside too.
HOPPER void load_box(void* tile, const TensorMap* map, Barrier* barrier, int c0, int c1, int c2) {
#if !defined(CUSIM)
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(tile)),
               "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2) : "memory");
#else
  const int corner[] = {c0, c1, c2};
  cusim::hopper::load(tile, map, barrier, corner, 3);
#endif
}

HOPPER void load_box(void* tile, const TensorMap* map, Barrier* barrier, int c0, int c1, int c2, int c3) {
#if !defined(CUSIM)
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(
                   shared_address(tile)), "l"(map), "r"(shared_address(barrier)), "r"(c0), "r"(c1), "r"(c2), "r"(c3) : "memory");
#else
  const int corner[] = {c0, c1, c2, c3};
  cusim::hopper::load(tile, map, barrier, corner, 4);
#endif
}

// A tile to a box of a map; what lies outside of the map is left out. Stores form groups of the thread that issues them.
HOPPER void store_box(const TensorMap* map, const void* tile, int c0, int c1, int c2, int c3) {
#if !defined(CUSIM)
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%2, %3, %4, %5}], [%1];" ::"l"(map), "r"(shared_address(tile)), "r"(c0), "r"(c1),
               "r"(c2), "r"(c3) : "memory");
#else
  const int corner[] = {c0, c1, c2, c3};
  cusim::hopper::store(map, tile, corner, 4);
#endif
}

HOPPER void store_commit() {
#if !defined(CUSIM)
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
#else
  cusim::hopper::store_commit();
#endif
}

// Until all but the last KEEP groups of this thread have read their tiles.
template <int KEEP> HOPPER void store_wait() {
#if !defined(CUSIM)
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(KEEP) : "memory");
#else
  cusim::hopper::store_wait(KEEP);
#endif
}

// Between a thread's ordinary writes of shared memory and the barrier behind which the copy engine reads them.
HOPPER void proxy_fence() {
#if !defined(CUSIM)
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#else
  cusim::hopper::proxy_fence();
#endif
}

// ------------------------------------------------------------------------------------------------------------ warpgroups
// All 128 threads of a warpgroup; `id` 1 to 15, one for each warpgroup.
HOPPER void warpgroup_sync(int id) {
#if !defined(CUSIM)
  asm volatile("bar.sync %0, 128;" ::"r"(id) : "memory");
#else
  cusim::barrier(id, 128, 0);
#endif
}

// The thread's warpgroup; told by one lane to the others, by which the compiler knows that they agree.
HOPPER int warpgroup_index() { return __shfl_sync(0xffffffffu, (int)(threadIdx.x / 128), 0); }

// The registers a thread has from here on; what one warpgroup gives up another can take.
template <int COUNT> HOPPER void registers_fewer() {
  static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256, "setmaxnreg takes multiples of 8 from 24 to 256");
#if !defined(CUSIM)
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}
template <int COUNT> HOPPER void registers_more() {
  static_assert(COUNT % 8 == 0 && COUNT >= 24 && COUNT <= 256, "setmaxnreg takes multiples of 8 from 24 to 256");
#if !defined(CUSIM)
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
#endif
}

// ----------------------------------------------------------------------------------------------------------------- wgmma
HOPPER unsigned long long descriptor(const void* tile, unsigned leading, unsigned stride) {
  return (unsigned long long)(shared_address(tile) >> 4 & 0x3fff) | (unsigned long long)(leading >> 4 & 0x3fff) << 16 |
         (unsigned long long)(stride >> 4 & 0x3fff) << 32 | 1ull << 62;
}
HOPPER unsigned long long k_major(const void* tile) { return descriptor(tile, 16, 1024); }
HOPPER unsigned long long mn_major(const void* tile, unsigned next) { return descriptor(tile, next, 1024); }
// The same, some bytes further on in the tile.
HOPPER unsigned long long advanced(unsigned long long matrix, int bytes) { return matrix + (unsigned)(bytes / 16); }

// Before the first wgmma, and whenever its accumulators were touched by anything else.
HOPPER void wgmma_fence() {
#if !defined(CUSIM)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  cusim::hopper::wgmma_fence();
#endif
}

HOPPER void wgmma_commit() {
#if !defined(CUSIM)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  cusim::hopper::wgmma_commit();
#endif
}

// Until all but the last KEEP groups are complete: their accumulators may be read, their operands overwritten.
template <int KEEP> HOPPER void wgmma_wait() {
#if !defined(CUSIM)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(KEEP) : "memory");
#else
  cusim::hopper::wgmma_wait(KEEP, 0);
#endif
}

#include "wgmma.cuh"
