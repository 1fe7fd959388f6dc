// half: its 16 bits, computed with as a float. Every operation rounds once, for a float holds any sum, product or quotient
// of two halves well enough.
#pragma once

#define UPGC_ALWAYS inline __attribute__((always_inline))

namespace upgc {

UPGC_ALWAYS unsigned short half_bits(float x) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}
UPGC_ALWAYS float float_of_half(unsigned short bits) {
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
}

/// The same while the compiler evaluates a constant, where there are no instructions; to nearest even.
constexpr unsigned short constant_half_bits(float x) {
  const unsigned bits = __builtin_bit_cast(unsigned, x);
  const unsigned sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return (unsigned short)(sign | 0x7e00u);
  if (magnitude >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);
  // Below 2^-14 the last bit is worth 2^-24: adding 1/2 leaves the result in the low bits of the sum.
  if (magnitude < 0x38800000u)
    return (unsigned short)(sign |
                            (__builtin_bit_cast(unsigned, __builtin_bit_cast(float, magnitude) + 0.5f) - 0x3f000000u));
  const unsigned rebased = magnitude - 0x38000000u;
  return (unsigned short)(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13);
}
constexpr float constant_float_of_half(unsigned short bits) {
  const unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, mantissa = bits & 0x3ffu;
  if (exponent == 31) return __builtin_bit_cast(float, sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return __builtin_bit_cast(float, sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = float(mantissa) * 0x1p-24f;
  return sign != 0 ? -magnitude : magnitude;
}

struct Half {
  Half() = default;
  UPGC_ALWAYS constexpr Half(float x)
      : bits(__builtin_is_constant_evaluated() ? constant_half_bits(x) : half_bits(x)) {}
  UPGC_ALWAYS constexpr Half(double x) : Half(float(x)) {}
  UPGC_ALWAYS constexpr Half(long double x) : Half(float(x)) {}
  template <class Integer, class = typename When<is_integer_type<Integer>>::yes>
  UPGC_ALWAYS constexpr Half(Integer x) : Half(float(x)) {}
  UPGC_ALWAYS constexpr operator float() const {
    return __builtin_is_constant_evaluated() ? constant_float_of_half(bits) : float_of_half(bits);
  }

  unsigned short bits;
};

// Comparisons are those of float, which a half becomes by itself.
#define UPGC_HALF_OPERATOR(op)                                                                               \
  UPGC_ALWAYS constexpr Half operator op(Half a, Half b) { return Half(float(a) op float(b)); }              \
  UPGC_ALWAYS constexpr float operator op(Half a, float b) { return float(a) op b; }                         \
  UPGC_ALWAYS constexpr float operator op(float a, Half b) { return a op float(b); }                         \
  template <class Integer, class = typename When<is_integer_type<Integer>>::yes>                             \
  UPGC_ALWAYS constexpr Half operator op(Half a, Integer b) { return Half(float(a) op float(b)); }           \
  template <class Integer, class = typename When<is_integer_type<Integer>>::yes>                             \
  UPGC_ALWAYS constexpr Half operator op(Integer a, Half b) { return Half(float(a) op float(b)); }           \
  template <class T>                                                                                         \
  UPGC_ALWAYS constexpr Half& operator op##=(Half& a, T b) { return a = Half(float(a) op float(b)); }
UPGC_HALF_OPERATOR(+)
UPGC_HALF_OPERATOR(-)
UPGC_HALF_OPERATOR(*)
UPGC_HALF_OPERATOR(/)
#undef UPGC_HALF_OPERATOR
UPGC_ALWAYS constexpr Half operator+(Half a) { return a; }
UPGC_ALWAYS constexpr Half operator-(Half a) {
  a.bits ^= 0x8000u;
  return a;
}
UPGC_ALWAYS constexpr Half& operator++(Half& a) { return a += 1.0f; }
UPGC_ALWAYS constexpr Half& operator--(Half& a) { return a -= 1.0f; }
UPGC_ALWAYS constexpr Half operator++(Half& a, int) {
  const Half before = a;
  ++a;
  return before;
}
UPGC_ALWAYS constexpr Half operator--(Half& a, int) {
  const Half before = a;
  --a;
  return before;
}

}  // namespace upgc

#undef UPGC_ALWAYS

#define _Float16 upgc::Half
