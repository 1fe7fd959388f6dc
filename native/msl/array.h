// <metal_array>.
#pragma once

#include "scalar.h"

namespace metal {

template <class T, size_t N>
struct array {
  using value_type = T;

  UPGC_INLINE constexpr size_t size() const { return N; }
  UPGC_INLINE constexpr size_t max_size() const { return N; }
  UPGC_INLINE constexpr bool empty() const { return N == 0; }
  UPGC_INLINE constexpr T& operator[](size_t i) { return elements[i]; }
  UPGC_INLINE constexpr const T& operator[](size_t i) const { return elements[i]; }
  UPGC_INLINE constexpr T& front() { return elements[0]; }
  UPGC_INLINE constexpr const T& front() const { return elements[0]; }
  UPGC_INLINE constexpr T& back() { return elements[N - 1]; }
  UPGC_INLINE constexpr const T& back() const { return elements[N - 1]; }
  UPGC_INLINE constexpr T* data() { return elements; }
  UPGC_INLINE constexpr const T* data() const { return elements; }
  UPGC_INLINE constexpr T* begin() { return elements; }
  UPGC_INLINE constexpr const T* begin() const { return elements; }
  UPGC_INLINE constexpr T* end() { return elements + N; }
  UPGC_INLINE constexpr const T* end() const { return elements + N; }

  /// Public, so that `array<T, N> a = {...}` works.
  T elements[N];
};

}  // namespace metal
