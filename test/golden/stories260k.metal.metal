// llama for target metal, written by upgc 0.1.0. Compile the model again instead of editing this.
#include <metal_stdlib>
using namespace metal;

/// What changes from step to step.
struct Step {
    uint position;  // of the step's first token in the context
    uint tokens;    // of this step
};

/// The value of bfloat16 bits.
inline float bf16(ushort bits) { return as_type<float>(uint(bits) << 16); }

inline float silu(float x) { return x / (1.0f + metal::exp(-x)); }

/// The tanh form of GELU.
inline float gelu(float x) {
    return 0.5f * x * (1.0f + metal::precise::tanh(0.797884561f * (x + 0.044715f * x * x * x)));
}

/// Sum of N partial sums, N a power of two, pairwise.
template <uint N>
inline float pairwise_sum(thread float* partial) {
    for (uint count = N / 2; count > 0; count /= 2)
        for (uint j = 0; j < count; ++j) partial[j] += partial[j + count];
    return partial[0];
}

/// Row ids[t] of a table with 64 columns.
kernel void embed_f32_64(
    device const int* ids [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = table + uint(ids[0]) * 64;
    for (uint n = group.y * 1024 + thread_index; n < metal::min(64u, (group.y + 1) * 1024); n += 64) {
        const float v0 = row[n];
        y[n] = v0;
    }
}

/// x / sqrt(mean(x^2) + eps) * weight over rows of 64.
kernel void rms_norm_f32_64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[4] = {};
    for (uint j = 0; j < 2; ++j) {
        const uint k = j * 32 + thread_index;
        if (k < 64) squares[j] += row[k] * row[k];
    }
    float total = simd_sum(pairwise_sum<4>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 32) {
        const uint n = i;
        const float v0 = row[i] * factor * weight[i];
        y[n] = v0;
    }
}

/// The vector x times the rows of a matrix, 64 x 64.
kernel void matvec_f32_64x64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            y[n] = v0;
        }
    }
}

/// The vector x times the rows of a matrix, 32 x 64.
kernel void matvec_f32_32x64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            y[n] = v0;
        }
    }
}

/// The vector x times the rows of a matrix, 32 x 64; into the cache.
kernel void matvec_f32_cache_32x64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* cache [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            cache[step.position * 32 + n] = v0;
        }
    }
}

/// Turns the pairs (i, i + 4) of each of 8 heads by the angles of their position.
kernel void rope_8x8(
    device const float* x [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint head = group.y;
    device const float* row = x + head * 8;
    device const float* angles = table + step.position * 8;
    for (uint i = lane; i < 4; i += 32) {
        const float a = row[i];
        const float b = row[i + 4];
        const float c = angles[i];
        const float s = angles[i + 4];
        {
            const uint n = head * 8 + i;
            const float v0 = a * c - b * s;
            y[n] = v0;
        }
        {
            const uint n = head * 8 + i + 4;
            const float v0 = b * c + a * s;
            y[n] = v0;
        }
    }
}

/// Turns the pairs (i, i + 4) of each of 4 heads by the angles of their position; into the cache.
kernel void rope_cache_4x8(
    device const float* x [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* cache [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint head = group.y;
    device const float* row = x + head * 8;
    device const float* angles = table + step.position * 8;
    for (uint i = lane; i < 4; i += 32) {
        const float a = row[i];
        const float b = row[i + 4];
        const float c = angles[i];
        const float s = angles[i + 4];
        {
            const uint n = head * 8 + i;
            const float v0 = a * c - b * s;
            cache[step.position * 32 + n] = v0;
        }
        {
            const uint n = head * 8 + i + 4;
            const float v0 = b * c + a * s;
            cache[step.position * 32 + n] = v0;
        }
    }
}

/// Causal attention of 8 heads over the cached keys and values of 4.
kernel void attention_8x4x8(
    device const float* q [[buffer(0)]],
    device const float* k [[buffer(1)]],
    device const float* v [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint head = group.y;
    const uint keys = step.position + 1;
    device const float* query = q + head * 8;
    device const float* head_keys = k + (head / 2) * 8;
    device const float* head_values = v + (head / 2) * 8;
    // Softmax over blocks of 32 positions: the greatest score so far, and sums scaled to it.
    float greatest = -INFINITY;
    float total = 0.0f;
    float mixed[1] = {};
    for (uint begin = 0; begin < keys; begin += 32) {
        float score[1];
        float block_greatest = greatest;
        for (uint i = 0; i < 1; ++i) {
            const uint position = begin + i * 32 + lane;
            score[i] = -INFINITY;
            if (position < keys) {
                device const float* key = head_keys + position * 32;
                float partial[4] = {};
                for (uint d = 0; d < 8; d += 4)
                    for (uint j = 0; j < 4; ++j) partial[j] += query[d + j] * key[d + j];
                score[i] = pairwise_sum<4>(partial) * 0.35355338f;
            }
            block_greatest = metal::max(block_greatest, score[i]);
        }
        block_greatest = simd_max(block_greatest);
        const float keep = metal::exp(greatest - block_greatest);
        greatest = block_greatest;
        float block_total = 0.0f;
        for (uint i = 0; i < 1; ++i) {
            score[i] = metal::exp(score[i] - greatest);
            block_total += score[i];
        }
        total = total * keep + simd_sum(block_total);
        for (uint i = 0; i < 1; ++i) mixed[i] *= keep;
        const uint count = metal::min(32u, keys - begin);
        for (uint j = 0; j < count; ++j) {
            const float weight = simd_shuffle(score[j / 32], ushort(j % 32));
            device const float* value = head_values + (begin + j) * 32;
            for (uint i = 0; i < 1; ++i) {
                const uint d = i * 32 + lane;
                if (d < 8) mixed[i] += weight * value[d];
            }
        }
    }
    for (uint i = 0; i < 1; ++i) {
        const uint d = i * 32 + lane;
        if (d < 8) {
            const uint n = head * 8 + d;
            const float v0 = mixed[i] / total;
            y[n] = v0;
        }
    }
}

/// The vector x times the rows of a matrix, 64 x 64; then add.
kernel void matvec_f32_add_64x64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            const float v1 = r2[n] + v0;
            y[n] = v1;
        }
    }
}

/// The vector x times the rows of 2 matrices, 172 x 64; then silu, mul.
kernel void matvec_f32_silu_mul_172x64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* weight1 [[buffer(2)]],
    device float* y [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    float sums1[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = metal::min(first + r, 171u);
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
                sums1[r][j] += row[k] * weight1[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        const float v1 = simd_sum(pairwise_sum<4>(sums1[r]));
        if (lane == 0 && n < 172) {
            const float v2 = silu(v0);
            const float v3 = v2 * v1;
            y[n] = v3;
        }
    }
}

/// The vector x times the rows of a matrix, 64 x 172; then add.
kernel void matvec_f32_add_64x172(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    for (uint k = lane * 4; k < 128; k += 128) {
        for (uint r = 0; r < 4; ++r) {
            const uint m = first + r;
            device const float* block0 = weight + m * 172 + k;
            for (uint j = 0; j < 4; ++j) {
                sums0[r][j] += row[k + j] * block0[j];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = 128 + j * 32 + lane;
            if (k < 172) {
                sums0[r][j] += row[k] * weight[m * 172 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            const float v1 = r2[n] + v0;
            y[n] = v1;
        }
    }
}

/// The vector x times the rows of a matrix, 512 x 64.
kernel void matvec_f32_512x64(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            y[n] = v0;
        }
    }
}

/// Index of the greatest of 512, the lowest of equals.
kernel void argmax_512(
    device const float* x [[buffer(0)]],
    device int* y [[buffer(1)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    device const float* row = x;
    float best = -INFINITY;
    uint index = 512;
    for (uint i = lane; i < 512; i += 32) {
        if (row[i] > best) {
            best = row[i];
            index = i;
        }
    }
    const float greatest = simd_max(best);
    const uint winner = simd_min(best == greatest ? index : 512u);
    if (lane == 0) y[0] = int(winner % 512);
}

/// Row ids[t] of a table with 64 columns.
kernel void embed_f32_64_tokens(
    device const int* ids [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* row = table + uint(ids[t]) * 64;
    for (uint n = group.y * 1024 + thread_index; n < metal::min(64u, (group.y + 1) * 1024); n += 64) {
        const float v0 = row[n];
        y[t * 64 + n] = v0;
    }
}

/// x / sqrt(mean(x^2) + eps) * weight over rows of 64.
kernel void rms_norm_f32_64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* row = x + t * 64;
    float squares[4] = {};
    for (uint j = 0; j < 2; ++j) {
        const uint k = j * 32 + thread_index;
        if (k < 64) squares[j] += row[k] * row[k];
    }
    float total = simd_sum(pairwise_sum<4>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 32) {
        const uint n = i;
        const float v0 = row[i] * factor * weight[i];
        y[t * 64 + n] = v0;
    }
}

/// Each vector of x times the rows of a matrix, 64 x 64.
kernel void matmul_f32_64x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 64;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            y[t * 64 + n] = v0;
        }
    }
}

/// Each vector of x times the rows of a matrix, 32 x 64.
kernel void matmul_f32_32x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 64;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            y[t * 32 + n] = v0;
        }
    }
}

/// Each vector of x times the rows of a matrix, 32 x 64; into the cache.
kernel void matmul_f32_cache_32x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* cache [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 64;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            cache[(step.position + t) * 32 + n] = v0;
        }
    }
}

/// Turns the pairs (i, i + 4) of each of 8 heads by the angles of their position.
kernel void rope_8x8_tokens(
    device const float* x [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint head = group.y;
    device const float* row = x + t * 64 + head * 8;
    device const float* angles = table + (step.position + t) * 8;
    for (uint i = lane; i < 4; i += 32) {
        const float a = row[i];
        const float b = row[i + 4];
        const float c = angles[i];
        const float s = angles[i + 4];
        {
            const uint n = head * 8 + i;
            const float v0 = a * c - b * s;
            y[t * 64 + n] = v0;
        }
        {
            const uint n = head * 8 + i + 4;
            const float v0 = b * c + a * s;
            y[t * 64 + n] = v0;
        }
    }
}

/// Turns the pairs (i, i + 4) of each of 4 heads by the angles of their position; into the cache.
kernel void rope_cache_4x8_tokens(
    device const float* x [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* cache [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint head = group.y;
    device const float* row = x + t * 32 + head * 8;
    device const float* angles = table + (step.position + t) * 8;
    for (uint i = lane; i < 4; i += 32) {
        const float a = row[i];
        const float b = row[i + 4];
        const float c = angles[i];
        const float s = angles[i + 4];
        {
            const uint n = head * 8 + i;
            const float v0 = a * c - b * s;
            cache[(step.position + t) * 32 + n] = v0;
        }
        {
            const uint n = head * 8 + i + 4;
            const float v0 = b * c + a * s;
            cache[(step.position + t) * 32 + n] = v0;
        }
    }
}

/// Causal attention of 8 heads over the cached keys and values of 4.
kernel void attention_8x4x8_tokens(
    device const float* q [[buffer(0)]],
    device const float* k [[buffer(1)]],
    device const float* v [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint head = group.y;
    const uint keys = step.position + t + 1;
    device const float* query = q + t * 64 + head * 8;
    device const float* head_keys = k + (head / 2) * 8;
    device const float* head_values = v + (head / 2) * 8;
    // Softmax over blocks of 32 positions: the greatest score so far, and sums scaled to it.
    float greatest = -INFINITY;
    float total = 0.0f;
    float mixed[1] = {};
    for (uint begin = 0; begin < keys; begin += 32) {
        float score[1];
        float block_greatest = greatest;
        for (uint i = 0; i < 1; ++i) {
            const uint position = begin + i * 32 + lane;
            score[i] = -INFINITY;
            if (position < keys) {
                device const float* key = head_keys + position * 32;
                float partial[4] = {};
                for (uint d = 0; d < 8; d += 4)
                    for (uint j = 0; j < 4; ++j) partial[j] += query[d + j] * key[d + j];
                score[i] = pairwise_sum<4>(partial) * 0.35355338f;
            }
            block_greatest = metal::max(block_greatest, score[i]);
        }
        block_greatest = simd_max(block_greatest);
        const float keep = metal::exp(greatest - block_greatest);
        greatest = block_greatest;
        float block_total = 0.0f;
        for (uint i = 0; i < 1; ++i) {
            score[i] = metal::exp(score[i] - greatest);
            block_total += score[i];
        }
        total = total * keep + simd_sum(block_total);
        for (uint i = 0; i < 1; ++i) mixed[i] *= keep;
        const uint count = metal::min(32u, keys - begin);
        for (uint j = 0; j < count; ++j) {
            const float weight = simd_shuffle(score[j / 32], ushort(j % 32));
            device const float* value = head_values + (begin + j) * 32;
            for (uint i = 0; i < 1; ++i) {
                const uint d = i * 32 + lane;
                if (d < 8) mixed[i] += weight * value[d];
            }
        }
    }
    for (uint i = 0; i < 1; ++i) {
        const uint d = i * 32 + lane;
        if (d < 8) {
            const uint n = head * 8 + d;
            const float v0 = mixed[i] / total;
            y[t * 64 + n] = v0;
        }
    }
}

/// Each vector of x times the rows of a matrix, 64 x 64; then add.
kernel void matmul_f32_add_64x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 64;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            const float v1 = r2[t * 64 + n] + v0;
            y[t * 64 + n] = v1;
        }
    }
}

/// Each vector of x times the rows of 2 matrices, 172 x 64; then silu, mul.
kernel void matmul_f32_silu_mul_172x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* weight1 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 64;
    float sums0[4][4] = {};
    float sums1[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = metal::min(first + r, 171u);
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
                sums1[r][j] += row[k] * weight1[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        const float v1 = simd_sum(pairwise_sum<4>(sums1[r]));
        if (lane == 0 && n < 172) {
            const float v2 = silu(v0);
            const float v3 = v2 * v1;
            y[t * 172 + n] = v3;
        }
    }
}

/// Each vector of x times the rows of a matrix, 64 x 172; then add.
kernel void matmul_f32_add_64x172_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 172;
    float sums0[4][4] = {};
    for (uint k = lane * 4; k < 128; k += 128) {
        for (uint r = 0; r < 4; ++r) {
            const uint m = first + r;
            device const float* block0 = weight + m * 172 + k;
            for (uint j = 0; j < 4; ++j) {
                sums0[r][j] += row[k + j] * block0[j];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = 128 + j * 32 + lane;
            if (k < 172) {
                sums0[r][j] += row[k] * weight[m * 172 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            const float v1 = r2[t * 64 + n] + v0;
            y[t * 64 + n] = v1;
        }
    }
}

/// The vector x times the rows of a matrix, 64 x 64; then add.
kernel void matvec_f32_add_64x64_last(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + (step.tokens - 1) * 64;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            const float v1 = r2[(step.tokens - 1) * 64 + n] + v0;
            y[n] = v1;
        }
    }
}

/// Each vector of x times the rows of a matrix, 512 x 64.
kernel void matmul_f32_512x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    const uint first = (group.y * 2 + simdgroup) * 4;
    device const float* row = x + t * 64;
    float sums0[4][4] = {};
    for (uint r = 0; r < 4; ++r) {
        const uint m = first + r;
        for (uint j = 0; j < 2; ++j) {
            const uint k = j * 32 + lane;
            if (k < 64) {
                sums0[r][j] += row[k] * weight[m * 64 + k];
            }
        }
    }
    for (uint r = 0; r < 4; ++r) {
        const uint n = first + r;
        const float v0 = simd_sum(pairwise_sum<4>(sums0[r]));
        if (lane == 0) {
            y[t * 512 + n] = v0;
        }
    }
}
