// The simulator's bulk tensor copies. What they promise to kernels is written in hopper.h.
#include "hopper_state.h"
#include <cstring>

namespace cusim {
namespace hopper {

// ---- the copy engine

namespace {
// The record that the host puts into a TensorMap (backend/cuda/tensor_map.py). Dimensions from the innermost one on.
struct Map {
  uint64_t mark;
  char* base;
  uint32_t rank, element, rounds, swizzle;  // bytes of an element; whether to round to TF32; the span in bytes, 0 or 128
  uint32_t size[5], box[5];
  uint64_t stride[5];  // bytes; stride[0] is the element's
  uint32_t unused[4];
};
static_assert(sizeof(Map) == 128, "a tensor map has 128 bytes");
constexpr uint64_t MAP_MARK = 0x70616d726f736e65;

struct Copy {
  Map map;
  uint32_t address, bytes;
  int corner[5];
  const void* barrier;  // of a load
  void* pc;
  Range range() const { return {address, address + bytes}; }
};
struct Filled {  // where a load has written, and in which phase of which barrier
  Range bytes;
  uint32_t barrier, phase;
};
struct Engine {  // of a thread: its bulk stores
  std::vector<Copy> open;
  std::vector<std::vector<Copy>> groups;  // in the order of their commits
  uint64_t fences, fences_used;
};
std::vector<Copy> loads;  // under way
std::vector<Filled> filled;
Engine engines[MAX_THREADS];
int unread;  // bulk stores that have not read their tiles

float tf32(float v) {  // round to nearest, ties away from zero
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
  bits &= 0xffffe000u;
  std::memcpy(&v, &bits, 4);
  return v;
}

Copy make_copy(const void* tensor_map, const void* tile, const int* corner, int rank, void* pc) {
  Copy copy = {};
  std::memcpy(&copy.map, tensor_map, sizeof(Map));
  const Map& map = copy.map;
  if (map.mark != MAP_MARK) fail_at(pc, "tma", "the tensor map is not one");
  if ((int)map.rank != rank) fail_at(pc, "tma", "a copy with %d coordinates by a map of rank %u", rank, map.rank);
  copy.bytes = map.element;
  for (int d = 0; d < rank; d++) {
    copy.bytes *= map.box[d];
    copy.corner[d] = corner[d];
  }
  copy.address = shared_address(tile);
  copy.pc = pc;
  const uint32_t multiple = map.swizzle ? 1024 : 128;
  if (copy.address % multiple)
    fail_at(pc, "misaligned", "the copy engine's tile at byte %u of shared memory stands at address %u, which must be a multiple of %u", copy.address - WINDOW, copy.address, multiple);
  memory_at(copy.address, copy.bytes, "the copy engine's tile", pc);
  return copy;
}

// Moves 16 bytes at a time, the unit of the swizzle, between the tile and the map; what lies outside of the map reads as 0.
void move(const Copy& copy, bool to_tile) {
  const Map& map = copy.map;
  const uint32_t row = map.box[0] * map.element, rows = copy.bytes / row;
  uint64_t moved = 0;
  for (uint32_t i = 0; i < rows; i++) {
    char* line = map.base;
    bool inside = true;
    for (uint32_t d = 1, rest = i; d < map.rank; rest /= map.box[d], d++) {
      const int64_t at = copy.corner[d] + (int64_t)(rest % map.box[d]);
      inside &= at >= 0 && at < map.size[d];
      line += at * (int64_t)map.stride[d];
    }
    for (uint32_t byte = 0; byte < row; byte += 16) {
      uint32_t address = copy.address + i * row + byte;
      if (map.swizzle) address = swizzled(address);
      char* tile = (char*)dyn_smem + (address - WINDOW);
      if (to_tile) std::memset(tile, 0, 16);
      for (uint32_t e = 0; e < 16 && inside; e += map.element) {
        const int64_t at = copy.corner[0] + (int64_t)((byte + e) / map.element);
        if (at < 0 || at >= map.size[0]) continue;
        char* element = line + at * map.element;
        std::memcpy(to_tile ? tile + e : element, to_tile ? element : tile + e, map.element);
        moved += map.element;
        if (to_tile && map.rounds) {
          float v;
          std::memcpy(&v, tile + e, 4);
          v = tf32(v);
          std::memcpy(tile + e, &v, 4);
        }
      }
    }
  }
  (to_tile ? counts.bulk_loads : counts.bulk_stores)++;
  (to_tile ? counts.bulk_load_bytes : counts.bulk_store_bytes) += moved;
}

void complete_load(size_t index) {
  const Copy copy = loads[index];
  loads.erase(loads.begin() + (long)index);
  Mbarrier& b = find(copy.barrier, copy.pc);
  unit_write_end(memory_at(copy.address, copy.bytes, "tile", copy.pc), copy.bytes);
  move(copy, true);
  filled.push_back({copy.range(), shared_address(copy.barrier), b.phase});
  b.bytes -= copy.bytes;
  complete(b);
}
}  // namespace

bool complete_one(const void* barrier) {
  size_t found[64], n = 0;
  for (size_t i = 0; i < loads.size() && n < 64; i++)
    if (loads[i].barrier == barrier) found[n++] = i;
  if (n) complete_load(found[chance((uint32_t)n)]);
  return n != 0;
}

void load(void* tile, const void* map, void* barrier, const int* corner, int rank) {
  void* pc = __builtin_return_address(0);
  Copy copy = make_copy(map, tile, corner, rank, pc);
  copy.barrier = barrier;
  find(barrier, pc);
  check_no_barrier(copy.range(), pc);
  for (const Copy& other : loads)
    if (other.range().meets(copy.range())) fail_at(pc, "race", "a bulk load into memory that another one, not yet complete, writes%s", place(other.pc).c_str());
  for (int t = 0; t < launch.threads && unread; t++) {
    for (const auto& group : engines[t].groups)
      for (const Copy& other : group)
        if (other.range().meets(copy.range())) fail_at(pc, "race", "a bulk load into memory that a bulk store has not read yet%s", place(other.pc).c_str());
  }
  check_not_read(copy.range(), pc);
  for (size_t i = filled.size(); i-- > 0;)
    if (filled[i].bytes.meets(copy.range())) filled.erase(filled.begin() + (long)i);
  unit_write_begin(tile, copy.bytes);
  poison(tile, copy.bytes);
  loads.push_back(copy);
  events++;
  if (chance(4) == 0) complete_load(loads.size() - 1);
}

void check_operand(const Range& bytes, const char* name, void* pc) {
  for (const Copy& copy : loads)
    if (copy.range().meets(bytes))
      fail_at(pc, "race", "factor %s of this wgmma is still being loaded%s: the wait for its mbarrier is missing or does not cover it", name, place(copy.pc).c_str());
  for (const Filled& f : filled)
    if (f.bytes.meets(bytes) && !has_seen(f.barrier, f.phase))
      fail_at(pc, "race", "factor %s of this wgmma was loaded under the mbarrier at byte %u of shared memory, for which this warp has not waited", name, f.barrier - WINDOW);
}

// ---- bulk stores

void store(const void* map, const void* tile, const int* corner, int rank) {
  void* pc = __builtin_return_address(0);
  const Copy copy = make_copy(map, tile, corner, rank, pc);
  for (int t = cur->linear & ~127; t < (cur->linear & ~127) + 128 && t < launch.threads; t++)
    if (engines[t].fences == engines[t].fences_used)
      fail_at(pc, "race", "a bulk store of what its warpgroup wrote, but thread %s has passed no fence.proxy.async since the last group of stores", thread_name(t).c_str());
  touch(tile, copy.bytes, false);
  engines[cur->linear].open.push_back(copy);
  unread++;
}
void store_commit() {
  Engine& engine = engines[cur->linear];
  for (int t = cur->linear & ~127; t < (cur->linear & ~127) + 128 && t < launch.threads; t++) engines[t].fences_used = engines[t].fences;
  engine.groups.push_back(std::move(engine.open));
  engine.open.clear();
}
void store_wait(int keep) {
  Engine& engine = engines[cur->linear];
  for (; (int)engine.groups.size() > keep; engine.groups.erase(engine.groups.begin()))
    for (const Copy& copy : engine.groups.front()) {
      touch(memory_at(copy.address, copy.bytes, "tile", copy.pc), copy.bytes, false);
      move(copy, false);
      events++, unread--;
    }
}
void proxy_fence() { engines[cur->linear].fences++; }

// ---- a block's beginning and a thread's end

static void block_begins() {
  loads.clear();
  filled.clear();
  unread = 0;
  for (int t = 0; t < launch.threads; t++) engines[t] = {};
}
static void thread_ends(bool last) {
  const Engine& engine = engines[cur->linear];
  if (!engine.open.empty() || !engine.groups.empty()) {
    const std::vector<Copy>& copies = engine.open.empty() ? engine.groups.front() : engine.open;
    if (!copies.empty()) fail_at(copies.front().pc, "tma", "the thread ends while this bulk store has not read its tile: cp.async.bulk.wait_group is missing");
  }
  if (!last) return;
  if (!loads.empty()) fail_at(loads.front().pc, "tma", "the block ends while this bulk load is under way: nobody has waited for it");
}
static Observer observer(block_begins, thread_ends);

}  // namespace hopper
}  // namespace cusim
