#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    thread float* p = x; p[0] = 1.0f;  // expect: address-space 19 |     device float* p = x; p[0] = 1.0f;
}
