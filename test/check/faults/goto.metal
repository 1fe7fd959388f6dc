#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    again: x[i] += 1.0f; if (x[i] < 4.0f) goto again;  // expect: keyword 43 |     while (x[i] < 4.0f) x[i] += 1.0f;
}
