#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    threadgroup float* p = (threadgroup float*)x; p[0] = 1.0f;  // expect: address-space 28 |     device float* p = (device float*)x; p[0] = 1.0f;
}
