// Calls a kernel from the plan's record of its arguments. The loader writes one UPGC_KERNEL line per kernel: for each
// parameter a source type, whose `value<Parameter>` makes the argument for the type that the text declares.
#pragma once

#include "abi.h"
#include "simdgroup.h"

namespace upgc {

/// What differs between the threads of a dispatch, and where their arguments lie.
struct Place {
  void* const* buffers;
  unsigned char* threadgroup_memory;
  const unsigned* grid;
  unsigned group[3];
  /// Index in the threadgroup; threadgroups have one dimension.
  unsigned thread;
};

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
    return Pointee<Parameter>::at(place.threadgroup_memory + offset);
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

#define UPGC_POSITION(Name, x, y, z)                                                                       \
  template <unsigned threads>                                                                              \
  struct Name : ReadOnly {                                                                                 \
    template <class Parameter>                                                                             \
    static UPGC_INLINE Parameter value([[maybe_unused]] const Place& place) {                              \
      static_assert(Position<Parameter>::valid, "the plan says `" #Name "`, but the parameter is no integer"); \
      return Position<Parameter>::of(x, y, z);                                                             \
    }                                                                                                      \
  };
UPGC_POSITION(thread_position_in_grid, place.group[0] * threads + place.thread, place.group[1], place.group[2])
UPGC_POSITION(threadgroup_position_in_grid, place.group[0], place.group[1], place.group[2])
UPGC_POSITION(thread_position_in_threadgroup, place.thread, 0, 0)
UPGC_POSITION(thread_index_in_threadgroup, place.thread, 0, 0)
UPGC_POSITION(thread_index_in_simdgroup, place.thread % simd_width, 0, 0)
UPGC_POSITION(simdgroup_index_in_threadgroup, place.thread / simd_width, 0, 0)
UPGC_POSITION(simdgroups_per_threadgroup, (threads + simd_width - 1) / simd_width, 1, 1)
UPGC_POSITION(threads_per_threadgroup, threads, 1, 1)
UPGC_POSITION(threads_per_simdgroup, simd_width, 1, 1)
UPGC_POSITION(threads_per_grid, place.grid[0] * threads, place.grid[1], place.grid[2])
UPGC_POSITION(threadgroups_per_grid, place.grid[0], place.grid[1], place.grid[2])
#undef UPGC_POSITION

/// Thunks for one kernel. `Sources` stand for its parameters, in order.
template <auto function, unsigned buffer_count, class... Sources>
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

  /// The threadgroups of the launch, x fastest, with the kernel inlined into the loop.
  static void run_grid(const abi::Launch* launch) {
    // Local copies: otherwise each store of the kernel might change them as far as the optimiser knows.
    void* buffers[buffer_count + 1];
    for (unsigned i = 0; i < buffer_count; i++) buffers[i] = launch->buffers[i];
    const unsigned grid[3] = {launch->grid[0], launch->grid[1], launch->grid[2]};
    const unsigned begin[3] = {launch->begin[0], launch->begin[1], launch->begin[2]};
    const unsigned end[3] = {launch->end[0], launch->end[1], launch->end[2]};
    unsigned char* const threadgroup_memory = launch->threadgroup_memory;
    for (unsigned z = begin[2]; z < end[2]; z++)
      for (unsigned y = begin[1]; y < end[1]; y++)
        for (unsigned x = begin[0]; x < end[0]; x++)
          call(function, Place{buffers, threadgroup_memory, grid, {x, y, z}, 0});
  }

  static void run_thread(const abi::Launch* launch, const unsigned* group, unsigned thread) {
    call(function, Place{launch->buffers, launch->threadgroup_memory, launch->grid,
                         {group[0], group[1], group[2]}, thread});
  }

  static constexpr abi::Kernel entry(const char* name) {
    if constexpr (simd_width == 1) return {name, written(function), run_grid, nullptr};
    else return {name, written(function), nullptr, run_thread};
  }
};

#if UPGC_SIMD_WIDTH != 1
inline void bind(const abi::Hooks* runtime) { hooks = *runtime; }
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
      upgc::current_lane_address};
