#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              float4 scale [[buffer(2)]]) {  // expect: buffer-by-value 22 |               constant float4& scale [[buffer(2)]]) {
    x[0] = 1.0f;
}
