#include "faults.h"

#include <signal.h>

#include <memory>

namespace upgc {
namespace {

constexpr int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr size_t signal_count = sizeof(signals) / sizeof(signals[0]);
constexpr size_t handler_stack_bytes = 64 * 1024;

struct sigaction previous[signal_count];
thread_local FaultScope* current = nullptr;

Fault fault_of(int signal) {
  return signal == SIGFPE ? Fault::arithmetic : signal == SIGILL ? Fault::instruction : Fault::access;
}

/// A fault of somebody else is for whoever handled it before, by default the end of the process.
void pass_on(int signal, siginfo_t* info, void* context) {
  for (size_t i = 0; i < signal_count; i++) {
    if (signals[i] != signal) continue;
    const struct sigaction& action = previous[i];
    if ((action.sa_flags & SA_SIGINFO) != 0) return action.sa_sigaction(signal, info, context);
    if (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN) return action.sa_handler(signal);
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);  // on return the fault happens again
  }
}

void handle(int signal, siginfo_t* info, void* context) {
  // What another process sends is no fault.
  FaultScope* const scope = info->si_code > 0 ? current : nullptr;
  if (scope == nullptr) return pass_on(signal, info, context);
  scope->fault = fault_of(signal);
  siglongjmp(scope->place, 1);
}

bool install() {
  struct sigaction action = {};
  action.sa_sigaction = handle;
  // On a stack of its own, because a kernel's may be what overflowed; not blocked, because the handler does not return.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (size_t i = 0; i < signal_count; i++) sigaction(signals[i], &action, &previous[i]);
  return true;
}

/// A stack for the handler on the calling OS thread, unless it has one.
struct HandlerStack {
  HandlerStack() {
    stack_t existing;
    if (sigaltstack(nullptr, &existing) == 0 && (existing.ss_flags & SS_DISABLE) == 0) return;
    memory = std::make_unique<char[]>(handler_stack_bytes);
    stack_t stack = {};
    stack.ss_sp = memory.get();
    stack.ss_size = handler_stack_bytes;
    sigaltstack(&stack, nullptr);
  }
  ~HandlerStack() {
    if (!memory) return;
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    none.ss_size = handler_stack_bytes;
    sigaltstack(&none, nullptr);
  }
  std::unique_ptr<char[]> memory;
};

/// Once a process, and once an OS thread.
void prepare() {
  static const bool installed = install();
  static_cast<void>(installed);
  thread_local const HandlerStack stack;
  static_cast<void>(stack);
}

}  // namespace

FaultScope::FaultScope() : outer_(current) {
  prepare();
  current = this;
}

FaultScope::~FaultScope() { current = outer_; }

}  // namespace upgc
