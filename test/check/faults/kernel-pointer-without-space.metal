#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              float* y [[buffer(1)]]) {  // expect: missing-address-space 20 |               device float* y [[buffer(1)]]) {
    x[0] = 1.0f;
}
