// The simulator's mbarriers, and addresses of shared memory. What they promise to kernels is written in hopper.h.
#include "hopper_state.h"
#include <cstring>
#include <unordered_map>

namespace cusim {
namespace hopper {

uint64_t events;

// ---- addresses

uint32_t shared_address(const void* p) {
  if (p < dyn_smem || p > dyn_smem + dyn_smem_bytes)
    fail_at(__builtin_return_address(0), "address", "not an address of dynamic shared memory");
  return WINDOW + (uint32_t)((const unsigned char*)p - dyn_smem);
}
char* memory_at(uint32_t address, uint32_t n, const char* what, void* pc) {
  if (address < WINDOW || address + (uint64_t)n > WINDOW + dyn_smem_bytes)
    fail_at(pc, "address", "%s: %u bytes from byte %d on leave the %zu bytes of dynamic shared memory", what, n, (int)(address - WINDOW), dyn_smem_bytes);
  return (char*)dyn_smem + (address - WINDOW);
}
uint32_t chance(uint32_t n) {
  static uint64_t state = 88172645463325252u;
  if (!random_state) return n - 1;
  state ^= random_state;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return (uint32_t)((state >> 11) % n);
}

// ---- mbarriers

static constexpr uint64_t MARK = 0x72656972726162ff;  // stands where a barrier is, so that an overwritten one is noticed
static std::unordered_map<uint32_t, Mbarrier> mbarriers;  // by address

Mbarrier& find(const void* p, void* pc) {
  const uint32_t address = shared_address(p);
  const auto found = mbarriers.find(address);
  uint64_t mark = 0;
  if (found != mbarriers.end()) std::memcpy(&mark, p, sizeof mark);
  if (mark != MARK)
    fail_at(pc, "mbarrier", "the mbarrier at byte %u of shared memory %s", address - WINDOW, found == mbarriers.end() ? "was not initialised" : "was overwritten");
  return found->second;
}
bool has_seen(uint32_t barrier, uint32_t phase) { return mbarriers[barrier].seen[cur->warp] > phase; }
void check_no_barrier(const Range& bytes, void* pc) {
  for (const auto& entry : mbarriers)
    if (bytes.meets({entry.first, entry.first + 8}))
      fail_at(pc, "tma", "the box of %u bytes covers the mbarrier at byte %u of shared memory", bytes.last - bytes.first, entry.first - WINDOW);
}
void complete(Mbarrier& b) {
  events++;
  if (b.pending || b.bytes) return;
  b.phase++;
  b.pending = b.arrivals;
}
static void count_arrival(const void* p, Mbarrier& b, void* pc) {
  if (!b.pending)
    fail_at(pc, "mbarrier", "more arrivals than the %d that the mbarrier at byte %u of shared memory was initialised with", b.arrivals, shared_address(p) - WINDOW);
  release((void*)p);
  b.pending--;
  complete(b);
}

void barrier_init(void* p, int arrivals) {
  void* pc = __builtin_return_address(0);
  const uint32_t address = shared_address(p);
  if (address % 8) fail_at(pc, "mbarrier", "byte %u of shared memory: an mbarrier's address must be a multiple of 8", address - WINDOW);
  if (arrivals < 1) fail_at(pc, "mbarrier", "initialised with %d arrivals; at least 1", arrivals);
  memory_at(address, 8, "mbarrier", pc);
  mbarriers[address] = {arrivals, arrivals, 0, 0, {}};
  std::memcpy(p, &MARK, sizeof MARK);
}
void barrier_arrive(void* p) {
  void* pc = __builtin_return_address(0);
  count_arrival(p, find(p, pc), pc);
  maybe_yield();
}
void barrier_expect(void* p, uint32_t bytes) {
  void* pc = __builtin_return_address(0);
  Mbarrier& b = find(p, pc);
  b.bytes += bytes;
  count_arrival(p, b, pc);
}

void barrier_wait(void* p, int parity) {
  void* pc = __builtin_return_address(0);
  Mbarrier& b = find(p, pc);
  uint64_t last = events;
  for (int idle = 0; (int)(b.phase & 1) == parity;) {
    if (complete_one(p)) continue;
    if (last != events) last = events, idle = 0;
    if (++idle > 3000)
      fail_at(pc, "hang", "this wait for parity %d of the mbarrier at byte %u of shared memory never ends: of phase %u, %d arrivals of %d and %lld bytes are missing, and nothing happens any more",
              parity, shared_address(p) - WINDOW, b.phase, b.pending, b.arrivals, (long long)b.bytes);
    yield_();
  }
  b.seen[cur->warp] = b.phase;
  acquire(p);
}

static void block_begins() { mbarriers.clear(); }
static void thread_ends(bool last) {
  if (!last) return;
  for (const auto& entry : mbarriers)
    if (entry.second.bytes)
      fail_as("mbarrier", "the block ends while the mbarrier at byte %u of shared memory has %lld bytes too many or too few", entry.first - WINDOW, (long long)entry.second.bytes);
}
static Observer observer(block_begins, thread_ends);

}  // namespace hopper
}  // namespace cusim
