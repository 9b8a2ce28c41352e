// Errors and asynchronous copies.
#include "scheduler.h"
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace cusim {

Failure failure;

// ---- errors

std::string place(void* pc) {
  char text[32];
  snprintf(text, sizeof text, "@%zx@", (size_t)pc);
  return text;
}
std::string thread_name(int linear) {
  const uint3 t = fibers[linear].tid;
  char text[48];
  snprintf(text, sizeof text, "(%u,%u,%u)", t.x, t.y, t.z);
  return text;
}

// Leaves the fibers for good: their stacks are used anew by the next launch.
[[noreturn]] static void fail_with(void* pc, const char* kind, const char* format, va_list values) {
  char text[3000];
  vsnprintf(text, sizeof text, format, values);
  failure = {kind, text, launch.block, cur->tid, pc};
  check_failure(failure);
  launch.failed = true;
  switch_context(((Fiber*)cur)->context, host);
  abort();
}
void fail_at(void* pc, const char* kind, const char* format, ...) {
  va_list values;
  va_start(values, format);
  fail_with(pc, kind, format, values);
}
void fail_as(const char* kind, const char* format, ...) {
  va_list values;
  va_start(values, format);
  fail_with(__builtin_return_address(0), kind, format, values);
}
void fail(const char* format, ...) {
  va_list values;
  va_start(values, format);
  fail_with(__builtin_return_address(0), "primitive", format, values);
}

// ---- asynchronous copies

void poison(void* p, size_t n) { std::memset(p, 0xff, n); }  // NaN as float, half and bf16

void async_copy(void* dst, const void* src, int bytes, int valid) {
  void* pc = __builtin_return_address(0);
  if (((uintptr_t)dst | (valid ? (uintptr_t)src : 0)) % bytes)
    fail_at(pc, "misaligned", "an asynchronous copy of %d bytes needs addresses that are multiples of %d; the %s is not",
            bytes, bytes, (uintptr_t)dst % bytes ? "destination" : "source");
  const AsyncCopy copy{(char*)dst, (const char*)src, bytes, valid, pc};
  copy_begin(copy);
  poison(dst, bytes);
  ((Fiber*)cur)->open.push_back(copy);
}
void async_commit() {
  Fiber& f = *(Fiber*)cur;
  f.groups.push_back(std::move(f.open));
  f.open.clear();
}
void async_wait(int keep) {
  Fiber& f = *(Fiber*)cur;
  for (; (int)f.groups.size() > keep; f.groups.erase(f.groups.begin())) {
    for (const AsyncCopy& copy : f.groups.front()) {
      copy_end(copy);
      std::memcpy(copy.dst, copy.src, copy.valid);
      std::memset(copy.dst + copy.valid, 0, copy.bytes - copy.valid);
    }
  }
}

// ---- what only the checker needs
#if !defined(CUSIM_CALLBACKS)
void touch(const void*, size_t, bool) {}
void unit_write_end(void*, size_t) {}
void release(void*) {}
void acquire(void*) {}
void fence() {}
void atomic(const void*, size_t) {}
#endif
#if !defined(CUSIM_CHECK)
void unit_write_begin(void* p, size_t n) { poison(p, n); }
#endif

}  // namespace cusim
