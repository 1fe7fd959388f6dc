// Prefix sums over whole arrays in one pass, by decoupled look-back; and compaction, which keeps what is positive.
#include <metal_stdlib>
using namespace metal;

// What a partition has told the ones behind it: two bits, and thirty of the number.
constant constexpr uint nothing = 0u << 30;
constant constexpr uint own_sum = 1u << 30;
constant constexpr uint prefix_sum = 2u << 30;
constant constexpr uint flags = 3u << 30;

static inline void publish(device atomic_uint* status, uint flag, uint value) {
  atomic_store_explicit(status, flag | (value & ~flags), memory_order_relaxed);
}

/// `state[0]` counts the partitions that have begun, the rest is the status of each; all are 0 at first.
kernel void prefix_sum_look_back(device const uint* in [[buffer(0)]],
                                 device uint* out [[buffer(1)]],
                                 volatile device atomic_uint* state [[buffer(2)]],
                                 constant uint& count [[buffer(3)]],
                                 uint index [[thread_index_in_threadgroup]],
                                 uint threads [[threads_per_threadgroup]],
                                 uint lane [[thread_index_in_simdgroup]],
                                 uint simd [[simdgroup_index_in_threadgroup]],
                                 uint simds [[simdgroups_per_threadgroup]]) {
  threadgroup uint shared_partition, shared_before;
  threadgroup uint totals[32];
  if (index == 0) shared_partition = atomic_fetch_add_explicit(&state[0], 1u, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const uint partition = shared_partition;
  device atomic_uint* const status = (device atomic_uint*)state + 1;

  const uint at = partition * threads + index;
  const uint value = at < count ? in[at] : 0;
  uint sum = simd_prefix_inclusive_sum(value);
  const uint simd_total = simd_sum(value);
  if (simd_is_first()) totals[simd] = simd_total;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = 0; i < simd; i++) sum += totals[i];

  if (index == 0) {
    uint total = 0;
    for (uint i = 0; i < simds; i++) total += totals[i];
    uint before = 0;
    if (partition == 0) {
      publish(status, prefix_sum, total);
    } else {
      publish(status + partition, own_sum, total);
      for (uint i = partition - 1;; i--) {
        uint found;
        do found = atomic_load_explicit(status + i, memory_order_relaxed);
        while ((found & flags) == nothing);
        before += found & ~flags;
        if ((found & flags) == prefix_sum) break;
      }
      publish(status + partition, prefix_sum, before + total);
    }
    shared_before = before;
  }
  threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
  if (at < count) out[at] = shared_before + sum;
}

/// One atomic per simdgroup: the first thread that keeps something asks for room for all of them.
kernel void keep_positive(device const int* in [[buffer(0)]],
                          device int* out [[buffer(1)]],
                          device atomic_uint& kept [[buffer(2)]],
                          constant uint& count [[buffer(3)]],
                          uint at [[thread_position_in_grid]],
                          uint lane [[thread_index_in_simdgroup]]) {
  if (at >= count) return;
  const int value = in[at];
  if (value <= 0) return;
  const ulong keeping = (ulong)simd_active_threads_mask();
  uint start = 0;
  if (simd_is_first()) start = atomic_fetch_add_explicit(&kept, uint(popcount(keeping)), memory_order_relaxed);
  start = simd_broadcast_first(start);
  const ulong before = keeping & ((1ul << lane) - 1);
  out[start + popcount(before)] = value;
}
