#pragma once

#include <cstddef>

#include "sanitizers.h"

// Switching between stacks: assembly on x86-64, ucontext elsewhere.
#if defined(__x86_64__) && !defined(GPULESS_UCONTEXT)

// Saves the callee-saved registers and the stack pointer, then takes those of `to`.
extern "C" __attribute__((visibility("hidden"))) void gpuless_switch(void** from, void* to);
asm(R"(
  .pushsection .text.gpuless_switch, "axG", @progbits, gpuless_switch, comdat
  .weak gpuless_switch
  .hidden gpuless_switch
  .type gpuless_switch, @function
gpuless_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
  .size gpuless_switch, .-gpuless_switch
  .popsection
)");

namespace gpuless {

struct Context {
  void* top;
};

// `entry` starts on the stack and never returns
GPULESS_UNSEEN inline void context_start(Context& context, char* stack, size_t bytes, void (*entry)()) {
  constexpr int kSaved = 6;
  void** top = reinterpret_cast<void**>(stack + bytes);
  *--top = nullptr;  // the end of every back trace
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < kSaved; i++) *--top = nullptr;
  context.top = top;
}

GPULESS_UNSEEN inline void context_switch(Context& from, const Context& to) { gpuless_switch(&from.top, to.top); }

}  // namespace gpuless

#else

#include <ucontext.h>

namespace gpuless {

using Context = ucontext_t;

GPULESS_UNSEEN inline void context_start(Context& context, char* stack, size_t bytes, void (*entry)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = stack;
  context.uc_stack.ss_size = bytes;
  context.uc_link = nullptr;
  makecontext(&context, entry, 0);
}

GPULESS_UNSEEN inline void context_switch(Context& from, const Context& to) { swapcontext(&from, &to); }

}  // namespace gpuless

#endif
