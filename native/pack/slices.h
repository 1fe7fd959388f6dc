// A packing is cut into slices, pieces of a weight that are made on their own: which, depends on the spec alone.
#pragma once

#include "files.h"
#include "pack_spec.h"

namespace upgc::pack {

class Slices {
 public:
  explicit Slices(const PackSpec& spec);

  uint64_t count() const { return starts_.back(); }

  struct Slice {
    const Weight* weight;
    /// Whole tiles, but for the last rows of the weight; part of the columns only of a single tile.
    uint64_t row, rows, column, columns;
  };
  Slice operator[](uint64_t index) const;
  /// Bytes of a slice in the file.
  static uint64_t bytes(const Slice& slice);
  /// Bytes of the first slices in the file.
  uint64_t bytes_before(uint64_t index) const;

 private:
  /// How a weight is cut: a grid of pieces of so many rows and columns.
  struct Cut {
    uint64_t rows, columns;
    uint64_t across;
  };
  const PackSpec& spec_;
  std::vector<Cut> cuts_;
  /// The index of the first slice of each weight, then the number of all.
  std::vector<uint64_t> starts_;
};

/// Makes slices; one for each thread.
class SliceMaker {
 public:
  SliceMaker(const PackSpec& spec, const std::vector<SourceFile>& files) : spec_(spec), files_(files) {}

  /// Writes a slice to its place.
  void make(const Slices::Slice& slice, const PartialFile& to);

  uint64_t bytes_read() const { return bytes_read_; }
  uint64_t buffer_bytes() const;

 private:
  void read(const Slices::Slice& slice);
  void read_stored(const Slices::Slice& slice, const FileSource& source);
  void read_transposed(const Slices::Slice& slice, const FileSource& source);
  void write_plain(const Slices::Slice& slice, const PartialFile& to);
  void write_packed(const Slices::Slice& slice, const PartialFile& to);
  void write_random(const Slices::Slice& slice, const PartialFile& to);
  void write_tiles(const Slices::Slice& slice, const PartialFile& to);
  void write_pruned(const Slices::Slice& slice, const PartialFile& to);
  void store_row(const Weight& weight, uint64_t row, const float* x);
  void select(const Pruning& pruning, const float* rows, uint64_t kept);
  const float* values(uint64_t row, uint64_t columns);

  const PackSpec& spec_;
  const std::vector<SourceFile>& files_;
  /// The elements of the slice, row after row, of the type `type_`.
  std::vector<uint8_t> stored_;
  const uint8_t* elements_ = nullptr;
  const Stored* type_ = nullptr;
  std::vector<uint8_t> scratch_;
  std::vector<float> values_;
  std::vector<uint8_t> plain_;
  RowCodes codes_;
  /// Of a pruned matrix: the rows of a block, the size of each block in them, the blocks that are kept, a row of values.
  std::vector<float> strip_;
  std::vector<double> sizes_;
  std::vector<uint32_t> kept_;
  std::vector<float> row_, row_importance_;
  TileBuffer tiles_;
  uint64_t bytes_read_ = 0;
};

}  // namespace upgc::pack
