// From the plan's record of a kernel's arguments to the arguments themselves: for each parameter there is a source type,
// whose `value<Parameter>` makes the argument for the type that the text declares.
#pragma once

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

}  // namespace upgc
