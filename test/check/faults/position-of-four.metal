#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              uint4 i [[thread_position_in_grid]]) {  // expect: position-type 21 |               uint3 i [[thread_position_in_grid]]) {
    x[0] = 1.0f;
}
