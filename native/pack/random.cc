#include "random.h"

#include "floats.h"

namespace upgc::pack {
namespace {

/// SplitMix64's: every bit of the result depends on every bit of the argument.
inline uint64_t mix(uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return z ^ z >> 31;
}

/// The numbers of one tensor and purpose, by their index.
class Numbers {
 public:
  Numbers(uint64_t seed, uint64_t purpose) : key_(mix(mix(seed + 0x9e3779b97f4a7c15) + purpose)) {}
  uint64_t operator[](uint64_t index) const { return mix(key_ + index * 0x9e3779b97f4a7c15); }

 private:
  uint64_t key_;
};

/// 16 nibbles from 0 to 15 with a peak in the middle: sums of two numbers of 3 bits and one of 1 bit.
uint64_t peaked_nibbles(uint64_t a, uint64_t b) {
  constexpr uint64_t low3 = 0x7777777777777777, low1 = 0x1111111111111111;
  return (a & low3) + (b & low3) + (a >> 3 & low1);
}

/// Mean and deviation of the integers that `random_runs` draws.
struct Integers {
  double mean;
  double deviation;
};

Integers integers_of(const PackedFormat& format) {
  switch (format.bits) {
    case 4: return {7.5, 3.279};   // √(2 · 63/12 + 1/4)
    case 5: return {15.5, 8.646};  // the same, and 16² / 4 more
    case 6: return {31.5, 18.19};  // 16² / 4 + 32² / 4 more
    default: return {-0.5, 73.90}; // uniform
  }
}

/// A scale within a quarter of `typical` on either side, of either sign where there is no bias to go with it.
float jittered(uint64_t number, float typical, bool any_sign) {
  const float size = typical * (0.75f + float(number >> 40) * 0x1p-25f);
  return any_sign && (number & 1) != 0 ? -size : size;
}

void put_half(uint8_t* to, float value) {
  const uint16_t half = to_f16(value);
  std::memcpy(to, &half, 2);
}

}  // namespace

void random_floats(const RandomWeights& weights, uint64_t first, uint64_t count, float* to) {
  const Numbers numbers(weights.seed, 0);
  // The sum of four numbers of 16 bits has the deviation 2^16 · √(4 / 12).
  const float scale = float(weights.deviation / 37837.2);
  const auto mean = float(weights.mean);
  for (uint64_t i = 0; i < count; i++) {
    const uint64_t bits = numbers[first + i];
    const uint64_t pairs = (bits & 0x0000ffff0000ffff) + (bits >> 16 & 0x0000ffff0000ffff);
    const auto sum = int32_t(uint32_t(pairs) + uint32_t(pairs >> 32)) - 131070;
    to[i] = mean + float(sum) * scale;
  }
}

void random_runs(const RandomWeights& weights, const PackedFormat& format, const Plane& plane, uint64_t first,
                 uint64_t count, uint8_t* to) {
  const Integers integers = integers_of(format);
  const double unit = weights.deviation / integers.deviation;
  // Integer scales are about 96, from 64 to 127, and signed where there is no bias.
  const double block_unit = unit / 96;
  const Numbers numbers(weights.seed, uint64_t(plane.kind == PlaneKind::biases ? PlaneKind::scales : plane.kind) + 1);
  switch (plane.kind) {
    case PlaneKind::quants: {
      const uint64_t words = plane.bytes / 8;
      for (uint64_t i = first * words; i < (first + count) * words; i++, to += 8) {
        const uint64_t word = format.bits == 8 ? numbers[i] : peaked_nibbles(numbers[2 * i], numbers[2 * i + 1]);
        std::memcpy(to, &word, 8);
      }
      return;
    }
    case PlaneKind::high:
      for (uint64_t i = first; i < first + count; i++, to += plane.bytes) {
        const uint64_t word = numbers[i];
        std::memcpy(to, &word, plane.bytes);
      }
      return;
    case PlaneKind::scales:
    case PlaneKind::biases: {
      const bool bias = plane.kind == PlaneKind::biases;
      for (uint64_t i = first; i < first + count; i++, to += plane.bytes) {
        if (format.has_blocks()) {
          const auto size = int(64 + (numbers[i] >> 58));
          *to = uint8_t(!format.has_bias() && (numbers[i] & 1) != 0 ? -size : size);
        } else {
          const float scale = jittered(numbers[i], float(unit), !format.has_bias());
          put_half(to, bias ? -float(integers.mean) * scale : scale);
        }
      }
      return;
    }
    case PlaneKind::block_scales:
      for (uint64_t i = 0; i < count; i++, to += 2) put_half(to, float(block_unit));
      return;
    case PlaneKind::block_biases:
      for (uint64_t i = 0; i < count; i++, to += 2) put_half(to, float(block_unit * integers.mean));
      return;
  }
}

}  // namespace upgc::pack
