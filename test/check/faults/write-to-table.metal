#include <metal_stdlib>
using namespace metal;

constant float table[2] = {1.0f, 2.0f};
kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    table[i] = 1.0f;  // expect: read-only 14 |     x[i] = table[i];
}
