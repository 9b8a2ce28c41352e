// Mode "count": what memory has to do for each line of a kernel.
//
// The lanes of a warp run one after another here, together on the GPU. So accesses are kept, by instruction and lane, until
// the lanes are level again (a meeting of the warp, a barrier, the block's end): the k-th access of each lane at the same
// instruction then belongs to one request of the warp. Of a request to global memory the sectors of 32 bytes are counted that
// it touches; of one to shared memory the passes: 32 banks of 4 bytes, each of which gives one word in a pass. Words of 8 and
// 16 bytes are served half and quarter warp by half and quarter warp. Caches, and lanes that a GPU would run apart, are not
// looked at, and g++ may have arranged instructions otherwise than nvcc would.
#if defined(CUSIM_COUNT)
#include "scheduler.h"
#include <algorithm>
#include <map>
#include <unordered_map>

namespace cusim {

struct Request {
  uintptr_t address[32];
  uint32_t lanes;
};
struct Instruction {
  std::vector<Request> requests;
  uint32_t done[32] = {};             // how many requests each lane has taken part in
  uint8_t bytes;
  bool shared, write;
};
struct Totals { uint64_t requests, units, least, bytes; };  // units: sectors or passes; least: how few would have done

using Key = std::tuple<void*, bool, bool>;                  // instruction, shared, write
static std::unordered_map<void*, Instruction> open[MAX_WARPS];
static std::map<Key, Totals> totals;

static bool in_shared_memory(const char* p) {
  if (p >= (char*)dyn_smem && p < (char*)dyn_smem + DYN_SMEM_MOST) return true;
  for (const SharedArray& array : shared_arrays)
    if (p >= array.begin && p < array.begin + array.bytes) return true;
  return false;
}
extern "C" char cusim_code_begin asm("__ehdr_start") __attribute__((visibility("hidden")));
extern "C" char cusim_code_end asm("_end") __attribute__((visibility("hidden")));

void access(const void* address, size_t n, Access how, void* pc) {
  if (!cur || cur->unchecked || !n) return;
  const char* p = (const char*)address;
  if (p >= stacks && p < stacks + MAX_THREADS * STACK_BYTES) return;  // local variables
  const bool shared = in_shared_memory(p);
  if (!shared && p >= &cusim_code_begin && p < &cusim_code_end) return;
  // A read and a write by one instruction (an atomic operation, a copy) are two: told apart by the key's last bit.
  Instruction& i = open[cur->warp][(char*)pc + (how == WRITE || how == ATOMIC ? (uintptr_t)1 << 62 : 0)];
  i.bytes = (uint8_t)std::min<size_t>(n, 16);
  i.shared = shared;
  i.write = how == WRITE || how == ATOMIC;
  const uint32_t k = i.done[cur->lane]++;
  if (k >= i.requests.size()) i.requests.push_back({});
  i.requests[k].address[cur->lane] = (uintptr_t)p;
  i.requests[k].lanes |= 1u << cur->lane;
}

// How many passes the banks need for a request, and how many they would need if no two words met in one bank.
struct Need { int needed, least; };
static Need passes(const Request& r, int bytes) {
  const int words = bytes <= 4 ? 1 : bytes / 4, group = 32 / words;
  Need sum = {};
  for (int first = 0; first < 32; first += group) {
    uintptr_t seen[32][32];
    int count[32] = {}, most = 0;
    for (int lane = first; lane < first + group; lane++) {
      for (int w = 0; w < words && (r.lanes >> lane & 1); w++) {
        const uintptr_t word = r.address[lane] / 4 + w;
        uintptr_t* bank = seen[word % 32];
        int& n = count[word % 32];
        if (std::find(bank, bank + n, word) == bank + n) bank[n++] = word;
        most = std::max(most, n);
      }
    }
    sum.needed += most;
    sum.least += most > 0;
  }
  return sum;
}
// How many sectors a request touches, and how many would hold the different words that it is about.
static Need sectors(const Request& r, int bytes) {
  std::vector<uintptr_t> touched, words;
  for (unsigned left = r.lanes; left; left &= left - 1) {
    const uintptr_t p = r.address[__builtin_ctz(left)];
    words.push_back(p);
    for (uintptr_t s = p / 32; s <= (p + bytes - 1) / 32; s++) touched.push_back(s);
  }
  const auto different = [](std::vector<uintptr_t>& all) {
    std::sort(all.begin(), all.end());
    return (int)(std::unique(all.begin(), all.end()) - all.begin());
  };
  return {different(touched), (different(words) * bytes + 31) / 32};
}

void count_flush(int warp) {
  for (auto& [key, i] : open[warp]) {
    void* pc = (void*)((uintptr_t)key & ~((uintptr_t)1 << 62));
    Totals& sum = totals[{pc, i.shared, i.write}];
    for (const Request& r : i.requests) {
      const int bytes = __builtin_popcount(r.lanes) * i.bytes;
      const Need p = i.shared ? passes(r, i.bytes) : sectors(r, i.bytes);
      sum.requests++;
      sum.bytes += bytes;
      sum.units += p.needed;
      sum.least += p.least;
    }
  }
  open[warp].clear();
}

void copy_begin(const AsyncCopy& copy) {
  access(copy.src, copy.valid, READ, copy.pc);
  access(copy.dst, copy.bytes, WRITE, copy.pc);
}
void copy_end(const AsyncCopy&) {}
void atomic(const void* p, size_t n) { access(p, n, ATOMIC, __builtin_return_address(0)); }
void release(void*) {}
void acquire(void*) {}
void fence() {}
void unit_write_end(void*, size_t) {}

}  // namespace cusim

// Up to `most` rows of 7 numbers: address, shared, write, requests, units, least, bytes; returns how many there are.
extern "C" __attribute__((visibility("default"))) size_t cusim_count_rows(uint64_t* out, size_t most) {
  using namespace cusim;
  size_t n = 0;
  for (const auto& [key, t] : totals) {
    if (n == most) break;
    const auto& [pc, shared, write] = key;
    const uint64_t row[] = {(uint64_t)pc, shared, write, t.requests, t.units, t.least, t.bytes};
    std::copy(row, row + 7, out + 7 * n++);
  }
  const size_t all = totals.size();
  if (most) totals.clear();
  return all;
}
#endif
