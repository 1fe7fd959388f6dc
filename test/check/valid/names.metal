#include <metal_stdlib>
using namespace metal;

/// Names that are keywords of C++'s relatives but not of Metal's, and functions that share a name.
struct local_pair {
    float global, generic;
};
inline float scale(float x) { return 2.0f * x; }
inline float2 scale(float2 x) { return float2(scale(x.x), scale(x.y)); }
inline float3 min(float3 a, float b) { return float3(min(a.x, b), min(a.y, b), min(a.z, b)); }
template <typename T>
inline T twice(T x) { return x + x; }
template <typename T>
inline void exchange(thread T& a, thread T& b) {
    T kept = a;
    a = b;
    b = kept;
}
template <typename T>
struct Reader {
    device const T* from;
    threadgroup T* to;
    Reader(device const T* f, threadgroup T* t) : from(f), to(t) {}
    void copy(uint i) { to[i] = from[i]; }
    T operator[](uint i) const { return from[i]; }
};

kernel void names(device float* x [[buffer(0)]], device const half* halves [[buffer(1)]],
                  threadgroup half* shared [[threadgroup(0)]], uint i [[thread_position_in_grid]]) {
    local_pair local = {1.0f, 2.0f};
    float read_only = local.global, pipe = local.generic;
    exchange(read_only, pipe);
    Reader<half> reader(halves, shared);
    reader.copy(i);
    float private_sum = float(reader[i]) + read_only * pipe;
    x[i] = scale(float2(x[i], private_sum)).x + twice(min(float3(x[i]), 0.5f)).y;
    uint a = i, b = 3;
    x[a * b] = 1.0f;
    a * b;
}
