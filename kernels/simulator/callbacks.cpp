// Kernels are compiled with -fsanitize=thread and parts of -fsanitize=undefined, but not linked with the sanitizers' own
// libraries: the functions that the compiler calls are defined here, and lead to access() in check.cpp or count.cpp.
#if defined(CUSIM_CALLBACKS)
#include "scheduler.h"

namespace cusim {

void touch(const void* p, size_t n, bool write) { access(p, n, write ? WRITE : READ, __builtin_return_address(0)); }

static inline void aligned(const void* p, size_t n, Access how, void* pc) {
  if ((uintptr_t)p % n)
    fail_at(pc, "misaligned", "%s of %zu bytes at an address that is %zu modulo %zu",
            how == READ || how == VOLATILE_READ ? "read" : "write", n, (size_t)((uintptr_t)p % n), n);
  access(p, n, how, pc);
}

}  // namespace cusim
using namespace cusim;

#define HERE __builtin_return_address(0)
#define ACCESSES(N)                                                                  \
  void __tsan_read##N(void* p) { aligned(p, N, READ, HERE); }                        \
  void __tsan_write##N(void* p) { aligned(p, N, WRITE, HERE); }                      \
  void __tsan_unaligned_read##N(void* p) { access(p, N, READ, HERE); }               \
  void __tsan_unaligned_write##N(void* p) { access(p, N, WRITE, HERE); }             \
  void __tsan_volatile_read##N(void* p) { aligned(p, N, VOLATILE_READ, HERE); }      \
  void __tsan_volatile_write##N(void* p) { aligned(p, N, ATOMIC, HERE); }            \
  void __tsan_unaligned_volatile_read##N(void* p) { access(p, N, VOLATILE_READ, HERE); } \
  void __tsan_unaligned_volatile_write##N(void* p) { access(p, N, ATOMIC, HERE); }

extern "C" {
ACCESSES(1)
ACCESSES(2)
ACCESSES(4)
ACCESSES(8)
ACCESSES(16)
void __tsan_read_range(void* p, size_t n) { access(p, n, READ, HERE); }
void __tsan_write_range(void* p, size_t n) { access(p, n, WRITE, HERE); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void* __tsan_memcpy(void* to, const void* from, size_t n) {
  access(from, n, READ, HERE);
  access(to, n, WRITE, HERE);
  return std::memcpy(to, from, n);
}
void* __tsan_memmove(void* to, const void* from, size_t n) {
  access(from, n, READ, HERE);
  access(to, n, WRITE, HERE);
  return std::memmove(to, from, n);
}
void* __tsan_memset(void* p, int value, size_t n) {
  access(p, n, WRITE, HERE);
  return std::memset(p, value, n);
}
}

// ---- undefined behaviour: the compiler passes a description of the place and the operands

struct SourceLocation { const char* file; uint32_t line, column; };
struct Type { uint16_t kind, info; char name[1]; };  // info: bit 0 signed, the rest log2 of the width in bits
struct Operation { SourceLocation at; const Type* type; };
struct IndexOperation { SourceLocation at; const Type* array; const Type* index; };
struct ShiftOperation { SourceLocation at; const Type* left; const Type* right; };
struct PointerOperation { SourceLocation at; const Type* type; unsigned char log_alignment, kind; };

static long long value_of(uintptr_t raw, const Type* type) {
  const int bits = 1 << (type->info >> 1);
  if (bits > 64) return 0;
  return type->info & 1 ? (long long)(raw << (64 - bits)) >> (64 - bits) : (long long)raw;
}
static void overflow(const char* sign, const Operation* op, uintptr_t a, uintptr_t b, void* pc) {
  if (!cur) return;
  fail_at(pc, "overflow", "%lld %s %lld does not fit into %s", value_of(a, op->type), sign, value_of(b, op->type), op->type->name);
}

extern "C" {
void __ubsan_handle_add_overflow(Operation* op, uintptr_t a, uintptr_t b) { overflow("+", op, a, b, HERE); }
void __ubsan_handle_sub_overflow(Operation* op, uintptr_t a, uintptr_t b) { overflow("-", op, a, b, HERE); }
void __ubsan_handle_mul_overflow(Operation* op, uintptr_t a, uintptr_t b) { overflow("*", op, a, b, HERE); }
void __ubsan_handle_negate_overflow(Operation* op, uintptr_t a) { overflow("-", op, 0, a, HERE); }
void __ubsan_handle_divrem_overflow(Operation* op, uintptr_t a, uintptr_t b) {
  if (cur) fail_at(HERE, "division", "%lld / %lld has no value", value_of(a, op->type), value_of(b, op->type));
}
void __ubsan_handle_shift_out_of_bounds(ShiftOperation* op, uintptr_t a, uintptr_t b) {
  if (!cur) return;
  fail_at(HERE, "shift", "%lld of type %s is shifted by %lld", value_of(a, op->left), op->left->name, value_of(b, op->right));
}
void __ubsan_handle_out_of_bounds(IndexOperation* op, uintptr_t index) {
  if (!cur) return;
  fail_at(HERE, "index", "index %lld is outside of the array of type %s", value_of(index, op->index), op->array->name);
}
void __ubsan_handle_type_mismatch_v1(PointerOperation* op, uintptr_t p) {
  if (!cur) return;
  if (!p) fail_at(HERE, "null pointer", "access to %s through a null pointer", op->type->name);
  const uintptr_t alignment = (uintptr_t)1 << op->log_alignment;
  if (p % alignment)
    fail_at(HERE, "misaligned", "access to %s, which must lie at a multiple of %zu, at an address that is %zu modulo it",
            op->type->name, (size_t)alignment, (size_t)(p % alignment));
}
}
#endif
