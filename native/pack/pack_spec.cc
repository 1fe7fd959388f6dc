#include "pack_spec.h"

#include <algorithm>

#include "../error.h"

namespace upgc::pack {
namespace {

constexpr uint64_t largest = uint64_t(1) << 53;

/// Sizes of the parts that a weight has in the file, in the order of `offsets`.
std::vector<uint64_t> part_sizes(const Weight& weight) {
  if (weight.packed == nullptr) return {weight.rows * weight.columns * weight.plain->bytes};
  const uint64_t padded = (weight.rows + weight.tile_rows - 1) / weight.tile_rows * weight.tile_rows;
  std::vector<uint64_t> sizes;
  for (const Plane& plane : weight.packed->planes())
    sizes.push_back(padded * (weight.columns / plane.elements) * plane.bytes);
  return sizes;
}

[[noreturn]] void refuse(const Weight& weight, const std::string& why) {
  throw Error(code::bad_plan, concat("weight ", weight.name, ": ", why));
}

void check_file_source(const Weight& weight, const FileSource& source, size_t files) {
  if (source.file >= files) refuse(weight, concat("there is no file ", source.file));
  const uint64_t length = source.transposed ? weight.source_rows() : weight.source_columns();
  if (length % source.type->elements != 0)
    refuse(weight, concat("stored rows of ", length, " elements are no whole blocks of ", source.type->name));
  if (source.offset > largest) refuse(weight, "its offset is out of range");
  if (source.head_rows == 0) return;
  if (source.head_rows % 2 != 0 || weight.source_rows() % source.head_rows != 0)
    refuse(weight, concat(weight.source_rows(), " rows are no whole heads of ", source.head_rows));
  if (source.transposed) refuse(weight, "rows of heads cannot be transposed");
}

/// Integers come from integers, or from pruning.
void check_indices(const Weight& weight) {
  const auto* file = std::get_if<FileSource>(&weight.source);
  const auto* given = std::get_if<BytesSource>(&weight.source);
  const Stored* type = file != nullptr ? file->type : given != nullptr ? given->type : nullptr;
  const bool wanted = weight.plain == &indices && !weight.pruning;
  if (wanted != (type == &indices)) refuse(weight, "only integers can be stored as u16, and as nothing else");
}

void check_pruning(const Weight& weight, const Pruning& pruning) {
  const auto& [rows, columns, block_rows, block_columns, indices] = pruning;
  if (block_rows == 0 || block_rows > 64 || block_columns == 0 || block_columns > 64)
    refuse(weight, "blocks have 1 to 64 rows and columns");
  if (rows % block_rows != 0 || columns % block_columns != 0)
    refuse(weight, concat(rows, " x ", columns, " elements are no whole blocks"));
  if (columns / block_columns > 65536) refuse(weight, "16 bits cannot count its blocks");
  const uint64_t height = indices ? block_rows : 1;
  const uint64_t width = indices ? block_columns : 1;
  if (weight.rows != rows / height || weight.columns > columns / width ||
      weight.columns * width % block_columns != 0)
    refuse(weight, concat(weight.rows, " x ", weight.columns, " are no part of ", rows, " x ", columns, " elements"));
  if (indices != (weight.plain == &pack::indices)) refuse(weight, "only where blocks are is stored as u16");
  if (rows > largest / 8 / 64 || columns > largest / 8 / (rows + 64)) refuse(weight, "it is too large");
  if (std::holds_alternative<BytesSource>(weight.source)) refuse(weight, "plain elements are not pruned");
}

void check_weight(const Weight& weight, const PackSpec& spec) {
  // A row is padded by less than a tile; an element takes at most 4 bytes.
  if (weight.tile_rows == 0 || weight.tile_rows > 64 || (weight.tile_rows & (weight.tile_rows - 1)) != 0)
    refuse(weight, "tiles have 1, 2, 4 to 64 rows");
  if (weight.rows > largest / 8 / 64 || weight.columns > largest / 8 / (weight.rows + 64))
    refuse(weight, "it is too large");
  if (weight.packed != nullptr) {
    if (weight.columns % weight.packed->row_multiple() != 0)
      refuse(weight, concat("rows of ", weight.columns, " elements cannot be ", weight.packed->name));
  } else if (weight.tile_rows != 1) {
    refuse(weight, "plain rows are not interleaved");
  }
  check_indices(weight);
  if (weight.pruning) check_pruning(weight, *weight.pruning);
  if (const auto* file = std::get_if<FileSource>(&weight.source)) check_file_source(weight, *file, spec.files.size());
  if (const auto* given = std::get_if<BytesSource>(&weight.source))
    if (given->data.size() != weight.rows * weight.columns * given->type->bytes)
      refuse(weight, concat(given->data.size(), " bytes are not ", weight.rows, " x ", weight.columns, " elements"));
  if (!weight.importance.empty() && weight.importance.size() != weight.source_columns())
    refuse(weight, concat(weight.importance.size(), " importances for ", weight.source_columns(), " columns"));
  const std::vector<uint64_t> sizes = part_sizes(weight);
  if (weight.offsets.size() != sizes.size())
    refuse(weight, concat("it has ", sizes.size(), " planes, not ", weight.offsets.size()));
  for (size_t i = 0; i < sizes.size(); i++)
    if (weight.offsets[i] > spec.bytes || sizes[i] > spec.bytes - weight.offsets[i])
      refuse(weight, concat("it ends beyond the ", spec.bytes, " bytes of the file"));
}

struct Part {
  uint64_t offset;
  uint64_t size;
  const Weight* weight;
};

void check_overlaps(const PackSpec& spec) {
  std::vector<Part> parts;
  for (const Weight& weight : spec.weights) {
    const std::vector<uint64_t> sizes = part_sizes(weight);
    for (size_t i = 0; i < sizes.size(); i++)
      if (sizes[i] != 0) parts.push_back({weight.offsets[i], sizes[i], &weight});
  }
  std::sort(parts.begin(), parts.end(), [](const Part& a, const Part& b) { return a.offset < b.offset; });
  for (size_t i = 1; i < parts.size(); i++)
    if (parts[i].offset < parts[i - 1].offset + parts[i - 1].size)
      refuse(*parts[i].weight, concat("it overlaps ", parts[i - 1].weight->name, " at byte ", parts[i].offset));
}

}  // namespace

void check_pack_spec(const PackSpec& spec) {
  if (spec.fingerprint.size() != 64) throw Error(code::bad_plan, "the fingerprint must have 64 characters");
  if (spec.bytes > largest) throw Error(code::bad_plan, "the file is too large");
  for (const Weight& weight : spec.weights) check_weight(weight, spec);
  check_overlaps(spec);
}

uint64_t weight_bytes(const Weight& weight) {
  uint64_t sum = 0;
  for (const uint64_t size : part_sizes(weight)) sum += size;
  return sum;
}

}  // namespace upgc::pack
