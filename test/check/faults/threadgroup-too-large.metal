#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    threadgroup float4 s[2049]; s[i] = x[i]; x[i] = s[0].x;  // expect: threadgroup-size 5 |     threadgroup float4 s[2048]; s[i] = x[i]; x[i] = s[0].x;
}
