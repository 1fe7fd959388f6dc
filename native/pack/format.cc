#include "format.h"

#include <cstring>

namespace upgc::pack {

namespace {

const PackedFormat formats[] = {
    {"q8g32", 8, 32, ScaleKind::half, 0},         {"q6g32", 6, 32, ScaleKind::half, 32},
    {"q5g32", 5, 32, ScaleKind::half, 16},        {"q5g32b", 5, 32, ScaleKind::half_bias, 0},
    {"q4g32", 4, 32, ScaleKind::half, 8},         {"q4g32b", 4, 32, ScaleKind::half_bias, 0},
    {"q4g64", 4, 64, ScaleKind::half, 8},         {"q4g64b", 4, 64, ScaleKind::half_bias, 0},
    {"q6k", 6, 16, ScaleKind::block, 32},         {"q5k", 5, 32, ScaleKind::block_bias, 0},
    {"q4k", 4, 32, ScaleKind::block_bias, 0},
};

void store_quants(uint32_t bits, const uint8_t* q, uint8_t* to) {
  if (bits == 8) {
    std::memcpy(to, q, 32);
    return;
  }
  for (int j = 0; j < 16; j++) to[j] = uint8_t((q[j] & 15) | q[j + 16] << 4);
}

void store_high(uint32_t bits, const uint8_t* q, uint8_t* to) {
  for (uint32_t bit = 4; bit < bits; bit++, to += 4) {
    uint32_t word = 0;
    for (int j = 0; j < 32; j++) word |= uint32_t(q[j] >> bit & 1) << j;
    std::memcpy(to, &word, 4);
  }
}

}  // namespace

std::vector<Plane> PackedFormat::planes() const {
  const uint32_t bytes = has_blocks() ? 1 : 2;
  std::vector<Plane> planes{{PlaneKind::quants, 32, bits == 8 ? 32u : 16u}};
  if (bits == 5 || bits == 6) planes.push_back({PlaneKind::high, 32, (bits - 4) * 4});
  planes.push_back({PlaneKind::scales, group, bytes});
  if (has_bias()) planes.push_back({PlaneKind::biases, group, bytes});
  if (has_blocks()) planes.push_back({PlaneKind::block_scales, block_elements, 2});
  if (has_blocks() && has_bias()) planes.push_back({PlaneKind::block_biases, block_elements, 2});
  return planes;
}

const PackedFormat* find_format(const std::string& name) {
  for (const PackedFormat& format : formats)
    if (name == format.name) return &format;
  return nullptr;
}

void RowCodes::resize(const PackedFormat& format, uint64_t columns) {
  quants.resize(columns);
  scales.resize(columns / format.group);
  biases.resize(columns / format.group);
  block_scales.resize(columns / block_elements);
  block_biases.resize(columns / block_elements);
}

void TileBuffer::reset(const PackedFormat& format, uint64_t rows, uint64_t columns, uint64_t tile_rows) {
  format_ = &format;
  columns_ = columns;
  tile_rows_ = tile_rows;
  planes_ = format.planes();
  const uint64_t padded = (rows + tile_rows - 1) / tile_rows * tile_rows;
  starts_.assign(1, 0);
  for (const Plane& plane : planes_)
    starts_.push_back(starts_.back() + padded * (columns / plane.elements) * plane.bytes);
  bytes_.assign(starts_.back(), 0);
}

void TileBuffer::store(uint64_t row, const RowCodes& codes) {
  for (size_t i = 0; i < planes_.size(); i++) {
    const auto [kind, elements, bytes] = planes_[i];
    const uint64_t runs = columns_ / elements;
    const uint64_t step = tile_rows_ * bytes;
    uint8_t* to = plane(i) + row / tile_rows_ * runs * step + row % tile_rows_ * bytes;
    const std::vector<uint16_t>* values = nullptr;
    switch (kind) {
      case PlaneKind::quants:
        for (uint64_t run = 0; run < runs; run++, to += step)
          store_quants(format_->bits, codes.quants.data() + run * 32, to);
        continue;
      case PlaneKind::high:
        for (uint64_t run = 0; run < runs; run++, to += step)
          store_high(format_->bits, codes.quants.data() + run * 32, to);
        continue;
      case PlaneKind::scales: values = &codes.scales; break;
      case PlaneKind::biases: values = &codes.biases; break;
      case PlaneKind::block_scales: values = &codes.block_scales; break;
      case PlaneKind::block_biases: values = &codes.block_biases; break;
    }
    // An 8-bit integer is the low byte: all machines that we run on are little-endian.
    for (uint64_t run = 0; run < runs; run++, to += step) std::memcpy(to, values->data() + run, bytes);
  }
}

}  // namespace upgc::pack
