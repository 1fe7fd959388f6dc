#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              uint count [[buffer(1)]]) {  // expect: buffer-by-value 20 |               constant uint& count [[buffer(1)]]) {
    x[0] = 1.0f;
}
