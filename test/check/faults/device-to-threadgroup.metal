#include <metal_stdlib>
using namespace metal;

inline float sum(threadgroup const float* p) { return p[0] + p[1]; }
kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = sum(x);  // expect: address-space 12 |     threadgroup float s[2]; s[i & 1] = x[i]; x[i] = sum(s);
}
