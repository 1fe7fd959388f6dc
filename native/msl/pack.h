// <metal_pack>: numbers in 0 ... 1 (unorm) and -1 ... 1 (snorm) as integers of a few bits, x in the lowest.
#pragma once

#include "math.h"

namespace metal {
namespace detail {

/// Packs vectors into a Word: component i has the i-th of `widths` bits.
template <class Word, int... widths>
struct Packing {
  static constexpr int count = sizeof...(widths);
  static constexpr int width[] = {widths...};
  using Vector = vec<float, count>;

  template <bool with_sign>
  static constexpr float top(int i) { return float((1u << (width[i] - int(with_sign))) - 1); }

  template <bool with_sign>
  static UPGC_INLINE Word pack(const Vector x) {
    uint word = 0;
    for (int i = 0, at = 0; i < count; at += width[i++]) {
      const float limited = fmin(fmax(x[i], with_sign ? -1.0f : 0.0f), 1.0f);
      word |= (uint(int(rint(limited * top<with_sign>(i)))) & ((1u << width[i]) - 1)) << at;
    }
    return Word(word);
  }
  template <bool with_sign>
  static UPGC_INLINE Vector unpack(Word word) {
    Vector x;
    for (int i = 0, at = 0; i < count; at += width[i++]) {
      const uint bits = uint(word) << (32 - at - width[i]);
      x[i] = with_sign ? fmax(float(int(bits) >> (32 - width[i])) / top<true>(i), -1.0f)
                       : float(bits >> (32 - width[i])) / top<false>(i);
    }
    return x;
  }
};
using Packing4x8 = Packing<uint, 8, 8, 8, 8>;
using Packing2x16 = Packing<uint, 16, 16>;
using Packing10a2 = Packing<uint, 10, 10, 10, 2>;
using Packing565 = Packing<ushort, 5, 6, 5>;

UPGC_INLINE float4 linear_from_srgb(float4 x) {
  for (int i = 0; i < 3; i++) x[i] = x[i] <= 0.04045f ? x[i] / 12.92f : pow((x[i] + 0.055f) / 1.055f, 2.4f);
  return x;
}
UPGC_INLINE float4 srgb_from_linear(float4 x) {
  for (int i = 0; i < 3; i++) x[i] = x[i] <= 0.0031308f ? x[i] * 12.92f : 1.055f * pow(x[i], 1.0f / 2.4f) - 0.055f;
  return x;
}

}  // namespace detail

#define UPGC_PACK(name, layout, with_sign, n, Word)                                                              \
  UPGC_INLINE float##n unpack_##name##_to_float(Word x) { return detail::layout::unpack<with_sign>(x); }         \
  UPGC_INLINE half##n unpack_##name##_to_half(Word x) { return half##n(detail::layout::unpack<with_sign>(x)); }  \
  UPGC_INLINE Word pack_float_to_##name(float##n x) { return detail::layout::pack<with_sign>(x); }               \
  UPGC_INLINE Word pack_half_to_##name(half##n x) { return detail::layout::pack<with_sign>(float##n(x)); }
UPGC_PACK(unorm4x8, Packing4x8, false, 4, uint)
UPGC_PACK(snorm4x8, Packing4x8, true, 4, uint)
UPGC_PACK(unorm2x16, Packing2x16, false, 2, uint)
UPGC_PACK(snorm2x16, Packing2x16, true, 2, uint)
UPGC_PACK(unorm10a2, Packing10a2, false, 4, uint)
UPGC_PACK(unorm565, Packing565, false, 3, ushort)
#undef UPGC_PACK

UPGC_INLINE float4 unpack_unorm4x8_srgb_to_float(uint x) {
  return detail::linear_from_srgb(unpack_unorm4x8_to_float(x));
}
UPGC_INLINE half4 unpack_unorm4x8_srgb_to_half(uint x) { return half4(unpack_unorm4x8_srgb_to_float(x)); }
UPGC_INLINE uint pack_float_to_srgb_unorm4x8(float4 x) {
  return pack_float_to_unorm4x8(detail::srgb_from_linear(x));
}
UPGC_INLINE uint pack_half_to_srgb_unorm4x8(half4 x) { return pack_float_to_srgb_unorm4x8(float4(x)); }

}  // namespace metal
