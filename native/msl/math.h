// <metal_math>, <metal_common>, <metal_relational> and <metal_geometric>. Each function is defined for float; half
// computes in float, and vectors go component by component. Nothing is fast-math: `precise::` and `fast::` hold the
// same functions.
#pragma once

#include "elementary.h"
#include "integer.h"
#include "limits.h"

namespace metal {

#define UPGC_FLOAT_1(name, expression) \
  UPGC_INLINE float name(float x) { return expression; }
UPGC_FLOAT_1(abs, __builtin_fabsf(x))
UPGC_FLOAT_1(fabs, __builtin_fabsf(x))
UPGC_FLOAT_1(sqrt, __builtin_sqrtf(x))
UPGC_FLOAT_1(rsqrt, 1.0f / __builtin_sqrtf(x))
UPGC_FLOAT_1(floor, __builtin_floorf(x))
UPGC_FLOAT_1(ceil, __builtin_ceilf(x))
UPGC_FLOAT_1(trunc, __builtin_truncf(x))
UPGC_FLOAT_1(rint, __builtin_rintf(x))
UPGC_FLOAT_1(round, __builtin_roundf(x))
UPGC_FLOAT_1(fract, __builtin_fminf(x - __builtin_floorf(x), 0x1.fffffep-1f))
UPGC_FLOAT_1(exp10, __builtin_powf(10.0f, x))
UPGC_FLOAT_1(log2, __builtin_log2f(x))
UPGC_FLOAT_1(log10, __builtin_log10f(x))
UPGC_FLOAT_1(sin, __builtin_sinf(x))
UPGC_FLOAT_1(cos, __builtin_cosf(x))
UPGC_FLOAT_1(tan, __builtin_tanf(x))
UPGC_FLOAT_1(asin, __builtin_asinf(x))
UPGC_FLOAT_1(acos, __builtin_acosf(x))
UPGC_FLOAT_1(atan, __builtin_atanf(x))
UPGC_FLOAT_1(sinh, __builtin_sinhf(x))
UPGC_FLOAT_1(cosh, __builtin_coshf(x))
UPGC_FLOAT_1(asinh, __builtin_asinhf(x))
UPGC_FLOAT_1(acosh, __builtin_acoshf(x))
UPGC_FLOAT_1(atanh, __builtin_atanhf(x))
UPGC_FLOAT_1(sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? x : 0.0f)
UPGC_FLOAT_1(saturate, __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f))
#undef UPGC_FLOAT_1

namespace detail {
/// pi times x, less the even number next to x, which changes no trigonometric function and is exact.
UPGC_INLINE double half_turns(float x) { return 3.14159265358979323846 * double(x - 2.0f * __builtin_rintf(x * 0.5f)); }
}  // namespace detail
UPGC_INLINE float sinpi(float x) {
  return x == __builtin_rintf(x) ? __builtin_copysignf(x - x, x) : float(__builtin_sin(detail::half_turns(x)));
}
UPGC_INLINE float cospi(float x) {
  const float quarter = __builtin_fabsf(x - 2.0f * __builtin_rintf(x * 0.5f));
  return quarter == 0.5f ? 0.0f : float(__builtin_cos(detail::half_turns(x)));
}
UPGC_INLINE float tanpi(float x) { return sinpi(x) / cospi(x); }

#define UPGC_FLOAT_2(name, expression) \
  UPGC_INLINE float name(float x, float y) { return expression; }
UPGC_FLOAT_2(pow, __builtin_powf(x, y))
UPGC_FLOAT_2(powr, x < 0.0f ? __builtin_nanf("") : __builtin_powf(x, y))
UPGC_FLOAT_2(fmod, __builtin_fmodf(x, y))
UPGC_FLOAT_2(atan2, __builtin_atan2f(x, y))
UPGC_FLOAT_2(fmin, __builtin_fminf(x, y))
UPGC_FLOAT_2(fmax, __builtin_fmaxf(x, y))
UPGC_FLOAT_2(fdim, x <= y ? 0.0f : x - y)
UPGC_FLOAT_2(divide, x / y)
UPGC_FLOAT_2(copysign, __builtin_copysignf(x, y))
UPGC_FLOAT_2(step, y < x ? 0.0f : 1.0f)
#undef UPGC_FLOAT_2

UPGC_INLINE float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
UPGC_INLINE float mix(float x, float y, float a) { return x + (y - x) * a; }
UPGC_INLINE float smoothstep(float low, float high, float x) {
  const float t = saturate((x - low) / (high - low));
  return t * t * (3.0f - 2.0f * t);
}
UPGC_INLINE float fmin3(float x, float y, float z) { return fmin(x, fmin(y, z)); }
UPGC_INLINE float fmax3(float x, float y, float z) { return fmax(x, fmax(y, z)); }
UPGC_INLINE float fmedian3(float x, float y, float z) { return fmax(fmin(x, y), fmin(fmax(x, y), z)); }

// The functions above, from which those of half, vectors and packed vectors are made.
#define UPGC_MATH_1(M)                                                                                        \
  M(abs) M(fabs) M(sqrt) M(rsqrt) M(floor) M(ceil) M(trunc) M(rint) M(round) M(fract) M(exp) M(exp2) M(exp10) \
  M(log) M(log2) M(log10) M(sin) M(cos) M(tan) M(asin) M(acos) M(atan) M(sinh) M(cosh) M(tanh) M(asinh)       \
  M(acosh) M(atanh) M(sinpi) M(cospi) M(tanpi) M(sign) M(saturate)
#define UPGC_MATH_2(M) \
  M(pow) M(powr) M(fmod) M(atan2) M(fmin) M(fmax) M(fdim) M(divide) M(copysign) M(step)
#define UPGC_MATH_3(M) M(fma) M(mix) M(smoothstep) M(fmin3) M(fmax3) M(fmedian3)

#define UPGC_HALF_1(name) \
  UPGC_INLINE half name(half x) { return half(name(float(x))); }
#define UPGC_HALF_2(name) \
  UPGC_INLINE half name(half x, half y) { return half(name(float(x), float(y))); }
#define UPGC_HALF_3(name) \
  UPGC_INLINE half name(half x, half y, half z) { return half(name(float(x), float(y), float(z))); }
UPGC_MATH_1(UPGC_HALF_1)
UPGC_MATH_2(UPGC_HALF_2)
UPGC_MATH_3(UPGC_HALF_3)
#undef UPGC_HALF_3
#undef UPGC_HALF_2
#undef UPGC_HALF_1

UPGC_MATH_1(UPGC_LIFT_1)
UPGC_MATH_2(UPGC_LIFT_2)
UPGC_MATH_3(UPGC_LIFT_3)

// Functions that return a second value, or take or give an integer.
UPGC_INLINE float ldexp(float x, int exponent) { return __builtin_ldexpf(x, exponent); }
UPGC_INLINE half ldexp(half x, int exponent) { return half(__builtin_ldexpf(float(x), exponent)); }
UPGC_INLINE int ilogb(float x) {
  if (x == 0.0f) return FP_ILOGB0;
  return x == x ? __builtin_ilogbf(x) : FP_ILOGBNAN;
}
UPGC_INLINE int ilogb(half x) { return ilogb(float(x)); }
UPGC_INLINE float frexp(float x, int& exponent) { return __builtin_frexpf(x, &exponent); }
UPGC_INLINE half frexp(half x, int& exponent) { return half(__builtin_frexpf(float(x), &exponent)); }
UPGC_INLINE float modf(float x, float& whole) {
  whole = __builtin_truncf(x);
  return __builtin_copysignf(__builtin_isinf(x) ? 0.0f : x - whole, x);
}
UPGC_INLINE half modf(half x, half& whole) {
  float wide;
  const half rest = half(modf(float(x), wide));
  whole = half(wide);
  return rest;
}
UPGC_INLINE float sincos(float x, float& cosine) {
  cosine = cos(x);
  return sin(x);
}
UPGC_INLINE half sincos(half x, half& cosine) {
  cosine = cos(x);
  return sin(x);
}

template <class T, int N>
UPGC_INLINE vec<T, N> ldexp(const vec<T, N> x, const type_identity_t<vec<int, N>> exponent) {
  vec<T, N> result;
  for (int i = 0; i < N; i++) result[i] = T(ldexp(x[i], exponent[i]));
  return result;
}
template <class T, int N>
UPGC_INLINE vec<int, N> ilogb(const vec<T, N> x) {
  vec<int, N> result;
  for (int i = 0; i < N; i++) result[i] = ilogb(x[i]);
  return result;
}
template <class T, int N>
UPGC_INLINE vec<T, N> frexp(const vec<T, N> x, vec<int, N>& exponent) {
  vec<T, N> result;
  for (int i = 0; i < N; i++) result[i] = T(frexp(x[i], exponent[i]));
  return result;
}
template <class T, int N>
UPGC_INLINE vec<T, N> modf(const vec<T, N> x, vec<T, N>& whole) {
  vec<T, N> result;
  for (int i = 0; i < N; i++) result[i] = modf(x[i], whole[i]);
  return result;
}
template <class T, int N>
UPGC_INLINE vec<T, N> sincos(vec<T, N> x, vec<T, N>& cosine) {
  cosine = cos(x);
  return sin(x);
}

/// On the bits, where the next number is the next integer away from zero: libm would not see subnormal ones, which are
/// flushed here.
template <class T>
UPGC_INLINE enable_if_t<is_floating_point_v<T>, T> nextafter(T x, type_identity_t<T> y) {
  using Bits = conditional_t<sizeof(T) == 4, uint, ushort>;
  const Bits sign = Bits(1) << (sizeof(T) * 8 - 1);
  const Bits bits = as_type<Bits>(x), target = as_type<Bits>(y);
  if (x != x || y != y) return numeric_limits<T>::quiet_NaN();
  if (bits == target || ((bits | target) & ~sign & Bits(~Bits(0))) == 0) return y;
  if ((bits & Bits(~sign)) == 0) return as_type<T>(Bits((target & sign) | 1));
  // Of equal signs the one with larger bits is further from zero; of different ones, each is on the way to zero.
  const bool away = ((bits ^ target) & sign) == 0 && target > bits;
  return as_type<T>(Bits(away ? bits + 1 : bits - 1));
}
template <class T, int N>
UPGC_INLINE vec<T, N> nextafter(const vec<T, N> x, const type_identity_t<vec<T, N>> y) {
  vec<T, N> result;
  for (int i = 0; i < N; i++) result[i] = nextafter(x[i], y[i]);
  return result;
}

#define UPGC_PREDICATE(name, expression)                                       \
  UPGC_INLINE bool name(float x) { return expression; }                        \
  UPGC_INLINE bool name(half x) { return name(float(x)); }                     \
  template <class T, int N>                                                    \
  UPGC_INLINE vec<bool, N> name(const vec<T, N> x) {                           \
    vec<bool, N> result;                                                       \
    for (int i = 0; i < N; i++) result.lanes[i] = name(x[i]);                  \
    return result;                                                             \
  }
UPGC_PREDICATE(isnan, __builtin_isnan(x))
UPGC_PREDICATE(isinf, __builtin_isinf(x))
UPGC_PREDICATE(isfinite, __builtin_isfinite(x))
UPGC_PREDICATE(signbit, __builtin_signbit(x))
#undef UPGC_PREDICATE

/// Normal in its own type: a half may be subnormal where the float of its value is not.
template <class T>
UPGC_INLINE enable_if_t<is_floating_point_v<T>, bool> isnormal(T x) {
  const T magnitude = T(fabs(x));
  return magnitude >= numeric_limits<T>::min() && magnitude <= numeric_limits<T>::max();
}
template <class T, int N>
UPGC_INLINE vec<bool, N> isnormal(const vec<T, N> x) {
  vec<bool, N> result;
  for (int i = 0; i < N; i++) result[i] = isnormal(x[i]);
  return result;
}
template <class T>
UPGC_INLINE enable_if_t<is_floating_point_v<T>, bool> isordered(T x, type_identity_t<T> y) { return x == x && y == y; }
template <class T>
UPGC_INLINE enable_if_t<is_floating_point_v<T>, bool> isunordered(T x, type_identity_t<T> y) {
  return !isordered(x, y);
}
template <class T, int N>
UPGC_INLINE vec<bool, N> isordered(vec<T, N> x, type_identity_t<vec<T, N>> y) { return x == x && y == y; }
template <class T, int N>
UPGC_INLINE vec<bool, N> isunordered(vec<T, N> x, type_identity_t<vec<T, N>> y) { return !isordered(x, y); }

template <class T, int N>
UPGC_INLINE T dot(const vec<T, N> x, const type_identity_t<vec<T, N>> y) {
  T sum = x[0] * y[0];
  for (int i = 1; i < N; i++) sum += x[i] * y[i];
  return sum;
}
template <class T>
UPGC_INLINE vec<T, 3> cross(const vec<T, 3> x, const type_identity_t<vec<T, 3>> y) {
  return {T(x[1] * y[2] - x[2] * y[1]), T(x[2] * y[0] - x[0] * y[2]), T(x[0] * y[1] - x[1] * y[0])};
}
template <class T, int N>
UPGC_INLINE T length_squared(vec<T, N> x) { return dot(x, x); }
template <class T, int N>
UPGC_INLINE T length(vec<T, N> x) { return T(sqrt(dot(x, x))); }
template <class T, int N>
UPGC_INLINE T distance(vec<T, N> x, type_identity_t<vec<T, N>> y) { return length(x - y); }
template <class T, int N>
UPGC_INLINE T distance_squared(vec<T, N> x, type_identity_t<vec<T, N>> y) { return length_squared(x - y); }
template <class T, int N>
UPGC_INLINE vec<T, N> normalize(vec<T, N> x) { return x * T(rsqrt(dot(x, x))); }
template <class T, int N>
UPGC_INLINE vec<T, N> faceforward(vec<T, N> normal, type_identity_t<vec<T, N>> incident,
                                  type_identity_t<vec<T, N>> reference) {
  return dot(reference, incident) < T(0.0f) ? normal : -normal;
}
template <class T, int N>
UPGC_INLINE vec<T, N> reflect(vec<T, N> incident, type_identity_t<vec<T, N>> normal) {
  return incident - normal * T(T(2.0f) * dot(normal, incident));
}
template <class T, int N>
UPGC_INLINE vec<T, N> refract(vec<T, N> incident, type_identity_t<vec<T, N>> normal, type_identity_t<T> ratio) {
  const float cosine = float(dot(normal, incident));
  const float k = 1.0f - float(ratio) * float(ratio) * (1.0f - cosine * cosine);
  if (k < 0.0f) return vec<T, N>(T(0.0f));
  return incident * ratio - normal * T(float(ratio) * cosine + sqrt(k));
}

namespace precise {
using namespace metal;
}
namespace fast {
using namespace metal;
}

}  // namespace metal
