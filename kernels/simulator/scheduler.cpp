// The threads of a block as fibers: who runs next, barriers, a thread's start and end.
//
// Exactly one fiber runs. It hands over in block_on (it must wait), in yield_ (it lets others go first) and at its end; it
// picks the next one itself, so a switch is one exchange of stacks.
#define CUSIM_DEFINE_SWITCH
#include "scheduler.h"
#include <cstdlib>

namespace cusim {

Fiber fibers[MAX_THREADS];
Warp warps[MAX_WARPS];
Barrier barriers[NAMED_BARRIERS];
Launch launch;
Counts counts;
char* stacks;
uint64_t random_state;
Context host;
Thread* cur;
alignas(1024) unsigned char shared_window[DYN_SMEM_MOST];
Observer* observers;
size_t dyn_smem_bytes;
static unsigned ready_warps;
uint64_t idle_yields;

uint3 thread_index() { return cur->tid; }
uint3 block_index() { return launch.block; }
dim3 block_dim() { return launch.block_dim; }
dim3 grid_dim() { return launch.grid_dim; }

Observer::Observer(void (*block_begins)(), void (*thread_ends)(bool))
    : block_begins(block_begins), thread_ends(thread_ends), next(observers) {
  observers = this;
}

// ---- who runs next

static unsigned random_number() {  // xorshift
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)(random_state >> 11);
}
static int random_bit(unsigned mask) {
  for (int skip = random_number() % __builtin_popcount(mask); skip > 0; skip--) mask &= mask - 1;
  return __builtin_ctz(mask);
}
static unsigned above(int bit) { return bit >= 31 ? 0u : ~0u << (bit + 1); }

// The next set bit after `bit`, cyclically; mask != 0.
static int next_bit(unsigned mask, int bit) {
  const unsigned later = mask & above(bit);
  return __builtin_ctz(later ? later : mask);
}

void set_ready(int warp, unsigned lanes) {
  warps[warp].ready |= lanes;
  if (warps[warp].ready) ready_warps |= 1u << warp;
}
static void clear_ready(const Fiber& f) {
  warps[f.warp].ready &= ~(1u << f.lane);
  if (!warps[f.warp].ready) ready_warps &= ~(1u << f.warp);
}

// The next lane of the same warp that can run, else the first one of the next warp; null if nobody can.
static Fiber* next_fiber(const Fiber* after) {
  if (!ready_warps) return nullptr;
  if (random_state) {
    const int warp = random_bit(ready_warps);
    return &fibers[warp * 32 + random_bit(warps[warp].ready)];
  }
  int warp = after ? after->warp : 0, lane = after ? after->lane : 31;
  if (!warps[warp].ready) {
    warp = next_bit(ready_warps, warp);
    lane = 31;
  }
  return &fibers[warp * 32 + next_bit(warps[warp].ready, lane)];
}

static void go(Context& from, Fiber* to) {
  cur = to;
  counts.switches++;
  switch_context(from, to->context);
}

static void check_stack(const Fiber& f) {
  if (*(uint64_t*)(stacks + f.linear * STACK_BYTES) != STACK_MARK)
    fail_as("stack", STACK_TOO_SMALL, STACK_BYTES >> 10);
}

static std::string who_waits() {
  std::string text;
  const Fiber* last = nullptr;
  for (int i = 0; i < launch.threads && text.size() < 1000; i++) {
    const Fiber& f = fibers[i];
    if (f.done || !f.waits_in || (last && last->waits_in == f.waits_in && last->wait_pc == f.wait_pc)) continue;
    if (last) text += "; ";
    text += "thread " + thread_name(i) + " and so on wait in " + f.waits_in + place(f.wait_pc);
    last = &f;
  }
  const int returned = launch.threads - launch.alive;
  if (returned) text += "; " + std::to_string(returned) + " of the block's threads have returned";
  return text;
}

// The current thread cannot go on until somebody makes it ready again.
void block_on(Fiber& f, const char* what, void* pc) {
  idle_yields = 0;
  clear_ready(f);
  f.waits_in = what;
  f.wait_pc = pc;
  check_stack(f);
  Fiber* next = next_fiber(&f);
  if (!next) fail_at(pc, "deadlock", "no thread of the block can go on: %s", who_waits().c_str());
  if (next != &f) go(f.context, next);
  f.waits_in = nullptr;
}

void yield_() {
  Fiber& f = *(Fiber*)cur;
  if (++idle_yields > IDLE_YIELDS_MOST)
    fail_at(__builtin_return_address(0), "hang", "this thread waits for something that never happens: %s", who_waits().c_str());
  Fiber* next;
  if (random_state) {
    next = next_fiber(&f);
  } else {  // by number through the whole block: next_fiber would turn in circles inside a warp whose lanes all spin
    const unsigned later = warps[f.warp].ready & above(f.lane);
    const int warp = later ? f.warp : next_bit(ready_warps, f.warp);
    next = &fibers[warp * 32 + __builtin_ctz(later ? later : warps[warp].ready)];
  }
  if (next != &f) go(f.context, next);
}
void maybe_yield() {
  if (random_state && (random_number() & 1)) yield_();
}

// ---- barriers

static void open_barrier(Barrier& b, bool whole_block) {
  counts.barriers++;
  idle_yields = 0;
  check_barrier(b.waiting, whole_block);
  for (int w = 0; w < launch.warps; w++) {
    if (!b.waiting[w]) continue;
    count_flush(w);
    set_ready(w, b.waiting[w]);
    warps[w].in_barrier &= ~b.waiting[w];
    b.waiting[w] = 0;
  }
  b.last_votes = b.votes;
  b.last_here = b.here;
  b.here = b.votes = 0;
}

static void arrive(int id, int threads, int line, int vote, void* pc) {
  if (id < 0 || id >= NAMED_BARRIERS) fail_at(pc, "barrier", "barrier %d: there are barriers 0 to 15", id);
  if (threads % 32) fail_at(pc, "barrier", "barrier %d for %d threads: must be a multiple of 32", id, threads);
  Fiber& f = *(Fiber*)cur;
  Barrier& b = barriers[id];
  const bool whole_block = !threads;
  if (!b.here) {
    b.line = line;
    b.pc = pc;
    b.threads = threads;
  } else if (line && b.line && b.line != line) {
    fail_at(pc, "barrier", "the threads of the block wait in different barriers: this one%s, %d others%s",
            place(pc).c_str(), b.here, place(b.pc).c_str());
  } else if (b.threads != threads) {
    fail_at(pc, "barrier", "barrier %d for %d threads, but others wait in it for %d", id, threads, b.threads);
  }
#if defined(CUSIM_CHECK)
  if (whole_block && launch.alive < launch.threads)
    fail_at(pc, "barrier", "%d of the block's %d threads have returned without coming to this barrier",
            launch.threads - launch.alive, launch.threads);
#endif
  for (unsigned open = warps[f.warp].meeting_in; open; open &= open - 1) {
    const Meeting& m = warps[f.warp].meetings[__builtin_ctz(open)];
    if (m.want >> f.lane & 1)
      fail_at(pc, "warp", "the lanes of a warp have come apart: lane %d is in a barrier, lanes %08x wait for it in %s%s",
              f.lane, m.here, m.what, place(m.pc).c_str());
  }
  b.votes += vote;
  b.waiting[f.warp] |= 1u << f.lane;
  const int want = whole_block ? launch.alive : threads;
  if (++b.here >= want) open_barrier(b, whole_block);
  else {
    warps[f.warp].in_barrier |= 1u << f.lane;
    block_on(f, "a barrier", pc);
  }
}
void barrier(int id, int threads, int line) { arrive(id, threads, line, 0, __builtin_return_address(0)); }
int barrier_popc(int predicate, int line, int* all) {
  arrive(0, 0, line, predicate, __builtin_return_address(0));
  *all = barriers[0].last_votes == barriers[0].last_here;
  return barriers[0].last_votes;
}

// ---- a thread's start and end

static void thread_ends(Fiber& f) {
  check_stack(f);
  idle_yields = 0;
  if (launch.alive == 1) check_end_of_block();
  for (const Observer* o = observers; o; o = o->next) o->thread_ends(launch.alive == 1);
  f.done = true;
  f.open.clear();
  f.groups.clear();
  launch.alive--;
  Warp& warp = warps[f.warp];
  warp.alive &= ~(1u << f.lane);
  clear_ready(f);
  for (unsigned open = warp.meeting_in; open; open &= open - 1) {  // the others need not wait for it any longer
    Meeting& m = warp.meetings[__builtin_ctz(open)];
    m.want &= ~(1u << f.lane);
    if (m.here == m.want) close_meeting(f.warp, m);
  }
  for (Barrier& b : barriers) {
    if (!b.here || b.threads) continue;
#if defined(CUSIM_CHECK)
    fail_at(b.pc, "barrier", "thread %s returns while %d threads of its block wait at this barrier",
            thread_name(f.linear).c_str(), b.here);
#endif
    if (b.here >= launch.alive) open_barrier(b, true);
  }
}

static void fiber_main() {
  launch.kernel->invoke(launch.kernel->function, launch.arguments);
  Fiber& f = *(Fiber*)cur;
  thread_ends(f);
  Fiber* next = next_fiber(&f);
  if (next) go(f.context, next);
  if (launch.alive) {
    f.waits_in = "its end";
    const Fiber* first = fibers;
    while (first->done) first++;
    fail_at(first->wait_pc, "deadlock", "no thread of the block can go on: %s", who_waits().c_str());
  }
  switch_context(f.context, host);
  abort();  // nobody switches to a fiber that has ended
}

void prepare_block() {
  launch.alive = launch.threads;
  ready_warps = 0;
  std::memset(barriers, 0, sizeof barriers);
  for (int w = 0; w < launch.warps; w++) {
    const int lanes = launch.threads - w * 32;
    Warp& warp = warps[w];
    warp.ready = warp.meeting_in = warp.in_barrier = 0;
    warp.alive = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    for (Meeting& m : warp.meetings) m.here = 0;
    set_ready(w, warp.alive);
  }
  const dim3 size = launch.block_dim;
  for (unsigned t = 0; t < (unsigned)launch.threads; t++) {
    Fiber& f = fibers[t];
    f.linear = (int)t;
    f.lane = t & 31;
    f.warp = t >> 5;
    f.tid = {t % size.x, t / size.x % size.y, t / (size.x * size.y)};
    f.done = false;
    f.unchecked = 0;
    f.waits_in = nullptr;
    f.open.clear();
    f.groups.clear();
    char* stack = stacks + t * STACK_BYTES;
    *(uint64_t*)stack = STACK_MARK;
    make_context(f.context, stack, STACK_BYTES, fiber_main);
  }
  for (const Observer* o = observers; o; o = o->next) o->block_begins();
}

void run_block() {
  cur = nullptr;
  go(host, next_fiber(nullptr));
  cur = nullptr;
}

}  // namespace cusim
