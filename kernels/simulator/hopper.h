// hopper.h -- what the simulator does for kernels/cuda/hopper.cuh: mbarriers, the bulk tensor copies (TMA) and wgmma.
//
// Everything asynchronous happens as LATE as the kernel's own waits allow, and its destination holds NaN until then:
//
//   a bulk load    reads and writes when somebody waits on its mbarrier, one of those pending there at a time, in any order
//   a bulk store   reads shared memory and writes when its thread waits for its bulk groups
//   a wgmma        reads its operands and writes its registers when its warp waits for its group; the four warps of a
//                  warpgroup finish independently of one another
//
// A kernel that waits for too little then computes with NaN. Orders that are forbidden although they may happen to give
// the right numbers (a load into memory that a wgmma still reads, an operand not waited for, ...) are errors at once.
#pragma once
#include <cstdint>

namespace cusim {
namespace hopper {

// Addresses of the shared memory window, as instructions and descriptors take them. Dynamic shared memory begins at a
// multiple of 128 only, which is all that DYN_SMEM promises; a kernel that needs more must align at run time.
uint32_t shared_address(const void* p);

void barrier_init(void* barrier, int arrivals);
void barrier_arrive(void* barrier);
void barrier_expect(void* barrier, uint32_t bytes);  // one arrival, and `bytes` more that must come in
void barrier_wait(void* barrier, int parity);        // until the phase of this parity is complete

void load(void* destination, const void* map, void* barrier, const int* corner, int rank);
void store(const void* map, const void* source, const int* corner, int rank);
void store_commit();
void store_wait(int keep);  // until all but the last `keep` groups of this thread have read their sources
void proxy_fence();

// d (64 x n) = A (64 x k) B (n x k)^T, plus d if `accumulate`; k is 32 bytes of elements. Called by every lane.
enum Kind { BF16, HALF, TF32 };
struct Operand {
  uint64_t descriptor;
  bool mn_major;
};
void wgmma(float* d, int n, Operand a, Operand b, Kind kind, bool accumulate);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(int keep, int line);

}  // namespace hopper
}  // namespace cusim
