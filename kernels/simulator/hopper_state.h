// What the simulator's mbarriers and copy engine (tma.cpp) and its matrix units (wgmma.cpp) know of each other.
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

// Fails unless this thread's warp has waited for the loads that filled these bytes.
void check_operand(const Range& bytes, const char* name, void* pc);
// Fails if a wgmma that is not yet complete reads some of these bytes.
void check_not_read(const Range& bytes, void* pc);

}  // namespace hopper
}  // namespace cusim
