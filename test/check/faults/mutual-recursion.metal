#include <metal_stdlib>
using namespace metal;

inline bool odd(uint n);
inline bool even(uint n) { return n == 0 || odd(n - 1); }
inline bool odd(uint n) {
    return n != 0 && even(n - 1);  // expect: recursion 22 |     return (n & 1) != 0;
}
kernel void k(device uint* x [[buffer(0)]]) { x[0] = even(x[0]); }
