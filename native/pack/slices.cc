#include "slices.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "../error.h"
#include "floats.h"
#include "io_error.h"

namespace upgc::pack {
namespace {

/// Elements of a slice, about: what a thread holds of them fits its share of the cache, and a call for each is cheap.
constexpr uint64_t slice_elements = 1 << 18;
/// A transposed slice reads a short piece of every stored row: the more, the longer the pieces.
constexpr uint64_t transposed_elements = 1 << 21;
/// A multiple of the elements of all runs and blocks.
constexpr uint64_t column_step = 256;

uint64_t ceil_div(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

const FileSource* file_source(const Weight& weight) { return std::get_if<FileSource>(&weight.source); }

bool is_random(const Weight& weight) { return std::holds_alternative<RandomWeights>(weight.source); }

void encode_plain(const float* from, uint64_t count, const Stored& type, uint8_t* to) {
  if (type.name[0] == 'F' && type.bytes == 4) {
    std::memcpy(to, from, count * 4);
    return;
  }
  const bool brain = type.name[0] == 'B';
  for (uint64_t i = 0; i < count; i++) {
    const uint16_t bits = brain ? to_bf16(from[i]) : to_f16(from[i]);
    std::memcpy(to + 2 * i, &bits, 2);
  }
}

bool all_finite(const float* x, uint64_t count) {
  uint32_t infinite = 0;
  for (uint64_t i = 0; i < count; i++) infinite |= uint32_t((bits_of(x[i]) & 0x7f800000) == 0x7f800000);
  return infinite == 0;
}

}  // namespace

Slices::Slices(const PackSpec& spec) : spec_(spec) {
  starts_.push_back(0);
  for (const Weight& weight : spec.weights) {
    const FileSource* file = file_source(weight);
    const bool transposed = file != nullptr && file->transposed;
    const uint64_t target = transposed ? transposed_elements : slice_elements;
    // Blocks of a transposed matrix span rows.
    const uint64_t step = transposed ? std::max<uint64_t>(weight.tile_rows, file->type->elements) : weight.tile_rows;
    if (weight.pruning) {
      // Whole rows, whose blocks are chosen from all of their columns, and as many as are pruned together.
      const auto& [rows, columns, block_rows, block_columns, indices] = *weight.pruning;
      const uint64_t together = std::lcm(step, block_rows);
      const uint64_t pruned = std::max<uint64_t>(target / columns / together, 1) * together;
      cuts_.push_back({indices ? pruned / block_rows : pruned, weight.columns, 1});
      starts_.push_back(starts_.back() + (weight.columns == 0 ? 0 : ceil_div(weight.rows, cuts_.back().rows)));
      continue;
    }
    Cut cut{step, std::max<uint64_t>(weight.columns, 1), 1};
    if (weight.columns > target / step && step == weight.tile_rows) {
      cut.columns = std::max(target / step / column_step * column_step, column_step);
      cut.across = ceil_div(weight.columns, cut.columns);
    } else {
      cut.rows = std::max<uint64_t>(target / std::max<uint64_t>(weight.columns, 1) / step, 1) * step;
    }
    cuts_.push_back(cut);
    const bool empty = weight.rows == 0 || weight.columns == 0;
    starts_.push_back(starts_.back() + (empty ? 0 : ceil_div(weight.rows, cut.rows) * cut.across));
  }
}

Slices::Slice Slices::operator[](uint64_t index) const {
  const auto weight = size_t(std::upper_bound(starts_.begin(), starts_.end(), index) - starts_.begin() - 1);
  const Weight& of = spec_.weights[weight];
  const Cut& cut = cuts_[weight];
  const uint64_t piece = index - starts_[weight];
  const uint64_t row = piece / cut.across * cut.rows;
  const uint64_t column = piece % cut.across * cut.columns;
  return {&of, row, std::min(cut.rows, of.rows - row), column, std::min(cut.columns, of.columns - column)};
}

uint64_t Slices::bytes(const Slice& slice) {
  const auto& [weight, row, rows, column, columns] = slice;
  if (weight->packed == nullptr) return rows * columns * weight->plain->bytes;
  uint64_t sum = 0;
  for (const Plane& plane : weight->packed->planes())
    sum += ceil_div(rows, weight->tile_rows) * weight->tile_rows * (columns / plane.elements) * plane.bytes;
  return sum;
}

uint64_t Slices::bytes_before(uint64_t index) const {
  uint64_t sum = 0;
  size_t weight = 0;
  for (; weight < cuts_.size() && starts_[weight + 1] <= index; weight++) sum += weight_bytes(spec_.weights[weight]);
  if (weight == cuts_.size()) return sum;
  for (uint64_t i = starts_[weight]; i < index; i++) sum += bytes((*this)[i]);
  return sum;
}

uint64_t SliceMaker::buffer_bytes() const {
  const uint64_t floats = values_.capacity() + strip_.capacity() + row_.capacity() + row_importance_.capacity();
  return stored_.capacity() + scratch_.capacity() + floats * sizeof(float) + plain_.capacity() +
         codes_.quants.capacity() + tiles_.capacity() + sizes_.capacity() * sizeof(double) +
         kept_.capacity() * sizeof(uint32_t);
}

void SliceMaker::make(const Slices::Slice& slice, const PartialFile& to) {
  try {
    if (slice.weight->pruning) return write_pruned(slice, to);
    if (is_random(*slice.weight)) return write_random(slice, to);
    read(slice);
    if (slice.weight->packed != nullptr) write_packed(slice, to);
    else write_plain(slice, to);
  } catch (IoError& error) {
    if (!error.writing) error.weight = slice.weight->name;
    throw;
  }
}

// ---- Reading -----------------------------------------------------------------------------------------------------

void SliceMaker::read(const Slices::Slice& slice) {
  const Weight& weight = *slice.weight;
  if (const auto* bytes = std::get_if<BytesSource>(&weight.source)) {
    type_ = bytes->type;
    // Several rows are whole rows, unless a tile is cut: then they are brought together.
    if (slice.columns == weight.columns || slice.rows == 1) {
      elements_ = bytes->data.data() + (slice.row * weight.columns + slice.column) * type_->bytes;
      return;
    }
    const uint64_t size = slice.columns * type_->bytes;
    stored_.resize(slice.rows * size);
    for (uint64_t row = 0; row < slice.rows; row++)
      std::memcpy(stored_.data() + row * size,
                  bytes->data.data() + ((slice.row + row) * weight.columns + slice.column) * type_->bytes, size);
    elements_ = stored_.data();
    return;
  }
  const FileSource& source = *file_source(weight);
  if (source.transposed) read_transposed(slice, source);
  else read_stored(slice, source);
  elements_ = stored_.data();
}

void SliceMaker::read_stored(const Slices::Slice& slice, const FileSource& source) {
  const auto& [weight, row, rows, column, columns] = slice;
  type_ = source.type;
  const uint64_t row_bytes = weight->columns / type_->elements * type_->bytes;
  const uint64_t size = columns / type_->elements * type_->bytes;
  const uint64_t start = source.offset + column / type_->elements * type_->bytes;
  const SourceFile& file = files_[source.file];
  stored_.resize(rows * size);
  bytes_read_ += stored_.size();
  if (source.head_rows == 0 && (columns == weight->columns || rows == 1)) {
    file.read(start + row * row_bytes, stored_.size(), stored_.data());
    return;
  }
  for (uint64_t i = 0; i < rows; i++) {
    uint64_t from = row + i;
    if (source.head_rows != 0) {
      // The even rows of a head, then the odd ones.
      const uint64_t within = from % source.head_rows;
      const uint64_t half = source.head_rows / 2;
      from += within % half * 2 + within / half - within;
    }
    file.read(start + from * row_bytes, size, stored_.data() + i * size);
  }
}

void SliceMaker::read_transposed(const Slices::Slice& slice, const FileSource& source) {
  const auto& [weight, row, rows, column, columns] = slice;
  const Stored& type = *source.type;
  const bool blocks = type.twin != nullptr;
  type_ = blocks ? find_stored("F32") : source.type;
  const uint64_t size = type_->bytes;
  const uint64_t row_bytes = weight->rows / type.elements * type.bytes;
  const uint64_t piece = rows / type.elements * type.bytes;
  scratch_.resize(piece);
  values_.resize(blocks ? rows : 0);
  stored_.resize(rows * columns * size);
  bytes_read_ += piece * columns;
  for (uint64_t i = 0; i < columns; i++) {
    files_[source.file].read(source.offset + (column + i) * row_bytes + row / type.elements * type.bytes, piece,
                             scratch_.data());
    if (blocks) type.decode(scratch_.data(), rows / type.elements, values_.data());
    const uint8_t* from = blocks ? reinterpret_cast<const uint8_t*>(values_.data()) : scratch_.data();
    for (uint64_t j = 0; j < rows; j++) std::memcpy(stored_.data() + (j * columns + i) * size, from + j * size, size);
  }
}

/// A row of the slice as floats.
const float* SliceMaker::values(uint64_t row, uint64_t columns) {
  const uint64_t blocks = columns / type_->elements;
  values_.resize(columns);
  type_->decode(elements_ + row * blocks * type_->bytes, blocks, values_.data());
  return values_.data();
}

// ---- Writing -----------------------------------------------------------------------------------------------------

void SliceMaker::write_plain(const Slices::Slice& slice, const PartialFile& to) {
  const auto& [weight, row, rows, column, columns] = slice;
  const Stored& plain = *weight->plain;
  const uint64_t offset = weight->offsets[0] + (row * weight->columns + column) * plain.bytes;
  if (type_ == &plain) return to.write(offset, elements_, rows * columns * plain.bytes);
  plain_.resize(rows * columns * plain.bytes);
  for (uint64_t i = 0; i < rows; i++)
    encode_plain(values(i, columns), columns, plain, plain_.data() + i * columns * plain.bytes);
  to.write(offset, plain_.data(), plain_.size());
}

void SliceMaker::write_packed(const Slices::Slice& slice, const PartialFile& to) {
  const auto& [weight, row, rows, column, columns] = slice;
  const PackedFormat& format = *weight->packed;
  tiles_.reset(format, rows, columns, weight->tile_rows);
  codes_.resize(format, columns);
  const bool twin = type_->twin != nullptr && find_format(type_->twin) == &format;
  const uint64_t blocks = columns / type_->elements;
  for (uint64_t i = 0; i < rows; i++) {
    if (twin) {
      type_->repack(elements_ + i * blocks * type_->bytes, blocks, codes_);
    } else {
      const float* x = values(i, columns);
      if (!all_finite(x, columns))
        throw Error(code::not_finite, concat("weight ", weight->name, " cannot be quantised: row ", row + i,
                                             " has a value that is infinite or not a number"));
      const float* importance = weight->importance.empty() ? nullptr : weight->importance.data() + column;
      quantise(x, importance, columns, format, weight->method, codes_);
    }
    tiles_.store(i, codes_);
  }
  write_tiles(slice, to);
}

void SliceMaker::write_random(const Slices::Slice& slice, const PartialFile& to) {
  const auto& [weight, row, rows, column, columns] = slice;
  const auto& random = std::get<RandomWeights>(weight->source);
  if (weight->packed == nullptr) {
    type_ = find_stored("F32");
    values_.resize(rows * columns);
    // Several rows are whole rows: plain tiles are one row high.
    random_floats(random, row * weight->columns + column, rows * columns, values_.data());
    plain_.resize(rows * columns * weight->plain->bytes);
    encode_plain(values_.data(), rows * columns, *weight->plain, plain_.data());
    return to.write(weight->offsets[0] + (row * weight->columns + column) * weight->plain->bytes, plain_.data(),
                    plain_.size());
  }
  tiles_.reset(*weight->packed, rows, columns, weight->tile_rows);
  const uint64_t last_rows = rows % weight->tile_rows;
  for (size_t i = 0; i < tiles_.planes().size(); i++) {
    const Plane& plane = tiles_.planes()[i];
    const uint64_t runs = weight->columns / plane.elements;
    const uint64_t first = (row / weight->tile_rows * runs + column / plane.elements) * weight->tile_rows;
    random_runs(random, *weight->packed, plane, first, tiles_.size(i) / plane.bytes, tiles_.plane(i));
    if (last_rows == 0) continue;
    // Rows past the end are zero.
    const uint64_t step = weight->tile_rows * plane.bytes;
    uint8_t* end = tiles_.plane(i) + tiles_.size(i);
    for (uint8_t* run = end - columns / plane.elements * step; run < end; run += step)
      std::memset(run + last_rows * plane.bytes, 0, step - last_rows * plane.bytes);
  }
  write_tiles(slice, to);
}

void SliceMaker::write_pruned(const Slices::Slice& slice, const PartialFile& to) {
  const auto& [weight, row, rows, column, columns] = slice;
  const Pruning& pruning = *weight->pruning;
  const auto* random = std::get_if<RandomWeights>(&weight->source);
  // The rows of the source that the slice is made of.
  const uint64_t height = pruning.indices ? pruning.block_rows : 1;
  Weight source = *weight;
  source.rows = pruning.rows;
  source.columns = pruning.columns;
  if (random == nullptr) read({&source, row * height, rows * height, 0, pruning.columns});

  if (weight->packed != nullptr) tiles_.reset(*weight->packed, rows, columns, weight->tile_rows);
  else plain_.resize(rows * columns * weight->plain->bytes);
  strip_.resize(pruning.block_rows * pruning.columns);
  row_.resize(columns);
  for (uint64_t first = 0; first < rows * height; first += pruning.block_rows) {
    for (uint64_t i = 0; i < pruning.block_rows; i++) {
      float* to_row = strip_.data() + i * pruning.columns;
      if (random != nullptr) {
        random_floats(*random, (row * height + first + i) * pruning.columns, pruning.columns, to_row);
      } else {
        const float* x = values(first + i, pruning.columns);
        if (!all_finite(x, pruning.columns))
          throw Error(code::not_finite, concat("weight ", weight->name, " cannot be pruned: row ", row * height + first + i,
                                               " has a value that is infinite or not a number"));
        std::copy_n(x, pruning.columns, to_row);
      }
    }
    select(pruning, strip_.data(), pruning.indices ? columns : columns / pruning.block_columns);
    if (pruning.indices) {
      uint8_t* at = plain_.data() + first / pruning.block_rows * columns * 2;
      for (uint64_t i = 0; i < columns; i++) {
        const auto index = uint16_t(kept_[i]);
        std::memcpy(at + 2 * i, &index, 2);
      }
      continue;
    }
    for (uint64_t i = 0; i < pruning.block_rows; i++) store_row(*weight, first + i, strip_.data() + i * pruning.columns);
  }
  if (weight->packed != nullptr) return write_tiles(slice, to);
  to.write(weight->offsets[0] + row * columns * weight->plain->bytes, plain_.data(), plain_.size());
}

/// Chooses the `kept` blocks of rows whose squares add up to most; of equals the first.
void SliceMaker::select(const Pruning& pruning, const float* rows, uint64_t kept) {
  const uint64_t blocks = pruning.columns / pruning.block_columns;
  sizes_.assign(blocks, 0);
  for (uint64_t i = 0; i < pruning.block_rows; i++)
    for (uint64_t k = 0; k < pruning.columns; k++) {
      const double x = rows[i * pruning.columns + k];
      sizes_[k / pruning.block_columns] += x * x;
    }
  kept_.resize(blocks);
  std::iota(kept_.begin(), kept_.end(), 0);
  const auto larger = [&](uint32_t a, uint32_t b) { return sizes_[a] != sizes_[b] ? sizes_[a] > sizes_[b] : a < b; };
  if (kept < blocks) std::nth_element(kept_.begin(), kept_.begin() + int64_t(kept), kept_.end(), larger);
  kept_.resize(kept);
  std::sort(kept_.begin(), kept_.end());
}

/// Stores what is kept of the row `x` as that of the slice.
void SliceMaker::store_row(const Weight& weight, uint64_t row, const float* x) {
  const uint64_t width = weight.pruning->block_columns;
  const auto keep = [&](const float* from, float* to) {
    for (const uint32_t block : kept_) to = std::copy_n(from + block * width, width, to);
  };
  keep(x, row_.data());
  if (weight.packed == nullptr)
    return encode_plain(row_.data(), weight.columns, *weight.plain,
                        plain_.data() + row * weight.columns * weight.plain->bytes);
  if (!weight.importance.empty()) {
    row_importance_.resize(weight.columns);
    keep(weight.importance.data(), row_importance_.data());
  }
  codes_.resize(*weight.packed, weight.columns);
  quantise(row_.data(), weight.importance.empty() ? nullptr : row_importance_.data(), weight.columns, *weight.packed,
           weight.method, codes_);
  tiles_.store(row, codes_);
}

void SliceMaker::write_tiles(const Slices::Slice& slice, const PartialFile& to) {
  const auto& [weight, row, rows, column, columns] = slice;
  for (size_t i = 0; i < tiles_.planes().size(); i++) {
    const Plane& plane = tiles_.planes()[i];
    const uint64_t runs = weight->columns / plane.elements;
    const uint64_t start = (row / weight->tile_rows * runs + column / plane.elements) * weight->tile_rows * plane.bytes;
    to.write(weight->offsets[i] + start, tiles_.plane(i), tiles_.size(i));
  }
}

}  // namespace upgc::pack
