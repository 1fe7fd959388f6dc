#include <metal_stdlib>
using namespace metal;

#define LANES 32
#define PASTE(a, b) a##b

typedef float real;
using pair = vec<real, 2>;

namespace tables {
constant constexpr uint count = 4;
constant float weights[count] = {0.1f, 0.2f, 0.3f, 0.4f};
static constant char4 signs = char4(1, -1, 1, -1);

inline float weighted(constant float* w, thread const float* x) {
    float sum = 0;
    for (uint i = 0; i < count; ++i) sum += w[i] * x[i];
    return sum;
}

/// A function of a name of the library, which it calls.
inline float exp(float x, float base) { return metal::exp(x * log(base)); }
}  // namespace tables

struct Sizes {
    static constant constexpr const short rows = 4;
};

kernel void PASTE(use_, tables)(device float* x [[buffer(0)]], device pair* pairs [[buffer(1)]],
                                uint i [[thread_position_in_grid]]) {
    constexpr float half_of = 0.5;
    constexpr int steps[2] = {1, 2};
    float values[tables::count];
    #pragma unroll
    for (short r = 0; r < Sizes::rows; ++r) values[r] = x[r * LANES + i] * half_of;
    x[i] = tables::weighted(tables::weights, values) + float(tables::signs.y) + tables::exp(1.0, 2.0);
    pairs[i] = pair(x[i], 1e-3) * real(steps[1]);
}
