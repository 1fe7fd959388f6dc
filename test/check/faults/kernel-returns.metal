#include <metal_stdlib>
using namespace metal;

kernel float k(device float* x [[buffer(0)]]) { return x[0]; }  // expect: kernel-returns 8 | kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
