#include <metal_stdlib>
using namespace metal;

float scale = 2.0f;  // expect: program-variable 7 | constant float scale = 2.0f;
kernel void k(device float* x [[buffer(0)]]) { x[0] *= scale; }
