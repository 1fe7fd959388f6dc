// The formats of src/ir/packed.ts, which says what every plane holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace upgc::pack {

enum class ScaleKind { half, half_bias, block, block_bias };
enum class PlaneKind { quants, high, scales, biases, block_scales, block_biases };

/// For every run of `elements` elements of a row `bytes` bytes.
struct Plane {
  PlaneKind kind;
  uint32_t elements;
  uint32_t bytes;
};

constexpr uint32_t block_elements = 256;

struct PackedFormat {
  const char* name;
  uint32_t bits;
  uint32_t group;
  ScaleKind scale;
  int zero;

  bool has_blocks() const { return scale == ScaleKind::block || scale == ScaleKind::block_bias; }
  bool has_bias() const { return scale == ScaleKind::half_bias || scale == ScaleKind::block_bias; }
  /// Rows have a multiple of this many elements.
  uint32_t row_multiple() const { return has_blocks() ? block_elements : group < 32 ? 32 : group; }
  std::vector<Plane> planes() const;
};

/// Null when there is none of that name.
const PackedFormat* find_format(const std::string& name);

/// The integers of a row in order, before they are spread over the planes: q as stored, scales and biases as f16 or as
/// 8-bit integers.
struct RowCodes {
  /// Grows to what a row of so many elements needs.
  void resize(const PackedFormat& format, uint64_t columns);

  std::vector<uint8_t> quants;
  std::vector<uint16_t> scales, biases, block_scales, block_biases;
};

/// Where the runs of a few whole tiles, or of a part of one, lie while they are made.
class TileBuffer {
 public:
  /// Zeros.
  void reset(const PackedFormat& format, uint64_t rows, uint64_t columns, uint64_t tile_rows);
  void store(uint64_t row, const RowCodes& codes);

  /// The bytes of the i-th plane.
  uint8_t* plane(size_t i) { return bytes_.data() + starts_[i]; }
  uint64_t size(size_t i) const { return starts_[i + 1] - starts_[i]; }
  const std::vector<Plane>& planes() const { return planes_; }
  uint64_t capacity() const { return bytes_.capacity(); }

 private:
  const PackedFormat* format_ = nullptr;
  std::vector<Plane> planes_;
  std::vector<uint64_t> starts_;
  std::vector<uint8_t> bytes_;
  uint64_t columns_ = 0;
  uint64_t tile_rows_ = 1;
};

}  // namespace upgc::pack
