#include <metal_stdlib>
using namespace metal;

inline uint factorial(uint n) {
    return n < 2 ? 1 : n * factorial(n - 1);  // expect: recursion 28 |     return n < 2 ? 1 : n * (n - 1);
}
kernel void k(device uint* x [[buffer(0)]]) { x[0] = factorial(5); }
