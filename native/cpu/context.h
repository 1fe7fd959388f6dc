// Stackful context switches, for the lanes of the simdgroup scheduler. Cooperative and within one OS thread.
#pragma once

#include <cstddef>

namespace upgc {

/// A suspended flow of control: its stack pointer, with the callee-saved registers pushed below it.
struct Context {
  void* stack_pointer = nullptr;
};

/// A context that calls `function(argument)` when it is first switched to. `function` must not return.
Context make_context(unsigned char* stack_top, void (*function)(void*), void* argument);

/// Suspends the caller in `from` and resumes `to`.
extern "C" __attribute__((visibility("hidden"))) void upgc_switch_context(Context* from, const Context* to);

}  // namespace upgc
