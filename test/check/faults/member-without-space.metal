#include <metal_stdlib>
using namespace metal;

struct View {
    float* data;  // expect: missing-address-space 10 |     device float* data;
    uint size;
};
kernel void k(device float* x [[buffer(0)]]) {
    View v = {x, 1};
    v.data[0] = 1.0f;
}
