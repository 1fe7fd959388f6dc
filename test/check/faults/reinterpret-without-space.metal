#include <metal_stdlib>
using namespace metal;

kernel void k(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
    x[i] = float(reinterpret_cast<const uint*>(x)[i]);  // expect: missing-address-space 45 |     x[i] = float(reinterpret_cast<device const uint*>(x)[i]);
}
