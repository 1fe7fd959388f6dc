#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    constant float* p = x; x[i] = p[1];  // expect: address-space 21 |     device float* p = x; x[i] = p[1];
}
