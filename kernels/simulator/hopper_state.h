// What the simulator's mbarriers (mbarrier.cpp), copy engine (tma.cpp) and matrix units (wgmma.cpp) know of each other.
#pragma once
#include "hopper.h"
#include "scheduler.h"

namespace cusim {
namespace hopper {

// Half-open ranges of the shared window.
struct Range {
  uint32_t first, last;
  bool meets(const Range& other) const { return first < other.last && other.first < last; }
};

constexpr uint32_t WINDOW = 1024 + 896;  // where dynamic shared memory begins in it: DYN_SMEM promises 128 bytes

// The memory behind an address of the window; n bytes from there must be dynamic shared memory.
char* memory_at(uint32_t address, uint32_t n, const char* what, void* pc);
// The 128-byte swizzle of an address.
inline uint32_t swizzled(uint32_t address) { return address ^ (address >> 7 & 7) << 4; }

extern uint64_t events;  // grows whenever anything happens: who waits while it stands still waits for ever
uint32_t chance(uint32_t n);  // 0 to n - 1, from the launch's random order; n - 1 where the order is not random

struct Mbarrier {
  int arrivals, pending;     // per phase; still missing in this one
  int64_t bytes;             // expected and not yet there
  uint32_t phase;            // how many are complete
  uint32_t seen[MAX_WARPS];  // by warp: the phases that it has waited for
};
Mbarrier& find(const void* barrier, void* pc);        // fails if there is none
void complete(Mbarrier& barrier);                     // its phase, if nothing is missing any more
bool has_seen(uint32_t barrier, uint32_t phase);      // whether this thread's warp has waited for the phase to complete
void check_no_barrier(const Range& bytes, void* pc);  // fails if one stands there

// Lets one of the loads that this barrier waits for come in; false if there is none.
bool complete_one(const void* barrier);
// Fails unless this thread's warp has waited for the loads that filled these bytes.
void check_operand(const Range& bytes, const char* name, void* pc);
// Fails if a wgmma that is not yet complete reads some of these bytes.
void check_not_read(const Range& bytes, void* pc);

}  // namespace hopper
}  // namespace cusim
