// Bit counting, high products, and min, max, clamp and abs for every type.
#pragma once

#include "vector.h"

namespace metal {

// As <metal_integer> and <metal_common> define them: with a NaN the first operand wins, unlike fmin and fmax.
template <class T>
UPGC_INLINE enable_if_t<!is_vector_v<T>, T> min(T x, T y) { return y < x ? y : x; }
template <class T>
UPGC_INLINE enable_if_t<!is_vector_v<T>, T> max(T x, T y) { return x < y ? y : x; }
template <class T>
UPGC_INLINE enable_if_t<!is_vector_v<T>, T> clamp(T x, type_identity_t<T> low, type_identity_t<T> high) {
  return min(max(x, low), high);
}
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> abs(T x) { return x < T(0) ? T(-x) : x; }

template <class T, int N>
UPGC_INLINE vec<T, N> min(vec<T, N> x, type_identity_t<vec<T, N>> y) {
  for (int i = 0; i < N; i++) x.lanes[i] = min<T>(x.lanes[i], y.lanes[i]);
  return x;
}
template <class T, int N>
UPGC_INLINE vec<T, N> max(vec<T, N> x, type_identity_t<vec<T, N>> y) {
  for (int i = 0; i < N; i++) x.lanes[i] = max<T>(x.lanes[i], y.lanes[i]);
  return x;
}
template <class T, int N>
UPGC_INLINE vec<T, N> clamp(vec<T, N> x, type_identity_t<vec<T, N>> low, type_identity_t<vec<T, N>> high) {
  return min(max(x, low), high);
}

namespace detail {
template <class T>
constexpr int bits = int(sizeof(T) * 8);
/// The bits of x in the low end of a 64-bit word, without sign extension.
template <class T>
UPGC_INLINE ulong zero_extended(T x) {
  return ulong(x) & (bits<T> == 64 ? ~0ul : (1ul << (bits<T> % 64)) - 1);
}
/// Holds any product of two T.
template <class T>
using product_t = conditional_t<(T(-1) < T(0)), conditional_t<bits<T> == 64, __int128, long>,
                                conditional_t<bits<T> == 64, unsigned __int128, ulong>>;
}  // namespace detail

template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> popcount(T x) {
  return T(__builtin_popcountl(detail::zero_extended(x)));
}
/// Leading zero bits; all of them for 0.
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> clz(T x) {
  return x == T(0) ? T(detail::bits<T>) : T(__builtin_clzl(detail::zero_extended(x)) - (64 - detail::bits<T>));
}
/// Trailing zero bits; all of them for 0.
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> ctz(T x) {
  return x == T(0) ? T(detail::bits<T>) : T(__builtin_ctzl(detail::zero_extended(x)));
}
/// The high half of the product.
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> mulhi(T x, type_identity_t<T> y) {
  return T(detail::product_t<T>(x) * detail::product_t<T>(y) >> detail::bits<T>);
}

/// Component-wise `c ? b : a`.
template <class T>
UPGC_INLINE enable_if_t<!is_vector_v<T>, T> select(T a, T b, bool c) { return c ? b : a; }
template <class T, int N>
UPGC_INLINE vec<T, N> select(vec<T, N> a, vec<T, N> b, vec<bool, N> c) {
  for (int i = 0; i < N; i++) a.lanes[i] = c.lanes[i] ? b.lanes[i] : a.lanes[i];
  return a;
}
template <int N>
UPGC_INLINE bool all(vec<bool, N> x) {
  bool result = true;
  for (int i = 0; i < N; i++) result = result && x.lanes[i];
  return result;
}
template <int N>
UPGC_INLINE bool any(vec<bool, N> x) {
  bool result = false;
  for (int i = 0; i < N; i++) result = result || x.lanes[i];
  return result;
}

}  // namespace metal
