#include <metal_stdlib>
using namespace metal;

inline float helper(float v, uint i) {
    threadgroup float shared[32];  // expect: threadgroup-variable 5 |     float shared[32];
    shared[i] = v;
    return shared[0];
}
kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_threadgroup]]) { x[i] = helper(x[i], i); }
