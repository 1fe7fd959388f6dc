// Softmax of every row of a matrix, one threadgroup a row.
#include <metal_stdlib>
using namespace metal;

template <typename T>
[[kernel]] void softmax(device const T* x [[buffer(0)]],
                        device T* y [[buffer(1)]],
                        constant uint& width [[buffer(2)]],
                        uint row [[threadgroup_position_in_grid]],
                        uint thread_index [[thread_index_in_threadgroup]],
                        uint threads [[threads_per_threadgroup]],
                        uint lane [[thread_index_in_simdgroup]],
                        uint simdgroup [[simdgroup_index_in_threadgroup]],
                        uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float greatest[32];
  threadgroup float sums[32];
  x += row * width;
  y += row * width;

  float top = -INFINITY;
  for (uint i = thread_index; i < width; i += threads) top = max(top, float(x[i]));
  top = simd_max(top);
  if (lane == 0) greatest[simdgroup] = top;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  top = simd_max(lane < simdgroups ? greatest[lane] : -INFINITY);

  float sum = 0;
  for (uint i = thread_index; i < width; i += threads) sum += exp(float(x[i]) - top);
  sum = simd_sum(sum);
  if (lane == 0) sums[simdgroup] = sum;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  sum = simd_sum(lane < simdgroups ? sums[lane] : 0.0f);

  for (uint i = thread_index; i < width; i += threads) y[i] = T(exp(float(x[i]) - top) / sum);
}

template [[host_name("softmax_float")]] [[kernel]] decltype(softmax<float>) softmax<float>;
template [[host_name("softmax_half")]] [[kernel]] decltype(softmax<half>) softmax<half>;
