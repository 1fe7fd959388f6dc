#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = float(max(i, 0));  // expect: ambiguous-call 18 |     x[i] = float(max(i, 0u));
}
