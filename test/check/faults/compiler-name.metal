#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = __builtin_sqrtf(x[i]);  // expect: refused 12 |     x[i] = sqrt(x[i]);
}
