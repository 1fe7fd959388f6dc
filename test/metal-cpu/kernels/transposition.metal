// Transposes matrices, through threadgroup memory so that both sides are accessed along rows. The grid is one thread per
// element, so threadgroups at its right and lower edges are smaller.
#include <metal_stdlib>
using namespace metal;

template <typename T, ushort tile = 16>
kernel void transpose(const device T* in [[buffer(0)]],
                      device T* out [[buffer(1)]],
                      uint3 at [[thread_position_in_grid]],
                      uint3 grid [[threads_per_grid]],
                      ushort3 in_tile [[thread_position_in_threadgroup]],
                      ushort3 size [[threads_per_threadgroup]],
                      ushort3 whole [[dispatch_threads_per_threadgroup]],
                      uint3 group [[threadgroup_position_in_grid]],
                      ushort index [[thread_index_in_threadgroup]]) {
  threadgroup T elements[tile][tile + 1];  // one more against bank conflicts
  const ulong matrix = ulong(at.z) * grid.x * grid.y;
  elements[in_tile.y][in_tile.x] = in[matrix + at.y * grid.x + at.x];
  threadgroup_barrier(mem_flags::mem_threadgroup);
  // The same threads, counted along the columns of the tile.
  const ushort2 turned(index % size.y, index / size.y);
  const uint2 to = group.yx * uint2(whole.yx) + uint2(turned);
  out[matrix + to.y * grid.y + to.x] = elements[turned.x][turned.y];
}

typedef decltype(transpose<float>) transpose_float_t;
template [[host_name("transpose_float")]] kernel transpose_float_t transpose<float>;
template [[host_name("transpose_uchar")]] kernel decltype(transpose<uchar>) transpose<uchar>;
template [[host_name("transpose_uint2")]] kernel decltype(transpose<uint2, 8>) transpose<uint2, 8>;
