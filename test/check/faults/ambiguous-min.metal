#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], device half* h [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    x[i] = min(h[i], x[i]);  // expect: ambiguous-call 12 |     x[i] = min(float(h[i]), x[i]);
}
