// numeric_limits and the numeric macros of <metal_math> and <metal_limits>.
#pragma once

#include "scalar.h"

namespace metal {

/// For the integer types; the floating-point types are specialised below.
template <class T>
struct numeric_limits {
  static constexpr bool is_specialized = true;
  static constexpr bool is_integer = true;
  static constexpr bool is_exact = true;
  static constexpr bool is_signed = T(-1) < T(0);
  static constexpr bool has_infinity = false;
  static constexpr bool has_quiet_NaN = false;
  static constexpr int radix = 2;
  static constexpr int digits = is_same_v<T, bool> ? 1 : int(sizeof(T) * 8) - int(is_signed);
  static constexpr int digits10 = digits * 3 / 10;
  static constexpr T max() { return is_signed ? T((1ul << (digits - 1)) - 1 + (1ul << (digits - 1))) : T(~0ul); }
  static constexpr T min() { return is_signed ? T(-max() - 1) : T(0); }
  static constexpr T lowest() { return min(); }
  static constexpr T epsilon() { return T(0); }
  static constexpr T round_error() { return T(0); }
  static constexpr T infinity() { return T(0); }
  static constexpr T quiet_NaN() { return T(0); }
  static constexpr T signaling_NaN() { return T(0); }
  static constexpr T denorm_min() { return T(0); }
};

// `exponent` and `mantissa` are bits without the sign and the implicit one.
#define UPGC_FLOAT_LIMITS(T, Bits, exponent, mantissa, decimal, decimal_low, decimal_high)                       \
  template <>                                                                                                   \
  struct numeric_limits<T> {                                                                                    \
    static constexpr bool is_specialized = true;                                                                \
    static constexpr bool is_integer = false;                                                                   \
    static constexpr bool is_exact = false;                                                                     \
    static constexpr bool is_signed = true;                                                                     \
    static constexpr bool is_iec559 = true;                                                                     \
    static constexpr bool has_infinity = true;                                                                  \
    static constexpr bool has_quiet_NaN = true;                                                                 \
    static constexpr int radix = 2;                                                                             \
    static constexpr int digits = mantissa + 1;                                                                 \
    static constexpr int digits10 = decimal;                                                                    \
    static constexpr int max_exponent = 1 << (exponent - 1);                                                    \
    static constexpr int min_exponent = 3 - max_exponent;                                                       \
    static constexpr int max_exponent10 = decimal_high;                                                         \
    static constexpr int min_exponent10 = decimal_low;                                                          \
    static constexpr T from_bits(Bits bits) { return as_type<T>(bits); }                                        \
    static constexpr T min() { return from_bits(Bits(1) << mantissa); }                                         \
    static constexpr T max() { return from_bits((((Bits(1) << exponent) - 1) << mantissa) - 1); }               \
    static constexpr T lowest() { return -max(); }                                                              \
    static constexpr T epsilon() { return from_bits(Bits((1 << (exponent - 1)) - 1 - mantissa) << mantissa); }  \
    static constexpr T round_error() { return T(0.5f); }                                                        \
    static constexpr T infinity() { return from_bits(((Bits(1) << exponent) - 1) << mantissa); }                \
    static constexpr T quiet_NaN() { return from_bits(((Bits(2) << exponent) - 1) << (mantissa - 1)); }         \
    static constexpr T signaling_NaN() { return from_bits((((Bits(1) << exponent) - 1) << mantissa) + 1); }     \
    static constexpr T denorm_min() { return from_bits(1); }                                                    \
  };
UPGC_FLOAT_LIMITS(float, uint, 8, 23, 6, -37, 38)
UPGC_FLOAT_LIMITS(half, ushort, 5, 10, 3, -4, 4)

}  // namespace metal

#define INFINITY __builtin_inff()
#define HUGE_VALF __builtin_inff()
#define HUGE_VALH half(__builtin_inff())
#define NAN __builtin_nanf("")
#define MAXFLOAT 0x1.fffffep127f
#define MAXHALF half(65504.0f)

#define FLT_RADIX 2
#define FLT_DIG 6
#define FLT_MANT_DIG 24
#define FLT_MAX_10_EXP 38
#define FLT_MAX_EXP 128
#define FLT_MIN_10_EXP -37
#define FLT_MIN_EXP -125
#define FLT_MAX 0x1.fffffep127f
#define FLT_MIN 0x1p-126f
#define FLT_EPSILON 0x1p-23f
#define FLT_DECIMAL_DIG 9
#define FLT_DENORM_MIN 0x1p-149f
#define FP_ILOGB0 (-2147483647 - 1)
#define FP_ILOGBNAN 2147483647

#define HALF_DIG 3
#define HALF_MANT_DIG 11
#define HALF_MAX_10_EXP 4
#define HALF_MAX_EXP 16
#define HALF_MIN_10_EXP -4
#define HALF_MIN_EXP -13
#define HALF_MAX half(65504.0f)
#define HALF_MIN half(0x1p-14f)
#define HALF_EPSILON half(0x1p-10f)
#define HALF_DECIMAL_DIG 5
#define HALF_DENORM_MIN half(0x1p-24f)

#define CHAR_BIT 8
#define SCHAR_MAX 127
#define SCHAR_MIN (-128)
#define CHAR_MAX 127
#define CHAR_MIN (-128)
#define UCHAR_MAX 255
#define SHRT_MAX 32767
#define SHRT_MIN (-32768)
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-2147483647 - 1)
#define UINT_MAX 4294967295u
#define LONG_MAX 9223372036854775807l
#define LONG_MIN (-9223372036854775807l - 1)
#define ULONG_MAX 18446744073709551615ul

#define M_E_F 2.71828182845904523536f
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG10E_F 0.43429448190325182765f
#define M_LN2_F 0.69314718055994530942f
#define M_LN10_F 2.30258509299404568402f
#define M_PI_F 3.14159265358979323846f
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_4_F 0.78539816339744830962f
#define M_1_PI_F 0.31830988618379067154f
#define M_2_PI_F 0.63661977236758134308f
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT1_2_F 0.70710678118654752440f

#define M_E_H half(2.71828182845904523536)
#define M_LOG2E_H half(1.44269504088896340736)
#define M_LOG10E_H half(0.43429448190325182765)
#define M_LN2_H half(0.69314718055994530942)
#define M_LN10_H half(2.30258509299404568402)
#define M_PI_H half(3.14159265358979323846)
#define M_PI_2_H half(1.57079632679489661923)
#define M_PI_4_H half(0.78539816339744830962)
#define M_1_PI_H half(0.31830988618379067154)
#define M_2_PI_H half(0.63661977236758134308)
#define M_2_SQRTPI_H half(1.12837916709551257390)
#define M_SQRT2_H half(1.41421356237309504880)
#define M_SQRT1_2_H half(0.70710678118654752440)
