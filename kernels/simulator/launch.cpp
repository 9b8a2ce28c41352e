// The C interface that Python calls: find a kernel, say what it takes, run it, tell what went wrong.
#include "scheduler.h"
#include <dlfcn.h>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace cusim {
static Kernel* kernels;
void Kernel::enter() {
  next = kernels;
  kernels = this;
}
static const Kernel* find(const std::string& name) {
  const Kernel* k = kernels;
  while (k && k->name != name) k = k->next;
  return k;
}
std::vector<SharedArray> shared_arrays;
bool is_used(const SharedArray& array) {
  const Kernel* owner = find(array.function);
  return !owner || owner == launch.kernel;
}
}  // namespace cusim
using namespace cusim;

API const Kernel* cusim_find(const char* name) { return find(name); }
API int cusim_parameter_count(const Kernel* k) { return k->count; }
API const Parameter* cusim_parameters(const Kernel* k) { return k->parameters; }
API int cusim_max_threads(const Kernel* k) { return k->max_threads; }

API const char* cusim_parameter_names(const Kernel* k) { return k->names; }
// What addresses in messages count from.
API void* cusim_base() {
  Dl_info info;
  dladdr((void*)&kernels, &info);
  return info.dli_fbase;
}

// One more than there are threads, below the first: what runs over there does no harm until it is noticed.
API size_t cusim_stack_bytes() { return (MAX_THREADS + 1) * STACK_BYTES; }
API void cusim_set_stacks(void* memory) { stacks = (char*)memory + STACK_BYTES; }

API const char* cusim_failure_kind() { return failure.kind.c_str(); }
API const char* cusim_failure_text() { return failure.text.c_str(); }
API void* cusim_failure_pc() { return failure.pc; }
API void cusim_failure_where(unsigned* out) {  // block and thread, 3 numbers each
  const uint3 b = failure.block, t = failure.thread;
  const unsigned where[] = {b.x, b.y, b.z, t.x, t.y, t.z};
  std::memcpy(out, where, sizeof where);
}
API void cusim_counts(uint64_t* out) {
  std::memcpy(out, &counts, sizeof counts);
  counts = {};
}

API void cusim_add_shared_array(void* begin, size_t bytes, const char* name, const char* function) {
  shared_arrays.push_back({(char*)begin, bytes, name, function});
}

static size_t common_divisor(size_t a, size_t b) { return b ? common_divisor(b, a % b) : a; }

// Returns whether the launch failed. The caller has checked grid, block and arguments. Without a seed blocks run in order, with
// one in another order that visits each once: steps of a size that has no common divisor with their number.
API int cusim_launch(const Kernel* kernel, const unsigned* grid, const unsigned* block, size_t shared_bytes,
                     void** arguments, uint64_t seed) {
  launch = {};
  launch.kernel = kernel;
  launch.arguments = arguments;
  launch.grid_dim = dim3(grid[0], grid[1], grid[2]);
  launch.block_dim = dim3(block[0], block[1], block[2]);
  launch.threads = (int)(block[0] * block[1] * block[2]);
  launch.warps = (launch.threads + 31) / 32;
  counts.launches++;
  dyn_smem_bytes = shared_bytes;
  random_state = seed * 0x9e3779b97f4a7c15u;
  check_launch();
  const size_t blocks = (size_t)grid[0] * grid[1] * grid[2];
  size_t step = seed ? random_state % blocks : 1, at = 0;
  while (common_divisor(step, blocks) != 1) step++;
  for (size_t done = 0; done < blocks && !launch.failed; done++, at = (at + step) % blocks) {
    launch.block = {(unsigned)(at % grid[0]), (unsigned)(at / grid[0] % grid[1]), (unsigned)(at / grid[0] / grid[1])};
    poison(dyn_smem, shared_bytes);
    for (const SharedArray& array : shared_arrays)
      if (is_used(array)) poison(array.begin, array.bytes);
    check_block();
    prepare_block();
    run_block();
    for (int w = 0; w < launch.warps; w++) count_flush(w);
  }
  return launch.failed;
}
#if !defined(CUSIM_CHECK)
API void cusim_clear_regions() {}
API void cusim_add_region(void*, size_t, const char*, int) {}
API void cusim_add_variable(void*, size_t) {}
#endif
#if !defined(CUSIM_COUNT)
API size_t cusim_count_rows(uint64_t*, size_t) { return 0; }
#endif
