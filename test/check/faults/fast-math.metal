#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    if (isnan(x[i])) x[i] = 0.0f;  // expect: fast-math 9 |     if (x[i] < 0.0f) x[i] = 0.0f;
}
