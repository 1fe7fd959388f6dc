#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint n [[threads_per_simdgroup]],
              uint w [[thread_execution_width]]) {  // expect: attribute-conflict 24 |               uint w [[thread_index_in_simdgroup]]) {
    x[0] = 1.0f;
}
