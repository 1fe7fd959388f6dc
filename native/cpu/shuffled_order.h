// The order of a program with `shuffle` (see ProgramSpec in src/runtime/native.ts). The dispatches between two barriers
// may run in any order and at the same time; in list order a plan that lacks a barrier can still look right. Here the
// threadgroups of such an epoch run in one random permutation, so that it soon does not.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace upgc {

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
class Random {
 public:
  /// The numbers of one submission: others than those of any other submission or seed.
  Random(uint32_t seed, uint64_t submission);

  uint64_t next();
  /// One of the bits of a non-empty set, by its index.
  unsigned member(unsigned set);

 private:
  uint64_t state_;
};

/// A random permutation of 0 to size-1 that takes no memory, however large: a Feistel network permutes the next power
/// of four and is applied again until the result is below `size` ("cycle walking": Black, Rogaway, "Ciphers with
/// arbitrary finite domains", 2002). On average that takes fewer than 4 rounds, 16 at most for small sizes.
class Permutation {
 public:
  Permutation(uint64_t size, Random& random);
  uint64_t operator()(uint64_t index) const;

 private:
  uint64_t encrypted(uint64_t value) const;

  uint64_t size_;
  unsigned half_bits_ = 2;
  uint64_t keys_[4];
};

/// Consecutive dispatches without a barrier between them, as one list of threadgroups.
class Epoch {
 public:
  /// One threadgroup: the index of its dispatch in the entry, and its number in the grid, x fastest.
  struct Threadgroup {
    size_t dispatch;
    uint64_t number;
  };

  explicit Epoch(size_t first_dispatch) : first_dispatch_(first_dispatch) {}
  void append(uint64_t threadgroups) { ends_.push_back(size() + threadgroups); }
  uint64_t size() const { return ends_.empty() ? 0 : ends_.back(); }
  Threadgroup operator[](uint64_t index) const;

 private:
  size_t first_dispatch_;
  /// Threadgroups up to and including each dispatch.
  std::vector<uint64_t> ends_;
};

}  // namespace upgc
