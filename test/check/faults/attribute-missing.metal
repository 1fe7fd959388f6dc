#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              uint count) {  // expect: attribute-missing 20 |               constant uint& count) {
    x[0] = 1.0f;
}
