// The C interface that Python calls: find a kernel, say what it takes, run it, tell what went wrong.
#include "scheduler.h"
#include <dlfcn.h>

#define API extern "C" __attribute__((visibility("default")))

namespace cusim {
static Kernel* kernels;
void Kernel::enter() {
  next = kernels;
  kernels = this;
}
}  // namespace cusim
using namespace cusim;

API const Kernel* cusim_find(const char* name) {
  const Kernel* k = kernels;
  while (k && std::strcmp(k->name, name) != 0) k = k->next;
  return k;
}
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

API size_t cusim_stack_bytes() { return MAX_THREADS * STACK_BYTES; }
API void cusim_set_stacks(void* memory) { stacks = (char*)memory; }
API void cusim_set_seed(uint64_t seed) { random_state = seed; }

API const char* cusim_failure_kind() { return failure.kind.c_str(); }
API const char* cusim_failure_text() { return failure.text.c_str(); }
API void* cusim_failure_pc() { return failure.pc; }
API void cusim_failure_where(unsigned* out) {  // block and thread, 3 numbers each
  const unsigned where[] = {failure.block.x, failure.block.y, failure.block.z, failure.thread.x, failure.thread.y, failure.thread.z};
  std::memcpy(out, where, sizeof where);
}
API void cusim_counts(uint64_t* out) {
  std::memcpy(out, &counts, sizeof counts);
  counts = {};
}

// Returns whether the launch failed. The caller has checked grid, block and arguments.
API int cusim_launch(const Kernel* kernel, const unsigned* grid, const unsigned* block, size_t shared_bytes, void** arguments) {
  launch = {};
  launch.kernel = kernel;
  launch.arguments = arguments;
  launch.grid_dim = dim3(grid[0], grid[1], grid[2]);
  launch.block_dim = dim3(block[0], block[1], block[2]);
  launch.threads = (int)(block[0] * block[1] * block[2]);
  launch.warps = (launch.threads + 31) / 32;
  counts.launches++;
  dyn_smem_bytes = shared_bytes;
  check_launch();
  for (unsigned z = 0; z < grid[2] && !launch.failed; z++)
    for (unsigned y = 0; y < grid[1] && !launch.failed; y++)
      for (unsigned x = 0; x < grid[0] && !launch.failed; x++) {
        launch.block = {x, y, z};
        poison(dyn_smem, shared_bytes);
        check_block();
        prepare_block();
        run_block();
        for (int w = 0; w < launch.warps; w++) count_flush(w);
      }
  return launch.failed;
}
#if !defined(CUSIM_CHECK)
API void cusim_clear_regions() {}
API void cusim_add_region(void*, size_t, const char*, int, int) {}
#endif
