// <metal_atomic>. Threadgroups may run on different OS threads, so these are real atomic operations.
#pragma once

#ifdef UPGC_CUDA
#include "cuda/atomic.h"
#else

#include "simdgroup.h"

namespace metal {

enum memory_order {
  memory_order_relaxed = __ATOMIC_RELAXED,
  memory_order_acquire = __ATOMIC_ACQUIRE,
  memory_order_release = __ATOMIC_RELEASE,
  memory_order_acq_rel = __ATOMIC_ACQ_REL,
  memory_order_seq_cst = __ATOMIC_SEQ_CST
};

enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };

/// A number that only the functions below read and write.
template <class T>
struct atomic {
  static_assert(is_arithmetic_v<T> && (sizeof(T) >= 4 || is_same_v<T, bool>),
                "Metal has atomics of int, uint, ulong, long, float and bool");
  atomic() = default;
  atomic(const atomic&) = delete;
  atomic& operator=(const atomic&) = delete;

  T upgc_value;
};
template <class T>
using _atomic = atomic<T>;

using atomic_int = atomic<int>;
using atomic_uint = atomic<uint>;
using atomic_ulong = atomic<ulong>;
using atomic_long = atomic<long>;
using atomic_float = atomic<float>;
using atomic_bool = atomic<bool>;

namespace detail {
/// The integer that takes the place of a T in __atomic builtins.
template <class T>
using atomic_bits_t = conditional_t<sizeof(T) == 8, ulong, conditional_t<sizeof(T) == 4, uint, uchar>>;
}  // namespace detail

template <class T>
UPGC_INLINE T atomic_load_explicit(const volatile atomic<T>* object, memory_order order) {
  using Bits = detail::atomic_bits_t<T>;
  return __builtin_bit_cast(T, __atomic_load_n((const volatile Bits*)&object->upgc_value, order));
}
template <class T>
UPGC_INLINE void atomic_store_explicit(volatile atomic<T>* object, type_identity_t<T> value, memory_order order) {
  using Bits = detail::atomic_bits_t<T>;
  __atomic_store_n((volatile Bits*)&object->upgc_value, __builtin_bit_cast(Bits, value), order);
}
template <class T>
UPGC_INLINE T atomic_exchange_explicit(volatile atomic<T>* object, type_identity_t<T> value, memory_order order) {
  using Bits = detail::atomic_bits_t<T>;
  return __builtin_bit_cast(
      T, __atomic_exchange_n((volatile Bits*)&object->upgc_value, __builtin_bit_cast(Bits, value), order));
}
/// Compares bits, not values: a float NaN equals itself, and 0 does not equal -0.
template <class T>
UPGC_INLINE bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* object, T* expected,
                                                       type_identity_t<T> desired, memory_order success,
                                                       memory_order failure) {
  using Bits = detail::atomic_bits_t<T>;
  Bits found = __builtin_bit_cast(Bits, *expected);
  const bool done = __atomic_compare_exchange_n((volatile Bits*)&object->upgc_value, &found,
                                                __builtin_bit_cast(Bits, desired), true, success, failure);
  *expected = __builtin_bit_cast(T, found);
  return done;
}

// What was there before is returned. `also_float` says whether Metal has the operation for float.
#define UPGC_ATOMIC_FETCH(name, also_float, expression)                                                           \
  template <class T>                                                                                              \
  UPGC_INLINE T atomic_fetch_##name##_explicit(volatile atomic<T>* object, type_identity_t<T> operand,            \
                                               memory_order order) {                                              \
    static_assert((is_integral_v<T> || also_float) && !is_same_v<T, bool>,                                        \
                  "Metal has no atomic_fetch_" #name "_explicit for this type");                                  \
    if constexpr (is_integral_v<T>) {                                                                             \
      return __atomic_fetch_##name(&object->upgc_value, operand, order);                                          \
    } else {                                                                                                      \
      T value = atomic_load_explicit(object, memory_order_relaxed);                                               \
      while (!atomic_compare_exchange_weak_explicit(object, &value, expression, order, memory_order_relaxed)) {   \
      }                                                                                                           \
      return value;                                                                                               \
    }                                                                                                             \
  }
UPGC_ATOMIC_FETCH(add, true, value + operand)
UPGC_ATOMIC_FETCH(sub, true, value - operand)
UPGC_ATOMIC_FETCH(min, false, operand)
UPGC_ATOMIC_FETCH(max, false, operand)
UPGC_ATOMIC_FETCH(and, false, operand)
UPGC_ATOMIC_FETCH(or, false, operand)
UPGC_ATOMIC_FETCH(xor, false, operand)
#undef UPGC_ATOMIC_FETCH

// For 64-bit integers, where Metal returns nothing.
UPGC_INLINE void atomic_min_explicit(volatile atomic<ulong>* object, ulong operand, memory_order order) {
  atomic_fetch_min_explicit(object, operand, order);
}
UPGC_INLINE void atomic_max_explicit(volatile atomic<ulong>* object, ulong operand, memory_order order) {
  atomic_fetch_max_explicit(object, operand, order);
}

UPGC_INLINE void atomic_thread_fence(mem_flags, memory_order order = memory_order_seq_cst,
                                     thread_scope = thread_scope_device) {
  __atomic_thread_fence(order);
}

}  // namespace metal

using metal::atomic_bool;
using metal::atomic_float;
using metal::atomic_int;
using metal::atomic_long;
using metal::atomic_uint;
using metal::atomic_ulong;

#endif  // UPGC_CUDA
