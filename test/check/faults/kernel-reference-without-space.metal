#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              const uint& n [[buffer(1)]]) {  // expect: missing-address-space 25 |               constant uint& n [[buffer(1)]]) {
    x[0] = 1.0f;
}
