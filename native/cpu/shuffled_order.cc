#include "shuffled_order.h"

#include <algorithm>

namespace upgc {
namespace {

/// SplitMix64's output function: a bijection in which every bit of the result depends on every bit of x.
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

Random::Random(uint32_t seed, uint64_t submission) : state_(mixed(mixed(seed + uint64_t{1}) + submission)) {}

uint64_t Random::next() { return mixed(state_ += 0x9e3779b97f4a7c15u); }

unsigned Random::member(unsigned set) {
  const uint64_t count = __builtin_popcount(set);
  for (uint64_t skipped = (next() >> 32) * count >> 32; skipped > 0; skipped--) set &= set - 1;
  return __builtin_ctz(set);
}

Permutation::Permutation(uint64_t size, Random& random) : size_(size) {
  while (uint64_t{1} << 2 * half_bits_ < size) half_bits_++;
  for (uint64_t& key : keys_) key = random.next();
}

uint64_t Permutation::operator()(uint64_t index) const {
  do index = encrypted(index);
  while (index >= size_);
  return index;
}

uint64_t Permutation::encrypted(uint64_t value) const {
  uint64_t left = value >> half_bits_, right = value & ((uint64_t{1} << half_bits_) - 1);
  for (const uint64_t key : keys_) {
    const uint64_t next = left ^ mixed(right ^ key) >> (64 - half_bits_);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

Epoch::Threadgroup Epoch::operator[](uint64_t index) const {
  const size_t dispatch = std::upper_bound(ends_.begin(), ends_.end(), index) - ends_.begin();
  return {first_dispatch_ + dispatch, dispatch == 0 ? index : index - ends_[dispatch - 1]};
}

}  // namespace upgc
