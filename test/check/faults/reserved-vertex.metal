#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    float vertex = x[i]; x[i] = vertex + 1.0f;  // expect: reserved-name 11 |     float corner = x[i]; x[i] = corner + 1.0f;
}
