#include <metal_stdlib>
using namespace metal;

kernel void a(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
kernel void b(device float* x [[buffer(0)]]) {
    a(x);  // expect: kernel-called 5 |     x[0] = 1.0f;
}
