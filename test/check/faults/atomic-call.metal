#include <metal_stdlib>
using namespace metal;

kernel void k(device atomic_uint* n [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    atomic_fetch_add(n, 1u);  // expect: atomic-call 5 |     atomic_fetch_add_explicit(n, 1u, memory_order_relaxed);
}
