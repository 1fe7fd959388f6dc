// Histograms of the channels of RGBA pixels: counted in threadgroup memory first, then added to device memory.
#include <metal_stdlib>
#include <metal_atomic>
using namespace metal;

enum Layout : uint { channels = 3, bins = 256 };

struct Histogram {
  atomic_uint counts[channels][bins];
};

METAL_FUNC void add(threadgroup atomic_uint& bin) { atomic_fetch_add_explicit(&bin, 1u, memory_order_relaxed); }

kernel void histogram_rgb(device const uchar4* pixels [[buffer(0)]],
                          device Histogram& histogram [[buffer(1)]],
                          device atomic_uint* transparent [[buffer(2)]],
                          constant uint& count [[buffer(3)]],
                          uint thread_index [[thread_index_in_threadgroup]],
                          uint threads [[threads_per_threadgroup]],
                          uint at [[thread_position_in_grid]],
                          uint stride [[threads_per_grid]]) {
  threadgroup atomic_uint local[channels * bins];
  for (uint i = thread_index; i < channels * bins; i += threads)
    atomic_store_explicit(&local[i], 0, memory_order_relaxed);
  threadgroup_barrier(mem_flags::mem_threadgroup);

  uint skipped = 0;
  for (uint i = at; i < count; i += stride) {
    const uchar4 pixel = pixels[i];
    if (pixel.a == 0) {
      skipped++;
      continue;
    }
    const uint3 bin = uint3(pixel.rgb) + uint3(0, bins, 2 * bins);
    add(local[bin.r]);
    add(local[bin.g]);
    add(local[bin.b]);
  }
  if (skipped > 0) atomic_fetch_add_explicit(transparent, skipped, memory_order_relaxed);

  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (uint i = thread_index; i < channels * bins; i += threads) {
    const uint found = atomic_load_explicit(&local[i], memory_order_relaxed);
    if (found != 0) atomic_fetch_add_explicit(&histogram.counts[i / bins][i % bins], found, memory_order_relaxed);
  }
}

/// The least and the greatest of floats, which device atomics know for integers only.
kernel void extremes(device const float* values [[buffer(0)]],
                     device atomic_int* least [[buffer(1)]],
                     device atomic_int* greatest [[buffer(2)]],
                     uint at [[thread_position_in_grid]]) {
  const int bits = as_type<int>(values[at]);
  const int ordered = bits < 0 ? bits ^ INT_MAX : bits;
  const int low = simd_min(ordered), high = simd_max(ordered);
  if (!simd_is_first()) return;
  atomic_fetch_min_explicit(least, low, memory_order_relaxed);
  atomic_fetch_max_explicit(greatest, high, memory_order_relaxed);
}
