// bfloat: the upper half of a float, computed with as one. A class, because clang's own __bf16 does not work in every
// version that is supported.
#pragma once

#include "math.h"

namespace metal {

/// Converts to float by itself and to half or an integer only when asked to. With an integer a bfloat gives a bfloat,
/// with a float a float; with a half no operation compiles. Functions of <metal_math> take and return it as a float.
struct bfloat {
  struct from_bits {};

  bfloat() = default;
  UPGC_INLINE constexpr bfloat(ushort bits, from_bits) : bits(bits) {}
  UPGC_INLINE constexpr bfloat(float value) : bits(rounded(as_type<uint>(value))) {}
  template <class Integer, class = enable_if_t<is_integral_v<Integer>>>
  UPGC_INLINE constexpr bfloat(Integer value) : bfloat(float(value)) {}
  // A template, so that no second conversion can follow: a bfloat is no int or half by itself.
  template <class Wider, class = enable_if_t<is_same_v<Wider, float>>>
  UPGC_INLINE constexpr operator Wider() const { return as_type<float>(uint(bits) << 16); }
  template <class Other, class = void,
            class = enable_if_t<is_integral_v<Other> || is_same_v<Other, half> || is_same_v<Other, double>>>
  UPGC_INLINE explicit constexpr operator Other() const { return Other(float(*this)); }

  ushort bits;

 private:
  /// To nearest even. A NaN stays one though its payload may lie in the lower half.
  static UPGC_INLINE constexpr ushort rounded(uint x) {
    const uint nearest = (x + 0x7fffu + (x >> 16 & 1u)) >> 16;
    return ushort((x & 0x7fffffffu) > 0x7f800000u ? x >> 16 | 0x40u : nearest);
  }
};

namespace detail {
/// What an operation of a bfloat and a T gives.
template <class T>
using with_bfloat_t =
    enable_if_t<is_integral_v<T> || is_same_v<T, float>, conditional_t<is_same_v<T, float>, float, bfloat>>;
}  // namespace detail

#define UPGC_BFLOAT_OPERATOR(op)                                                                               \
  UPGC_INLINE constexpr bfloat operator op(bfloat a, bfloat b) { return bfloat(float(a) op float(b)); }        \
  template <class T>                                                                                           \
  UPGC_INLINE constexpr detail::with_bfloat_t<T> operator op(bfloat a, T b) {                                  \
    return detail::with_bfloat_t<T>(float(a) op float(b));                                                     \
  }                                                                                                            \
  template <class T>                                                                                           \
  UPGC_INLINE constexpr detail::with_bfloat_t<T> operator op(T a, bfloat b) {                                  \
    return detail::with_bfloat_t<T>(float(a) op float(b));                                                     \
  }                                                                                                            \
  bfloat operator op(bfloat, half) = delete;                                                                   \
  bfloat operator op(half, bfloat) = delete;                                                                   \
  template <class T>                                                                                           \
  UPGC_INLINE constexpr bfloat& operator op##=(bfloat& a, T b) { return a = bfloat(a op b); }
UPGC_BFLOAT_OPERATOR(+)
UPGC_BFLOAT_OPERATOR(-)
UPGC_BFLOAT_OPERATOR(*)
UPGC_BFLOAT_OPERATOR(/)
#undef UPGC_BFLOAT_OPERATOR

#define UPGC_BFLOAT_COMPARE(op)                                                                                \
  UPGC_INLINE constexpr bool operator op(bfloat a, bfloat b) { return float(a) op float(b); }                  \
  template <class T, class = detail::with_bfloat_t<T>>                                                         \
  UPGC_INLINE constexpr bool operator op(bfloat a, T b) { return float(a) op float(b); }                       \
  template <class T, class = detail::with_bfloat_t<T>>                                                         \
  UPGC_INLINE constexpr bool operator op(T a, bfloat b) { return float(a) op float(b); }
UPGC_BFLOAT_COMPARE(==)
UPGC_BFLOAT_COMPARE(!=)
UPGC_BFLOAT_COMPARE(<)
UPGC_BFLOAT_COMPARE(<=)
UPGC_BFLOAT_COMPARE(>)
UPGC_BFLOAT_COMPARE(>=)
#undef UPGC_BFLOAT_COMPARE

UPGC_INLINE constexpr bfloat operator+(bfloat a) { return a; }
UPGC_INLINE constexpr bfloat operator-(bfloat a) { return bfloat(ushort(a.bits ^ 0x8000u), bfloat::from_bits{}); }
UPGC_INLINE constexpr bfloat& operator++(bfloat& a) { return a += 1.0f; }
UPGC_INLINE constexpr bfloat& operator--(bfloat& a) { return a -= 1.0f; }
UPGC_INLINE constexpr bfloat operator++(bfloat& a, int) {
  const bfloat before = a;
  ++a;
  return before;
}
UPGC_INLINE constexpr bfloat operator--(bfloat& a, int) {
  const bfloat before = a;
  --a;
  return before;
}

UPGC_FLOAT_LIMITS(bfloat, ushort, 8, 7, 2, -37, 38)

static_assert(sizeof(bfloat) == 2 && alignof(bfloat) == 2);

// Of two bfloats these give a bfloat, in integer.h; beside a float it counts as one.
#define UPGC_BFLOAT_CHOICE(name)                                                                       \
  template <class B>                                                                                   \
  UPGC_INLINE enable_if_t<is_same_v<B, bfloat>, float> name(B x, float y) { return name(float(x), y); } \
  template <class B>                                                                                   \
  UPGC_INLINE enable_if_t<is_same_v<B, bfloat>, float> name(float x, B y) { return name(x, float(y)); }
UPGC_BFLOAT_CHOICE(min)
UPGC_BFLOAT_CHOICE(max)
#undef UPGC_BFLOAT_CHOICE

}  // namespace metal

using metal::bfloat;

#define BFLT_DIG 2
#define BFLT_MANT_DIG 8
#define BFLT_MAX_10_EXP 38
#define BFLT_MAX_EXP 128
#define BFLT_MIN_10_EXP -37
#define BFLT_MIN_EXP -125
#define BFLT_MAX bfloat(0x1.fep127f)
#define BFLT_MIN bfloat(0x1p-126f)
#define BFLT_EPSILON bfloat(0x1p-7f)

// C++ accepts only suffixes that begin with an underscore (and `h`, for hours): the loader writes `1.5_bf` for `1.5bf`.
constexpr bfloat operator""_bf(long double value) { return bfloat(float(value)); }
