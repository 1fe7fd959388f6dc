#include <metal_stdlib>
using namespace metal;

kernel void k(device atomic_short* n [[buffer(0)]]) {}  // expect: atomic-type 22 | kernel void k(device atomic_int* n [[buffer(0)]]) {}
