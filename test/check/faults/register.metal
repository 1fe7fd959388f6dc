#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    register float v = x[i]; x[i] = v;  // expect: keyword 5 |     float v = x[i]; x[i] = v;
}
