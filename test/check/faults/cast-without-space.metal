#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    uint bits = ((uint*)x)[i]; x[i] = float(bits);  // expect: missing-address-space 23 |     uint bits = ((device uint*)x)[i]; x[i] = float(bits);
}
