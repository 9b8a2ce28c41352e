// Which memory a launch may touch: the arguments' and the shared arrays, each with its cells.
#if defined(CUSIM_CHECK)
#include "shadow.h"
#include <algorithm>
#include <dlfcn.h>

extern char bss_begin asm("__bss_start") __attribute__((visibility("hidden")));
extern char code_end asm("_end") __attribute__((visibility("hidden")));

namespace cusim {

std::vector<Region> regions;
char* code_base;

Region::Region(void* p, size_t n, std::string name, int item, bool shared)
    : begin((char*)p), end((char*)p + n), name(std::move(name)), item(item), shared(shared), shift(2),
      cells((n + 3) / 4 + 1) {
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
  if ((uintptr_t)p < 4096)
    fail_at(pc, "null pointer", "%s of %zu bytes through a null pointer (address %zu)", verb, n, (size_t)p);
  const Region* region = last;
  auto distance = [p](const Region& r) { return p >= r.end ? p - r.end : p < r.begin ? r.begin - p : 0; };
  for (const Region& r : regions)
    if (!last && (!region || distance(r) < distance(*region))) region = &r;
  if (!region) fail_at(pc, "out of bounds", "%s of %zu bytes at an address that belongs to no argument", verb, n);
  const long long unit = region->item ? region->item : 1;
  if (p < region->begin)
    fail_at(pc, "out of bounds", "%s of %zu bytes that begins %lld %s before %s", verb, n,
            (region->begin - p + unit - 1) / unit, region->item ? "elements" : "bytes", region->name.c_str());
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

Region* look_up(const char* p, size_t n, bool write, void* pc) {
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
    if (owner != cur->linear)
      fail_at(pc, "local memory", "access to a local variable of thread %s", thread_name(owner).c_str());
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

void regions_launch() {
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
API void cusim_add_region(void* p, size_t n, const char* name, int item) {
  regions.emplace_back(p, n, name, item, false);
}
API void cusim_add_variable(void* begin, size_t bytes) { variables.push_back({(char*)begin, (char*)begin + bytes}); }
#endif
