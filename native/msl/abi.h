// What the runtime and a compiled kernel module know of each other. Both sides include this file, so it uses nothing
// but built-in types. Raise `version` with every change: a cached module of another version is never loaded.
#pragma once

namespace upgc::abi {

constexpr unsigned version = 4;
constexpr unsigned max_simd_width = 32;

/// Where a lane leaves its operand of a simdgroup function and finds its result.
struct alignas(16) Slot {
  /// Large enough for the largest Metal vector, `ulong4`.
  unsigned char value[32];
  /// The second operand of a shuffle or broadcast.
  unsigned operand;
  /// Index of the lane in its simdgroup.
  unsigned lane;
};

/// One Metal thread as its kernel sees it; the runtime keeps more behind it.
struct Lane {
  Slot* slot;
};

/// Computes a simdgroup function for the lanes of `active`: reads their slots and writes each one's result.
using Combine = void (*)(Slot* slots, unsigned active);

// What follows says nothing to the strict check, and OpenCL C++ has no pointers to functions in structures.
#ifndef UPGC_STRICT

/// The runtime's functions that a module calls. A `site` packs line and column, see `site_line`.
struct Hooks {
  /// Blocks the lane until every lane that takes part in the simdgroup function at `site` is there.
  void (*simdgroup)(Lane* lane, Combine combine, unsigned site);
  /// Blocks the lane until all threads of the threadgroup are there.
  void (*barrier)(Lane* lane, unsigned site);
};

/// One dispatch, or some of its threadgroups.
struct Launch {
  /// One per `buffer` argument, in the order of the kernel's parameter list.
  void* const* buffers;
  unsigned char* threadgroup_memory;
  /// Threadgroups per grid.
  unsigned grid[3];
  /// Threads per grid. The last threadgroups of an axis have fewer threads where this is no multiple of a threadgroup.
  unsigned grid_threads[3];
  /// The threadgroups to run: those from `begin` up to, not including, `end` on each axis.
  unsigned begin[3];
  unsigned end[3];
};

struct Kernel {
  const char* name;
  /// Bit n: the n-th buffer argument points to something that is not const.
  unsigned written_buffers;
  /// Runs the threadgroups of the launch one after another, and the threads of each. Only in modules of simdgroup
  /// width 1. Returns 0, or the site of the barrier that a threadgroup of several threads has stopped at.
  unsigned (*run_grid)(const Launch* launch);
  /// Runs one thread, given by its index in the threadgroup. Only in modules of simdgroup width 32; called on the
  /// thread's own stack.
  void (*run_thread)(const Launch* launch, const unsigned* group, unsigned thread);
};

/// What a module exports, under the symbol `upgc_module`.
struct Module {
  unsigned abi_version;
  unsigned simd_width;
  unsigned kernel_count;
  const Kernel* kernels;
  void (*bind)(const Hooks* hooks);
  /// Address of the calling OS thread's "current lane", which the runtime sets before it resumes a lane.
  Lane** (*current_lane)();
  /// What lanes call the `simdgroup` hook with at a simdgroup_barrier.
  Combine simdgroup_barrier;
};

/// Called before a kernel accesses memory, most often the thread's own. `site` is the place in the kernel text.
using OnAccess = void (*)(const void* address, decltype(sizeof(0)) bytes, bool write, unsigned site);

/// A `threadgroup` variable of a function. The list of them ends with one without a symbol.
struct SharedVariable {
  unsigned char* address;
  decltype(sizeof(0)) bytes;
  /// As the compiler has mangled it.
  const char* symbol;
};

/// What a module compiled with UPGC_SANITIZE exports besides, under the symbol `upgc_sanitized`.
struct Sanitized {
  OnAccess* on_access;
  /// The next access to this address is atomic.
  const volatile void* volatile* atomic_address;
  /// Index of the running thread in its threadgroup. Only in modules of simdgroup width 1.
  const unsigned* serial_thread;
  const SharedVariable* shared_variables;
};

/// In such modules threadgroup arguments lie this many times as far apart, so that none ends where the next one starts;
/// and around the variables of functions lie this many bytes.
constexpr unsigned threadgroup_spread = 64;
constexpr unsigned shared_variable_gap = 64;
#endif  // UPGC_STRICT

constexpr unsigned site_column_bits = 10;
constexpr unsigned site_of(unsigned line, unsigned column) {
  const unsigned last = (1u << site_column_bits) - 1;
  return (line << site_column_bits) | (column < last ? column : last);
}
constexpr unsigned site_line(unsigned site) { return site >> site_column_bits; }
constexpr unsigned site_column(unsigned site) { return site & ((1u << site_column_bits) - 1); }

}  // namespace upgc::abi
