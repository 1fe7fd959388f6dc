#include <metal_stdlib>
using namespace metal;

kernel void scan(device const float* x [[buffer(0)]], device float* out [[buffer(1)]], device uint* votes [[buffer(2)]],
                 uint i [[thread_position_in_grid]], uint n [[threads_per_grid]],
                 uint group [[threadgroup_position_in_grid]], ushort lane [[thread_index_in_simdgroup]],
                 ushort simdgroup [[simdgroup_index_in_threadgroup]], uint width [[threads_per_simdgroup]],
                 ushort groups [[simdgroups_per_threadgroup]]) {
    threadgroup float totals[32];
    const float prefix = simd_prefix_exclusive_sum(i < n ? x[i] : 0.0f);
    if (lane == width - 1) totals[simdgroup] = prefix + x[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float before = 0.0f;
    for (ushort s = 0; s < min(simdgroup, groups); ++s) before += totals[s];
    before += simd_shuffle_down(prefix, 1) + simd_shuffle_xor(prefix, 2) + simd_broadcast(prefix, 0) + quad_sum(prefix);
    const float2 both = simd_max(float2(prefix, before));
    if (simd_any(both.x > 1.0f)) votes[group] = uint(ulong(simd_ballot(prefix > 0.0f)));
    out[i] = before + prefix + float(simd_prefix_inclusive_sum(uint(lane))) + float(simd_is_first());
}
