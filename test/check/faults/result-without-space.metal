#include <metal_stdlib>
using namespace metal;

inline float* skip(device float* p) { return p + 1; }  // expect: missing-address-space 13 | inline device float* skip(device float* p) { return p + 1; }
kernel void k(device float* x [[buffer(0)]]) { *skip(x) = 1.0f; }
