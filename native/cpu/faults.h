// What a kernel does wrong must not end the process that runs it: an access to memory that is not there, or an integer
// division by zero, becomes an error of the dispatch. Memory lies between pages that nobody may touch, see memory.h, so
// most of what runs out of all buffers is noticed; what runs from one buffer into the next, only a sanitized program
// notices.
#pragma once

#include <setjmp.h>

#include <optional>

namespace upgc {

enum class Fault { access, arithmetic, instruction };

/// What the fault handler knows of the OS thread that it runs on.
class FaultScope {
 public:
  FaultScope();
  ~FaultScope();
  FaultScope(const FaultScope&) = delete;
  FaultScope& operator=(const FaultScope&) = delete;

  sigjmp_buf place;
  volatile Fault fault = Fault::access;

 private:
  FaultScope* const outer_;
};

/// Calls `work`, which may be on any stack when it faults; what it has on its stacks is then dropped without destructors.
template <class Work>
std::optional<Fault> catch_fault(const Work& work) {
  FaultScope scope;
  // Without the signal mask, which costs a system call: the handler leaves it as it is.
  if (sigsetjmp(scope.place, 0) != 0) return scope.fault;
  work();
  return std::nullopt;
}

}  // namespace upgc
