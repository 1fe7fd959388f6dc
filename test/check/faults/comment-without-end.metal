#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = 1.0f; /* never ends  // expect: incomplete 18 |     x[i] = 1.0f;
}
