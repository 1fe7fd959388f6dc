// OS threads that take shares of each large dispatch. A hand-over has to cost less than a small kernel, so a worker
// that is done first spins for the next dispatch, and sleeps only when none comes. On a busy machine some workers may
// not run at all: shares belong to nobody until somebody takes them, and nobody waits for a worker that has taken none.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace upgc {

class Workers {
 public:
  explicit Workers(unsigned count);
  /// Not while `run` is under way.
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// Calls `share(i, thread)` once for each i below `shares`, on the calling thread, which is thread 0, and on workers,
  /// which are threads 1 to their number, at the same time. Returns when all calls have returned; they must not throw.
  /// One call of `run` at a time.
  template <class Share>
  void run(unsigned shares, const Share& share) {
    run(shares,
        [](const void* object, unsigned i, unsigned thread) { (*static_cast<const Share*>(object))(i, thread); },
        &share);
  }

 private:
  using Call = void (*)(const void* object, unsigned share, unsigned thread);

  /// What one worker waits for, on cache lines of its own.
  struct alignas(128) Worker {
    /// Odd while it is invited to take shares. Who makes it even, the worker or the inviting thread, settles whether
    /// the worker takes part.
    std::atomic<uint64_t> invitation{0};
    std::atomic<bool> asleep{false};
    std::mutex mutex;
    std::condition_variable wake;
    std::thread thread;
  };

  void run(unsigned shares, Call call, const void* object);
  void take_shares(unsigned thread);
  void work(Worker& worker, unsigned thread);
  static void invite(Worker& worker);
  static void await(Worker& worker);
  static bool settle(Worker& worker);

  // Written when no worker takes part.
  Call call_ = nullptr;
  const void* object_ = nullptr;
  unsigned shares_ = 0;
  bool stop_ = false;
  /// The next share to be taken.
  alignas(128) std::atomic<unsigned> next_{0};
  /// Workers that have been invited and are neither done nor uninvited.
  alignas(128) std::atomic<unsigned> invited_{0};
  std::vector<std::unique_ptr<Worker>> workers_;
};

}  // namespace upgc
