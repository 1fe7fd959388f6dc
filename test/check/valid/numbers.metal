#include <metal_stdlib>
using namespace metal;

/// half, bfloat, integers of all sizes, packed vectors, swizzles and casts between their pointers.
kernel void convert(device half* h [[buffer(0)]], device bfloat* b [[buffer(1)]], device float4* f [[buffer(2)]],
                    device packed_half3* p [[buffer(3)]], device const uint8_t* bytes [[buffer(4)]],
                    device const void* raw [[buffer(5)]], uint i [[thread_position_in_grid]]) {
    h[i] = h[i] * 0.5h + half(f[i].x);
    b[i] = bfloat(float(b[i]) * 2.0f) + b[i];
    f[i].xyz = f[i].zyx * 2.0;
    f[i].rg += float2(as_type<half2>(as_type<uint>(f[i].w)));
    p[i] = half3(f[i].xyz);
    device const ushort* words = (device const ushort*)bytes;
    device const uint4* blocks = reinterpret_cast<device const uint4*>(raw);
    const uint4 block = blocks[i] >> 4 & 0x0f0f0f0fu;
    const uchar4 parts = as_type<uchar4>(block.x ^ uint(words[i]));
    f[i].w = float(parts.x) * 1.0f / 15.0f + clamp(float(h[i]), -1.0f, 1.0f);
    f[i].x = select(f[i].x, INFINITY, any(f[i] > 1e4f)) + fma(f[i].x, 2.0f, -FLT_MAX);
    f[i].y = precise::exp(fast::log(f[i].y)) + rsqrt(abs(f[i].y)) + float(popcount(block.y)) + float(-1l);
    f[i].z = unpack_snorm4x8_to_float(block.z).x + dot(f[i], f[i]) + float(max(short(i), short(3)));
}
