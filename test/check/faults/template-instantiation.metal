#include <metal_stdlib>
using namespace metal;

template <typename T>
kernel void scale(device T* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = x[i] % T(3);  // expect: types 17 |     x[i] = x[i] * T(3);
}
template [[host_name("scale_float")]] kernel void scale<float>(device float*, uint);
