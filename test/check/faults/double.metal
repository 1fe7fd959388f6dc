#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    double v = x[i]; x[i] = float(v * v);  // expect: wide-type 5 |     float v = x[i]; x[i] = float(v * v);
}
