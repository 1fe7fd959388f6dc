#include <metal_stdlib>
using namespace metal;

/// Templates with types, numbers and operations; instantiated in every form that Metal has.
struct Add {
    template <typename T>
    T operator()(T a, T b) { return a + b; }
};
struct Greatest {
    template <typename T>
    T operator()(T a, T b) { return max(a, b); }
};

template <typename T, typename Op, uint N>
inline T fold(thread const T* values) {
    T result = values[0];
    for (uint i = 1; i < N; ++i) result = Op()(result, values[i]);
    return result;
}

template <uint N>
inline float count_down(float x) { return count_down<N - 1>(x * 0.5f); }
template <>
inline float count_down<0>(float x) { return x; }

template <typename T, typename Op, int slot = 1>
[[kernel]] void reduce(device const T* in [[buffer(0)]], device T* out [[buffer(slot)]],
                       uint i [[thread_position_in_grid]]) {
    T values[4];
    for (uint j = 0; j < 4; ++j) values[j] = in[4 * i + j];
    out[i] = fold<T, Op, 4>(values);
    if constexpr (is_same_v<T, float>) out[i] = count_down<3>(out[i]);
}

template [[host_name("sum_float")]] [[kernel]] void reduce<float, Add>(device const float*, device float*, uint);
template [[host_name("max_half")]] [[kernel]] decltype(reduce<half, Greatest>) reduce<half, Greatest>;
typedef decltype(reduce<int, Add, 2>) reduce_int;
template [[host_name("sum_int")]] [[kernel]] reduce_int reduce<int, Add, 2>;
