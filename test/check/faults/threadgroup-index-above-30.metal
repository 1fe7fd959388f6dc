#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              threadgroup float* y [[threadgroup(32)]]) {  // expect: index-range 38 |               threadgroup float* y [[threadgroup(30)]]) {
    x[0] = 1.0f;
}
