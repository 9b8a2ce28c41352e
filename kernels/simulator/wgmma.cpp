// wgmma of the simulator. What it promises to kernels is written in hopper.h, how operands lie in kernels/cuda/hopper.cuh.
//
// Each warp multiplies its own 16 of the 64 rows when it waits. From the issue until then the accumulators are kept here, and
// the thread's registers hold NaN: a kernel that reads them too early computes with that, one that writes them loses it.
#include "hopper_state.h"
#include <cstring>

namespace cusim {
namespace hopper {
namespace {

struct Sums {            // the accumulators of one warp: 16 x n
  float* registers[32];  // by lane
  int n, users;          // wgmmas issued that are not complete
  std::vector<float> value;
  float& at(int lane, int r) {  // register r = 4 j + 2 i + e of a lane is row lane / 4 + 8 i, column 8 j + 2 (lane % 4) + e
    return value[(size_t)(lane / 4 + (r >> 1 & 1) * 8) * n + (r >> 2) * 8 + lane % 4 * 2 + (r & 1)];
  }
};
struct Product {
  Operand a, b;
  Kind kind;
  bool accumulate;
  size_t sums;
  void* pc;
  Range read_a, read_b;
};
struct Warp {
  size_t complete;                       // how many wgmmas are done with
  std::vector<Product> issued;           // the others, committed or not
  std::vector<size_t> groups;            // where in `issued` each committed group ends
  size_t by_lane[32], commits[32];       // how many of them, and of their groups, each lane has come to
  std::vector<Sums> sums;
  bool fenced;
};
Warp warps[MAX_WARPS];
std::vector<std::pair<uint64_t, uint64_t>> history[MAX_WARPS / 4];  // the descriptors of all wgmmas of a warpgroup

int depth(Kind kind) { return kind == TF32 ? 8 : 16; }
uint32_t field(uint64_t descriptor, int bit) { return (uint32_t)(descriptor >> bit & 0x3fff) << 4; }

// Where, before the swizzle, element (row, z) of an operand lies: PTX ISA, "Canonical Layouts", 128-byte swizzle.
uint32_t offset(const Operand& o, Kind kind, int row, int z) {
  const uint32_t leading = field(o.descriptor, 16), stride = field(o.descriptor, 32), element = kind == TF32 ? 4 : 2;
  if (!o.mn_major) return (uint32_t)(row / 8) * stride + (uint32_t)(row % 8) * 128 + (uint32_t)z * element;
  const int across = 128 / (int)element;  // 8 T
  return (uint32_t)(row / across) * leading + (uint32_t)(row % across) * element + (uint32_t)(z / 8) * stride + (uint32_t)(z % 8) * 128;
}
Range reach(const Operand& o, Kind kind, int rows) {
  const uint32_t start = field(o.descriptor, 0);
  return {start, start + offset(o, kind, rows - 1, depth(kind) - 1) + (kind == TF32 ? 4 : 2)};
}
void check_descriptor(const Operand& o, Kind kind, const char* name, void* pc) {
  if (o.descriptor >> 62 != 1) fail_at(pc, "wgmma", "the descriptor of %s has swizzle mode %d; the simulator knows 1 (128 bytes)", name, (int)(o.descriptor >> 62));
  if (o.descriptor >> 49 & 7) fail_at(pc, "wgmma", "the descriptor of %s has base offset %d; the simulator knows 0", name, (int)(o.descriptor >> 49 & 7));
  if (o.mn_major && kind == TF32) fail_at(pc, "wgmma", "%s is MN-major, which TF32 does not have", name);
}

float half_value(uint16_t bits) {
  const uint32_t magnitude = (uint32_t)(bits & 0x7fff) << 13;
  float v;
  if (magnitude >= 0x0f800000u) {  // infinity or NaN
    const uint32_t wide = magnitude | 0x7f800000u;
    std::memcpy(&v, &wide, 4);
  } else {
    std::memcpy(&v, &magnitude, 4);
    v *= 0x1p112f;
  }
  return bits & 0x8000 ? -v : v;
}
float value(const char* p, Kind kind) {
  uint32_t wide;
  float v;
  if (kind == TF32) {
    std::memcpy(&wide, p, 4);
    wide &= 0xffffe000u;
  } else {
    uint16_t narrow;
    std::memcpy(&narrow, p, 2);
    if (kind == HALF) return half_value(narrow);
    wide = (uint32_t)narrow << 16;
  }
  std::memcpy(&v, &wide, 4);
  return v;
}
// Rows first ... first + count - 1 of an operand, as out[z][row].
void read(const Operand& o, Kind kind, int first, int count, float* out, const char* name, void* pc) {
  const uint32_t start = field(o.descriptor, 0);
  for (int z = 0; z < depth(kind); z++)
    for (int i = 0; i < count; i++)
      out[z * count + i] = value(memory_at(swizzled(start + offset(o, kind, first + i, z)), kind == TF32 ? 4 : 2, name, pc), kind);
}

void multiply(int warp, const Product& p) {
  Sums& sums = warps[warp].sums[p.sums];
  static float a[16 * 16], b[16 * 256];
  read(p.a, p.kind, warp % 4 * 16, 16, a, "factor A", p.pc);
  read(p.b, p.kind, 0, sums.n, b, "factor B", p.pc);
  if (!p.accumulate) std::fill(sums.value.begin(), sums.value.end(), 0.0f);
  for (int row = 0; row < 16; row++) {
    float* out = &sums.value[(size_t)row * sums.n];
    for (int z = 0; z < depth(p.kind); z++) {
      const float factor = a[z * 16 + row];
      const float* column = b + z * sums.n;
      for (int j = 0; j < sums.n; j++) out[j] += factor * column[j];
    }
  }
  if (--sums.users) return;
  for (int lane = 0; lane < 32; lane++) {
    for (int r = 0; r < sums.n / 2; r++) sums.registers[lane][r] = sums.at(lane, r);
    sums.registers[lane] = nullptr;
  }
}

// Completes all groups but the last `keep`; once all lanes of the warp have come.
void complete_groups(Round& round) {
  int keep;
  std::memcpy(&keep, round.s[__builtin_ctz(round.mask)].b, sizeof keep);
  Warp& w = warps[cur->warp];
  const size_t groups = w.groups.size(), done = groups > (size_t)keep ? groups - (size_t)keep : 0;
  if (!done) return;
  const size_t end = w.groups[done - 1];
  for (size_t i = 0; i < end; i++) multiply(cur->warp, w.issued[i]);
  w.issued.erase(w.issued.begin(), w.issued.begin() + (long)end);
  w.groups.erase(w.groups.begin(), w.groups.begin() + (long)done);
  for (size_t& g : w.groups) g -= end;
  w.complete += end;
  for (int lane = 0; lane < 32; lane++) {
    w.by_lane[lane] -= end;
    w.commits[lane] -= done;
  }
  if (w.issued.empty()) {  // the registers are the thread's again
    w.sums.clear();
    w.fenced = false;
  }
  events++;
}

}  // namespace

void wgmma(float* d, int n, Operand a, Operand b, Kind kind, bool accumulate) {
  void* pc = __builtin_return_address(0);
  Warp& w = warps[cur->warp];
  const size_t number = w.by_lane[cur->lane]++;
  if (number == w.issued.size()) {  // the first lane of the warp to come here
    check_descriptor(a, kind, "factor A", pc);
    check_descriptor(b, kind, "factor B", pc);
    if (!w.fenced) fail_at(pc, "wgmma", "wgmma.fence is missing before this wgmma: its registers were the thread's until here");
    Product product = {a, b, kind, accumulate, w.sums.size(), pc, reach(a, kind, 64), reach(b, kind, n)};
    check_operand(product.read_a, "A", pc);
    check_operand(product.read_b, "B", pc);
    for (size_t i = 0; i < w.sums.size(); i++)
      if (w.sums[i].registers[cur->lane] == d) product.sums = i;
    if (product.sums == w.sums.size()) w.sums.push_back({{}, n, 0, std::vector<float>((size_t)n * 16)});
    w.sums[product.sums].users++;
    w.issued.push_back(product);
    if (cur->warp % 4 == 0) counts.wgmmas++;  // the four warps of a warpgroup issue it together
    auto& past = history[cur->warp / 4];
    const std::pair<uint64_t, uint64_t> both(a.descriptor, b.descriptor);
    if (w.complete + number == past.size()) past.push_back(both);
    if (past[w.complete + number] != both) fail_at(pc, "wgmma", "the warps of a warpgroup issue wgmmas with different descriptors");
  }
  const Product& product = w.issued[number];
  Sums& sums = w.sums[product.sums];
  if (product.a.descriptor != a.descriptor || product.b.descriptor != b.descriptor || product.accumulate != accumulate || sums.n != n)
    fail_at(pc, "wgmma", "the lanes of a warp issue different wgmmas");
  float*& registers = sums.registers[cur->lane];
  if (registers && registers != d) fail_at(pc, "wgmma", "the lanes of a warp give different accumulators");
  if (!registers) {
    registers = d;
    for (int r = 0; r < n / 2; r++) sums.at(cur->lane, r) = d[r];
  }
  poison(d, (size_t)n / 2 * sizeof(float));
}

void wgmma_fence() { warps[cur->warp].fenced = true; }

void wgmma_commit() {
  Warp& w = warps[cur->warp];
  if (w.commits[cur->lane]++ == w.groups.size()) w.groups.push_back(w.by_lane[cur->lane]);
}

void wgmma_wait(int keep, int line) {
  rendezvous(0xffffffffu, "wgmma.wait_group", line, &keep, sizeof keep, complete_groups, false);
}

void check_not_read(const Range& bytes, void* pc) {
  for (int w = 0; w < launch.warps; w++)
    for (const Product& p : warps[w].issued)
      if (p.read_a.meets(bytes) || p.read_b.meets(bytes))
        fail_at(pc, "race", "a bulk load into memory that a wgmma of warp %d%s still reads: its stage was handed back before wgmma.wait_group", w, place(p.pc).c_str());
}

static void block_begins() {
  for (int w = 0; w < launch.warps; w++) warps[w] = {};
  for (auto& past : history) past.clear();
}
static void thread_ends(bool) {
  const Warp& w = warps[cur->warp];
  if (!w.issued.empty()) fail_at(w.issued.front().pc, "wgmma", "the thread ends while this wgmma is not complete: wgmma.wait_group is missing");
}
static Observer observer(block_begins, thread_ends);

}  // namespace hopper
}  // namespace cusim
