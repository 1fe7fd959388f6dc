#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    float4 v = float4(x[i]) + int4(1); x[i] = v.x;  // expect: types 29 |     float4 v = float4(x[i]) + float4(1); x[i] = v.x;
}
