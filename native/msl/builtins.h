// The compiler builtins behind Apple's own headers, as far as public kernels call them by name: MLX does, to give
// bfloat its functions. The last operand of a mathematical one selects fast or precise.
#pragma once

#include "simdgroup.h"

#define __METAL_FAST_MATH__ 1
#define __METAL_PRECISE_MATH__ 2
#define __METAL_MAYBE_FAST_MATH__ 0

#define UPGC_SITE unsigned site = upgc::abi::site_of(__builtin_LINE(), __builtin_COLUMN())

#define UPGC_BUILTIN_1(name) \
  UPGC_INLINE float __metal_##name(float x, int) { return metal::name(x); }
#define UPGC_BUILTIN_2(name) \
  UPGC_INLINE float __metal_##name(float x, float y, int) { return metal::name(x, y); }
#define UPGC_BUILTIN_3(name) \
  UPGC_INLINE float __metal_##name(float x, float y, float z, int) { return metal::name(x, y, z); }
UPGC_MATH_1(UPGC_BUILTIN_1)
UPGC_MATH_2(UPGC_BUILTIN_2)
UPGC_MATH_3(UPGC_BUILTIN_3)
#undef UPGC_BUILTIN_3
#undef UPGC_BUILTIN_2
#undef UPGC_BUILTIN_1

// Without the selector.
UPGC_INLINE float __metal_divide(float x, float y) { return x / y; }
UPGC_INLINE float __metal_fma(float x, float y, float z) { return metal::fma(x, y, z); }
UPGC_INLINE float __metal_nextafter(float x, float y) { return metal::nextafter(x, y); }
UPGC_INLINE float __metal_frexp(float x, int* exponent) { return metal::frexp(x, *exponent); }
UPGC_INLINE float __metal_ldexp(float x, int exponent, int) { return metal::ldexp(x, exponent); }

#define UPGC_BUILTIN_GROUP(name)                            \
  template <class T>                                        \
  UPGC_INLINE T __metal_simd_##name(T value, UPGC_SITE) {   \
    return metal::simd_##name(value, site);                 \
  }
/// Metal has it for integers; of a float these are the bits.
template <class T>
UPGC_INLINE T __metal_simd_xor(T value, UPGC_SITE) {
  if constexpr (metal::is_integral_v<T>) return metal::simd_xor(value, site);
  else return metal::as_type<T>(metal::simd_xor(metal::as_type<uint>(value), site));
}
#define UPGC_BUILTIN_SHUFFLE(name)                                       \
  template <class T>                                                     \
  UPGC_INLINE T __metal_simd_##name(T value, ushort operand, UPGC_SITE) { \
    return metal::simd_##name(value, operand, site);                     \
  }
#define UPGC_BUILTIN_FILL(name)                                                                       \
  template <class T>                                                                                  \
  UPGC_INLINE T __metal_simd_##name(T data, T filling, ushort delta, ushort modulo, UPGC_SITE) {      \
    return metal::simd_##name(data, filling, delta, modulo, site);                                    \
  }
UPGC_BUILTIN_GROUP(sum)
UPGC_BUILTIN_GROUP(product)
UPGC_BUILTIN_GROUP(min)
UPGC_BUILTIN_GROUP(max)
UPGC_BUILTIN_GROUP(and)
UPGC_BUILTIN_GROUP(or)
UPGC_BUILTIN_GROUP(prefix_inclusive_sum)
UPGC_BUILTIN_GROUP(prefix_exclusive_sum)
UPGC_BUILTIN_GROUP(prefix_inclusive_product)
UPGC_BUILTIN_GROUP(prefix_exclusive_product)
UPGC_BUILTIN_SHUFFLE(broadcast)
UPGC_BUILTIN_SHUFFLE(shuffle)
UPGC_BUILTIN_SHUFFLE(shuffle_xor)
UPGC_BUILTIN_SHUFFLE(shuffle_up)
UPGC_BUILTIN_SHUFFLE(shuffle_down)
UPGC_BUILTIN_SHUFFLE(shuffle_rotate_up)
UPGC_BUILTIN_SHUFFLE(shuffle_rotate_down)
UPGC_BUILTIN_FILL(shuffle_and_fill_up)
UPGC_BUILTIN_FILL(shuffle_and_fill_down)
#undef UPGC_BUILTIN_FILL
#undef UPGC_BUILTIN_SHUFFLE
#undef UPGC_BUILTIN_GROUP
#undef UPGC_SITE

/// The operand says only of which type the result is.
template <class T>
UPGC_INLINE T __metal_get_simdgroup_size(T) { return T(upgc::simd_width); }
template <class T>
UPGC_INLINE T __metal_get_thread_index_in_simdgroup(T) { return T(upgc::lane_index()); }
