// Tensors as checkpoints store them: plain floats, and the blocks of GGML.
#pragma once

#include <cstdint>
#include <string>

#include "format.h"

namespace upgc::pack {

/// A stored element type; a row is a whole number of its blocks.
struct Stored {
  const char* name;
  uint32_t elements;
  uint32_t bytes;
  /// Null for integers. Values of `blocks` blocks, as GGML's own f32 arithmetic gives them, bit for bit.
  void (*decode)(const uint8_t* from, uint64_t blocks, float* to);
  /// The packed format that holds the same integers; null for floats.
  const char* twin;
  /// The integers of `blocks` blocks, in the twin's terms.
  void (*repack)(const uint8_t* from, uint64_t blocks, RowCodes& to);
};

/// 16-bit integers, which are copied but never converted.
extern const Stored indices;

/// Null when there is none of that name.
const Stored* find_stored(const std::string& name);

}  // namespace upgc::pack
