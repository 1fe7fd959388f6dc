// Plausible weights out of nothing: every value depends on its place and the seed alone.
#pragma once

#include "format.h"

namespace upgc::pack {

struct RandomWeights {
  uint64_t seed;
  double mean;
  double deviation;
};

/// Elements `first` to `first + count`, about normal.
void random_floats(const RandomWeights& weights, uint64_t first, uint64_t count, float* to);

/// Runs `first` to `first + count` of a plane, in memory order, so that elements are about normal with mean 0.
void random_runs(const RandomWeights& weights, const PackedFormat& format, const Plane& plane, uint64_t first,
                 uint64_t count, uint8_t* to);

}  // namespace upgc::pack
