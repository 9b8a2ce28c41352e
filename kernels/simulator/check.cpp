// The checker: what an access to memory may be, and what it is told of.
#if defined(CUSIM_CHECK)
#include "shadow.h"
#include <algorithm>
#include <dlfcn.h>

extern char bss_begin asm("__bss_start") __attribute__((visibility("hidden")));
extern char code_end asm("_end") __attribute__((visibility("hidden")));

namespace cusim {

std::vector<Region> regions;
std::vector<std::vector<Readers>> reader_sets;
char* code_base;

void clocks_launch();

Region::Region(void* p, size_t n, std::string name, int item, bool shared)
    : begin((char*)p), end((char*)p + n), name(std::move(name)), item(item), shared(shared), shift(2), cells((n + 3) / 4 + 1) {
  if ((uintptr_t)p % 4) {  // granules must not straddle words
    shift = 0;
    cells.resize(n + 1);
  }
}

void refine(Region& region, int shift) {
  std::vector<Cell> finer(((size_t)(region.end - region.begin) >> shift) + 1);
  for (size_t i = 0; i < finer.size(); i++) {
    finer[i] = region.cells[i << shift >> region.shift];
    if (finer[i].readers) {
      reader_sets.push_back(std::vector<Readers>(reader_sets[finer[i].readers]));
      finer[i].readers = (uint32_t)reader_sets.size() - 1;
    }
  }
  region.cells = std::move(finer);
  region.shift = shift;
}

// Elements of shared memory are as large as what is accessed: their type is not known here.
std::string describe(const Region& region, const char* p, size_t n) {
  const long long offset = p - region.begin, size = region.end - region.begin;
  const long long item = region.item ? region.item : n > 4 ? 4 : (long long)n;
  std::string text = "element " + std::to_string(offset / item);
  if (offset % item) text += " (byte " + std::to_string(offset % item) + " of it)";
  text += " of " + region.name + ", which has " + std::to_string(size / item);
  return region.item ? text : text + " of " + std::to_string(item) + " bytes";
}

[[noreturn]] static void out_of_bounds(const char* p, size_t n, bool write, const Region* last, void* pc) {
  const char* verb = write ? "write" : "read";
  if ((uintptr_t)p < 4096) fail_at(pc, "null pointer", "%s of %zu bytes through a null pointer (address %zu)", verb, n, (size_t)p);
  const Region* region = last;
  auto distance = [p](const Region& r) { return p >= r.end ? p - r.end : p < r.begin ? r.begin - p : 0; };
  for (const Region& r : regions)
    if (!last && (!region || distance(r) < distance(*region))) region = &r;
  if (!region) fail_at(pc, "out of bounds", "%s of %zu bytes at an address that belongs to no argument", verb, n);
  const long long unit = region->item ? region->item : 1;
  if (p < region->begin)
    fail_at(pc, "out of bounds", "%s of %zu bytes that begins %lld %s before %s", verb, n, (region->begin - p + unit - 1) / unit, region->item ? "elements" : "bytes", region->name.c_str());
  fail_at(pc, "out of bounds", "%s of %zu bytes at %s", verb, n, describe(*region, p, n).c_str());
}

// Where an instruction found its memory last: the first guess next time, and a good one for whose bounds were meant.
struct Guess { void* pc; uint32_t region, launch; };
static Guess guesses[1024];

static Guess& guess_of(void* pc) { return guesses[((uintptr_t)pc ^ (uintptr_t)pc >> 10) & 1023]; }

struct Range { const char *begin, *end; };
static std::vector<Range> variables;
static bool is_variable(const char* p) {
  return std::any_of(variables.begin(), variables.end(), [p](const Range& r) { return p >= r.begin && p < r.end; });
}

// The region of [p, p + n), null for memory that needs no checks: the thread's own stack, constants and the primitives' books.
static Region* look_up(const char* p, size_t n, bool write, void* pc) {
  Guess& guess = guess_of(pc);
  const bool known = guess.pc == pc && guess.launch == launch_begin;
  if (known) {
    Region& region = regions[guess.region];
    if (p >= region.begin && p + n <= region.end) return &region;
  }
  if (p >= stacks - STACK_BYTES && p < stacks + MAX_THREADS * STACK_BYTES) {
    const char* own = stacks + cur->linear * STACK_BYTES;
    if (p < own && (char*)__builtin_frame_address(0) < own) fail_at(pc, "stack", STACK_TOO_SMALL, STACK_BYTES >> 10);
    const int owner = (int)((p - stacks) / STACK_BYTES);
    if (owner != cur->linear) fail_at(pc, "local memory", "access to a local variable of thread %s", thread_name(owner).c_str());
    return nullptr;
  }
  for (Region& region : regions)
    if (p >= region.begin && p + n <= region.end) {
      guess = {pc, (uint32_t)(&region - regions.data()), launch_begin};
      return &region;
    }
  for (const Region& region : regions)  // begins inside, ends outside
    if (p < region.end && p + n > region.begin) out_of_bounds(p, n, write, &region, pc);
  // Constants, and variables of the library that are no array in shared memory (nor lie between such arrays).
  if (p >= code_base && p < &bss_begin) return nullptr;
  if (p >= &bss_begin && p < &code_end && is_variable(p)) return nullptr;
  out_of_bounds(p, n, write, known ? &regions[guess.region] : nullptr, pc);
}

static size_t accessed;  // bytes of the access that is looked at

[[noreturn]] static void race(const char* did, const char* what, const Region& region, const char* p, uint32_t time, int other, uint32_t other_pc, void* pc) {
  const std::string there = other_pc ? place(code_base + other_pc) : std::string();
  if (time < block_begin)
    fail_at(pc, "race", "%s %s, and another block %s it%s; blocks run in any order", did, describe(region, p, accessed).c_str(), what, there.c_str());
  fail_at(pc, "race", "%s %s, and thread %s %s it%s, with no barrier between", did, describe(region, p, accessed).c_str(), thread_name(other).c_str(), what, there.c_str());
}

static void check_against_writes(const Region& region, const Cell& cell, const char* p, const char* did, bool atomic, void* pc) {
  const uint32_t first = region.shared ? block_begin : launch_begin;
  if (cell.write_time >= first && !cell.by_unit && !happened_before(cell.write_time, cell.writer))
    race(did, "writes", region, p, cell.write_time, cell.writer, cell.write_pc, pc);
  if (cell.atomic_time >= first && !atomic && !happened_before(cell.atomic_time, cell.atomic_writer))
    race(did, "atomically changes", region, p, cell.atomic_time, cell.atomic_writer, cell.atomic_pc, pc);
}

static void check_against_reads(const Region& region, const Cell& cell, const char* p, const char* did, void* pc) {
  const int me = cur->linear;
  if (!region.shared && cell.foreign_read >= launch_begin && !heard_of_block(cell.foreign_read))
    race(did, "reads", region, p, cell.foreign_read, 0, 0, pc);
  if (cell.read_time < (region.shared ? block_begin : launch_begin)) return;
  if (!cell.many || cell.read_time < block_begin) {
    if (!happened_before(cell.read_time, cell.reader)) race(did, "reads", region, p, cell.read_time, cell.reader, cell.read_pc, pc);
    return;
  }
  for (const Readers& some : reader_sets[cell.readers]) {
    if (some.time < barrier_time) continue;
    for (unsigned lanes = some.lanes; lanes; lanes &= lanes - 1) {
      const int thread = (int)some.warp * 32 + __builtin_ctz(lanes);
      if (thread != me && some.time >= clocks[me][thread]) race(did, "reads", region, p, some.time, thread, some.pc, pc);
    }
  }
}

static void add_reader(std::vector<Readers>& set, uint32_t time, uint32_t pc, int thread) {
  const uint32_t warp = thread >> 5, lane = 1u << (thread & 31);
  if (!set.empty() && set.back().time < barrier_time) set.clear();
  if (!set.empty() && set.back().time == time && set.back().warp == warp) set.back().lanes |= lane;
  else set.push_back({time, pc, warp, lane});
}

static void record_read(Cell& cell, uint32_t pc) {
  const int me = cur->linear;
  if (cell.read_time < block_begin) {
    if (cell.read_time < launch_begin) cell.readers = 0;
    else cell.foreign_read = cell.read_time;
    cell.many = false;
  } else if (cell.read_time < barrier_time) {
    cell.many = false;
  } else if (cell.many || (cell.reader != me && !happened_before(cell.read_time, cell.reader))) {
    if (!cell.readers) {
      cell.readers = (uint32_t)reader_sets.size();
      reader_sets.emplace_back();
    }
    std::vector<Readers>& set = reader_sets[cell.readers];
    if (!cell.many) {
      set.clear();
      add_reader(set, cell.read_time, cell.read_pc, cell.reader);
    }
    add_reader(set, now, pc, me);
    cell.many = true;
  }
  cell.read_time = now;
  cell.read_pc = pc;
  cell.reader = (uint16_t)me;
}

// A read of shared memory that nobody has written yet. Often somebody writes it later, before the next barrier: then that
// is a race, and the better explanation. So the report waits until the barrier, or until something else goes wrong.
static Failure uninitialised;
static bool is_uninitialised;

static void note_uninitialised(const Region& region, const char* p, void* pc) {
  if (is_uninitialised) return;
  is_uninitialised = true;
  uninitialised = {"uninitialised", "reads " + describe(region, p, accessed) + ", but no thread of the block has written it", launch.block, cur->tid, pc};
}
void check_failure(Failure& failure) {
  const bool explains_more = failure.kind == "race" || failure.kind == "barrier" || failure.kind == "warp" || failure.kind == "deadlock";
  if (is_uninitialised && !explains_more) failure = uninitialised;
  is_uninitialised = false;
}
void check_end_of_block() {
  if (is_uninitialised) fail_at(nullptr, "uninitialised", " ");  // what is reported is what was noted
}

void access(const void* address, size_t n, Access how, void* pc) {
  if (!cur || cur->unchecked || !n) return;
  const char* p = (const char*)address;
  Region* region = look_up(p, n, how == WRITE || how == ATOMIC, pc);
  if (!region) return;
  accessed = n;
  const size_t offset = p - region->begin;
  if (region->shift && ((offset | n) & ((1u << region->shift) - 1))) refine(*region, (offset | n) & 1 ? 0 : 1);
  const uint32_t here = (uint32_t)((char*)pc - code_base);
  const size_t last = region->cell_of(p + n - 1);
  for (size_t i = region->cell_of(p); i <= last; i++) {
    Cell& cell = region->cells[i];
    const char* where = region->begin + (i << region->shift);
    if (cell.pending)
      fail_at(pc, "async", "%s %s, while an asynchronous copy is on its way there%s: the wait for it is missing or lets too many groups go on",
              how == WRITE ? "writes" : "reads", describe(*region, where, n).c_str(), place(code_base + cell.write_pc).c_str());
    if (how != WRITE) {
      if (region->shared && cell.write_time < block_begin && cell.atomic_time < block_begin) note_uninitialised(*region, where, pc);
    }
    const char* did = how == ATOMIC ? "atomically changes" : how == WRITE ? "writes" : "reads";
    check_against_writes(*region, cell, where, did, how == ATOMIC || how == VOLATILE_READ, pc);
    if (how == VOLATILE_READ) continue;
    if (how == READ) {
      record_read(cell, here);
      continue;
    }
    check_against_reads(*region, cell, where, did, pc);
    if (how == ATOMIC) {
      cell.atomic_time = now;
      cell.atomic_pc = here;
      cell.atomic_writer = (uint16_t)cur->linear;
      continue;
    }
    cell.write_time = now;
    cell.write_pc = here;
    cell.writer = (uint16_t)cur->linear;
    cell.by_unit = false;
  }
}

void atomic(const void* p, size_t n) {
  void* pc = __builtin_return_address(0);
  if ((uintptr_t)p % n) fail_at(pc, "misaligned", "an atomic operation on %zu bytes at an address that is %zu modulo %zu", n, (size_t)((uintptr_t)p % n), n);
  atomic_order(p);
  access(p, n, ATOMIC, pc);
}

// ---- copies that run beside the threads

static void set_pending(const void* p, size_t n, bool pending, bool by_unit) {
  Region* region = look_up((const char*)p, n, true, nullptr);
  if (!region) return;
  const size_t last = region->cell_of((const char*)p + n - 1);
  for (size_t i = region->cell_of((const char*)p); i <= last; i++) {
    region->cells[i].pending = pending;
    region->cells[i].by_unit = by_unit;
    if (by_unit) region->cells[i].write_time = now;
  }
}
void copy_begin(const AsyncCopy& copy) {
  access(copy.src, copy.valid, READ, copy.pc);
  access(copy.dst, copy.bytes, WRITE, copy.pc);
  set_pending(copy.dst, copy.bytes, true, false);
}
void copy_end(const AsyncCopy& copy) {
  set_pending(copy.dst, copy.bytes, false, false);
  access(copy.dst, copy.bytes, WRITE, copy.pc);
}
void unit_write_begin(void* p, size_t n) {
  access(p, n, WRITE, __builtin_return_address(0));
  set_pending(p, n, true, false);
  poison(p, n);
}
void unit_write_end(void* p, size_t n) { set_pending(p, n, false, true); }

void check_launch() {
  clocks_launch();
  reader_sets.assign(1, {});  // entry 0 means none
  is_uninitialised = false;
  for (const SharedArray& array : shared_arrays)
    if (is_used(array)) regions.emplace_back(array.begin, array.bytes, "shared memory " + array.name, 0, true);
  if (dyn_smem_bytes) regions.emplace_back(dyn_smem, dyn_smem_bytes, "dynamic shared memory", 0, true);
  Dl_info info;
  dladdr((void*)&guesses, &info);
  code_base = (char*)info.dli_fbase;
}

}  // namespace cusim
using namespace cusim;

// ---- what a launch may touch: Python says so before each one
#define API extern "C" __attribute__((visibility("default")))
API void cusim_clear_regions() { regions.clear(); }
API void cusim_add_region(void* p, size_t n, const char* name, int item) { regions.emplace_back(p, n, name, item, false); }
API void cusim_add_variable(void* begin, size_t bytes) { variables.push_back({(char*)begin, (char*)begin + bytes}); }
#endif
