// Meetings of a warp's lanes, and what shuffles and votes do with them.
#include "scheduler.h"

namespace cusim {

void close_meeting(int w, Meeting& m) {
  const unsigned lanes = m.here;
  idle_yields = 0;
  Round& round = m.round[m.turn & 1];
  round.mask = lanes;
  m.here = 0;
  m.turn++;
  warps[w].meeting_in &= ~(1u << (&m - warps[w].meetings));
  if (m.op) m.op(round);
  if (m.orders) check_meeting(w, lanes);
  count_flush(w);
  set_ready(w, lanes);
}

static Round& meet(unsigned mask, const char* what, int line, const void* in, size_t n, WarpOp op, bool orders, void* pc) {
  Fiber& f = *(Fiber*)cur;
  Warp& warp = warps[f.warp];
  if (!(mask >> f.lane & 1)) fail_at(pc, "warp", "%s: the calling lane %d is not in the mask %08x", what, f.lane, mask);
  const unsigned want = mask & warp.alive;
  Meeting& m = warp.meetings[__builtin_ctz(mask)];
  Round& round = m.round[m.turn & 1];
  counts.collectives++;
  for (unsigned open = warp.meeting_in; open; open &= open - 1) {
    const Meeting& other = warp.meetings[__builtin_ctz(open)];
    const bool same = strcmp(other.what, what) == 0 && other.line == line && other.want == want;
    if ((other.want & want) && !same)
      fail_at(pc, "warp",
              "the lanes of a warp have come apart: lane %d is in %s with mask %08x%s, lanes %08x in %s with mask %08x%s",
              f.lane, what, mask, place(pc).c_str(), other.here, other.what, other.want, place(other.pc).c_str());
  }
  if (warp.in_barrier & want) {
    const Fiber& other = fibers[f.warp * 32 + __builtin_ctz(warp.in_barrier & want)];
    fail_at(pc, "warp", "the lanes of a warp have come apart: lane %d is in %s with mask %08x, lane %d waits in a barrier%s",
            f.lane, what, mask, other.lane, place(other.wait_pc).c_str());
  }
  if (!m.here) {
    m.what = what;
    m.line = line;
    m.pc = pc;
    m.want = want;
    m.op = op;
    m.orders = orders;
  }
  if (n) std::memcpy(round.s[f.lane].b, in, n);
  m.here |= 1u << f.lane;
  if (m.here == m.want) {
    close_meeting(f.warp, m);
  } else {
    warp.meeting_in |= 1u << __builtin_ctz(mask);
    block_on(f, what, pc);
  }
  return round;
}

Round& rendezvous(unsigned mask, const char* what, int line, const void* in, size_t n, WarpOp op, bool orders) {
  return meet(mask, what, line, in, n, op, orders, __builtin_return_address(0));
}

const void* shuffle(unsigned mask, const void* value, size_t n, int source, int width, const char* what, int line) {
  void* pc = __builtin_return_address(0);
  if (width < 1 || width > 32 || (width & (width - 1)))
    fail_at(pc, "warp", "%s: the width must be 1, 2, 4, 8, 16 or 32, found %d", what, width);
  const Round& round = meet(mask, what, line, value, n, nullptr, false, pc);
  if (!(round.mask >> source & 1)) {
    if (mask >> source & 1) fail_at(pc, "warp", "%s reads lane %d, which has returned or does not exist", what, source);
    fail_at(pc, "warp", "%s reads lane %d, which is not in the mask %08x", what, source, mask);
  }
  return round.s[source].b;
}

unsigned ballot(unsigned mask, bool predicate, const char* what, int line, unsigned* present) {
  const Round& round = meet(mask, what, line, &predicate, 1, nullptr, false, __builtin_return_address(0));
  unsigned votes = 0;
  for (int lane = 0; lane < 32; lane++)
    if ((round.mask >> lane & 1) && round.s[lane].b[0]) votes |= 1u << lane;
  *present = round.mask;
  return votes;
}

}  // namespace cusim
