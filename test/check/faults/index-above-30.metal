#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              device float* y [[buffer(31)]]) {  // expect: index-range 33 |               device float* y [[buffer(30)]]) {
    x[0] = 1.0f;
}
