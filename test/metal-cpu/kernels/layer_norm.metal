// Layer norm of rows of `width` elements that lie `row_stride` apart: y = gate ((x - mean) / deviation weight + bias).
#include <metal_stdlib>
using namespace metal;

namespace norms {

struct LayerNormParams {
  uint width;
  uint row_stride;
  float eps;
  packed_float3 tint;  // of every third element
};

/// Weight, bias and gate of a column, without padding.
using Affine = packed_float3;

static_assert(sizeof(Affine) == 12 && sizeof(LayerNormParams) == 24, "as the host packs them");

/// The sum over the threadgroup, in every thread of it.
inline float group_sum(float value, threadgroup float* partials, uint2 lane_and_simd, uint simdgroups) {
  value = simd_sum(value);
  threadgroup_barrier(mem_flags::mem_threadgroup);
  if (lane_and_simd.x == 0) partials[lane_and_simd.y] = value;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  value = lane_and_simd.x < simdgroups ? partials[lane_and_simd.x] : 0;
  return simd_sum(value);
}

template <typename T>
kernel void layer_norm(device const T* x [[buffer(0)]],
                       device T* y [[buffer(1)]],
                       device const Affine* affine [[buffer(2)]],
                       constant LayerNormParams& params [[buffer(3)]],
                       uint3 group [[threadgroup_position_in_grid]],
                       uint3 position [[thread_position_in_threadgroup]],
                       uint3 size [[threads_per_threadgroup]],
                       uint lane [[thread_index_in_simdgroup]],
                       uint simdgroup [[simdgroup_index_in_threadgroup]],
                       uint simdgroups [[simdgroups_per_threadgroup]]) {
  threadgroup float partials[32];
  const auto row = x + ulong(group.x) * params.row_stride;
  const uint2 where = {lane, simdgroup};

  float sum = 0;
  for (uint i = position.x; i < params.width; i += size.x) sum += static_cast<float>(row[i]);
  const float mean = group_sum(sum, partials, where, simdgroups) / params.width;

  float squares = 0;
  for (uint i = position.x; i < params.width; i += size.x) {
    const float distance = static_cast<float>(row[i]) - mean;
    squares = fma(distance, distance, squares);
  }
  const float variance = group_sum(squares, partials, where, simdgroups) / params.width;
  const float factor = rsqrt(variance + params.eps);

  for (uint i = position.x; i < params.width; i += size.x) {
    const float3 column = affine[i];
    const float normed = (static_cast<float>(row[i]) - mean) * factor;
    const float tinted = fma(normed, column.x, column.y) * column.z * params.tint[i % 3];
    y[ulong(group.x) * params.row_stride + i] = T(tinted);
  }
}

}  // namespace norms

template [[host_name("layer_norm_f32")]] kernel void norms::layer_norm<float>(
    device const float*, device float*, device const norms::Affine*, constant norms::LayerNormParams&, uint3, uint3, uint3, uint,
    uint, uint);
template [[host_name("layer_norm_bf16")]] kernel void norms::layer_norm<bfloat>(
    device const bfloat*, device bfloat*, device const norms::Affine*, constant norms::LayerNormParams&, uint3, uint3, uint3, uint,
    uint, uint);
