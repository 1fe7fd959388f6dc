#include <metal_stdlib>
using namespace metal;

[[max_total_threads_per_threadgroup(2048)]]  // expect: max-threads 3 | [[max_total_threads_per_threadgroup(1024)]]
kernel void k(device float* x [[buffer(0)]]) { x[0] = 1.0f; }
