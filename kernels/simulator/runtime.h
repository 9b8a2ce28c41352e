// The simulator's services to kernels and to the primitives that stand in for PTX.
#pragma once
#include "types.h"

namespace cusim {

struct Thread {
  uint3 tid;                // threadIdx
  int lane, warp, linear;   // linear = warp * 32 + lane
  int unchecked = 0;        // > 0 while accesses are the primitives' own business, see Unchecked
};

extern Thread* cur;                // the thread that runs

// Dynamic shared memory always lies at the same place: as much as a block can have, of which a launch asks for dyn_smem_bytes.
constexpr size_t DYN_SMEM_MOST = 227 << 10;
extern unsigned char shared_window[DYN_SMEM_MOST] __asm__("cusim_shared_window");
static unsigned char* const dyn_smem = shared_window;
extern size_t dyn_smem_bytes;

// Ends the launch with an error at the kernel's line from which the caller was reached. `kind` is the class of mistake, a
// word or two by which tests and reports know it.
[[noreturn]] __attribute__((format(printf, 2, 3))) void fail_as(const char* kind, const char* format, ...);
[[noreturn]] __attribute__((format(printf, 1, 2))) void fail(const char* format, ...);  // kind "primitive"

// ---- barriers of a block

// bar.sync id, threads: waits until so many threads have come (0: all threads of the block). line: where it stands.
void barrier(int id, int threads, int line);
// barrier 0 with a vote: returns how many threads gave a predicate != 0; *all: whether all of them did.
int barrier_popc(int predicate, int line, int* all);

// ---- meetings of lanes of a warp

struct Slot { alignas(16) unsigned char b[64]; };
struct Round {
  Slot s[32];      // what each lane brought
  Slot r[32];      // for results of the operation
  unsigned mask;   // the lanes that took part: those named that had not returned
};
using WarpOp = void (*)(Round&);

// Lanes of `mask` meet; each brings n bytes (64 at most); the last one to come runs op(round) once, then all go on. The round
// stays valid until this lane's next but one meeting. orders: whether the meeting orders memory, as __syncwarp does.
Round& rendezvous(unsigned mask, const char* what, int line, const void* in, size_t n, WarpOp op, bool orders);

// ---- handing over

void yield_();       // lets the other threads run; for loops that wait for something to change
void maybe_yield();  // does so at random where the order of threads is random, else not at all

// ---- asynchronous copies: nothing moves before the wait that covers the copy; until then the destination holds NaN

void poison(void* p, size_t n);
void async_copy(void* dst, const void* src, int bytes, int valid);  // cp.async; what is not valid becomes 0
void async_commit();
void async_wait(int keep);                                          // until at most `keep` groups are under way

// ---- what the checker must be told (without it these do nothing)

// Memory that a primitive reads or writes for the current thread in a way that the compiler does not see.
void touch(const void* p, size_t n, bool write);
// The same for a unit that works beside the threads (TMA). At the start the bytes are poisoned, and reading them is an error
// until the end, after which they count as written before everything that comes.
void unit_write_begin(void* p, size_t n);
void unit_write_end(void* p, size_t n);
// What this thread did so far happens before whatever another thread does after its acquire of the same object.
void release(void* object);
void acquire(void* object);
// __threadfence: what the block did so far is visible to blocks that see a later atomic operation of it.
void fence();

// While one lives, the current thread's accesses are not checked: for code of primitives that keeps books of its own.
struct Unchecked {
  Thread* thread = cur;
  Unchecked() { thread->unchecked++; }
  ~Unchecked() { thread->unchecked--; }
};

}  // namespace cusim

// A function of these macros is compiled without the checker's callbacks.
#if defined(CUSIM_CALLBACKS)
#define CUSIM_QUIET __attribute__((no_sanitize("thread", "undefined")))
#else
#define CUSIM_QUIET
#endif

static __forceinline__ void __syncthreads(int line = __builtin_LINE()) { cusim::barrier(0, 0, line); }
static __forceinline__ int __syncthreads_count(int predicate, int line = __builtin_LINE()) {
  int all;
  return cusim::barrier_popc(predicate != 0, line, &all);
}
static __forceinline__ int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
  int all;
  return cusim::barrier_popc(predicate != 0, line, &all) != 0;
}
static __forceinline__ int __syncthreads_and(int predicate, int line = __builtin_LINE()) {
  int all;
  cusim::barrier_popc(predicate != 0, line, &all);
  return all;
}
static __forceinline__ void __threadfence() { cusim::fence(); }
static __forceinline__ void __threadfence_block() { cusim::fence(); }
static __forceinline__ void __threadfence_system() { cusim::fence(); }
static __forceinline__ void __nanosleep(unsigned) { cusim::yield_(); }
static __forceinline__ void __trap() { cusim::fail_as("trap", "the kernel executed __trap()"); }
