// Runs kernels of simdgroup width 32 with the semantics of a GPU: one lane, with a stack of its own, per Metal thread.
//
// A lane runs until it blocks at a simdgroup function or a barrier, or returns. When no lane of a simdgroup can run,
// the waiting lanes whose call stands first in the text become the active lanes of that simdgroup function. So lanes in
// a branch or a loop go on without those that are past it, which is how Metal converges them. When all lanes of a
// threadgroup wait at the same barrier it opens; anything else there is an error of the kernel.
//
// Lanes and simdgroups go on in ascending order, so every run gives the same bits; or in a random one, which gives the
// same bits too unless the kernel depends on what Metal leaves open. Calls are told apart by their place in the text:
// two branches that call one function of the user with a simdgroup function inside meet there, where a GPU might not.
#pragma once

#include <string>
#include <vector>

#include "../msl/abi.h"
#include "context.h"
#include "memory.h"
#include "shuffled_order.h"

namespace upgc {

/// One launch as the scheduler needs it.
struct SimtDispatch {
  const abi::Kernel* kernel;
  const abi::Launch* launch;
  /// Of a threadgroup that no edge of the grid cuts off.
  unsigned threads[3];
  unsigned threadgroup_bytes;
};

/// A site for people: file:line:column.
std::string shown_site(const std::string& source_name, unsigned site);

class Simt {
 public:
  /// No frame of a kernel is larger (the compiler checks), so none can step over a stack's guard pages.
  static constexpr size_t max_frame_bytes = 32 * 1024;

  /// Allocates lanes and stacks for threadgroups of up to `max_threads`.
  Simt(Memory& memory, unsigned max_threads, std::string source_name);
  Simt(const Simt&) = delete;
  Simt& operator=(const Simt&) = delete;

  /// The functions that a module must be bound to before its kernels run.
  static abi::Hooks hooks();

  /// For the runs that follow: `current_lane` is what the module gave for the calling OS thread. With `random`, lanes
  /// and simdgroups go on in random order.
  void prepare(abi::Lane** current_lane, Random* random);

  /// Runs the threadgroups of the launch. UPGC_KERNEL when a barrier is not reached by all threads.
  void run(const SimtDispatch& dispatch);

  /// The threadgroup that ran last.
  const unsigned* group() const { return group_; }

  /// A thread, and how many barriers of its threadgroup and of its simdgroup it has passed.
  struct Moment {
    unsigned thread;
    unsigned barriers;
    unsigned simdgroup_barriers;
  };
  /// Of the lane that is running.
  Moment now() const;
  /// Thrown by `run` after `abandon`.
  struct Abandoned {};
  /// Leaves the running lane for good, and its threadgroup with it.
  [[noreturn]] void abandon();
  /// What lanes wait with at a simdgroup_barrier.
  void count_barriers(abi::Combine simdgroup_barrier) { simdgroup_barrier_ = simdgroup_barrier; }

 private:
  struct Simdgroup;

  struct Lane : abi::Lane {
    Simt* owner;
    Simdgroup* simdgroup;
    unsigned thread;
    unsigned simdgroup_barriers;
    /// Where it waits.
    unsigned site;
    abi::Combine combine;
    Context context;
    unsigned char* stack_top;
  };

  /// Each lane that has not returned is in exactly one of the three sets (one bit per lane).
  struct Simdgroup {
    abi::Slot slots[abi::max_simd_width];
    Lane* lanes;
    unsigned ready;
    unsigned at_simdgroup_function;
    unsigned at_barrier;
    unsigned barriers;
    /// Where the first lane of `at_simdgroup_function` waits, and whether others wait elsewhere.
    unsigned site;
    abi::Combine combine;
    bool divergent;
  };

  static void wait_for_simdgroup(abi::Lane* lane, abi::Combine combine, unsigned site);
  static void wait_for_barrier(abi::Lane* lane, unsigned site);
  static void run_lane(void* lane);

  unsigned choose(unsigned set);
  void suspend(Lane& lane);
  void run_threadgroup();
  void run_until_blocked(Simdgroup& simdgroup);
  void complete_simdgroup_function(Simdgroup& simdgroup);
  unsigned choose_active(Simdgroup& simdgroup);
  bool open_barrier();
  [[noreturn]] void report_divergence(unsigned waiting) const;

  std::string source_name_;
  Mapping stacks_;
  std::vector<Lane> lanes_;
  std::vector<Simdgroup> simdgroups_;
  // The threadgroup being run.
  const SimtDispatch* dispatch_ = nullptr;
  unsigned group_[3] = {};
  unsigned threads_ = 0;
  unsigned barriers_ = 0;
  bool abandoned_ = false;
  abi::Combine simdgroup_barrier_ = nullptr;
  abi::Lane** current_lane_ = nullptr;
  Random* random_ = nullptr;
  Context scheduler_;
};

}  // namespace upgc
