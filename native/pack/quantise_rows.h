// The body of `quantise`, compiled once for every instruction set: all of it is internal to the file that includes it.
#pragma once

#include "quantise.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "floats.h"
#include "vectors.h"

namespace upgc::pack {
namespace {

constexpr float largest_half = 65504;

// A group is searched in one lane of vectors, its neighbours in the others, so that sums over a group need no order of
// their own: results are the same for any width of vectors.

/// Values and weights of as many groups as there are lanes: element j of all groups together.
template <int size>
struct Batch {
  Vec x[size];
  Vec w[size];
};

struct Fit {
  Vec scale;
  Vec bias;
};

/// The integers that a format's q − zero can be.
struct Range {
  float low;
  float high;
};

inline Vec to_level(Vec scaled, Range range) {
  return nearest_integer(clamped(scaled, all(range.low), all(range.high)));
}

/// The levels of each element (nearest, given the fit) and the weighted squared error.
template <int size>
Vec encode(const Batch<size>& batch, const Fit& fit, Range range, Vec* levels) {
  const Vec inverse = reciprocal(fit.scale);
  Vec error{};
  for (int j = 0; j < size; j++) {
    levels[j] = to_level((batch.x[j] - fit.bias) * inverse, range);
    const Vec difference = batch.x[j] - (fit.scale * levels[j] + fit.bias);
    error += batch.w[j] * difference * difference;
  }
  return error;
}

// ---- x ≈ scale · level -------------------------------------------------------------------------------------------

/// The element of largest magnitude.
template <int size>
Vec extreme(const Batch<size>& batch) {
  Vec top = batch.x[0];
  for (int j = 1; j < size; j++) top = select(magnitude(batch.x[j]) > magnitude(top), batch.x[j], top);
  return top;
}

template <int size>
Vec nearest_scale(const Batch<size>& batch, Range range) {
  return extreme(batch) / range.low;
}

template <int size>
struct ScaleSearch {
  const Batch<size>& batch;
  Range range;
  Vec wx[size];
  Vec best{};
  /// What the best scale takes off the weighted sum of squares.
  Vec best_gain = all(-1);

  /// Considers the best scales for the levels that two scales give. Two, since sums wait for themselves.
  void consider(Vec inverse, Vec other_inverse) {
    Vec product{}, square{}, other_product{}, other_square{};
    for (int j = 0; j < size; j++) {
      const Vec level = to_level(batch.x[j] * inverse, range);
      const Vec other = to_level(batch.x[j] * other_inverse, range);
      product += wx[j] * level;
      square += batch.w[j] * (level * level);
      other_product += wx[j] * other;
      other_square += batch.w[j] * (other * other);
    }
    keep(product, square);
    keep(other_product, other_square);
  }

  void keep(Vec product, Vec square) {
    const Vec scale = half_precision(quotient(product, square));
    const Vec gain = scale * (product + product - scale * square);
    best = select(gain > best_gain, scale, best);
    best_gain = greatest(gain, best_gain);
  }
};

/// Candidates take the extreme to levels about either end of the range, at these parts of half its width.
constexpr float symmetric_targets[] = {0.70f, 0.76f, 0.82f, 0.88f, 0.94f, 1.00f, 1.06f, 1.12f};

template <int size>
Vec search_scale(const Batch<size>& batch, Range range) {
  ScaleSearch<size> search{batch, range, {}};
  for (int j = 0; j < size; j++) search.wx[j] = batch.w[j] * batch.x[j];
  const Vec inverse = reciprocal(extreme(batch));
  for (const float target : symmetric_targets)
    search.consider(inverse * all(range.low * target), inverse * all(range.high * target));
  // Levels anew for the best scale, then the scale anew for those.
  for (int round = 0; round < 2; round++) {
    const Vec again = reciprocal(search.best);
    search.consider(again, again);
  }
  return search.best;
}

// ---- x ≈ scale · level + bias ------------------------------------------------------------------------------------

/// How fits with a bias are stored: as halves, or (in blocks) for now exactly, the scale above and the bias below 0.
enum class BiasKind { half, negative };

template <int size>
void extremes(const Batch<size>& batch, BiasKind kind, Vec& low, Vec& high) {
  low = high = batch.x[0];
  for (int j = 1; j < size; j++) {
    low = least(low, batch.x[j]);
    high = greatest(high, batch.x[j]);
  }
  if (kind == BiasKind::negative) {
    low = least(low, all(0));
    high = greatest(high, all(0));
  }
}

template <int size>
Fit nearest_fit(const Batch<size>& batch, Range range, BiasKind kind) {
  Vec low, high;
  extremes(batch, kind, low, high);
  // Halves, so that the range of the largest finite elements does not overflow.
  return {(high * 0.5f - low * 0.5f) / (range.high * 0.5f), low};
}

template <int size>
struct BiasSearch {
  const Batch<size>& batch;
  Range range;
  BiasKind kind;
  /// Elements are taken from here, so that sums of squares do not cancel.
  Vec origin;
  Vec wx[size];
  Vec sum_w{}, sum_x{};
  Fit best{};
  Vec best_error = all(INFINITY);

  void consider(Vec inverse, Vec bias) {
    Vec sum_level{}, sum_square{}, sum_product{};
    for (int j = 0; j < size; j++) {
      const Vec level = to_level((batch.x[j] - bias) * inverse, range);
      const Vec weighted = batch.w[j] * level;
      sum_level += weighted;
      sum_square += weighted * level;
      sum_product += wx[j] * level;
    }
    Fit fit;
    const Vec determinant = greatest(sum_w * sum_square - sum_level * sum_level, all(0));
    fit.scale = quotient(sum_w * sum_product - sum_level * sum_x, determinant);
    if (kind == BiasKind::half) fit.scale = half_precision(fit.scale);
    fit.bias = quotient(sum_x - fit.scale * sum_level, sum_w) + origin;
    if (kind == BiasKind::half) {
      fit.bias = half_precision(fit.bias);
    } else {
      fit.bias = least(fit.bias, all(0));
      fit.scale = greatest(quotient(sum_product - (fit.bias - origin) * sum_level, sum_square), all(0));
    }
    const Vec offset = fit.bias - origin;
    // The error less the sum of squares, which all have.
    const Vec error = fit.scale * (fit.scale * sum_square - (sum_product + sum_product)) +
                      offset * (offset * sum_w - (sum_x + sum_x) + (fit.scale + fit.scale) * sum_level);
    const Mask better = error < best_error;
    best = {select(better, fit.scale, best.scale), select(better, fit.bias, best.bias)};
    best_error = least(error, best_error);
  }
};

/// Candidates spread the range of a group over so many steps more than there are,
constexpr float bias_steps[] = {-0.6f, 0.0f, 0.6f, 1.2f, 1.8f, 2.4f};
/// and leave this part of the surplus below.
constexpr float bias_shares[] = {0.2f, 0.5f, 0.8f};

template <int size>
Fit search_fit(const Batch<size>& batch, Range range, BiasKind kind) {
  Vec low, high;
  extremes(batch, kind, low, high);
  BiasSearch<size> search{batch, range, kind, low * 0.5f + high * 0.5f, {}};
  for (int j = 0; j < size; j++) {
    search.wx[j] = batch.w[j] * (batch.x[j] - search.origin);
    search.sum_w += batch.w[j];
    search.sum_x += search.wx[j];
  }
  const Vec inverse_width = reciprocal(high - low);
  for (const float steps : bias_steps)
    for (const float share : bias_shares) {
      const Vec inverse = (range.high + steps) * inverse_width;
      search.consider(inverse, low + (high - low) * (steps * share / (range.high + steps)));
      if (steps == 0) break;
    }
  for (int round = 0; round < 2; round++) search.consider(reciprocal(search.best.scale), search.best.bias);
  return search.best;
}

// ---- Rows --------------------------------------------------------------------------------------------------------

/// The smallest f16 from `value` on; `value` is not negative.
uint16_t half_from(float value) {
  const uint16_t half = to_f16(std::min(value, largest_half));
  return from_f16(half) < value && half < 0x7bff ? uint16_t(half + 1) : half;
}

/// Replaces the scales of a block's groups (and the negated biases) by multiples of one half of the block.
template <int batches>
uint16_t share(Vec (&values)[batches], float limit, int (&integers)[batches][lanes]) {
  float largest = 0;
  for (const Vec& value : values)
    for (int lane = 0; lane < lanes; lane++) largest = std::max(largest, std::fabs(value[lane]));
  const uint16_t half = half_from(largest / limit);
  const float unit = from_f16(half);
  for (int b = 0; b < batches; b++)
    for (int lane = 0; lane < lanes; lane++) {
      const float exact = unit == 0 ? 0 : std::nearbyint(values[b][lane] / unit);
      integers[b][lane] = int(std::min(std::max(exact, -limit), limit));
      values[b][lane] = unit * float(integers[b][lane]);
    }
  return half;
}

class Row {
 public:
  Row(const float* x, const float* importance, uint64_t columns, const PackedFormat& format, Method method,
      RowCodes& to)
      : x_(x), importance_(importance), columns_(columns), format_(format), method_(method), to_(to) {
    if (format.bits == 8) range_ = {-127, 127};
    else if (format.has_bias()) range_ = {0, float((1 << format.bits) - 1)};
    else range_ = {float(-format.zero), float(format.zero - 1)};
  }

  void quantise() {
    switch (format_.group) {
      case 16: blocks<16>(); break;
      case 32:
        if (format_.has_blocks()) blocks<32>();
        else groups<32>();
        break;
      default: groups<64>();
    }
  }

 private:
  /// The lanes of groups past the end repeat the last one.
  template <int size>
  void gather(uint64_t group, Batch<size>& batch) const {
    float x[size][lanes], w[size][lanes];
    for (int lane = 0; lane < lanes; lane++) {
      const uint64_t start = std::min(group + lane, columns_ / size - 1) * size;
      for (int j = 0; j < size; j++) x[j][lane] = x_[start + j];
      if (importance_ == nullptr) continue;
      for (int j = 0; j < size; j++) w[j][lane] = importance_[start + j];
    }
    std::memcpy(&batch.x, x, sizeof x);
    if (importance_ == nullptr) std::fill_n(batch.w, size, all(1));
    else std::memcpy(&batch.w, w, sizeof w);
  }

  template <int size>
  void put(uint64_t group, const Vec* levels) {
    int32_t integers[size][lanes];
    for (int j = 0; j < size; j++) {
      const Mask level = __builtin_convertvector(levels[j], Mask) + format_.zero;
      std::memcpy(integers[j], &level, sizeof level);
    }
    for (int lane = 0; lane < lanes && group + lane < columns_ / size; lane++)
      for (int j = 0; j < size; j++) to_.quants[(group + lane) * size + j] = uint8_t(integers[j][lane]);
  }

  template <int size>
  void groups() {
    Batch<size> batch;
    Vec levels[size], found_levels[size];
    for (uint64_t group = 0; group < columns_ / size; group += lanes) {
      gather(group, batch);
      Fit fit = halves(nearest(batch));
      const Vec error = encode(batch, fit, range_, levels);
      if (method_ == Method::search) {
        const Fit found = search(batch);
        const Mask better = encode(batch, found, range_, found_levels) < error;
        fit = {select(better, found.scale, fit.scale), select(better, found.bias, fit.bias)};
        for (int j = 0; j < size; j++) levels[j] = select(better, found_levels[j], levels[j]);
      }
      put<size>(group, levels);
      for (int lane = 0; lane < lanes && group + lane < columns_ / size; lane++) {
        to_.scales[group + lane] = to_f16(fit.scale[lane]);
        to_.biases[group + lane] = to_f16(fit.bias[lane]);
      }
    }
  }

  template <int size>
  void blocks() {
    for (uint64_t block = 0; block < columns_ / block_elements; block++) {
      constexpr int batches = block_elements / size / lanes;
      Batch<size> parts[batches];
      Fit fits[batches];
      for (int b = 0; b < batches; b++) {
        gather(block * (block_elements / size) + b * lanes, parts[b]);
        fits[b] = nearest(parts[b]);
      }
      const float error = put_block(block, parts, fits);
      if (method_ == Method::nearest) continue;
      for (int b = 0; b < batches; b++) fits[b] = search(parts[b]);
      if (put_block(block, parts, fits) <= error) continue;
      for (int b = 0; b < batches; b++) fits[b] = nearest(parts[b]);
      put_block(block, parts, fits);
    }
  }

  /// Writes down a block with scales and biases near those of the fits; its weighted squared error.
  template <int size, int batches>
  float put_block(uint64_t block, const Batch<size> (&parts)[batches], const Fit (&fits)[batches]) {
    constexpr int count = batches * lanes;
    Vec scales[batches], biases[batches];
    for (int b = 0; b < batches; b++) {
      scales[b] = fits[b].scale;
      biases[b] = -fits[b].bias;
    }
    int scale_integers[batches][lanes], bias_integers[batches][lanes];
    to_.block_scales[block] = share(scales, format_.has_bias() ? 255 : 127, scale_integers);
    to_.block_biases[block] = share(biases, 255, bias_integers);
    float error = 0;
    Vec levels[size];
    for (int b = 0; b < batches; b++) {
      const Vec errors = encode(parts[b], {scales[b], -biases[b]}, range_, levels);
      put<size>(block * count + b * lanes, levels);
      for (int lane = 0; lane < lanes; lane++) {
        error += errors[lane];
        to_.scales[block * count + b * lanes + lane] = uint8_t(scale_integers[b][lane]);
        to_.biases[block * count + b * lanes + lane] = uint8_t(bias_integers[b][lane]);
      }
    }
    return error;
  }

  template <int size>
  Fit nearest(const Batch<size>& batch) const {
    return format_.has_bias() ? nearest_fit(batch, range_, bias_kind()) : Fit{nearest_scale(batch, range_), Vec{}};
  }

  template <int size>
  Fit search(const Batch<size>& batch) const {
    return format_.has_bias() ? search_fit(batch, range_, bias_kind()) : Fit{search_scale(batch, range_), Vec{}};
  }

  BiasKind bias_kind() const { return format_.has_blocks() ? BiasKind::negative : BiasKind::half; }
  static Fit halves(const Fit& fit) { return {half_precision(fit.scale), half_precision(fit.bias)}; }

  const float* x_;
  const float* importance_;
  uint64_t columns_;
  const PackedFormat& format_;
  Method method_;
  RowCodes& to_;
  Range range_;
};

}  // namespace
}  // namespace upgc::pack
