// Which events order memory, and how far every thread has heard of every other (see shadow.h).
#if defined(CUSIM_CHECK)
#include "shadow.h"
#include <algorithm>
#include <unordered_map>

namespace cusim {

uint32_t now, launch_begin, block_begin, barrier_time;
uint32_t clocks[MAX_THREADS][MAX_THREADS];

// What an object that threads synchronise by (an mbarrier, the word of an atomic operation) passes on.
struct Passed {
  std::vector<uint32_t> clock;                            // of the threads of the block that used it last
  std::vector<std::pair<uint32_t, uint32_t>> blocks;      // (block's begin, moment of its fence)
  size_t heard = 0;                                       // how many of `blocks` the running block has heard
  uint32_t heard_by = 0;                                  // that block's begin
};
static std::unordered_map<const void*, Passed> passed;
static std::vector<uint32_t> block_begins;                // of this launch's blocks, ascending
static std::unordered_map<uint32_t, uint32_t> heard;      // block's begin -> up to when the running block knows of it
static uint32_t block_fence;                              // when a thread of the running block last called a fence
static uint32_t thread_fence[MAX_THREADS];

void clocks_launch() {
  launch_begin = ++now;
  passed.clear();
  block_begins.clear();
}
void check_block() {
  block_begin = barrier_time = ++now;
  block_begins.push_back(now);
  heard.clear();
}

bool heard_of_block(uint32_t time) {
  if (heard.empty()) return false;
  const auto begin = std::upper_bound(block_begins.begin(), block_begins.end(), time) - 1;
  const auto found = heard.find(*begin);
  return found != heard.end() && time < found->second;
}

// All these threads hear of whatever each of them knew and did.
static void join(const unsigned* lanes) {
  static uint32_t all[MAX_THREADS];
  const int n = launch.threads;
  std::fill(all, all + n, 0);
  const uint32_t moment = ++now;
  const auto each = [lanes](auto action) {
    for (int w = 0; w < launch.warps; w++)
      for (unsigned left = lanes[w]; left; left &= left - 1) action(w * 32 + __builtin_ctz(left));
  };
  each([n](int t) { for (int u = 0; u < n; u++) all[u] = std::max(all[u], clocks[t][u]); });
  each([moment](int t) { all[t] = moment; });
  each([n](int t) { std::copy(all, all + n, clocks[t]); });
}
void check_meeting(int warp, unsigned lanes) {
  unsigned masks[MAX_WARPS] = {};
  masks[warp] = lanes;
  join(masks);
}
void check_barrier(const unsigned* lanes, bool whole_block) {
  unsigned masks[MAX_WARPS];
  std::copy(lanes, lanes + MAX_WARPS, masks);
  masks[cur->warp] |= 1u << cur->lane;
  if (!whole_block) return join(masks);
  check_end_of_block();
  barrier_time = ++now;
}

void release(void* object) {
  std::vector<uint32_t>& clock = passed[object].clock;
  clock.resize(MAX_THREADS);
  for (int u = 0; u < launch.threads; u++) clock[u] = std::max(clock[u], clocks[cur->linear][u]);
  clock[cur->linear] = ++now;
}
void acquire(void* object) {
  const auto found = passed.find(object);
  if (found == passed.end() || found->second.clock.empty()) return;
  uint32_t* mine = clocks[cur->linear];
  for (int u = 0; u < launch.threads; u++) mine[u] = std::max(mine[u], found->second.clock[u]);
}

// The pattern "write; __threadfence(); atomicAdd(counter)" passes the write on to whoever sees the counter afterwards. A fence
// of any thread counts for its whole block, since a barrier usually stands between the others' writes and it.
void fence() { thread_fence[cur->linear] = block_fence = ++now; }

void atomic_order(const void* p) {
  const bool fenced = block_fence >= block_begin;
  if (passed.empty() && !fenced) return;
  Passed& object = passed[p];
  if (object.heard_by != block_begin) {
    object.heard_by = block_begin;
    object.heard = 0;
  }
  for (; object.heard < object.blocks.size(); object.heard++) {
    const auto [begin, moment] = object.blocks[object.heard];
    if (begin != block_begin) heard[begin] = std::max(heard[begin], moment);
  }
  if (fenced && (object.blocks.empty() || object.blocks.back() != std::pair(block_begin, block_fence)))
    object.blocks.emplace_back(block_begin, block_fence);
  acquire((void*)p);
  if (thread_fence[cur->linear] >= block_begin) release((void*)p);
}

}  // namespace cusim
#endif
