#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    long long v = i; x[i] = float(v);  // expect: wide-type 5 |     long v = i; x[i] = float(v);
}
