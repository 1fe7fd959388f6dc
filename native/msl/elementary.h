// exp, exp2, log and tanh as inline, branch-free float code, so that clang vectorises loops that call them; a call into
// libm would keep such a loop scalar. Method: the textbook range reductions (Muller, "Elementary Functions", ch. 11).
// The polynomials are our own weighted least-squares fits, iterated towards minimax (Lawson) and rounded to float.
//
// Largest errors against float64 (test/native/math.test.ts measures them): exp 1.0, exp2 1.0, log 1.0, tanh 1.6 ulp.
#pragma once

#include "scalar.h"

namespace metal::detail {

/// Splits x into an integer part (as int) and leaves it also in `rounded`, to nearest even, for |x| < 2^22.
/// Adding 1.5 * 2^23 pushes the fraction out of the mantissa; a float-to-int conversion is undefined for NaN.
UPGC_INLINE int nearest_integer(float x, float& rounded) {
  const float magic = 0x1.8p23f;
  const float shifted = x + magic;
  rounded = shifted - magic;
  return int(as_type<uint>(shifted) - as_type<uint>(magic));
}

/// x * 2^n for -252 <= n <= 254; in two steps, so that results may be subnormal or infinite.
UPGC_INLINE float scaled(float x, int n) {
  const int first = n >> 1;
  const int second = n - first;
  return x * as_type<float>(uint(first + 127) << 23) * as_type<float>(uint(second + 127) << 23);
}

/// e^r for |r| <= 0.35, relative error below 5e-9 before rounding.
UPGC_INLINE float exp_near_zero(float r) {
  float p = 0.00138131448f;
  p = __builtin_fmaf(p, r, 0.00836941879f);
  p = __builtin_fmaf(p, r, 0.041668456f);
  p = __builtin_fmaf(p, r, 0.166665152f);
  p = __builtin_fmaf(p, r, 0.49999994f);
  return __builtin_fmaf(r * r, p, r) + 1.0f;
}

/// x limited to [low, high]; NaN stays NaN.
UPGC_INLINE float limited(float x, float low, float high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

}  // namespace metal::detail

namespace metal {

UPGC_INLINE float exp(float x) {
  x = detail::limited(x, -104.0f, 89.0f);  // beyond these the result is 0 and infinity
  float n;
  const int exponent = detail::nearest_integer(x * 1.44269504f, n);
  float r = __builtin_fmaf(n, -0.693147182f, x);
  r = __builtin_fmaf(n, 1.90465421e-09f, r);
  return detail::scaled(detail::exp_near_zero(r), exponent);
}

UPGC_INLINE float exp2(float x) {
  x = detail::limited(x, -151.0f, 129.0f);
  float n;
  const int exponent = detail::nearest_integer(x, n);
  return detail::scaled(detail::exp_near_zero((x - n) * 0.693147182f), exponent);
}

UPGC_INLINE float log(float x) {
  const bool subnormal = x < 0x1p-126f;
  const float normal = subnormal ? x * 0x1p23f : x;
  // normal = 2^exponent * (1 + f) with 2/3 <= 1 + f < 4/3
  const uint two_thirds = 0x3f2aaaabu;
  const uint offset = as_type<uint>(normal) - two_thirds;
  const float exponent = float((int(offset) >> 23) - (subnormal ? 23 : 0));
  const float f = as_type<float>((offset & 0x7fffffu) + two_thirds) - 1.0f;
  float p = -0.128916785f;
  p = __builtin_fmaf(p, f, 0.139844403f);
  p = __builtin_fmaf(p, f, -0.121842623f);
  p = __builtin_fmaf(p, f, 0.140058681f);
  p = __builtin_fmaf(p, f, -0.16680488f);
  p = __builtin_fmaf(p, f, 0.200104058f);
  p = __builtin_fmaf(p, f, -0.249997973f);
  p = __builtin_fmaf(p, f, 0.333332151f);
  const float square = f * f;
  // log(1 + f) = f - f^2 / 2 + f^3 p; the high part of ln 2 has trailing zeros, so exponent * 0.693359375 is exact
  const float low = __builtin_fmaf(exponent, -0.000212194442f, __builtin_fmaf(square * f, p, -0.5f * square));
  float result = __builtin_fmaf(exponent, 0.693359375f, f + low);
  result = x == __builtin_inff() ? x : result;
  result = x == 0.0f ? -__builtin_inff() : result;
  return x < 0.0f || x != x ? __builtin_nanf("") : result;
}

UPGC_INLINE float tanh(float x) {
  const float magnitude = __builtin_fabsf(x);
  const float large = 1.0f - 2.0f / (exp(2.0f * magnitude) + 1.0f);
  // Near 0 the subtraction above would cancel.
  const float square = x * x;
  float p = -0.00564831588f;
  p = __builtin_fmaf(p, square, 0.0205898266f);
  p = __builtin_fmaf(p, square, -0.0537251271f);
  p = __builtin_fmaf(p, square, 0.133312747f);
  p = __builtin_fmaf(p, square, -0.333332747f);
  const float small = __builtin_fmaf(magnitude * square, p, magnitude);
  return __builtin_copysignf(magnitude < 0.625f ? small : large, x);
}

}  // namespace metal
