#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              uint i [[thread_position_in_grid, thread_index_in_simdgroup]]) {  // expect: attribute-conflict 49 |               uint i [[thread_position_in_grid]]) {
    x[0] = 1.0f;
}
