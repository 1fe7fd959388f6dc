#include <metal_stdlib>
#include <metal_math>

/// Names of the library with metal:: alone, and every statement that Metal has.
static inline int steps_of(uint n) {
    int steps = 0;
    do {
        n = n & 1 ? 3 * n + 1 : n / 2;
        if (++steps > 1000) break;
    } while (n > 1);
    return steps;
}

METAL_FUNC uint largest(thread const metal::array<uint, 3>& values) {
    const uint parts[3] = {values[0], values[1], values[2]};
    uint most = 0;
    for (uint value : parts)
        if (value > most) most = value;
    return most;
}

kernel void walk(device metal::uint2* out [[buffer(0)]], constant metal::int3& from [[buffer(1)]],
                 metal::ushort2 at [[thread_position_in_grid]]) {
    const metal::array<uint, 3> values = {uint(from.x), uint(from.y), 7u};
    device metal::uint2& own = out[at.x];
    device auto* next = out + 1;
    own.x = uint(steps_of(largest(values)));
    int i = 10;
    while (true) {
        if (i % 3 == 0) {
            i -= 2;
            continue;
        }
        if (--i < 0) return;
        switch (i) {
            case 1:
            case 2: own.y += 1; break;
            case 5: own.y *= 2; [[fallthrough]];
            default: next[0] = own;
        }
    }
}
