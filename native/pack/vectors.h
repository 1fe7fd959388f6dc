// Short vectors of floats, as wide as the file that includes this is compiled for. Internal to each such file.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace upgc::pack {
namespace {

#if defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif

using Vec = float __attribute__((vector_size(4 * lanes)));
using Mask = int32_t __attribute__((vector_size(4 * lanes)));

inline Vec all(float value) { return Vec{} + value; }
inline Vec select(Mask mask, Vec a, Vec b) { return mask ? a : b; }

// Compilers make three instructions of the comparison and the selection where one does.
inline Vec least(Vec a, Vec b) {
#if defined(__AVX2__)
  return Vec(_mm256_min_ps(__m256(a), __m256(b)));
#elif defined(__SSE2__)
  return Vec(_mm_min_ps(__m128(a), __m128(b)));
#elif defined(__aarch64__)
  return Vec(vminq_f32(float32x4_t(a), float32x4_t(b)));
#else
  return select(a < b, a, b);
#endif
}

inline Vec greatest(Vec a, Vec b) {
#if defined(__AVX2__)
  return Vec(_mm256_max_ps(__m256(a), __m256(b)));
#elif defined(__SSE2__)
  return Vec(_mm_max_ps(__m128(a), __m128(b)));
#elif defined(__aarch64__)
  return Vec(vmaxq_f32(float32x4_t(a), float32x4_t(b)));
#else
  return select(a > b, a, b);
#endif
}

inline Vec magnitude(Vec a) { return greatest(a, -a); }
inline Vec clamped(Vec a, Vec low, Vec high) { return least(greatest(a, low), high); }

/// 0 where the divisor is 0.
inline Vec quotient(Vec a, Vec b) {
  const Mask none = b == all(0);
  return select(none, all(0), a / select(none, all(1), b));
}

/// 0 for what has no finite reciprocal.
inline Vec reciprocal(Vec a) {
  const Mask none = magnitude(a) < all(0x1p-120f);
  return select(none, all(0), all(1) / select(none, all(1), a));
}

/// The nearest integer of a value between -2^22 and 2^22.
inline Vec nearest_integer(Vec a) {
  const Vec magic = all(0x1.8p23f);
  return (a + magic) - magic;
}

/// A value near `a` (the nearest but for ties) that a finite f16 has.
inline Vec half_precision(Vec a) {
  a = clamped(a, all(-65504), all(65504));
  const Vec shifted = a * all(8193);
  const Vec normal = shifted - (shifted - a);
  // Below 2^-14 halves are multiples of 2^-24.
  const Vec subnormal = (a + all(0.75f)) - all(0.75f);
  return select(magnitude(a) < all(0x1p-14f), subnormal, normal);
}

}  // namespace
}  // namespace upgc::pack
