// Kernels of Phi-4's shapes for bench/cpu: one text for simdgroups of 32 lanes and of one.
#include <metal_stdlib>
using namespace metal;

/// y = W x, W in 4 bits: groups of 32 along a row, each with a half as its scale; a weight is scale * (q - 8). Byte j of a
/// group holds element j in its low and element j + 16 in its high half. One simdgroup a row.
template <uint lanes>
[[kernel]] void q4_matvec(device const uchar* nibbles [[buffer(0)]], device const half* scales [[buffer(1)]],
                          device const float* x [[buffer(2)]], device float* y [[buffer(3)]],
                          constant uint& length [[buffer(4)]], uint row [[threadgroup_position_in_grid]],
                          uint lane [[thread_index_in_simdgroup]]) {
    const uint groups = length / 32;
    device const uchar* packed = nibbles + ulong(row) * groups * 16;
    device const half* scale = scales + ulong(row) * groups;
    // A lane takes 16 / lanes bytes of each group, or whole groups of its own.
    float low[16] = {};
    float high[16] = {};
    for (uint g = lane; g < groups; g += lanes) {
        const float s = scale[g];
        device const uchar* bytes = packed + g * 16;
        device const float* own = x + g * 32;
        for (uint j = 0; j < 16; ++j) low[j] += s * float(int(bytes[j] & 15) - 8) * own[j];
        for (uint j = 0; j < 16; ++j) high[j] += s * float(int(bytes[j] >> 4) - 8) * own[j + 16];
    }
    float sum = 0.0f;
    for (uint j = 0; j < 16; ++j) sum += low[j] + high[j];
    sum = simd_sum(sum);
    if (lane == 0) y[row] = sum;
}
