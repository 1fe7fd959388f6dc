#include <metal_stdlib>
using namespace metal;

constant float* scale [[function_constant(0)]];  // expect: function-constant 17 | constant float scale [[function_constant(0)]];
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
