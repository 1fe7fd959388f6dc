#include <metal_stdlib>
using namespace metal;

inline float first(const float* p) { return p[0]; }  // expect: missing-address-space 31 | inline float first(device const float* p) { return p[0]; }
kernel void k(device float* x [[buffer(0)]]) { x[0] = first(x); }
