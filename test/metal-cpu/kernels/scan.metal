// Prefix sums of every row of a matrix, one threadgroup a row.
#include <metal_stdlib>
using namespace metal;

constant bool reverse [[function_constant(0)]];
constant uint stride_constant [[function_constant(1)]];
constant uint columns_apart = is_function_constant_defined(stride_constant) ? stride_constant : 1u;

template <typename T, bool inclusive>
kernel void scan_rows(device const T* in [[buffer(0)]],
                      device T* out [[buffer(1)]],
                      constant const uint& width [[buffer(2)]],
                      threadgroup T* totals [[threadgroup(0)]],
                      uint row [[threadgroup_position_in_grid]],
                      ushort thread_index [[thread_index_in_threadgroup]],
                      ushort threads [[threads_per_threadgroup]],
                      ushort lane [[thread_index_in_simdgroup]],
                      ushort lanes [[threads_per_simdgroup]],
                      ushort simd [[simdgroup_index_in_threadgroup]],
                      ushort simds [[simdgroups_per_threadgroup]]) {
  in += row * width * columns_apart;
  out += row * width * columns_apart;
  T carry = 0;
  for (uint start = 0; start < width; start += threads) {
    const uint position = start + thread_index;
    const bool inside = position < width;
    const uint column = columns_apart * (reverse ? width - 1 - position : position);
    const T value = inside ? in[column] : T(0);
    T prefix = simd_prefix_exclusive_sum(value);
    if (lane == lanes - 1) totals[simd] = prefix + value;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (simd == 0) {
      const T total = lane < simds ? totals[lane] : T(0);
      const T before = simd_prefix_exclusive_sum(total);
      if (lane < simds) totals[lane] = before;
      if (lane == simds - 1) totals[simds] = before + total;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    prefix += carry + totals[simd];
    carry += totals[simds];
    if (inside) out[column] = inclusive ? prefix + value : prefix;
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }
}

template [[host_name("inclusive_uint")]] kernel void scan_rows<uint, true>(
    device const uint*, device uint*, constant const uint&, threadgroup uint*, uint, ushort, ushort, ushort, ushort,
    ushort, ushort);
template [[host_name("exclusive_uint")]] kernel void scan_rows<uint, false>(
    device const uint*, device uint*, constant const uint&, threadgroup uint*, uint, ushort, ushort, ushort, ushort,
    ushort, ushort);
template [[host_name("inclusive_float")]] kernel void scan_rows<float, true>(
    device const float*, device float*, constant const uint&, threadgroup float*, uint, ushort, ushort, ushort, ushort,
    ushort, ushort);
