// What the checker remembers of every piece of memory: who wrote and who read it last, and when.
//
// Time. `now` counts the events that order memory: barriers, meetings, fences, releases. An access is stamped with it. For
// the running thread, an access with stamp t by thread u of the same block has happened before if t lies before the last
// barrier of the block, or before clocks[me][u], the moment up to which `me` has heard of u through a meeting of the warp,
// a barrier of some of the threads, or a release and an acquire. Two accesses of which neither has happened before the other
// race. Since stamps grow through all blocks and launches, nothing has to be reset: what is old is smaller than `block_begin`.
#pragma once
#include "scheduler.h"

namespace cusim {

// One granule of memory (4 bytes until somebody accesses less, then 2 or 1).
struct Cell {
  uint32_t write_time = 0, write_pc = 0;
  uint32_t atomic_time = 0, atomic_pc = 0;   // the last atomic operation or volatile write
  uint32_t read_time = 0, read_pc = 0;
  uint32_t foreign_read = 0;           // the last read by an earlier block
  uint32_t readers = 0;                // index into reader_sets, 0: none was needed yet
  uint16_t writer = 0, atomic_writer = 0, reader = 0;  // threads by number
  bool pending = false;                // an asynchronous copy is on its way here
  bool by_unit = false;                // the last write was a unit's, of which the waiting threads have been told
  bool many = false;                   // several readers since the last barrier: see readers
};

// Reads of one granule by many threads: lanes of a warp that read at the same time share an entry.
struct Readers { uint32_t time, pc, warp, lanes; };

struct Region {
  char *begin, *end;
  std::string name;        // of the parameter, or of the array in shared memory
  int item;                // bytes of an element, for messages
  bool shared;
  int shift;               // log2 of the granule
  std::vector<Cell> cells;

  Region(void* p, size_t n, std::string name, int item, bool shared);
  size_t cell_of(const char* p) const { return (size_t)(p - begin) >> shift; }
};

extern std::vector<Region> regions;
extern std::vector<std::vector<Readers>> reader_sets;
extern uint32_t now, launch_begin, block_begin, barrier_time;
extern uint32_t clocks[MAX_THREADS][MAX_THREADS];
extern char* code_base;

// Whether all that the block with this stamp did before it is visible to the running block (clocks.cpp).
bool heard_of_block(uint32_t time);
void atomic_order(const void* p);      // an atomic operation also orders, if fences were used

inline bool happened_before(uint32_t time, int thread) {
  if (time >= barrier_time) return thread == cur->linear || time < clocks[cur->linear][thread];
  return time >= block_begin || time < launch_begin || heard_of_block(time);
}

// The region of [p, p + n); null for memory that needs no checks: the thread's own stack, constants, the primitives' books.
Region* look_up(const char* p, size_t n, bool write, void* pc);
void refine(Region& region, int shift);   // smaller granules from now on
void regions_launch();
void clocks_launch();
std::string describe(const Region& region, const char* p, size_t n);

}  // namespace cusim
