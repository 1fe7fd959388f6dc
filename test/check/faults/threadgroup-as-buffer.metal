#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              threadgroup float* y [[buffer(1)]]) {  // expect: kernel-space 38 |               threadgroup float* y [[threadgroup(1)]]) {
    x[0] = 1.0f;
}
