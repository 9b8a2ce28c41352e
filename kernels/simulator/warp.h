// Collectives of a warp, the _sync forms: every lane named in the mask that has not returned must come.
#pragma once
#include "runtime.h"

// Always inlined, so that the runtime's return address lies in the kernel and names its line.
#define CUSIM_COLLECTIVE static __forceinline__

namespace cusim {
// The runtime's part (collectives.cpp). shuffle: where what lane `source` brought lies. ballot: one bit for each lane that
// brought true; *present: the lanes that took part.
const void* shuffle(unsigned mask, const void* value, size_t n, int source, int width, const char* what, int line);
unsigned ballot(unsigned mask, bool predicate, const char* what, int line, unsigned* present);

template <class T>
CUSIM_COLLECTIVE T shuffled(unsigned mask, T value, int source, int width, const char* what, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
  T result;
  std::memcpy(&result, shuffle(mask, &value, sizeof value, source, width, what, line), sizeof result);
  return result;
}

// combine() over the values of all lanes that took part, in the order of the lanes.
template <class T, class F>
CUSIM_COLLECTIVE T reduce(unsigned mask, T value, F combine, const char* what, int line) {
  const Round& round = rendezvous(mask, what, line, &value, sizeof value, nullptr, false);
  bool first = true;
  T result = value;
  for (int lane = 0; lane < 32; lane++) {
    if (!(round.mask >> lane & 1)) continue;
    T other;
    std::memcpy(&other, round.s[lane].b, sizeof other);
    result = first ? other : combine(result, other);
    first = false;
  }
  return result;
}
}  // namespace cusim

CUSIM_COLLECTIVE void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  cusim::rendezvous(mask, "__syncwarp", line, nullptr, 0, nullptr, true);
}

// With width w the warp is cut into groups of w lanes; a source outside the own group means the own lane.
template <class T>
CUSIM_COLLECTIVE T __shfl_sync(unsigned mask, T value, int source, int width = 32, int line = __builtin_LINE()) {
  const int lane = cusim::cur->lane;
  return cusim::shuffled(mask, value, (lane & ~(width - 1)) | (source & (width - 1)), width, "__shfl_sync", line);
}
template <class T>
CUSIM_COLLECTIVE T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, int line = __builtin_LINE()) {
  const int lane = cusim::cur->lane, source = lane ^ bits;
  const bool outside = source > (lane | (width - 1));  // a lower group may be read, as on the GPU
  return cusim::shuffled(mask, value, outside ? lane : source, width, "__shfl_xor_sync", line);
}
template <class T>
CUSIM_COLLECTIVE T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = cusim::cur->lane, source = lane + (int)delta;
  return cusim::shuffled(mask, value, source > (lane | (width - 1)) ? lane : source, width, "__shfl_down_sync", line);
}
template <class T>
CUSIM_COLLECTIVE T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, int line = __builtin_LINE()) {
  const int lane = cusim::cur->lane, source = lane - (int)delta;
  return cusim::shuffled(mask, value, source < (lane & ~(width - 1)) ? lane : source, width, "__shfl_up_sync", line);
}
CUSIM_COLLECTIVE unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  unsigned present;
  return cusim::ballot(mask, predicate, "__ballot_sync", line, &present);
}
CUSIM_COLLECTIVE int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  unsigned present;
  return cusim::ballot(mask, predicate, "__any_sync", line, &present) != 0;
}
CUSIM_COLLECTIVE int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  unsigned present;
  const unsigned votes = cusim::ballot(mask, predicate, "__all_sync", line, &present);
  return votes == present;
}

#define CUSIM_REDUCE(NAME, T, EXPRESSION)                                             \
  CUSIM_COLLECTIVE T NAME(unsigned mask, T value, int line = __builtin_LINE()) {         \
    return cusim::reduce(mask, value, [](T a, T b) -> T { return EXPRESSION; }, #NAME, line); \
  }
CUSIM_REDUCE(__reduce_add_sync, unsigned, a + b)
CUSIM_REDUCE(__reduce_min_sync, unsigned, a < b ? a : b)
CUSIM_REDUCE(__reduce_max_sync, unsigned, a > b ? a : b)
CUSIM_REDUCE(__reduce_and_sync, unsigned, a & b)
CUSIM_REDUCE(__reduce_or_sync, unsigned, a | b)
CUSIM_REDUCE(__reduce_xor_sync, unsigned, a ^ b)
CUSIM_REDUCE(__reduce_add_sync, int, (int)((unsigned)a + (unsigned)b))
CUSIM_REDUCE(__reduce_min_sync, int, a < b ? a : b)
CUSIM_REDUCE(__reduce_max_sync, int, a > b ? a : b)
#undef CUSIM_REDUCE
