// Softmax of every row, one threadgroup a row. Maximum and sum are found in one pass, rescaled as the maximum grows.
#include <metal_stdlib>
using namespace metal;

constant float scale_value [[function_constant(0)]];
constant bool causal [[function_constant(1)]];
constant bool has_scale = is_function_constant_defined(scale_value);

/// Maximum of some numbers, and the sum of e^(x - maximum).
struct Running {
  float maximum;
  float sum;
};

constant const Running none = {-INFINITY, 0.0f};

METAL_FUNC Running merged(Running a, Running b) {
  const float maximum = max(a.maximum, b.maximum);
  if (maximum == -INFINITY) return a;
  return {maximum, a.sum * exp(a.maximum - maximum) + b.sum * exp(b.maximum - maximum)};
}

METAL_FUNC Running across(Running own) {
  const float maximum = simd_max(own.maximum);
  const float factor = maximum == -INFINITY ? 0.0f : exp(own.maximum - maximum);
  return {maximum, simd_sum(own.sum * factor)};
}

template <typename T, ushort N_READS = 4>
[[kernel]] void softmax(const device T* in [[buffer(0)]],
                        device T* out [[buffer(1)]],
                        constant int& axis_size [[buffer(2)]],
                        uint row [[threadgroup_position_in_grid]],
                        uint lid [[thread_position_in_threadgroup]],
                        uint lsize [[threads_per_threadgroup]],
                        uint simd_lane_id [[thread_index_in_simdgroup]],
                        uint simd_group_id [[simdgroup_index_in_threadgroup]],
                        uint simd_groups [[simdgroups_per_threadgroup]]) {
  threadgroup Running partial[32];
  in += row * size_t(axis_size);
  out += row * size_t(axis_size);
  const float scale = has_scale ? scale_value : 1.0f;
  const int width = causal ? min(int(row) + 1, axis_size) : axis_size;

  Running running = none;
  for (int start = lid * N_READS; start < width; start += lsize * N_READS) {
    for (int i = start; i < min(start + N_READS, width); i++) running = merged(running, {scale * float(in[i]), 1.0f});
  }
  running = across(running);
  if (simd_lane_id == 0) partial[simd_group_id] = running;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  running = across(simd_lane_id < simd_groups ? partial[simd_lane_id] : none);

  const float normalizer = 1 / running.sum;
  for (int i = lid; i < axis_size; i += lsize)
    out[i] = i < width ? T(exp(scale * float(in[i]) - running.maximum) * normalizer) : T(0);
}

#define instantiate_softmax(name, itype) \
  template [[host_name("softmax_" #name)]] [[kernel]] decltype(softmax<itype>) softmax<itype>;

instantiate_softmax(float32, float)
instantiate_softmax(float16, half)
#if defined(__HAVE_BFLOAT__)
instantiate_softmax(bfloat16, bfloat)
#endif
