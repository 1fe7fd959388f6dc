#include <metal_stdlib>
using namespace metal;

inline void twice(float& v) { v *= 2.0f; }  // expect: missing-address-space 24 | inline void twice(thread float& v) { v *= 2.0f; }
kernel void k(device float* x [[buffer(0)]]) {
    float v = x[0];
    twice(v);
    x[0] = v;
}
