// <metal_integer>; min, max, clamp and select for every type; how a function of scalars becomes one of vectors.
#pragma once

#include "vector.h"

namespace metal {

// Vector forms of functions of one, two or three operands of a type. As in Metal, a scalar beside a vector operand
// converts to the vector's type.
#define UPGC_LIFT_1(name)                                                                     \
  template <class T, int N>                                                                   \
  UPGC_INLINE vec<T, N> name(const vec<T, N> x) {                                             \
    vec<T, N> result;                                                                         \
    for (int i = 0; i < N; i++) result.lanes[i] = detail::to_lane<T>(T(name(x[i])));             \
    return result;                                                                            \
  }
#define UPGC_LIFT_2(name)                                                                     \
  template <class T, int N>                                                                   \
  UPGC_INLINE vec<T, N> name(const vec<T, N> x, const type_identity_t<vec<T, N>> y) {         \
    vec<T, N> result;                                                                         \
    for (int i = 0; i < N; i++) result.lanes[i] = detail::to_lane<T>(T(name(x[i], y[i])));       \
    return result;                                                                            \
  }                                                                                           \
  template <class T, int N>                                                                   \
  UPGC_INLINE vec<T, N> name(type_identity_t<T> x, vec<T, N> y) { return name(vec<T, N>(x), y); }
#define UPGC_LIFT_3(name)                                                                     \
  template <class T, int N>                                                                   \
  UPGC_INLINE vec<T, N> name(const vec<T, N> x, const type_identity_t<vec<T, N>> y,           \
                             const type_identity_t<vec<T, N>> z) {                            \
    vec<T, N> result;                                                                         \
    for (int i = 0; i < N; i++) result.lanes[i] = detail::to_lane<T>(T(name(x[i], y[i], z[i]))); \
    return result;                                                                            \
  }                                                                                           \
  template <class T, int N>                                                                   \
  UPGC_INLINE vec<T, N> name(type_identity_t<T> x, vec<T, N> y, type_identity_t<vec<T, N>> z) { \
    return name(vec<T, N>(x), y, z);                                                          \
  }                                                                                           \
  template <class T, int N>                                                                   \
  UPGC_INLINE vec<T, N> name(type_identity_t<T> x, type_identity_t<T> y, vec<T, N> z) {       \
    return name(vec<T, N>(x), vec<T, N>(y), z);                                               \
  }

// As <metal_integer> and <metal_common> define them: with a NaN the first operand wins, unlike fmin and fmax.
template <class T>
UPGC_INLINE enable_if_t<is_arithmetic_v<T>, T> min(T x, T y) { return y < x ? y : x; }
template <class T>
UPGC_INLINE enable_if_t<is_arithmetic_v<T>, T> max(T x, T y) { return x < y ? y : x; }
template <class T>
UPGC_INLINE enable_if_t<is_arithmetic_v<T>, T> clamp(T x, type_identity_t<T> low, type_identity_t<T> high) {
  return min(max(x, low), high);
}
template <class T>
UPGC_INLINE enable_if_t<is_arithmetic_v<T>, T> min3(T x, T y, T z) { return min(x, min(y, z)); }
template <class T>
UPGC_INLINE enable_if_t<is_arithmetic_v<T>, T> max3(T x, T y, T z) { return max(x, max(y, z)); }
template <class T>
UPGC_INLINE enable_if_t<is_arithmetic_v<T>, T> median3(T x, T y, T z) { return max(min(x, y), min(max(x, y), z)); }
UPGC_LIFT_2(min)
UPGC_LIFT_2(max)
UPGC_LIFT_3(clamp)
UPGC_LIFT_3(min3)
UPGC_LIFT_3(max3)
UPGC_LIFT_3(median3)

namespace detail {
template <class T>
constexpr int bits = int(sizeof(T) * 8);
/// The bits of x in the low end of a 64-bit word, without sign extension.
template <class T>
UPGC_INLINE ulong zero_extended(T x) {
  return ulong(x) & (bits<T> == 64 ? ~0ul : (1ul << (bits<T> % 64)) - 1);
}
/// Holds any product of two T, and a third T on top.
template <class T>
using product_t = conditional_t<(T(-1) < T(0)), conditional_t<bits<T> == 64, __int128, long>,
                                conditional_t<bits<T> == 64, unsigned __int128, ulong>>;
/// The value of T nearest to x.
template <class T, class Wide>
UPGC_INLINE T saturated(Wide x) {
  const T top = T(make_unsigned_t<T>(-1) >> int(is_signed_v<T>));
  const T bottom = T(~top);
  if (is_signed_v<T> && x < Wide(bottom)) return bottom;
  return x > Wide(top) ? top : T(x);
}
/// The low 24 bits of x as a number of its type.
template <class T>
UPGC_INLINE T low_24(T x) { return T(x << 8) >> 8; }
}  // namespace detail

#define UPGC_INTEGER_1(name)                                        \
  template <class T>                                                \
  UPGC_INLINE enable_if_t<is_integral_v<T>, T> name(T x)
#define UPGC_INTEGER_2(name)                                        \
  template <class T>                                                \
  UPGC_INLINE enable_if_t<is_integral_v<T>, T> name(T x, type_identity_t<T> y)
#define UPGC_INTEGER_3(name)                                        \
  template <class T>                                                \
  UPGC_INLINE enable_if_t<is_integral_v<T>, T> name(T x, type_identity_t<T> y, type_identity_t<T> z)

UPGC_INTEGER_1(abs) { return x < T(0) ? T(-make_unsigned_t<T>(x)) : x; }
UPGC_INTEGER_1(popcount) { return T(__builtin_popcountl(detail::zero_extended(x))); }
/// Leading zero bits; all of them for 0.
UPGC_INTEGER_1(clz) {
  return x == T(0) ? T(detail::bits<T>) : T(__builtin_clzl(detail::zero_extended(x)) - (64 - detail::bits<T>));
}
/// Trailing zero bits; all of them for 0.
UPGC_INTEGER_1(ctz) { return x == T(0) ? T(detail::bits<T>) : T(__builtin_ctzl(detail::zero_extended(x))); }
UPGC_INTEGER_1(reverse_bits) { return T(__builtin_bitreverse64(detail::zero_extended(x)) >> (64 - detail::bits<T>)); }
/// The high half of the product.
UPGC_INTEGER_2(mulhi) { return T(detail::product_t<T>(x) * detail::product_t<T>(y) >> detail::bits<T>); }
UPGC_INTEGER_2(addsat) {
  T result;
  return !__builtin_add_overflow(x, y, &result) ? result
         : is_signed_v<T> && x < T(0)           ? T(T(1) << (detail::bits<T> - 1))
                                                : T(make_unsigned_t<T>(-1) >> int(is_signed_v<T>));
}
UPGC_INTEGER_2(subsat) {
  T result;
  return !__builtin_sub_overflow(x, y, &result) ? result
         : !is_signed_v<T>                      ? T(0)
         : x < T(0)                             ? T(T(1) << (detail::bits<T> - 1))
                                                : T(make_unsigned_t<T>(-1) >> 1);
}
/// (x + y) / 2 without overflow, rounded down; `rhadd` rounds up.
UPGC_INTEGER_2(hadd) { return T((x & y) + ((x ^ y) >> 1)); }
UPGC_INTEGER_2(rhadd) { return T((x | y) - ((x ^ y) >> 1)); }
UPGC_INTEGER_2(mul24) { return T(uint(detail::low_24(x)) * uint(detail::low_24(y))); }
/// To the left, by y modulo the width.
UPGC_INTEGER_2(rotate) {
  using U = make_unsigned_t<T>;
  const uint left = uint(y) % detail::bits<T>;
  return T(U(U(x) << left) | U(U(x) >> (detail::bits<T> - left) % detail::bits<T>));
}
UPGC_INTEGER_3(mad24) { return T(uint(mul24(x, y)) + uint(z)); }
UPGC_INTEGER_3(madhi) { return T(make_unsigned_t<T>(mulhi(x, y)) + make_unsigned_t<T>(z)); }
UPGC_INTEGER_3(madsat) {
  using Wide = detail::product_t<T>;
  return detail::saturated<T>(Wide(x) * Wide(y) + Wide(z));
}

#undef UPGC_INTEGER_3
#undef UPGC_INTEGER_2
#undef UPGC_INTEGER_1

UPGC_LIFT_1(popcount)
UPGC_LIFT_1(clz)
UPGC_LIFT_1(ctz)
UPGC_LIFT_1(reverse_bits)
UPGC_LIFT_2(mulhi)
UPGC_LIFT_2(addsat)
UPGC_LIFT_2(subsat)
UPGC_LIFT_2(hadd)
UPGC_LIFT_2(rhadd)
UPGC_LIFT_2(mul24)
UPGC_LIFT_2(rotate)
UPGC_LIFT_3(mad24)
UPGC_LIFT_3(madhi)
UPGC_LIFT_3(madsat)

/// |x - y|, which an unsigned type can always hold.
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, make_unsigned_t<T>> absdiff(T x, type_identity_t<T> y) {
  using U = make_unsigned_t<T>;
  return x < y ? U(U(y) - U(x)) : U(U(x) - U(y));
}
template <class T, int N>
UPGC_INLINE vec<make_unsigned_t<T>, N> absdiff(const vec<T, N> x, const type_identity_t<vec<T, N>> y) {
  vec<make_unsigned_t<T>, N> result;
  for (int i = 0; i < N; i++) result.lanes[i] = absdiff(x[i], y[i]);
  return result;
}

/// `count` bits of x from bit `offset` on, sign-extended if T is signed.
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> extract_bits(T x, uint offset, uint count) {
  using U = make_unsigned_t<T>;
  const uint width = detail::bits<T>;
  if (count == 0) return T(0);
  return T(T(U(x) << (width - offset - count)) >> (width - count));
}
/// `base` with `count` bits from bit `offset` on replaced by the low ones of `bits`.
template <class T>
UPGC_INLINE enable_if_t<is_integral_v<T>, T> insert_bits(T base, type_identity_t<T> bits, uint offset, uint count) {
  using U = make_unsigned_t<T>;
  if (count == 0) return base;
  const U mask = U(U(U(-1) >> (detail::bits<T> - count)) << offset);
  return T((U(base) & U(~mask)) | (U(U(bits) << offset) & mask));
}
template <class T, int N>
UPGC_INLINE vec<T, N> extract_bits(const vec<T, N> x, uint offset, uint count) {
  vec<T, N> result;
  for (int i = 0; i < N; i++) result.lanes[i] = extract_bits(x[i], offset, count);
  return result;
}
template <class T, int N>
UPGC_INLINE vec<T, N> insert_bits(const vec<T, N> base, const type_identity_t<vec<T, N>> bits, uint offset,
                                  uint count) {
  vec<T, N> result;
  for (int i = 0; i < N; i++) result.lanes[i] = insert_bits(base[i], bits[i], offset, count);
  return result;
}

/// Component-wise `c ? b : a`.
template <class T>
UPGC_INLINE enable_if_t<!is_vector_v<T>, T> select(T a, T b, bool c) { return c ? b : a; }
template <class T, int N>
UPGC_INLINE vec<T, N> select(vec<T, N> a, type_identity_t<vec<T, N>> b, vec<bool, N> c) {
  for (int i = 0; i < N; i++) a.lanes[i] = c.lanes[i] ? b.lanes[i] : a.lanes[i];
  return a;
}
template <class T, int N>
UPGC_INLINE vec<T, N> select(type_identity_t<T> a, vec<T, N> b, vec<bool, N> c) { return select(vec<T, N>(a), b, c); }

UPGC_INLINE bool all(bool x) { return x; }
UPGC_INLINE bool any(bool x) { return x; }
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
