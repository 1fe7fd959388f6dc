// Sorts blocks of up to 1024 keys, each with a value, in threadgroup memory.
#include <metal_stdlib>
using namespace metal;

#ifndef BLOCK
#define BLOCK 1024
#endif
#define SWAP(T, a, b) \
  do {                \
    const T t_ = (a); \
    (a) = (b);        \
    (b) = t_;         \
  } while (0)

struct Entry {
  uint key;
  uint value;

  bool after(const thread Entry& other) const threadgroup { return key > other.key || (key == other.key && value > other.value); }
};

/// An unsigned key in the order of floats: the sign turned, and all bits of negative numbers.
inline uint ordered(float x) {
  const uint bits = as_type<uint>(x);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
inline float restored(uint key) { return as_type<float>(key ^ (key >> 31 ? 0x80000000u : 0xffffffffu)); }

kernel void sort_blocks(device float* keys [[buffer(0)]],
                        device uint* values [[buffer(1)]],
                        constant uint& count [[buffer(2)]],
                        uint group [[threadgroup_position_in_grid]],
                        uint thread_index [[thread_index_in_threadgroup]],
                        uint threads [[threads_per_threadgroup]]) {
  threadgroup Entry entries[BLOCK];
  const uint start = group * BLOCK;
  if (start >= count) return;  // the whole threadgroup
  const uint size = min(count - start, uint(BLOCK));
  for (uint i = thread_index; i < BLOCK; i += threads)
    entries[i] = i < size ? Entry{ordered(keys[start + i]), values[start + i]} : Entry{UINT_MAX, UINT_MAX};

  for (uint length = 2; length <= BLOCK; length <<= 1) {
    for (uint distance = length >> 1; distance > 0; distance >>= 1) {
      threadgroup_barrier(mem_flags::mem_threadgroup);
      for (uint pair = thread_index; pair < BLOCK / 2; pair += threads) {
        const uint low = 2 * pair - (pair & (distance - 1)), high = low + distance;
        const bool falling = (low & length) != 0;
        const Entry second = entries[high];
        if (entries[low].after(second) != falling) SWAP(Entry, entries[low], entries[high]);
      }
    }
  }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = thread_index; i < size; i += threads) {
    keys[start + i] = restored(entries[i].key);
    values[start + i] = entries[i].value;
  }
}
