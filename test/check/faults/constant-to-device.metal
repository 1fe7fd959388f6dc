#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], constant float* c [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    device const float* p = c; x[i] = p[0];  // expect: address-space 25 |     constant float* p = c; x[i] = p[0];
}
