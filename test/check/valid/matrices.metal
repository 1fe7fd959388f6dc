#include <metal_simdgroup_matrix>
#include <metal_stdlib>
using namespace metal;

kernel void multiply(device const half* a [[buffer(0)]], device const half* b [[buffer(1)]],
                     device float* c [[buffer(2)]], constant uint& n [[buffer(3)]],
                     threadgroup float* tile [[threadgroup(0)]],
                     uint3 group [[threadgroup_position_in_grid]],
                     ushort lane [[thread_index_in_simdgroup]]) {
    simdgroup_half8x8 left, right;
    simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
    for (uint k = 0; k < n; k += 8) {
        simdgroup_load(left, a + group.y * 8 * n + k, n);
        simdgroup_load(right, b + k * n + group.x * 8, n, ulong2(0, 0), false);
        simdgroup_multiply_accumulate(sum, left, right, sum);
    }
    simdgroup_store(sum, tile, 8);
    simdgroup_barrier(mem_flags::mem_threadgroup);
    thread float2& own = (thread float2&)sum.thread_elements();
    c[lane] = tile[2 * lane] + own.x;
    float4x4 turn = float4x4(1.0f);
    float3x3 scale(float3(1.0f), float3(2.0f), float3(3.0f));
    const float4 v = turn * float4(1.0f, 2.0f, 3.0f, 4.0f);
    c[lane] += v.x + (transpose(scale) * float3(1.0f)).y + determinant(scale);
}
