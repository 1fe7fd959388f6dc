// Half and brain floats in portable C++, written so that loops over them vectorise. Static: files
// compiled for other instruction sets have their own.
#pragma once

#include <cstdint>
#include <cstring>

namespace upgc::pack {

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float float_of(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline float from_bf16(uint16_t bits) { return float_of(uint32_t(bits) << 16); }

/// Exact, subnormals, infinities and NaNs included.
static inline float from_f16(uint16_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7fff) << 13;
  // The exponents' biases differ by 112.
  uint32_t result = bits_of(float_of(magnitude) * 0x1p112f);
  result = magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : result;
  return float_of(result | uint32_t(bits & 0x8000) << 16);
}

/// To nearest, ties to even; NaNs stay NaNs.
static inline uint16_t to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);
  return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// To nearest, ties to even; from 65520 on infinite; NaNs stay NaNs.
static inline uint16_t to_f16(float value) {
  const uint32_t bits = bits_of(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00 | (magnitude >> 13 & 0x1ff));
  if (magnitude >= 0x47800000) return uint16_t(sign | 0x7c00);
  // Below 2^-14 halves are multiples of 2^-24, as are the floats from 0.5 to 1.
  if (magnitude < 0x38800000) return uint16_t(sign | (bits_of(float_of(magnitude) + 0.5f) - 0x3f000000));
  return uint16_t(sign | (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13);
}

/// Little-endian, at any address.
template <class T>
static inline T load(const uint8_t* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

}  // namespace upgc::pack
