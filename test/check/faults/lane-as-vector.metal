#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]],
              uint2 lane [[thread_index_in_simdgroup]]) {  // expect: position-type 21 |               uint lane [[thread_index_in_simdgroup]]) {
    x[0] = 1.0f;
}
