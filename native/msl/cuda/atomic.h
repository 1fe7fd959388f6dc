// <metal_atomic> by the instructions of the GPU. All are relaxed, which is what Metal has.
#pragma once

#include "simdgroup.h"

namespace metal {

enum memory_order {
  memory_order_relaxed,
  memory_order_acquire,
  memory_order_release,
  memory_order_acq_rel,
  memory_order_seq_cst
};

enum thread_scope { thread_scope_thread, thread_scope_simdgroup, thread_scope_threadgroup, thread_scope_device };

/// A number that only the functions below read and write.
template <class T>
struct atomic {
  static_assert(is_arithmetic_v<T> && sizeof(T) >= 4, "the CUDA device has atomics of int, uint, ulong, long and float");
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

namespace detail {
/// The integer that CUDA's functions take for a T.
template <class T>
using atomic_bits_t = conditional_t<sizeof(T) == 8, unsigned long long, uint>;
template <class T>
UPGC_INLINE atomic_bits_t<T>* atomic_address(volatile atomic<T>* object) {
  return (atomic_bits_t<T>*)(&object->upgc_value);
}
}  // namespace detail

template <class T>
UPGC_INLINE T atomic_load_explicit(const volatile atomic<T>* object, memory_order) {
  return object->upgc_value;
}
template <class T>
UPGC_INLINE void atomic_store_explicit(volatile atomic<T>* object, type_identity_t<T> value, memory_order) {
  object->upgc_value = value;
}
template <class T>
UPGC_INLINE T atomic_exchange_explicit(volatile atomic<T>* object, type_identity_t<T> value, memory_order) {
  using Bits = detail::atomic_bits_t<T>;
  return __builtin_bit_cast(T, ::atomicExch(detail::atomic_address(object), __builtin_bit_cast(Bits, value)));
}
/// Compares bits, not values: a float NaN equals itself, and 0 does not equal -0.
template <class T>
UPGC_INLINE bool atomic_compare_exchange_weak_explicit(volatile atomic<T>* object, T* expected,
                                                       type_identity_t<T> desired, memory_order, memory_order) {
  using Bits = detail::atomic_bits_t<T>;
  const Bits wanted = __builtin_bit_cast(Bits, *expected);
  const Bits found = ::atomicCAS(detail::atomic_address(object), wanted, __builtin_bit_cast(Bits, desired));
  *expected = __builtin_bit_cast(T, found);
  return found == wanted;
}

// What was there before is returned. `also_float` says whether Metal has the operation for float. Compare and swap does
// all of them alike; additions of 32 bits, which kernels use most, have an instruction.
#define UPGC_ATOMIC_FETCH(name, also_float, expression)                                                           \
  template <class T>                                                                                              \
  UPGC_INLINE T atomic_fetch_##name##_explicit(volatile atomic<T>* object, type_identity_t<T> operand,            \
                                               memory_order order) {                                              \
    static_assert(is_integral_v<T> || also_float, "Metal has no atomic_fetch_" #name "_explicit for this type");  \
    T value = atomic_load_explicit(object, order);                                                                \
    while (!atomic_compare_exchange_weak_explicit(object, &value, T(expression), order, order)) {                 \
    }                                                                                                             \
    return value;                                                                                                 \
  }
UPGC_ATOMIC_FETCH(sub, true, value - operand)
UPGC_ATOMIC_FETCH(min, false, min(value, operand))
UPGC_ATOMIC_FETCH(max, false, max(value, operand))
UPGC_ATOMIC_FETCH(and, false, value & operand)
UPGC_ATOMIC_FETCH(or, false, value | operand)
UPGC_ATOMIC_FETCH(xor, false, value ^ operand)
#undef UPGC_ATOMIC_FETCH
template <class T>
UPGC_INLINE T atomic_fetch_add_explicit(volatile atomic<T>* object, type_identity_t<T> operand, memory_order) {
  if constexpr (is_integral_v<T>) return T(::atomicAdd(detail::atomic_address(object), detail::atomic_bits_t<T>(operand)));
  else return ::atomicAdd((float*)(&object->upgc_value), operand);
}

// For 64-bit integers, where Metal returns nothing.
UPGC_INLINE void atomic_min_explicit(volatile atomic<ulong>* object, ulong operand, memory_order order) {
  atomic_fetch_min_explicit(object, operand, order);
}
UPGC_INLINE void atomic_max_explicit(volatile atomic<ulong>* object, ulong operand, memory_order order) {
  atomic_fetch_max_explicit(object, operand, order);
}

UPGC_INLINE void atomic_thread_fence(mem_flags, memory_order = memory_order_seq_cst,
                                     thread_scope scope = thread_scope_device) {
  if (scope == thread_scope_device) ::__threadfence();
  else ::__threadfence_block();
}

}  // namespace metal

using metal::atomic_float;
using metal::atomic_int;
using metal::atomic_long;
using metal::atomic_uint;
using metal::atomic_ulong;
