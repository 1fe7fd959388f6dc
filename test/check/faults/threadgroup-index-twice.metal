#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], threadgroup float* a [[threadgroup(0)]],
              threadgroup float* b [[threadgroup(0)]]) {  // expect: index-duplicate 38 |               threadgroup float* b [[threadgroup(1)]]) {
    x[0] = 1.0f;
}
