#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = std::max(x[i], 0.0f);  // expect: std-name 12 |     x[i] = metal::max(x[i], 0.0f);
}
