// Calls a kernel from the plan's record of its arguments. The loader writes one entry of a table per kernel.
#pragma once

#ifdef UPGC_CUDA
#include "cuda/entry.h"
#else

#include "abi.h"
#include "arguments.h"

namespace upgc {

/// Whether the threads of a threadgroup can run one after another, as long as they do.
template <unsigned threads>
struct SerialThreads {
#ifdef UPGC_SERIAL_THREADS
  /// Not inlined: the first access to a thread_local of a module calls the system's allocator, and clang (seen in 16)
  /// keeps AVX-512 registers across what it takes for a plain access. All later ones are.
  __attribute__((noinline)) SerialThreads() {
    serial_threads = threads != 1;
    serial_barrier = 0;
  }
  UPGC_INLINE bool stopped() const { return threads != 1 && serial_barrier != 0; }
  UPGC_INLINE unsigned site() const { return threads != 1 ? serial_barrier : 0; }
#else
  static_assert(threads == 1 || simd_width != 1, "kernels of several threads need UPGC_SERIAL_THREADS");
  UPGC_INLINE bool stopped() const { return false; }
  UPGC_INLINE unsigned site() const { return 0; }
#endif
};

/// Thunks for one kernel. `Sources` stand for its parameters, in order.
template <auto function, class Threads, unsigned buffer_count, class... Sources>
struct Thunk {
  template <class... Parameters>
  static constexpr bool matches(void (*)(Parameters...)) {
    return sizeof...(Parameters) == sizeof...(Sources);
  }
  static_assert(matches(function), "the plan lists another number of arguments than the kernel declares");

  template <class... Parameters>
  static UPGC_INLINE void call(void (*)(Parameters...), const Place& place) {
    if constexpr (sizeof...(Parameters) == sizeof...(Sources))
      function(Sources::template value<Parameters>(place)...);
  }

  template <class... Parameters>
  static constexpr unsigned written(void (*)(Parameters...)) {
    if constexpr (sizeof...(Parameters) == sizeof...(Sources))
      return (0u | ... | Sources::template written<Parameters>);
    else
      return 0;
  }

  static constexpr Extent dispatched = Threads::extent;

  static UPGC_INLINE Extent size_of(Extent group, Extent grid_threads) {
    return {threads_on_axis(group.x, dispatched.x, grid_threads.x),
            threads_on_axis(group.y, dispatched.y, grid_threads.y),
            threads_on_axis(group.z, dispatched.z, grid_threads.z)};
  }

  /// The threads of a threadgroup one after another; `place` is that of the first.
  static UPGC_INLINE void run_threads(Place place) {
    if constexpr (dispatched.count() == 1) return call(function, place);
    place.size = size_of(place.group, place.grid_threads);
    for (place.thread.z = 0; place.thread.z < place.size.z; place.thread.z++)
      for (place.thread.y = 0; place.thread.y < place.size.y; place.thread.y++)
        for (place.thread.x = 0; place.thread.x < place.size.x; place.thread.x++) {
#if defined(UPGC_SANITIZE) && UPGC_SIMD_WIDTH == 1
          serial_thread = place.index;
#endif
          call(function, place);
          place.index++;
        }
  }

  /// The threadgroups of the launch, x fastest, with the kernel inlined into the loop.
  static unsigned run_grid(const abi::Launch* launch) {
    // Local copies: otherwise each store of the kernel might change them as far as the optimiser knows.
    void* buffers[buffer_count + 1];
    for (unsigned i = 0; i < buffer_count; i++) buffers[i] = launch->buffers[i];
    const Extent grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
    const Extent grid_threads = {launch->grid_threads[0], launch->grid_threads[1], launch->grid_threads[2]};
    const unsigned begin[3] = {launch->begin[0], launch->begin[1], launch->begin[2]};
    const unsigned end[3] = {launch->end[0], launch->end[1], launch->end[2]};
    unsigned char* const threadgroup_memory = launch->threadgroup_memory;
    SerialThreads<dispatched.count()> serial;
    for (unsigned z = begin[2]; z < end[2] && !serial.stopped(); z++)
      for (unsigned y = begin[1]; y < end[1] && !serial.stopped(); y++)
        for (unsigned x = begin[0]; x < end[0] && !serial.stopped(); x++)
          run_threads({buffers, threadgroup_memory, grid, grid_threads, dispatched, dispatched, {x, y, z}, {}, 0});
    return serial.site();
  }

  static void run_thread(const abi::Launch* launch, const unsigned* at, unsigned index) {
    const Extent grid = {launch->grid[0], launch->grid[1], launch->grid[2]};
    const Extent grid_threads = {launch->grid_threads[0], launch->grid_threads[1], launch->grid_threads[2]};
    const Extent group = {at[0], at[1], at[2]};
    const Extent size = size_of(group, grid_threads);
    const Extent thread = {index % size.x, index / size.x % size.y, index / size.x / size.y};
    call(function, Place{launch->buffers, launch->threadgroup_memory, grid, grid_threads, dispatched, size, group,
                         thread, index});
  }

  static constexpr abi::Kernel entry(const char* name) {
    if constexpr (simd_width == 1) return {name, written(function), run_grid, nullptr};
    else return {name, written(function), nullptr, run_thread};
  }
};

#if UPGC_SIMD_WIDTH != 1
/// Not sanitized: it runs while another program of this module may be.
__attribute__((no_sanitize("address"))) inline void bind(const abi::Hooks* runtime) { hooks = *runtime; }
inline abi::Lane** current_lane_address() { return &current_lane; }
#else
inline void bind(const abi::Hooks*) {}
inline abi::Lane** current_lane_address() { return nullptr; }
#endif

}  // namespace upgc

/// The module's export; `kernels` is an array of abi::Kernel.
#define UPGC_MODULE(kernels)                                                                          \
  extern "C" __attribute__((visibility("default"))) const upgc::abi::Module upgc_module = {           \
      upgc::abi::version, upgc::simd_width, sizeof(kernels) / sizeof(kernels[0]), kernels, upgc::bind, \
      upgc::current_lane_address, upgc::combine_nothing};

#endif  // UPGC_CUDA
