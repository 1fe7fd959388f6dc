#include "context.h"

#include <cstdint>

#ifdef __APPLE__
#define SYMBOL(name) "_" name
#else
#define SYMBOL(name) name
#endif

extern "C" __attribute__((visibility("hidden"))) void upgc_start_context();

namespace upgc {

#if defined(__x86_64__)

// System V ABI: rbx, rbp and r12 to r15 survive calls. `pop; jmp` instead of `ret`: the return-address predictor would
// mispredict every switch. A new context finds its function in r13 and the argument in r12.
asm(".text\n"
    ".globl " SYMBOL("upgc_switch_context") "\n"
    SYMBOL("upgc_switch_context") ":\n"
    "  pushq %rbp\n"
    "  pushq %rbx\n"
    "  pushq %r12\n"
    "  pushq %r13\n"
    "  pushq %r14\n"
    "  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq (%rsi), %rsp\n"
    "  popq %r15\n"
    "  popq %r14\n"
    "  popq %r13\n"
    "  popq %r12\n"
    "  popq %rbx\n"
    "  popq %rbp\n"
    "  popq %rcx\n"
    "  jmpq *%rcx\n"
    ".globl " SYMBOL("upgc_start_context") "\n"
    SYMBOL("upgc_start_context") ":\n"
    "  movq %r12, %rdi\n"
    "  callq *%r13\n"
    "  ud2\n");

Context make_context(unsigned char* stack_top, void (*function)(void*), void* argument) {
  // Slots in the order of the pops. After the last one the stack is 16-byte aligned, as `callq` expects.
  auto** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_top) & ~uintptr_t{15});
  void** frame = top - 7;
  frame[0] = nullptr;                               // r15
  frame[1] = nullptr;                               // r14
  frame[2] = reinterpret_cast<void*>(function);     // r13
  frame[3] = argument;                              // r12
  frame[4] = nullptr;                               // rbx
  frame[5] = nullptr;                               // rbp: ends the chain of frames for debuggers
  frame[6] = reinterpret_cast<void*>(upgc_start_context);
  return {frame};
}

#elif defined(__aarch64__)

// AAPCS64: x19 to x30 and the low halves of v8 to v15 survive calls. A new context finds its function in x20 and the
// argument in x19. This has been assembled for Linux and macOS but not run yet.
asm(".text\n"
    ".p2align 2\n"
    ".globl " SYMBOL("upgc_switch_context") "\n"
    SYMBOL("upgc_switch_context") ":\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n"
    "  stp x21, x22, [sp, #16]\n"
    "  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n"
    "  stp x27, x28, [sp, #64]\n"
    "  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n"
    "  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n"
    "  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n"
    "  str x9, [x0]\n"
    "  ldr x9, [x1]\n"
    "  mov sp, x9\n"
    "  ldp x19, x20, [sp, #0]\n"
    "  ldp x21, x22, [sp, #16]\n"
    "  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n"
    "  ldp x27, x28, [sp, #64]\n"
    "  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n"
    "  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n"
    "  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".globl " SYMBOL("upgc_start_context") "\n"
    SYMBOL("upgc_start_context") ":\n"
    "  mov x0, x19\n"
    "  blr x20\n"
    "  brk #1\n");

Context make_context(unsigned char* stack_top, void (*function)(void*), void* argument) {
  auto** top = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(stack_top) & ~uintptr_t{15});
  void** frame = top - 20;
  for (int i = 0; i < 20; i++) frame[i] = nullptr;
  frame[0] = argument;                           // x19
  frame[1] = reinterpret_cast<void*>(function);  // x20
  frame[11] = reinterpret_cast<void*>(upgc_start_context);  // x30, the return address
  return {frame};
}

#else
#error "the CPU device supports x86-64 and aarch64"
#endif

}  // namespace upgc
