#include <metal_stdlib>
using namespace metal;

struct Shape {
    virtual float area() { return 0.0f; }  // expect: keyword 5 |     float area() { return 0.0f; }
};
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
