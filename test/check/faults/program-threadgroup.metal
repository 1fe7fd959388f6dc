#include <metal_stdlib>
using namespace metal;

threadgroup float shared[32];  // expect: program-variable 19 | constant float shared[1] = {1.0f};
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
