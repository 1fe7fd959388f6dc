// Calls a kernel from the plan's record of its arguments. The loader writes one UPGC_KERNEL line per kernel: for each
// parameter a source type, whose `value<Parameter>` makes the argument for the type that the text declares.
#pragma once

#include "abi.h"
#include "simdgroup.h"

namespace upgc {

/// Three counts, one per axis.
struct Extent {
  unsigned x, y, z;

  UPGC_INLINE constexpr unsigned count() const { return x * y * z; }
};

/// What differs between the threads of a dispatch, and where their arguments lie.
struct Place {
  void* const* buffers;
  unsigned char* threadgroup_memory;
  /// Threadgroups per grid, and threads per grid.
  Extent grid;
  Extent grid_threads;
  /// Threads of a threadgroup as dispatched, and of this one, which is smaller at the edge of some grids.
  Extent dispatched;
  Extent size;
  /// The threadgroup in the grid.
  Extent group;
  /// The thread in the threadgroup, and its index there.
  Extent thread;
  unsigned index;
};

/// A threadgroup's threads on one axis.
UPGC_INLINE unsigned threads_on_axis(unsigned group, unsigned dispatched, unsigned grid_threads) {
  const unsigned left = grid_threads - group * dispatched;
  return left < dispatched ? left : dispatched;
}

template <class T>
struct Pointee {
  static constexpr bool valid = false;
};
template <class T>
struct Pointee<T*> {
  static constexpr bool valid = true;
  static constexpr bool constant = __is_const(T);
  static UPGC_INLINE T* at(void* address) { return static_cast<T*>(address); }
};
template <class T>
struct Pointee<T&> {
  static constexpr bool valid = true;
  static constexpr bool constant = __is_const(T);
  static UPGC_INLINE T& at(void* address) { return *static_cast<T*>(address); }
};

/// The `ordinal`-th buffer argument of the parameter list.
template <unsigned ordinal>
struct Buffer {
  template <class Parameter>
  static constexpr unsigned written = Pointee<Parameter>::valid && !Pointee<Parameter>::constant ? 1u << ordinal : 0;
  template <class Parameter>
  static UPGC_INLINE Parameter value(const Place& place) {
    static_assert(Pointee<Parameter>::valid, "the plan says `buffer`, but the parameter is not a pointer or reference");
    return Pointee<Parameter>::at(place.buffers[ordinal]);
  }
};

struct ReadOnly {
  template <class Parameter>
  static constexpr unsigned written = 0;
};

/// A threadgroup argument, `offset` bytes into the threadgroup's memory.
template <unsigned offset>
struct Threadgroup : ReadOnly {
  template <class Parameter>
  static UPGC_INLINE Parameter value(const Place& place) {
    static_assert(Pointee<Parameter>::valid,
                  "the plan says `threadgroup`, but the parameter is not a pointer or reference");
#ifdef UPGC_SANITIZE
    return Pointee<Parameter>::at(place.threadgroup_memory + offset * abi::threadgroup_spread);
#else
    return Pointee<Parameter>::at(place.threadgroup_memory + offset);
#endif
  }
};

/// A position as the scalar or vector type that the kernel declares.
template <class T>
struct Position {
  static constexpr bool valid = __is_integral(T);
  static UPGC_INLINE T of(unsigned x, unsigned, unsigned) { return T(x); }
};
template <class T>
struct Position<metal::vec<T, 2>> {
  static constexpr bool valid = __is_integral(T);
  static UPGC_INLINE metal::vec<T, 2> of(unsigned x, unsigned y, unsigned) { return {T(x), T(y)}; }
};
template <class T>
struct Position<metal::vec<T, 3>> {
  static constexpr bool valid = __is_integral(T);
  static UPGC_INLINE metal::vec<T, 3> of(unsigned x, unsigned y, unsigned z) { return {T(x), T(y), T(z)}; }
};

#define UPGC_POSITION(Name, x, y, z)                                                                           \
  struct Name : ReadOnly {                                                                                     \
    template <class Parameter>                                                                                 \
    static UPGC_INLINE Parameter value([[maybe_unused]] const Place& at) {                                     \
      static_assert(Position<Parameter>::valid, "the plan says `" #Name "`, but the parameter is no integer"); \
      return Position<Parameter>::of(x, y, z);                                                                 \
    }                                                                                                          \
  };
#define UPGC_EXTENT(Name, extent) UPGC_POSITION(Name, extent.x, extent.y, extent.z)
#define UPGC_INDEX(Name, index) UPGC_POSITION(Name, index, 0, 0)
#define UPGC_COUNT(Name, count) UPGC_POSITION(Name, count, 1, 1)
UPGC_POSITION(thread_position_in_grid, at.group.x * at.dispatched.x + at.thread.x,
              at.group.y * at.dispatched.y + at.thread.y, at.group.z * at.dispatched.z + at.thread.z)
UPGC_EXTENT(threadgroup_position_in_grid, at.group)
UPGC_EXTENT(thread_position_in_threadgroup, at.thread)
UPGC_INDEX(thread_index_in_threadgroup, at.index)
UPGC_INDEX(thread_index_in_simdgroup, at.index % simd_width)
UPGC_INDEX(thread_index_in_quadgroup, at.index % quad_width)
UPGC_INDEX(simdgroup_index_in_threadgroup, at.index / simd_width)
UPGC_INDEX(quadgroup_index_in_threadgroup, at.index / quad_width)
UPGC_COUNT(simdgroups_per_threadgroup, (at.size.count() + simd_width - 1) / simd_width)
UPGC_COUNT(quadgroups_per_threadgroup, (at.size.count() + quad_width - 1) / quad_width)
UPGC_COUNT(dispatch_simdgroups_per_threadgroup, (at.dispatched.count() + simd_width - 1) / simd_width)
UPGC_COUNT(dispatch_quadgroups_per_threadgroup, (at.dispatched.count() + quad_width - 1) / quad_width)
UPGC_EXTENT(threads_per_threadgroup, at.size)
UPGC_EXTENT(dispatch_threads_per_threadgroup, at.dispatched)
UPGC_COUNT(threads_per_simdgroup, simd_width)
UPGC_COUNT(thread_execution_width, simd_width)
UPGC_EXTENT(threads_per_grid, at.grid_threads)
UPGC_EXTENT(threadgroups_per_grid, at.grid)
#undef UPGC_COUNT
#undef UPGC_INDEX
#undef UPGC_EXTENT
#undef UPGC_POSITION

/// The threads of a kernel's threadgroups.
template <unsigned x, unsigned y, unsigned z>
struct Threads {
  static constexpr Extent extent = {x, y, z};
};

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
