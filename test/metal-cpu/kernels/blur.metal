// Image filters over buffers of RGBA pixels.
#include <metal_stdlib>
using namespace metal;

struct Image {
  uint2 size;
  uint row_pixels;
};

constant const uint weights[5] = {1, 4, 6, 4, 1};

namespace {
/// The pixel at a place, or the nearest one of the image.
template <typename Pixel>
Pixel clamped(const device Pixel* pixels, constant Image& image, int2 at) {
  const uint2 inside = uint2(clamp(at, int2(0), int2(image.size) - 1));
  return pixels[inside.y * image.row_pixels + inside.x];
}
}  // namespace

/// 5 x 5 binomial blur, rounded to nearest; colours are weighted by their alpha.
kernel void blur(const device uchar4* source [[buffer(0)]],
                 device uchar4* target [[buffer(1)]],
                 constant Image& image [[buffer(2)]],
                 uint2 gid [[thread_position_in_grid]]) {
  if (any(gid >= image.size)) return;
  uint4 sum = 0;
  for (int y = -2; y <= 2; ++y) {
    for (int x = -2; x <= 2; ++x) {
      const uint4 pixel = uint4(clamped(source, image, int2(gid) + int2(x, y)));
      const uint weight = weights[x + 2] * weights[y + 2];
      sum += weight * uint4(pixel.rgb * pixel.a, pixel.a);
    }
  }
  uchar4 result = 0;
  if (sum.a != 0) result.rgb = uchar3((sum.rgb + sum.aaa / 2) / sum.aaa);
  result.w = uchar((sum.w + 128) >> 8);
  target[gid.y * image.row_pixels + gid.x] = result;
}

inline int3 three(threadgroup const int* from) { return {from[0], from[1], from[2]}; }

#define TILE_W 8
#define TILE_H 4
/// Sobel edges of the luma, with a halo of one pixel in threadgroup memory.
kernel void edges(const device uchar4* source [[buffer(0)]],
                  device uchar4* target [[buffer(1)]],
                  constant Image& image [[buffer(2)]],
                  uint2 tid [[thread_position_in_threadgroup]],
                  uint2 group [[threadgroup_position_in_grid]]) {
  threadgroup int luma[TILE_H + 2][TILE_W + 2];
  const int2 corner = int2(group * uint2(TILE_W, TILE_H)) - 1;
  for (uint y = tid.y; y < TILE_H + 2; y += TILE_H)
    for (uint x = tid.x; x < TILE_W + 2; x += TILE_W) {
      const uchar4 pixel = clamped(source, image, corner + int2(x, y));
      const int3 rgb = int3(pixel.xyz) * int3(54, 183, 19);
      luma[y][x] = (rgb.r + rgb.g + rgb.b) >> 8;
    }
  threadgroup_barrier(mem_flags::mem_threadgroup);
  const uint2 at = group * uint2(TILE_W, TILE_H) + tid;
  if (at.x >= image.size.x || at.y >= image.size.y) return;
  const int3 top = three(&luma[tid.y][tid.x]), middle = three(&luma[tid.y + 1][tid.x]), bottom = three(&luma[tid.y + 2][tid.x]);
  const int2 slope(top.z + 2 * middle.z + bottom.z - top.x - 2 * middle.x - bottom.x,
                   bottom.x + 2 * bottom.y + bottom.z - top.x - 2 * top.y - top.z);
  const uchar strength = uchar(min(abs(slope.x) + abs(slope.y), 255));
  uchar4 out;
  out.bgr = uchar3(strength, 0, 255 - strength);
  out.a = 255;
  target[at.y * image.row_pixels + at.x] = out.zyxw;
}

/// The mean of every four pixels of a row, by quads, and a mask of which means are bright.
kernel void quarter(const device uchar4* source [[buffer(0)]],
                    device uchar4* target [[buffer(1)]],
                    device uint* bright [[buffer(2)]],
                    uint index [[thread_position_in_grid]],
                    uint group [[threadgroup_position_in_grid]],
                    ushort quad_lane [[thread_index_in_quadgroup]],
                    ushort lane [[thread_index_in_simdgroup]]) {
  ushort4 sum = ushort4(source[index]);
  sum += quad_shuffle_xor(sum, 1);
  sum += quad_shuffle_xor(sum, 2);
  const uchar4 mean = uchar4((sum + 2) >> 2);
  const auto mask = simd_ballot(quad_lane == 0 && mean.g >= 128);
  if (lane == 0) bright[group] = uint(static_cast<simd_vote::vote_t>(mask));
  if (quad_lane != 0) return;
  target[index / 4] = quad_broadcast(mean, 0);
}
