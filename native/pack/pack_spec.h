// What is to be packed: NativePackSpec of src/runtime/native.ts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "format.h"
#include "quantise.h"
#include "random.h"
#include "stored.h"

namespace upgc::pack {

/// A tensor of a file, row-major.
struct FileSource {
  size_t file;
  uint64_t offset;
  const Stored* type;
  /// Rows of an attention head whose halves the file interleaves; 0: rows are in order.
  uint64_t head_rows;
  /// Whether the file holds [columns, rows].
  bool transposed;
};

/// Plain floats.
struct BytesSource {
  std::vector<uint8_t> data;
  const Stored* type;
};

using Source = std::variant<FileSource, BytesSource, RandomWeights>;

/// What is kept of a matrix: in every `block_rows` rows the blocks of `block_columns` columns whose squares add up to most.
struct Pruning {
  /// Of the source.
  uint64_t rows;
  uint64_t columns;
  uint64_t block_rows;
  uint64_t block_columns;
  /// Whether the weight is where the blocks are, uint16 in blocks, instead of their values.
  bool indices;
};

/// A weight of weights.bin: a matrix; tensors of other ranks are a row.
struct Weight {
  std::string name;
  uint64_t rows;
  uint64_t columns;
  Source source;
  /// The packed format, or null: plain elements of `plain`.
  const PackedFormat* packed;
  const Stored* plain;
  uint64_t tile_rows;
  /// Of the planes, or of the elements, in the file.
  std::vector<uint64_t> offsets;
  Method method;
  /// Of the source's columns; empty: all alike.
  std::vector<float> importance;
  std::optional<Pruning> pruning;

  uint64_t source_rows() const { return pruning ? pruning->rows : rows; }
  uint64_t source_columns() const { return pruning ? pruning->columns : columns; }
};

struct PackSpec {
  /// The file to appear.
  std::string file;
  /// What it is called until it is complete.
  std::string partial;
  uint64_t bytes;
  /// Says whether a partial file is one of this job: 64 characters.
  std::string fingerprint;
  std::vector<std::string> files;
  std::vector<Weight> weights;
  unsigned threads;
};

/// Refuses (UPGC_BAD_PLAN) what `pack` cannot do: sizes that do not fit, overlaps, types that cannot be converted.
void check_pack_spec(const PackSpec& spec);

/// Bytes that a weight takes in the file, without what is between its planes.
uint64_t weight_bytes(const Weight& weight);

}  // namespace upgc::pack
