#include <metal_stdlib>
using namespace metal;

struct Shape { uint count; };
kernel void k(device float* x [[buffer(0)]], constant Shape& c [[buffer(1)]], uint i [[thread_position_in_grid]]) {
    c.count = 3;  // expect: read-only 13 |     x[i] = float(c.count);
}
