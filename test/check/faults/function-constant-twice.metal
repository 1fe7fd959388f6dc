#include <metal_stdlib>
using namespace metal;

constant bool a [[function_constant(3)]];
constant bool b [[function_constant(3)]];  // expect: function-constant-index 15 | constant bool b [[function_constant(4)]];
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
