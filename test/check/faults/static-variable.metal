#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    static uint calls; x[i] = float(calls++);  // expect: static-variable 5 |     uint calls = 0; x[i] = float(calls++);
}
