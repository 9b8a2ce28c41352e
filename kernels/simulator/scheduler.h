// What the scheduler, the launcher and the checker know of each other. Kernels do not see this.
#pragma once
#include "launch.h"
#include "switch.h"
#include <cstdint>
#include <string>
#include <vector>

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace cusim {

constexpr int MAX_THREADS = 1024, MAX_WARPS = 32, NAMED_BARRIERS = 16;
constexpr size_t STACK_BYTES = 256 << 10;        // of address space; memory is taken as it is touched
constexpr char STACK_TOO_SMALL[] = "the thread's local variables and calls take more than %zu KiB";
constexpr uint64_t IDLE_YIELDS_MOST = 1 << 26;    // then nothing will ever happen
constexpr uint64_t STACK_MARK = 0x6b63617473646e65;  // at a stack's far end: overwritten by a kernel that needs more

struct AsyncCopy {
  char* dst;
  const char* src;
  int bytes, valid;
  void* pc;  // where it was issued
};

struct Fiber : Thread {
  Context context;
  bool done;
  const char* waits_in;   // what it waits in, nullptr while it can run
  void* wait_pc;
  std::vector<AsyncCopy> open;                  // copies since the last commit
  std::vector<std::vector<AsyncCopy>> groups;   // committed and not yet waited for
};

// A meeting of lanes that is filling up. Two rounds in turn: the slow ones still read the last while the fast ones fill the next.
struct Meeting {
  unsigned want, here;    // lanes it waits for, lanes that have come
  const char* what;
  int line;
  void* pc;
  WarpOp op;
  bool orders;
  unsigned turn;
  Round round[2];
};

struct Warp {
  unsigned ready, alive;              // lanes that can run; that have not returned
  unsigned meeting_in, in_barrier;    // meetings somebody waits in; lanes that wait in a barrier
  Meeting meetings[32];               // by the lowest lane of the mask: disjoint masks can meet independently
};

struct Barrier {
  int here, threads, line, votes;     // who has come; how many it was called for, 0 for all
  void* pc;
  unsigned waiting[MAX_WARPS];
  int last_votes, last_here;
};

struct Launch {
  const Kernel* kernel;
  void** arguments;
  uint3 block;
  dim3 block_dim, grid_dim;
  int threads, warps, alive;          // of the block: threads, warps, threads that have not returned
  bool failed;
};

// For parts of the simulator that keep books of their own (static objects of this type are told).
struct Observer {
  void (*block_begins)();
  void (*thread_ends)(bool last);  // the current one; the last of its block?
  Observer* next;
  Observer(void (*block_begins)(), void (*thread_ends)(bool last));
};

// An array in static shared memory.
struct SharedArray {
  char* begin;
  size_t bytes;
  std::string name, function;   // in which it is declared
};

struct Failure {
  std::string kind, text;
  uint3 block, thread;
  void* pc;
};

struct Counts {
  uint64_t launches, switches, barriers, collectives;
  uint64_t bulk_loads, bulk_load_bytes, bulk_stores, bulk_store_bytes, wgmmas;  // bytes: of memory, not of boxes beyond a map
};

extern Fiber fibers[MAX_THREADS];
extern Warp warps[MAX_WARPS];
extern Barrier barriers[NAMED_BARRIERS];
extern Launch launch;
extern Failure failure;
extern Counts counts;
extern char* stacks;
extern uint64_t random_state;         // 0: threads run in order
extern Context host;
extern Observer* observers;
extern std::vector<SharedArray> shared_arrays;

extern uint64_t idle_yields;          // since a thread last came to a barrier or a meeting, or ended

void set_ready(int warp, unsigned lanes);
void block_on(Fiber& f, const char* what, void* pc);   // the thread waits until somebody makes it ready
void close_meeting(int warp, Meeting& meeting);
bool is_used(const SharedArray& array);                // may this launch use it? not if it is another kernel's
void prepare_block();                 // all fibers at their start
void run_block();                     // until all have returned or one failed
[[noreturn]] void fail_at(void* pc, const char* kind, const char* format, ...);
// How a message names a place in the code; Python puts file and line there.
std::string place(void* pc);
std::string thread_name(int linear);

// ---- accesses to memory, in a build that calls back at each of them (callbacks.cpp)
enum Access { READ, WRITE, ATOMIC, VOLATILE_READ };  // a volatile write counts as atomic
#if defined(CUSIM_CALLBACKS)
void access(const void* p, size_t n, Access how, void* pc);
void copy_begin(const AsyncCopy& copy);
void copy_end(const AsyncCopy& copy);
#else
inline void copy_begin(const AsyncCopy&) {}
inline void copy_end(const AsyncCopy&) {}
#endif

// ---- the checker's side of events; empty in a build without it
#if defined(CUSIM_CHECK)
void check_launch();
void check_block();
void check_end_of_block();                                     // or a barrier of all its threads
void check_failure(Failure& failure);                          // a last word on what is reported
void check_barrier(const unsigned* lanes, bool whole_block);   // threads that leave a barrier, as 32 masks
void check_meeting(int warp, unsigned lanes);                  // lanes that leave a meeting that orders memory
#else
inline void check_launch() {}
inline void check_block() {}
inline void check_end_of_block() {}
inline void check_failure(Failure&) {}
inline void check_barrier(const unsigned*, bool) {}
inline void check_meeting(int, unsigned) {}
#endif
#if defined(CUSIM_COUNT)
void count_flush(int warp);           // the warp's lanes are level: their accesses can be put side by side
#else
inline void count_flush(int) {}
#endif

}  // namespace cusim
