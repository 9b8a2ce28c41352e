// Switching from one stack to another: the whole of what makes a fiber.
//
// Context holds a stack pointer (x86-64 under the System V calling convention) or a ucontext_t (any other machine, several
// times slower because it also saves the signal mask). Floating-point control registers are not saved: kernels leave them.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && !defined(CUSIM_UCONTEXT)

// Pushes the six registers that a function must preserve, stores the stack pointer in *save, takes the other stack and pops
// that one's registers; `ret` then goes on where the other context had called.
extern "C" void cusim_switch(void** save, void* stack_pointer);
#if defined(CUSIM_DEFINE_SWITCH)
asm(R"(
.text
.p2align 4
.globl cusim_switch
.hidden cusim_switch
.type cusim_switch, @function
cusim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cusim_switch, .-cusim_switch
.section .note.GNU-stack, "", @progbits
.text
)");
#endif

namespace cusim {
struct Context { void* stack_pointer; };

static inline void make_context(Context& context, char* stack, size_t size, void (*entry)()) {
  void** top = (void**)(((uintptr_t)stack + size) & ~(uintptr_t)63);
  *--top = nullptr;        // where entry's return address would be: entry never returns, and unwinding ends here.
  *--top = (void*)entry;   // popped by ret; the stack pointer is then 8 below a multiple of 16, as after any call
  for (int i = 0; i < 6; i++) *--top = nullptr;
  context.stack_pointer = top;
}
static inline void switch_context(Context& from, Context& to) { cusim_switch(&from.stack_pointer, to.stack_pointer); }
}  // namespace cusim

#else

#include <ucontext.h>
namespace cusim {
struct Context { ucontext_t machine; };

static inline void make_context(Context& context, char* stack, size_t size, void (*entry)()) {
  getcontext(&context.machine);
  context.machine.uc_stack.ss_sp = stack;
  context.machine.uc_stack.ss_size = size;
  context.machine.uc_link = nullptr;
  makecontext(&context.machine, entry, 0);
}
static inline void switch_context(Context& from, Context& to) { swapcontext(&from.machine, &to.machine); }
}  // namespace cusim

#endif
