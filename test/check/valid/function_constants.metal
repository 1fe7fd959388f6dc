#include <metal_stdlib>
using namespace metal;

constant bool use_bias [[function_constant(0)]];
constant uint group_size [[function_constant(1)]];
constant float slope[[function_constant(2)]];
constant float4 tint [[function_constant(3)]];
constant float used_slope = is_function_constant_defined(slope) ? slope : 1.0f;

kernel void relu(device float* x [[buffer(0)]],
                 constant float& bias [[buffer(1), function_constant(use_bias)]],
                 uint i [[thread_position_in_grid]]) {
    float v = x[i / group_size] * used_slope + tint.x;
    if (use_bias) v += bias;
    x[i] = max(v, 0.0f);
}
