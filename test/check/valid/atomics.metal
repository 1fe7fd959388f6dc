#include <metal_atomic>
#include <metal_stdlib>
using namespace metal;

struct Counters {
    atomic_uint total;
    atomic_int signed_total;
};

kernel void histogram(device const uchar* data [[buffer(0)]], device atomic_uint* bins [[buffer(1)]],
                      device Counters& counters [[buffer(2)]], device atomic<float>* weights [[buffer(3)]],
                      threadgroup atomic_uint* local_bins [[threadgroup(0)]],
                      uint i [[thread_position_in_grid]], uint local [[thread_index_in_threadgroup]]) {
    atomic_store_explicit(&local_bins[local & 15], 0u, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    atomic_fetch_add_explicit(&local_bins[data[i] & 15], 1u, memory_order_relaxed);
    threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
    const uint found = atomic_load_explicit(&local_bins[local & 15], memory_order_relaxed);
    atomic_fetch_max_explicit(&bins[local & 15], found, memory_order_relaxed);
    atomic_fetch_add_explicit(&counters.total, found, memory_order_relaxed);
    atomic_fetch_sub_explicit(&counters.signed_total, int(found), memory_order_relaxed);
    atomic_fetch_add_explicit(weights, 0.5f, memory_order_relaxed);
    uint expected = 0;
    while (!atomic_compare_exchange_weak_explicit(bins, &expected, expected + 1u, memory_order_relaxed,
                                                  memory_order_relaxed)) {
    }
    atomic_thread_fence(mem_flags::mem_device, memory_order_seq_cst);
}
