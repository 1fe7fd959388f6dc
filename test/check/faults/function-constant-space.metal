#include <metal_stdlib>
using namespace metal;

const bool fast [[function_constant(0)]];  // expect: function-constant 12 | constant bool fast [[function_constant(0)]];
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
