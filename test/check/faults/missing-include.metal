using namespace metal;  // expect: missing-include 17 | #include <metal_stdlib>
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
