#include <metal_stdlib>
using namespace metal;

kernel void k(device atomic_uint* n [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    uint e = 0; atomic_compare_exchange_strong_explicit(n, &e, 1u, memory_order_relaxed, memory_order_relaxed);  // expect: atomic-call 17 |     uint e = 0; atomic_compare_exchange_weak_explicit(n, &e, 1u, memory_order_relaxed, memory_order_relaxed);
}
