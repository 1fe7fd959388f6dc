#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              device float* y [[threadgroup(1)]]) {  // expect: kernel-space 33 |               device float* y [[buffer(1)]]) {
    x[0] = 1.0f;
}
