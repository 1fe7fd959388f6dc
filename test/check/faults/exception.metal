#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    if (x[i] < 0.0f) throw 1;  // expect: keyword 22 |     if (x[i] < 0.0f) x[i] = 0.0f;
}
