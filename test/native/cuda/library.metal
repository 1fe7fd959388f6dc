// A bit of every part of the library that the CUDA device has headers of its own for.
constant half table[3] = {1.0h, 0.5h, 65504.0h};
constant float4 corners[2] = {float4(1.0f, 2.0f, 3.0f, 4.0f), float4(0.0f)};
struct P { float3 a; packed_float3 b; uint n; };
template <typename T> inline T twice(thread T& x) { return x + x; }
kernel void all(device float* y [[buffer(0)]], device half* h [[buffer(1)]], device bfloat* b [[buffer(2)]], device atomic_uint* c [[buffer(3)]], constant P& p [[buffer(4)]], threadgroup float* s [[threadgroup(0)]], uint i [[thread_index_in_threadgroup]], uint3 g [[threadgroup_position_in_grid]]) {
  threadgroup float local[32];
  float4 v = corners[i & 1]; float2 a = v.xy; v.zw = a; v *= 2.0f; v = v + 1.0f; v = metal::exp(v) + metal::precise::tanh(v) + metal::fast::sin(v);
  half x = h[i] * 2.0h + table[i % 3]; x += 1.0h; half4 hh = half4(v); hh = hh * x; hh = 2.0f * hh * 3; float z = x * 2.0f + h[i + 1];
  bfloat q = b[i]; q = q + bfloat(1.0f); b[i] = bfloat(z);
  uint3 u = uint3(g) * 3u; int4 w = int4(v); bool4 m = w > 0; w = select(w, -w, m);
  local[i % 32] = v.x + float(hh.y) + float(q) + float(u.z); threadgroup_barrier(mem_flags::mem_threadgroup);
  s[i] = local[31 - i % 32] + simd_sum(v.y) + simd_max(x) + simd_prefix_inclusive_sum(z) + float(simd_sum(w.x)) + simd_shuffle_xor(v, 1).x + simd_shuffle_and_fill_up(z, 0.0f, 2) + (simd_any(z > 1.0f) ? 1.0f : 0.0f) + quad_sum(z);
  atomic_fetch_add_explicit(c, 1u, memory_order_relaxed); atomic_fetch_max_explicit(c, 7u, memory_order_relaxed);
  simdgroup_half8x8 A, B; simdgroup_float8x8 C = make_filled_simdgroup_matrix<float, 8>(0.0f); simdgroup_load(A, h, 8); simdgroup_load(B, h, 8, ulong2(0), true); simdgroup_multiply_accumulate(C, A, B, C);
  simdgroup_bfloat8x8 bA; simdgroup_load(bA, b, 8); simdgroup_multiply_accumulate(C, bA, bA, C); simdgroup_float8x8 F(1.0f); simdgroup_multiply(F, F, C); simdgroup_store(F, y, 8);
  h[i] = half(z + p.a.x + p.b.y + twice(z)) ; y[i + 64] = s[i] + float(popcount(i) + clz(i) + ctz(i) + mulhi(i, 77u)) + dot(v, v) + metal::pow(z, 2.5f) + unpack_unorm4x8_to_float(i).x + float(addsat(int(i), 5)) + length(v.xyz);
}
