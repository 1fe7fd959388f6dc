#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              float shared [[threadgroup(0)]]) {  // expect: buffer-by-value 21 |               threadgroup float* shared [[threadgroup(0)]]) {
    x[0] = 1.0f;
}
