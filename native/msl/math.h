// <metal_math>, <metal_common> and <metal_geometric>. Each function is defined for float; half computes in float, and
// vectors go component by component. `precise::` and `fast::` are the same functions: nothing here is fast-math.
#pragma once

#include "elementary.h"
#include "integer.h"

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
UPGC_FLOAT_1(sign, x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x == 0.0f ? x : 0.0f)
UPGC_FLOAT_1(saturate, __builtin_fminf(__builtin_fmaxf(x, 0.0f), 1.0f))
#undef UPGC_FLOAT_1

#define UPGC_FLOAT_2(name, expression) \
  UPGC_INLINE float name(float x, float y) { return expression; }
UPGC_FLOAT_2(pow, __builtin_powf(x, y))
UPGC_FLOAT_2(powr, __builtin_powf(x, y))
UPGC_FLOAT_2(fmod, __builtin_fmodf(x, y))
UPGC_FLOAT_2(atan2, __builtin_atan2f(x, y))
UPGC_FLOAT_2(fmin, __builtin_fminf(x, y))
UPGC_FLOAT_2(fmax, __builtin_fmaxf(x, y))
UPGC_FLOAT_2(copysign, __builtin_copysignf(x, y))
UPGC_FLOAT_2(step, y < x ? 0.0f : 1.0f)
#undef UPGC_FLOAT_2

UPGC_INLINE float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
UPGC_INLINE float mix(float x, float y, float a) { return x + (y - x) * a; }
UPGC_INLINE float smoothstep(float low, float high, float x) {
  const float t = saturate((x - low) / (high - low));
  return t * t * (3.0f - 2.0f * t);
}

#define UPGC_PREDICATE(name, expression)                          \
  UPGC_INLINE bool name(float x) { return expression; }           \
  UPGC_INLINE bool name(half x) { return name(float(x)); }        \
  template <class T, int N>                                       \
  UPGC_INLINE vec<bool, N> name(vec<T, N> x) {                    \
    vec<bool, N> result;                                          \
    for (int i = 0; i < N; i++) result.lanes[i] = name(x.lanes[i]); \
    return result;                                                \
  }
UPGC_PREDICATE(isnan, __builtin_isnan(x))
UPGC_PREDICATE(isinf, __builtin_isinf(x))
UPGC_PREDICATE(isfinite, __builtin_isfinite(x))
UPGC_PREDICATE(signbit, __builtin_signbit(x))
#undef UPGC_PREDICATE

// half and vector forms. Scalars convert to a vector operand's type, as in Metal.
#define UPGC_LIFT_1(name)                                              \
  UPGC_INLINE half name(half x) { return half(name(float(x))); }       \
  template <class T, int N>                                            \
  UPGC_INLINE vec<T, N> name(vec<T, N> x) {                            \
    for (int i = 0; i < N; i++) x.lanes[i] = name(T(x.lanes[i]));      \
    return x;                                                          \
  }
#define UPGC_LIFT_2(name)                                                                \
  UPGC_INLINE half name(half x, half y) { return half(name(float(x), float(y))); }       \
  template <class T, int N>                                                              \
  UPGC_INLINE vec<T, N> name(vec<T, N> x, type_identity_t<vec<T, N>> y) {                \
    for (int i = 0; i < N; i++) x.lanes[i] = name(T(x.lanes[i]), T(y.lanes[i]));         \
    return x;                                                                            \
  }
#define UPGC_LIFT_3(name)                                                                                \
  UPGC_INLINE half name(half x, half y, half z) { return half(name(float(x), float(y), float(z))); }     \
  template <class T, int N>                                                                              \
  UPGC_INLINE vec<T, N> name(vec<T, N> x, type_identity_t<vec<T, N>> y, type_identity_t<vec<T, N>> z) {  \
    for (int i = 0; i < N; i++) x.lanes[i] = name(T(x.lanes[i]), T(y.lanes[i]), T(z.lanes[i]));          \
    return x;                                                                                            \
  }
UPGC_LIFT_1(abs)
UPGC_LIFT_1(fabs)
UPGC_LIFT_1(sqrt)
UPGC_LIFT_1(rsqrt)
UPGC_LIFT_1(floor)
UPGC_LIFT_1(ceil)
UPGC_LIFT_1(trunc)
UPGC_LIFT_1(rint)
UPGC_LIFT_1(round)
UPGC_LIFT_1(fract)
UPGC_LIFT_1(exp)
UPGC_LIFT_1(exp2)
UPGC_LIFT_1(exp10)
UPGC_LIFT_1(log)
UPGC_LIFT_1(log2)
UPGC_LIFT_1(log10)
UPGC_LIFT_1(sin)
UPGC_LIFT_1(cos)
UPGC_LIFT_1(tan)
UPGC_LIFT_1(asin)
UPGC_LIFT_1(acos)
UPGC_LIFT_1(atan)
UPGC_LIFT_1(sinh)
UPGC_LIFT_1(cosh)
UPGC_LIFT_1(tanh)
UPGC_LIFT_1(sign)
UPGC_LIFT_1(saturate)
UPGC_LIFT_2(pow)
UPGC_LIFT_2(powr)
UPGC_LIFT_2(fmod)
UPGC_LIFT_2(atan2)
UPGC_LIFT_2(fmin)
UPGC_LIFT_2(fmax)
UPGC_LIFT_2(copysign)
UPGC_LIFT_2(step)
UPGC_LIFT_3(fma)
UPGC_LIFT_3(mix)
UPGC_LIFT_3(smoothstep)
#undef UPGC_LIFT_3
#undef UPGC_LIFT_2
#undef UPGC_LIFT_1

template <class T, int N>
UPGC_INLINE T dot(vec<T, N> x, vec<T, N> y) {
  T sum = x.lanes[0] * y.lanes[0];
  for (int i = 1; i < N; i++) sum += x.lanes[i] * y.lanes[i];
  return sum;
}
template <class T, int N>
UPGC_INLINE T length_squared(vec<T, N> x) { return dot(x, x); }
template <class T, int N>
UPGC_INLINE T length(vec<T, N> x) { return sqrt(dot(x, x)); }
template <class T, int N>
UPGC_INLINE T distance(vec<T, N> x, vec<T, N> y) { return length(x - y); }
template <class T, int N>
UPGC_INLINE vec<T, N> normalize(vec<T, N> x) { return x * rsqrt(dot(x, x)); }

#define UPGC_PRECISIONS(name)                \
  namespace precise { using metal::name; }   \
  namespace fast { using metal::name; }
UPGC_PRECISIONS(abs)
UPGC_PRECISIONS(acos)
UPGC_PRECISIONS(asin)
UPGC_PRECISIONS(atan)
UPGC_PRECISIONS(atan2)
UPGC_PRECISIONS(ceil)
UPGC_PRECISIONS(clamp)
UPGC_PRECISIONS(copysign)
UPGC_PRECISIONS(cos)
UPGC_PRECISIONS(cosh)
UPGC_PRECISIONS(exp)
UPGC_PRECISIONS(exp10)
UPGC_PRECISIONS(exp2)
UPGC_PRECISIONS(fabs)
UPGC_PRECISIONS(floor)
UPGC_PRECISIONS(fma)
UPGC_PRECISIONS(fmax)
UPGC_PRECISIONS(fmin)
UPGC_PRECISIONS(fmod)
UPGC_PRECISIONS(fract)
UPGC_PRECISIONS(log)
UPGC_PRECISIONS(log10)
UPGC_PRECISIONS(log2)
UPGC_PRECISIONS(max)
UPGC_PRECISIONS(min)
UPGC_PRECISIONS(mix)
UPGC_PRECISIONS(pow)
UPGC_PRECISIONS(powr)
UPGC_PRECISIONS(rint)
UPGC_PRECISIONS(round)
UPGC_PRECISIONS(rsqrt)
UPGC_PRECISIONS(saturate)
UPGC_PRECISIONS(sign)
UPGC_PRECISIONS(sin)
UPGC_PRECISIONS(sinh)
UPGC_PRECISIONS(smoothstep)
UPGC_PRECISIONS(sqrt)
UPGC_PRECISIONS(step)
UPGC_PRECISIONS(tan)
UPGC_PRECISIONS(tanh)
UPGC_PRECISIONS(trunc)
#undef UPGC_PRECISIONS

}  // namespace metal
