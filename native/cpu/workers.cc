#include "workers.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <chrono>

#include "flush_denormals.h"

namespace upgc {
namespace {

using Clock = std::chrono::steady_clock;

// Longer than what mostly lies between two large dispatches: small ones, and the host between two submissions.
// Sleeping and waking up costs some 10 to 50 µs.
constexpr std::chrono::microseconds spin_time(100);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  asm volatile("yield");
#endif
}

/// Spins until `done()`; false when that takes longer than `spin_time`.
template <class Done>
bool spin_until(Done done) {
  // The first rounds do not look at the clock: an answer most often comes within a microsecond.
  for (int i = 0; i < 256; i++) {
    if (done()) return true;
    pause();
  }
  for (const Clock::time_point end = Clock::now() + spin_time; Clock::now() < end;)
    for (int i = 0; i < 32; i++) {
      if (done()) return true;
      pause();
    }
  return false;
}

/// Signals go to the threads that Node has for them, but for a thread's own faults.
struct BlockSignals {
  BlockSignals() {
    sigset_t all;
    sigfillset(&all);
    for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, fault);
    pthread_sigmask(SIG_SETMASK, &all, &saved);
  }
  ~BlockSignals() { pthread_sigmask(SIG_SETMASK, &saved, nullptr); }
  sigset_t saved;
};

}  // namespace

Workers::Workers(unsigned count) {
  const BlockSignals block;
  for (unsigned i = 0; i < count; i++) {
    Worker& worker = *workers_.emplace_back(std::make_unique<Worker>());
    worker.thread = std::thread([this, &worker, i] { work(worker, i + 1); });
  }
}

Workers::~Workers() {
  stop_ = true;
  for (const auto& worker : workers_) invite(*worker);
  for (const auto& worker : workers_) worker->thread.join();
}

void Workers::run(unsigned shares, Call call, const void* object) {
  call_ = call;
  object_ = object;
  shares_ = shares;
  next_.store(0, std::memory_order_relaxed);
  const unsigned invited = std::min<size_t>(workers_.size(), shares - 1);
  invited_.store(invited, std::memory_order_relaxed);
  for (unsigned i = 0; i < invited; i++) invite(*workers_[i]);
  take_shares(0);
  for (unsigned i = 0; i < invited; i++)
    if (settle(*workers_[i])) invited_.fetch_sub(1, std::memory_order_relaxed);
  const auto done = [&] { return invited_.load(std::memory_order_acquire) == 0; };
  // On a busy machine a worker may lose its core in the middle of a share: let it have this one.
  while (!spin_until(done)) sched_yield();
}

void Workers::take_shares(unsigned thread) {
  for (unsigned i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < shares_;) call_(object_, i, thread);
}

/// Shows the worker all that this thread has written before.
void Workers::invite(Worker& worker) {
  worker.invitation.fetch_add(1);
  // Both this and the counterpart in `await` are sequentially consistent: either this thread sees the worker asleep, or
  // the worker sees the invitation before it sleeps.
  if (!worker.asleep.load()) return;
  const std::lock_guard<std::mutex> lock(worker.mutex);
  worker.wake.notify_one();
}

/// Whether the caller is the one that settles the invitation.
bool Workers::settle(Worker& worker) {
  uint64_t invitation = worker.invitation.load(std::memory_order_relaxed);
  return invitation % 2 == 1 &&
         worker.invitation.compare_exchange_strong(invitation, invitation + 1, std::memory_order_acquire);
}

void Workers::await(Worker& worker) {
  if (spin_until([&] { return worker.invitation.load(std::memory_order_relaxed) % 2 == 1; })) return;
  std::unique_lock<std::mutex> lock(worker.mutex);
  worker.asleep.store(true);
  worker.wake.wait(lock, [&] { return worker.invitation.load() % 2 == 1; });
  worker.asleep.store(false);
}

void Workers::work(Worker& worker, unsigned thread) {
  const FlushDenormals flush;
  for (;;) {
    await(worker);
    if (!settle(worker)) continue;
    if (stop_) return;
    take_shares(thread);
    invited_.fetch_sub(1, std::memory_order_release);
  }
}

}  // namespace upgc
