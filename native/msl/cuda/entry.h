// Calls a kernel from the plan's record of its arguments, as ../entry.h does on the CPU device: the loader writes one
// __global__ function per kernel, which calls `Thunk<...>::run`.
#pragma once

#include "../arguments.h"

namespace upgc {

/// Threadgroup arguments.
extern __shared__ metal::uint4 threadgroup_memory[];

/// Lets the next kernel be launched while this one runs.
UPGC_INLINE void start_next() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/// Waits for the end of the kernel before this. Every thread does, so that the end of one kernel is the end of all before
/// it.
UPGC_INLINE void wait_for_inputs() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <auto function, class Threads, bool flat, bool whole, bool waits, class... Sources>
struct Thunk {
  template <class... Parameters>
  static UPGC_INLINE void call(void (*)(Parameters...), const Place& place) {
    static_assert(sizeof...(Parameters) == sizeof...(Sources),
                  "the plan lists another number of arguments than the kernel declares");
    if constexpr (sizeof...(Parameters) == sizeof...(Sources))
      function(Sources::template value<Parameters>(place)...);
  }

  /// Threadgroups have one dimension here; a `flat` grid, of more threadgroups along y or z than a GPU takes, has too.
  /// `whole`: no grid has a smaller threadgroup at its edge. `waits`: the kernel waits for its inputs itself.
  static UPGC_INLINE void run(void* const* buffers, Extent grid, Extent grid_threads) {
    start_next();
    if constexpr (!waits) wait_for_inputs();
    constexpr Extent dispatched = Threads::extent;
    Extent group = {blockIdx.x, blockIdx.y, blockIdx.z};
    if constexpr (flat) group = {blockIdx.x % grid.x, blockIdx.x / grid.x % grid.y, blockIdx.x / grid.x / grid.y};
    const unsigned index = threadIdx.x;
    Extent thread = {index, 0, 0};
    if constexpr (whole) {
      if constexpr (dispatched.x != dispatched.count())
        thread = {index % dispatched.x, index / dispatched.x % dispatched.y, index / dispatched.x / dispatched.y};
      call(function, Place{buffers, (unsigned char*)threadgroup_memory, grid, grid_threads, dispatched, dispatched,
                           group, thread, index});
    } else {
      const Extent size = {threads_on_axis(group.x, dispatched.x, grid_threads.x),
                           threads_on_axis(group.y, dispatched.y, grid_threads.y),
                           threads_on_axis(group.z, dispatched.z, grid_threads.z)};
      if (index >= size.count()) return;
      thread = {index % size.x, index / size.x % size.y, index / size.x / size.y};
      call(function, Place{buffers, (unsigned char*)threadgroup_memory, grid, grid_threads, dispatched, size, group,
                           thread, index});
    }
  }
};

}  // namespace upgc
