// Sums and extremes of long arrays: one partial result per threadgroup, to be reduced by a second run of the same kernel.
#include <metal_stdlib>
using namespace metal;

struct Sum {
  template <typename T>
  static constexpr T identity() { return T(0); }
  template <typename T>
  static T combine(T a, T b) { return a + b; }
  template <typename T>
  static T across(T value) { return simd_sum(value); }
};

struct Max {
  template <typename T>
  static constexpr T identity() { return numeric_limits<T>::lowest(); }
  template <typename T>
  static T combine(T a, T b) { return max(a, b); }
  template <typename T>
  static T across(T value) { return simd_max(value); }
};

/// The reduction over the threadgroup, valid in every thread of its first simdgroup.
template <typename Op, typename T>
METAL_FUNC T reduce_threadgroup(T value, threadgroup T* partials, uint simdgroup, uint simdgroups, uint lane) {
  value = Op::across(value);
  if (lane == 0) partials[simdgroup] = value;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  return Op::across(lane < simdgroups ? partials[lane] : Op::template identity<T>());
}

template <typename T, typename Op>
[[kernel]] void reduce(device const T* values [[buffer(0)]],
                       device T* partial_results [[buffer(1)]],
                       constant uint& count [[buffer(2)]],
                       uint at [[thread_position_in_grid]],
                       uint stride [[threads_per_grid]],
                       uint group [[threadgroup_position_in_grid]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint simdgroups [[simdgroups_per_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]]) {
  threadgroup T partials[32];
  T result = Op::template identity<T>();
  for (uint i = at; i < count; i += stride) result = Op::combine(result, values[i]);
  result = reduce_threadgroup<Op>(result, partials, simdgroup, simdgroups, lane);
  if (simdgroup == 0 && lane == 0) partial_results[group] = result;
}

#define INSTANTIATE_REDUCE(name, type, op) \
  template [[host_name(name)]] [[kernel]] decltype(reduce<type, op>) reduce<type, op>;

INSTANTIATE_REDUCE("sum_float", float, Sum)
INSTANTIATE_REDUCE("sum_int", int, Sum)
INSTANTIATE_REDUCE("max_float", float, Max)
INSTANTIATE_REDUCE("max_int", int, Max)

/// The dot product of two rows by one simdgroup, four elements at a time, folded with shuffles.
kernel void dot_rows(const device float* a, const device float* b, device float* out, constant uint& width,
                     uint row [[threadgroup_position_in_grid]], ushort lane [[thread_index_in_simdgroup]],
                     ushort lanes [[threads_per_simdgroup]]) {
  const device float4* a4 = reinterpret_cast<const device float4*>(a + row * width);
  const device float4* b4 = (const device float4*)(b + row * width);
  float total = 0.0f;
  for (uint i = lane; i < width / 4; i += lanes) total += dot(a4[i], b4[i]);
  for (ushort delta = lanes / 2; delta > 0; delta >>= 1) total += simd_shuffle_down(total, delta);
  if (lane == 0) out[row] = total;
}
