#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    auto twice = [](float v) { return v * 2.0f; }; x[i] = twice(x[i]);  // expect: lambda 18 |     x[i] = x[i] * 2.0f;
}
