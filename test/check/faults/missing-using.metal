#include <metal_stdlib>

kernel void k(device float* x [[buffer(0)]]) {
    x[0] = exp(x[0]);  // expect: missing-using 12 |     x[0] = metal::exp(x[0]);
}
