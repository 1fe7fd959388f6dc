// C = A B^T with 8 x 8 simdgroup matrices: A is [m, k], B is [n, k], both half; C is [m, n] in float.
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

struct MatmulSizes {
  uint m, n, k;
};

/// One simdgroup per 8 x 8 tile, straight from device memory. All sizes are multiples of 8.
kernel void matmul_8x8(device const half* a [[buffer(0)]],
                       device const half* b [[buffer(1)]],
                       device float* c [[buffer(2)]],
                       constant MatmulSizes& sizes [[buffer(3)]],
                       uint2 tile [[threadgroup_position_in_grid]]) {
  simdgroup_float8x8 sum = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  for (uint k = 0; k < sizes.k; k += 8) {
    simdgroup_half8x8 left, right;
    simdgroup_load(left, a, sizes.k, ulong2(k, tile.y * 8));
    simdgroup_load(right, b + tile.x * 8 * sizes.k + k, sizes.k, 0, true);
    simdgroup_multiply_accumulate(sum, left, right, sum);
  }
  simdgroup_store(sum, c, sizes.n, ulong2(tile.x * 8, tile.y * 8));
}

constexpr constant ushort block = 32;       // of C, a threadgroup's
constexpr constant ushort depth = 16;       // of A and B at a time
constexpr constant ushort per_simd = 16;    // of C, a simdgroup's
constexpr constant ushort tiles = per_simd / 8;

/// Copies rows [row, row + block) and columns [k, k + depth) of a matrix, with zeros beyond its end.
METAL_FUNC void copy_block(device const half* from, threadgroup half* to, uint row, uint rows, uint k, uint columns,
                           ushort thread_index, ushort threads) {
  for (ushort i = thread_index; i < block * depth; i += threads) {
    const uint r = row + i / depth, column = k + i % depth;
    to[i] = r < rows && column < columns ? from[r * columns + column] : 0.0h;
  }
}

/// Four simdgroups per 32 x 32 block, through threadgroup memory. Sizes are whatever they are.
[[kernel, max_total_threads_per_threadgroup(128)]]
void matmul_tiled(device const half* a [[buffer(0)]],
                  device const half* b [[buffer(1)]],
                  device float* c [[buffer(2)]],
                  constant MatmulSizes& sizes [[buffer(3)]],
                  uint2 group [[threadgroup_position_in_grid]],
                  ushort thread_index [[thread_index_in_threadgroup]],
                  ushort3 group_size [[threads_per_threadgroup]],
                  ushort simd [[simdgroup_index_in_threadgroup]]) {
  threadgroup half a_block[block * depth];
  threadgroup half b_block[block * depth];
  threadgroup float c_block[block * block];
  const ushort2 corner = per_simd * ushort2(simd % 2, simd / 2);
  const uint2 first = block * group;

  simdgroup_float8x8 sums[tiles][tiles];
#pragma unroll
  for (ushort y = 0; y < tiles; y++)
    for (ushort x = 0; x < tiles; x++) sums[y][x] = simdgroup_float8x8(0);

  for (uint k = 0; k < sizes.k; k += depth) {
    copy_block(a, a_block, first.y, sizes.m, k, sizes.k, thread_index, group_size.x);
    copy_block(b, b_block, first.x, sizes.n, k, sizes.k, thread_index, group_size.x);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (ushort kk = 0; kk < depth; kk += 8) {
      simdgroup_half8x8 left[tiles], right[tiles];
      for (ushort t = 0; t < tiles; t++) {
        simdgroup_load(left[t], a_block + (corner.y + 8 * t) * depth + kk, depth);
        simdgroup_load(right[t], b_block + (corner.x + 8 * t) * depth + kk, depth, 0, true);
      }
      simdgroup_barrier(mem_flags::mem_none);
      for (ushort y = 0; y < tiles; y++)
        for (ushort x = 0; x < tiles; x++)
          simdgroup_multiply_accumulate(sums[y][x], left[y], right[x], sums[y][x]);
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
  }

  for (ushort y = 0; y < tiles; y++)
    for (ushort x = 0; x < tiles; x++)
      simdgroup_store(sums[y][x], c_block, block, ulong2(corner.x + 8 * x, corner.y + 8 * y));
  threadgroup_barrier(mem_flags::mem_threadgroup);
  for (ushort i = thread_index; i < block * block; i += group_size.x) {
    const uint2 at = first + uint2(i % block, i / block);
    if (at.x < sizes.n && at.y < sizes.m) c[at.y * sizes.n + at.x] = c_block[i];
  }
}
