#include <metal_stdlib>
using namespace metal;

template <typename T>
T first(device const T* p) { return p[0]; }
kernel void k(device half* x [[buffer(0)]], threadgroup half* s [[threadgroup(0)]]) {
    x[0] = first(s);  // expect: address-space 12 |     x[0] = first(x);
}
