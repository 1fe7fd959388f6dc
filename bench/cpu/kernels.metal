// Kernels in Phi-4's shapes for bench/cpu. One text for simdgroups of 32 lanes and of one; a threadgroup is a simdgroup.
#include <metal_stdlib>
using namespace metal;

/// y = W x, W in 4 bits: groups of 32 along a row, each with a half as its scale; a weight is scale * (q - 8). Byte j of a
/// group holds element j in its low and element j + 16 in its high half. A lane takes every `lanes`-th group of a row.
template <uint lanes>
[[kernel]] void q4_matvec(device const uchar* nibbles [[buffer(0)]], device const half* scales [[buffer(1)]],
                          device const float* x [[buffer(2)]], device float* y [[buffer(3)]],
                          constant uint& length [[buffer(4)]], uint row [[threadgroup_position_in_grid]],
                          uint lane [[thread_index_in_simdgroup]]) {
    const uint groups = length / 32;
    device const uchar* bytes = nibbles + ulong(row) * groups * 16;
    device const half* scale = scales + ulong(row) * groups;
    float sums[16] = {};
    for (uint g = lane; g < groups; g += lanes) {
        device const uchar* packed = bytes + ulong(g) * 16;
        device const float* own = x + ulong(g) * 32;
        float product[16];
        for (uint j = 0; j < 16; ++j)
            product[j] = float(int(packed[j] & 15) - 8) * own[j] + float(int(packed[j] >> 4) - 8) * own[j + 16];
        const float s = scale[g];
        for (uint j = 0; j < 16; ++j) sums[j] += s * product[j];
    }
    float sum = 0.0f;
    for (uint j = 0; j < 16; ++j) sum += sums[j];
    sum = simd_sum(sum);
    if (lane == 0) y[row] = sum;
}

/// y = x / rms(x) * gain, of `length` elements, a multiple of 16 * lanes.
template <uint lanes>
[[kernel]] void rms_norm(device const float* x [[buffer(0)]], device const float* gain [[buffer(1)]],
                         device float* y [[buffer(2)]], constant uint& length [[buffer(3)]],
                         uint lane [[thread_index_in_simdgroup]]) {
    float squares[16] = {};
    for (uint i = lane * 16; i < length; i += lanes * 16)
        for (uint j = 0; j < 16; ++j) squares[j] += x[i + j] * x[i + j];
    float total = 0.0f;
    for (uint j = 0; j < 16; ++j) total += squares[j];
    total = simd_sum(total);
    const float factor = metal::precise::rsqrt(total / float(length) + 1e-5f);
    for (uint i = lane; i < length; i += lanes) y[i] = x[i] * factor * gain[i];
}

/// y = softmax(x), of `length` elements, a multiple of 16 * lanes.
template <uint lanes>
[[kernel]] void softmax(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
                        constant uint& length [[buffer(2)]], uint lane [[thread_index_in_simdgroup]]) {
    float most[16];
    for (uint j = 0; j < 16; ++j) most[j] = -INFINITY;
    for (uint i = lane * 16; i < length; i += lanes * 16)
        for (uint j = 0; j < 16; ++j) most[j] = metal::max(most[j], x[i + j]);
    float greatest = most[0];
    for (uint j = 1; j < 16; ++j) greatest = metal::max(greatest, most[j]);
    greatest = simd_max(greatest);
    float powers[16] = {};
    for (uint i = lane * 16; i < length; i += lanes * 16)
        for (uint j = 0; j < 16; ++j) {
            const float power = metal::exp(x[i + j] - greatest);
            powers[j] += power;
            y[i + j] = power;
        }
    float total = 0.0f;
    for (uint j = 0; j < 16; ++j) total += powers[j];
    total = simd_sum(total);
    for (uint i = lane * 16; i < length; i += lanes * 16)
        for (uint j = 0; j < 16; ++j) y[i + j] /= total;
}

#define INSTANTIATE(lanes)                                                                                       \
    template [[host_name("q4_matvec_" #lanes)]] [[kernel]] void q4_matvec<lanes>(                                \
        device const uchar*, device const half*, device const float*, device float*, constant uint&, uint, uint); \
    template [[host_name("rms_norm_" #lanes)]] [[kernel]] void rms_norm<lanes>(                                  \
        device const float*, device const float*, device float*, constant uint&, uint);                          \
    template [[host_name("softmax_" #lanes)]] [[kernel]] void softmax<lanes>(device const float*, device float*, \
                                                                             constant uint&, uint);

INSTANTIATE(1)
INSTANTIATE(32)
