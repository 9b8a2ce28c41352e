// The checker: is an access to memory ordered with all others to the same place?
#if defined(CUSIM_CHECK)
#include "shadow.h"

namespace cusim {

std::vector<std::vector<Readers>> reader_sets;

// An access that is being looked at: what it does, at which of its cells it is, whether it is atomic or volatile.
struct Looking {
  const char* does;
  const Region& region;
  const char* p;
  size_t bytes;
  bool atomic;
  void* pc;

  std::string what() const { return does + (" " + describe(region, p, bytes)); }
};

// The other access: what that thread does, when, and where (0: not known).
[[noreturn]] static void race(const Looking& here, const char* does, uint32_t time, int other, uint32_t other_pc) {
  const std::string there = other_pc ? place(code_base + other_pc) : std::string();
  if (time < block_begin)
    fail_at(here.pc, "race", "%s, and another block %s it%s; blocks run in any order", here.what().c_str(), does, there.c_str());
  fail_at(here.pc, "race", "%s, and thread %s %s it%s, with no barrier between", here.what().c_str(),
          thread_name(other).c_str(), does, there.c_str());
}

static void check_against_writes(const Looking& here, const Cell& cell) {
  const uint32_t first = here.region.shared ? block_begin : launch_begin;
  if (cell.write_time >= first && !cell.by_unit && !happened_before(cell.write_time, cell.writer))
    race(here, "writes", cell.write_time, cell.writer, cell.write_pc);
  if (cell.atomic_time >= first && !here.atomic && !happened_before(cell.atomic_time, cell.atomic_writer))
    race(here, "atomically changes", cell.atomic_time, cell.atomic_writer, cell.atomic_pc);
}

static void check_against_reads(const Looking& here, const Cell& cell) {
  const int me = cur->linear;
  const bool shared = here.region.shared;
  if (!shared && cell.foreign_read >= launch_begin && !heard_of_block(cell.foreign_read))
    race(here, "reads", cell.foreign_read, 0, 0);
  if (cell.read_time < (shared ? block_begin : launch_begin)) return;
  if (!cell.many || cell.read_time < block_begin) {
    if (!happened_before(cell.read_time, cell.reader)) race(here, "reads", cell.read_time, cell.reader, cell.read_pc);
    return;
  }
  for (const Readers& some : reader_sets[cell.readers]) {
    if (some.time < barrier_time) continue;
    for (unsigned lanes = some.lanes; lanes; lanes &= lanes - 1) {
      const int thread = (int)some.warp * 32 + __builtin_ctz(lanes);
      if (thread != me && some.time >= clocks[me][thread]) race(here, "reads", some.time, thread, some.pc);
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

static void note_uninitialised(const Looking& here) {
  if (is_uninitialised) return;
  is_uninitialised = true;
  const std::string text = here.what() + ", but no thread of the block has written it";
  uninitialised = {"uninitialised", text, launch.block, cur->tid, here.pc};
}
void check_failure(Failure& failure) {
  bool explains_more = false;
  for (const char* kind : {"race", "barrier", "warp", "deadlock"}) explains_more |= failure.kind == kind;
  if (is_uninitialised && !explains_more) failure = uninitialised;
  is_uninitialised = false;
}
void check_end_of_block() {
  if (is_uninitialised) fail_at(nullptr, "uninitialised", " ");  // what is reported is what was noted
}

static void check_cell(const Looking& here, Cell& cell, Access how) {
  if (cell.pending)
    fail_at(here.pc, "async",
            "%s, while an asynchronous copy is on its way there%s: the wait for it is missing or lets too many groups go on",
            here.what().c_str(), place(code_base + cell.write_pc).c_str());
  const bool unwritten = cell.write_time < block_begin && cell.atomic_time < block_begin;
  if (how != WRITE && here.region.shared && unwritten) note_uninitialised(here);
  check_against_writes(here, cell);
  const uint32_t pc = (uint32_t)((char*)here.pc - code_base);
  if (how == READ) record_read(cell, pc);
  if (how == READ || how == VOLATILE_READ) return;
  check_against_reads(here, cell);
  if (how == ATOMIC) {
    cell.atomic_time = now;
    cell.atomic_pc = pc;
    cell.atomic_writer = (uint16_t)cur->linear;
  } else {
    cell.write_time = now;
    cell.write_pc = pc;
    cell.writer = (uint16_t)cur->linear;
    cell.by_unit = false;
  }
}

void access(const void* address, size_t n, Access how, void* pc) {
  if (!cur || cur->unchecked || !n) return;
  const char* p = (const char*)address;
  Region* region = look_up(p, n, how == WRITE || how == ATOMIC, pc);
  if (!region) return;
  const size_t offset = p - region->begin;
  if (region->shift && ((offset | n) & ((1u << region->shift) - 1))) refine(*region, (offset | n) & 1 ? 0 : 1);
  const char* does = how == ATOMIC ? "atomically changes" : how == WRITE ? "writes" : "reads";
  Looking here = {does, *region, p, n, how == ATOMIC || how == VOLATILE_READ, pc};
  const size_t last = region->cell_of(p + n - 1);
  for (size_t i = region->cell_of(p); i <= last; i++) {
    here.p = region->begin + (i << region->shift);
    check_cell(here, region->cells[i], how);
  }
}

void atomic(const void* p, size_t n) {
  void* pc = __builtin_return_address(0);
  const size_t beside = (uintptr_t)p % n;
  if (beside)
    fail_at(pc, "misaligned", "an atomic operation on %zu bytes at an address that is %zu modulo %zu", n, beside, n);
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
  regions_launch();
}

}  // namespace cusim
#endif
