#include <metal_stdlib>
using namespace metal;

constexpr uint width = 4;  // expect: program-variable 16 | constant constexpr uint width = 4;
kernel void k(device float* x [[buffer(0)]]) { x[width] = 1.0f; }
