// Chooses the integers of packed formats for floats.
#pragma once

#include "format.h"

namespace upgc::pack {

enum class Method {
  /// Scales that take the extremes of a group to the ends of the range; every element to its nearest integer.
  nearest,
  /// Scales that make the weighted squared error of a group small, among many candidates.
  search,
};

/**
 * The integers of the row `x` of `columns` elements, a multiple of the format's, all finite.
 * @param importance how much the square of an error counts in each column; may be null: all alike
 */
void quantise(const float* x, const float* importance, uint64_t columns, const PackedFormat& format, Method method,
              RowCodes& to);

}  // namespace upgc::pack
