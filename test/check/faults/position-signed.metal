#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              int i [[thread_position_in_grid]]) {  // expect: position-type 19 |               uint i [[thread_position_in_grid]]) {
    x[0] = 1.0f;
}
