#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], ushort3 i [[thread_position_in_threadgroup]],
              uint size [[threads_per_threadgroup]]) {  // expect: position-sizes 20 |               uint3 size [[threads_per_threadgroup]]) {
    x[0] = 1.0f;
}
