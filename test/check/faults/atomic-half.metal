#include <metal_stdlib>
using namespace metal;

kernel void k(device atomic<half>* n [[buffer(0)]]) {}  // expect: atomic-type 22 | kernel void k(device atomic<float>* n [[buffer(0)]]) {}
