#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    float* p = x + i; p[0] = 1.0f;  // expect: missing-address-space 10 |     device float* p = x + i; p[0] = 1.0f;
}
