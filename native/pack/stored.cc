#include "stored.h"

#include "floats.h"

namespace upgc::pack {
namespace {

// ---- Floats ------------------------------------------------------------------------------------------------------

void decode_f32(const uint8_t* from, uint64_t count, float* to) { std::memcpy(to, from, count * 4); }

void decode_f16(const uint8_t* from, uint64_t count, float* to) {
  for (uint64_t i = 0; i < count; i++) to[i] = from_f16(load<uint16_t>(from + 2 * i));
}

void decode_bf16(const uint8_t* from, uint64_t count, float* to) {
  for (uint64_t i = 0; i < count; i++) to[i] = from_bf16(load<uint16_t>(from + 2 * i));
}

// ---- Blocks of 32 ------------------------------------------------------------------------------------------------
// [scale f16][minimum f16, where there is one][bit 4 of every element, with 5 bits][low nibbles: byte j has those of
// elements j and j + 16], or with 8 bits [scale f16][int8 of every element].

template <uint32_t bits, bool with_minimum>
struct Block32 {
  static constexpr uint32_t scale_bytes = with_minimum ? 4 : 2;
  static constexpr uint32_t quants = scale_bytes + (bits == 5 ? 4 : 0);
  static constexpr uint32_t bytes = quants + (bits == 8 ? 32 : 16);

  static void unpack(const uint8_t* from, uint8_t* q) {
    if constexpr (bits == 8) {
      std::memcpy(q, from + quants, 32);
      return;
    }
    for (int j = 0; j < 16; j++) {
      q[j] = from[quants + j] & 15;
      q[j + 16] = from[quants + j] >> 4;
    }
    if constexpr (bits == 5) {
      const auto high = load<uint32_t>(from + scale_bytes);
      for (int j = 0; j < 32; j++) q[j] |= uint8_t((high >> j & 1) << 4);
    }
  }

  static void decode(const uint8_t* from, uint64_t blocks, float* to) {
    uint8_t q[32];
    for (; blocks > 0; blocks--, from += bytes, to += 32) {
      unpack(from, q);
      const float scale = from_f16(load<uint16_t>(from));
      if constexpr (with_minimum) {
        const float minimum = from_f16(load<uint16_t>(from + 2));
        for (int j = 0; j < 32; j++) to[j] = float(q[j]) * scale + minimum;
      } else {
        for (int j = 0; j < 32; j++) to[j] = float(bits == 8 ? int8_t(q[j]) : q[j] - (1 << (bits - 1))) * scale;
      }
    }
  }

  static void repack(const uint8_t* from, uint64_t blocks, RowCodes& to) {
    for (uint64_t block = 0; block < blocks; block++, from += bytes) {
      unpack(from, to.quants.data() + block * 32);
      to.scales[block] = load<uint16_t>(from);
      if constexpr (with_minimum) to.biases[block] = load<uint16_t>(from + 2);
    }
  }
};

// ---- Blocks of 256 -----------------------------------------------------------------------------------------------

/// Q4_K and Q5_K: [scale f16][minimum f16][8 scales and minima of 6 bits][bit 4, with 5 bits][low nibbles].
template <uint32_t bits>
struct BlockK {
  static constexpr uint32_t high = 16;
  static constexpr uint32_t quants = high + (bits == 5 ? 32 : 0);
  static constexpr uint32_t bytes = quants + 128;

  /// The j-th 32 elements: their scale and minimum, packed into 12 bytes.
  static void scale_and_minimum(const uint8_t* from, int j, uint32_t& scale, uint32_t& minimum) {
    const uint8_t* at = from + 4;
    if (j < 4) {
      scale = at[j] & 63;
      minimum = at[j + 4] & 63;
    } else {
      scale = (at[j + 4] & 15) | at[j - 4] >> 6 << 4;
      minimum = at[j + 4] >> 4 | at[j] >> 6 << 4;
    }
  }

  static void unpack(const uint8_t* from, uint8_t* q) {
    for (int j = 0; j < 8; j++) {
      // Two parts share 32 bytes: the low halves, then the high ones.
      const uint8_t* nibbles = from + quants + j / 2 * 32;
      for (int l = 0; l < 32; l++) {
        uint32_t value = nibbles[l] >> (4 * (j & 1)) & 15;
        // Bit j of the high byte l belongs to part j.
        if constexpr (bits == 5) value |= uint32_t(from[high + l] >> j & 1) << 4;
        q[j * 32 + l] = uint8_t(value);
      }
    }
  }

  static void decode(const uint8_t* from, uint64_t blocks, float* to) {
    uint8_t q[256];
    for (; blocks > 0; blocks--, from += bytes, to += 256) {
      unpack(from, q);
      const float scale = from_f16(load<uint16_t>(from));
      const float minimum = from_f16(load<uint16_t>(from + 2));
      for (int j = 0; j < 8; j++) {
        uint32_t own_scale, own_minimum;
        scale_and_minimum(from, j, own_scale, own_minimum);
        const float s = scale * float(own_scale);
        const float m = minimum * float(own_minimum);
        for (int l = 0; l < 32; l++) to[j * 32 + l] = s * float(q[j * 32 + l]) - m;
      }
    }
  }

  static void repack(const uint8_t* from, uint64_t blocks, RowCodes& to) {
    for (uint64_t block = 0; block < blocks; block++, from += bytes) {
      unpack(from, to.quants.data() + block * 256);
      to.block_scales[block] = load<uint16_t>(from);
      to.block_biases[block] = load<uint16_t>(from + 2);
      for (int j = 0; j < 8; j++) {
        uint32_t scale, minimum;
        scale_and_minimum(from, j, scale, minimum);
        to.scales[block * 8 + j] = uint16_t(scale);
        to.biases[block * 8 + j] = uint16_t(minimum);
      }
    }
  }
};

/// [low nibbles][bits 4 and 5][int8 scale of every 16 elements][scale f16]
struct BlockQ6K {
  static constexpr uint32_t bytes = 210;

  static void unpack(const uint8_t* from, uint8_t* q) {
    // Each half of 128: four parts of 32, of which the last two are the high halves of the first two's bytes.
    for (int half = 0; half < 2; half++)
      for (int part = 0; part < 4; part++)
        for (int l = 0; l < 32; l++) {
          const uint32_t low = from[half * 64 + (part & 1) * 32 + l] >> (4 * (part >> 1)) & 15;
          const uint32_t high = from[128 + half * 32 + l] >> (2 * part) & 3;
          q[half * 128 + part * 32 + l] = uint8_t(low | high << 4);
        }
  }

  static void decode(const uint8_t* from, uint64_t blocks, float* to) {
    uint8_t q[256];
    for (; blocks > 0; blocks--, from += bytes, to += 256) {
      unpack(from, q);
      const float scale = from_f16(load<uint16_t>(from + 208));
      for (int i = 0; i < 256; i++) to[i] = scale * float(int8_t(from[192 + i / 16])) * float(q[i] - 32);
    }
  }

  static void repack(const uint8_t* from, uint64_t blocks, RowCodes& to) {
    for (uint64_t block = 0; block < blocks; block++, from += bytes) {
      unpack(from, to.quants.data() + block * 256);
      to.block_scales[block] = load<uint16_t>(from + 208);
      for (int j = 0; j < 16; j++) to.scales[block * 16 + j] = from[192 + j];
    }
  }
};

template <class Block>
constexpr Stored blocks(const char* name, uint32_t elements, const char* twin) {
  return {name, elements, Block::bytes, Block::decode, twin, Block::repack};
}

const Stored types[] = {
    {"F32", 1, 4, decode_f32, nullptr, nullptr},
    {"F16", 1, 2, decode_f16, nullptr, nullptr},
    {"BF16", 1, 2, decode_bf16, nullptr, nullptr},
    blocks<Block32<4, false>>("Q4_0", 32, "q4g32"),
    blocks<Block32<4, true>>("Q4_1", 32, "q4g32b"),
    blocks<Block32<5, false>>("Q5_0", 32, "q5g32"),
    blocks<Block32<5, true>>("Q5_1", 32, "q5g32b"),
    blocks<Block32<8, false>>("Q8_0", 32, "q8g32"),
    blocks<BlockK<4>>("Q4_K", 256, "q4k"),
    blocks<BlockK<5>>("Q5_K", 256, "q5k"),
    blocks<BlockQ6K>("Q6_K", 256, "q6k"),
};

}  // namespace

const Stored indices{"U16", 1, 2, nullptr, nullptr, nullptr};

const Stored* find_stored(const std::string& name) {
  for (const Stored& type : types)
    if (name == type.name) return &type;
  return name == indices.name ? &indices : nullptr;
}

}  // namespace upgc::pack
