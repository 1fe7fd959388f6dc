#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    threadgroup float s = 0.0f; x[i] = s;  // expect: threadgroup-initialiser 25 |     threadgroup float s; s = 0.0f; x[i] = s;
}
