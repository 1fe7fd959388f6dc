// llama for target cpu, written by upgc 0.1.0. Compile the model again instead of editing this.
#include <metal_stdlib>
using namespace metal;

/// What changes from step to step.
struct Step {
    uint position;  // of the step's first token in the text
    uint tokens;    // of this step
};

/// The value of bfloat16 bits.
inline float bf16(ushort bits) { return as_type<float>(uint(bits) << 16); }

inline float silu(float x) { return x / (1.0f + metal::exp(-x)); }

/// The tanh form of GELU.
inline float gelu(float x) {
    return 0.5f * x * (1.0f + metal::precise::tanh(0.797884561f * (x + 0.044715f * x * x * x)));
}

/// Sum of N partial sums, N a power of two, pairwise. The sums are spent.
template <uint N>
inline float pairwise_sum(thread float* partial) {
    for (uint j = 0; j < N / 2; ++j) partial[j] += partial[j + N / 2];
    return pairwise_sum<N / 2>(partial);
}
template <>
inline float pairwise_sum<1>(thread float* partial) { return partial[0]; }

/// The greatest of N values, likewise.
template <uint N>
inline float pairwise_max(thread float* values) {
    for (uint j = 0; j < N / 2; ++j) values[j] = metal::max(values[j], values[j + N / 2]);
    return pairwise_max<N / 2>(values);
}
template <>
inline float pairwise_max<1>(thread float* values) { return values[0]; }

/// Sum over the threads of a threadgroup; `scratch` has a float for each simdgroup.
template <uint simdgroups>
inline float threadgroup_sum(float x, threadgroup float* scratch, uint lane, uint simdgroup) {
    x = simd_sum(x);
    if (lane == 0) scratch[simdgroup] = x;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    x = 0.0f;
    for (uint s = 0; s < simdgroups; ++s) x += scratch[s];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return x;
}

/// Maximum over the threads of a threadgroup, likewise.
template <uint simdgroups>
inline float threadgroup_max(float x, threadgroup float* scratch, uint lane, uint simdgroup) {
    x = simd_max(x);
    if (lane == 0) scratch[simdgroup] = x;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint s = 0; s < simdgroups; ++s) x = metal::max(x, scratch[s]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return x;
}

/// Philox 2x32-10 (Salmon et al. 2011): random bits for a counter of two words and a key.
inline uint philox(uint low, uint high, uint key) {
    for (uint round = 0; round < 10; ++round) {
        const uint product = metal::mulhi(0xd256d193u, low);
        const uint rest = 0xd256d193u * low;
        low = product ^ key ^ high;
        high = rest;
        key += 0x9e3779b9u;
    }
    return low;
}

/// A standard Gumbel variate: -ln(-ln u) of a uniform u in (0, 1) with 23 bits.
inline float gumbel(uint id, uint position, uint seed) {
    const float u = (float(philox(id, position, seed) >> 9) + 0.5f) * 1.1920929e-7f;
    return -metal::precise::log(-metal::precise::log(u));
}

/// An unsigned number that compares as the float does; 0 and -0 are the same.
inline uint order_key(float x) {
    const uint bits = as_type<uint>(x);
    return bits >> 31 != 0 ? 0u - bits : bits | 0x80000000u;
}

/// A stored element as a float; bfloat16 travels as its bits.
inline float real(float x) { return x; }
inline float real(half x) { return float(x); }
inline float real(ushort bits) { return bf16(bits); }

/// The products of `rows` rows of matrices with x, all of `length` elements. Every lane gets all sums; it takes `vector`
/// contiguous elements at a time, each with a partial sum of its own.
template <uint rows, uint vector, uint lanes, uint length, typename X, typename Row>
inline void multiply_rows(X x, thread const Row* matrix, uint lane, thread float* products) {
    float sums[rows][vector] = {};
    const uint stride = lanes * vector;
    const uint whole = length / stride * stride;
    for (uint k = lane * vector; k < whole; k += stride)
        for (uint r = 0; r < rows; ++r)
            for (uint j = 0; j < vector; ++j) sums[r][j] += x[k + j] * real(matrix[r][k + j]);
    for (uint r = 0; r < rows; ++r)
        for (uint j = 0; whole + j * lanes < length; ++j) {
            const uint k = whole + j * lanes + lane;
            if (k < length) sums[r][j] += x[k] * real(matrix[r][k]);
        }
    // Vectorised across rows, this would transpose the sums.
    #pragma clang loop vectorize(disable)
    for (uint r = 0; r < rows; ++r) products[r] = simd_sum(pairwise_sum<vector>(sums[r]));
}

/// Where the element lies in a row of heads that comes `slot`-th when the two of every rotated pair follow each other.
template <uint width, uint dims>
inline uint pair_order(uint slot) {
    const uint i = slot % width;
    return i < dims ? slot - i + i / 2 + i % 2 * (dims / 2) : slot;
}

/// Row ids[t] of a table with 64 columns.
kernel void embed_f32_64(
    device const int* ids [[buffer(0)]],
    device const float* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = table + uint(ids[step.position]) * 64;
    for (uint n = group.y * 4096 + thread_index; n < metal::min(64u, (group.y + 1) * 4096); n += 1) {
        const float v0 = row[n];
        y[n] = v0;
    }
}

/// The vector x times the rows of matrices, 64 + 32 + 32 x 64; x first: norm.
/// Result 0: then rope.
/// Result 1: then rope; into the cache.
/// Result 2: into the cache.
kernel void matvec_f32_norm_rope_cache_64_32_32x64(
    device const float* x [[buffer(0)]],
    device const float* gain [[buffer(1)]],
    device const float* weight0 [[buffer(2)]],
    device const float* angles [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    device float* y0 [[buffer(5)]],
    device const float* weight1 [[buffer(6)]],
    device float* cache1 [[buffer(7)]],
    device const float* weight2 [[buffer(8)]],
    device float* cache2 [[buffer(9)]],
    threadgroup float* prepared [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[16] = {};
    for (uint k = thread_index * 16; k < 64; k += 16) {
        device const float* block = row + k;
        for (uint j = 0; j < 16; ++j) squares[j] += block[j] * block[j];
    }
    const float total = simd_sum(pairwise_sum<16>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 1) prepared[i] = row[i] * factor * gain[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 32; block += 1) {
        if (block < 16) {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = pair_order<8, 8>(first + r);
                matrix[r] = weight0 + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            device const float* angle = angles + step.position * 8;
            for (uint r = 0; r < 4; r += 2) {
                if (lane == 0) {
                    const uint n0 = pair_order<8, 8>(first + r);
                    const uint n1 = pair_order<8, 8>(first + r + 1);
                    const uint i = n0 % 8;
                    const float c = angle[i];
                    const float s = angle[i + 4];
                    const float a = products[r];
                    const float b = products[r + 1];
                    {
                        const uint n = n0;
                        const float v0 = a * c - b * s;
                        y0[n] = v0;
                    }
                    {
                        const uint n = n1;
                        const float v0 = b * c + a * s;
                        y0[n] = v0;
                    }
                }
            }
        } else if (block < 24) {
            const uint first = (block - 16) * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = pair_order<8, 8>(first + r);
                matrix[r] = weight1 + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            device const float* angle = angles + step.position * 8;
            for (uint r = 0; r < 4; r += 2) {
                if (lane == 0) {
                    const uint n0 = pair_order<8, 8>(first + r);
                    const uint n1 = pair_order<8, 8>(first + r + 1);
                    const uint i = n0 % 8;
                    const float c = angle[i];
                    const float s = angle[i + 4];
                    const float a = products[r];
                    const float b = products[r + 1];
                    {
                        const uint n = n0;
                        const float v0 = a * c - b * s;
                        cache1[step.position * 32 + n] = v0;
                    }
                    {
                        const uint n = n1;
                        const float v0 = b * c + a * s;
                        cache1[step.position * 32 + n] = v0;
                    }
                }
            }
        } else {
            const uint first = (block - 24) * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight2 + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    cache2[step.position * 32 + n] = v0;
                }
            }
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
    const uint start = 0;
    const uint end = keys;
    device const float* query = q + head * 8;
    device const float* head_keys = k + (head / 2) * 8;
    device const float* head_values = v + (head / 2) * 8;
    // Softmax over blocks of 32 positions: the greatest score so far, and sums scaled to it.
    float greatest = -INFINITY;
    float total = 0.0f;
    float mixed[8] = {};
    for (uint begin = start; begin < end; begin += 32) {
        float score[32];
        for (uint i = 0; i < 32; ++i) {
            const uint own = begin + i + lane;
            const uint position = metal::min(own, end - 1);
            device const float* key = head_keys + position * 32;
            float partial[8] = {};
            for (uint d = 0; d < 8; d += 8)
                for (uint j = 0; j < 8; ++j) partial[j] += query[d + j] * key[d + j];
            score[i] = own < end ? pairwise_sum<8>(partial) * 0.35355338f : -INFINITY;
        }
        float power[32];
        for (uint i = 0; i < 32; ++i) power[i] = score[i];
        const float block_greatest = metal::max(greatest, simd_max(pairwise_max<32>(power)));
        const float keep = metal::exp(greatest - block_greatest);
        greatest = block_greatest;
        for (uint i = 0; i < 32; ++i) score[i] = metal::exp(score[i] - greatest);
        for (uint i = 0; i < 32; ++i) power[i] = score[i];
        total = total * keep + simd_sum(pairwise_sum<32>(power));
        for (uint i = 0; i < 8; ++i) mixed[i] *= keep;
        const uint count = metal::min(32u, end - begin);
        for (uint j = 0; j < count; ++j) {
            const float weight = simd_shuffle(score[j], ushort(0));
            device const float* value = head_values + (begin + j) * 32;
            for (uint i = 0; i < 8; ++i) {
                const uint d = i + lane;
                if (d < 8) mixed[i] += weight * value[d];
            }
        }
    }
    for (uint i = 0; i < 8; ++i) {
        const uint d = i + lane;
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
    uint lane [[thread_index_in_simdgroup]]
) {
    device const float* operand = x;
    for (uint block = group.y; block < 16; block += 16) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = r2[n] + v0;
                    y[n] = v1;
                }
            }
        }
    }
}

/// The vector x times the rows of matrices, 172 x 64; x first: norm; then silu, mul.
kernel void matvec_f32_norm_silu_mul_172x64(
    device const float* x [[buffer(0)]],
    device const float* gain [[buffer(1)]],
    device const float* weight [[buffer(2)]],
    device const float* weight_1 [[buffer(3)]],
    device float* y [[buffer(4)]],
    threadgroup float* prepared [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[16] = {};
    for (uint k = thread_index * 16; k < 64; k += 16) {
        device const float* block = row + k;
        for (uint j = 0; j < 16; ++j) squares[j] += block[j] * block[j];
    }
    const float total = simd_sum(pairwise_sum<16>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 1) prepared[i] = row[i] * factor * gain[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 43; block += 1) {
        {
            const uint first = block * 4;
            device const float* matrix[8];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
                matrix[4 + r] = weight_1 + n * 64;
            }
            float products[8];
            multiply_rows<8, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = products[4 + r];
                    const float v2 = silu(v0);
                    const float v3 = v2 * v1;
                    y[n] = v3;
                }
            }
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
    uint lane [[thread_index_in_simdgroup]]
) {
    device const float* operand = x;
    for (uint block = group.y; block < 16; block += 16) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 172;
            }
            float products[4];
            multiply_rows<4, 16, 1, 172>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = r2[n] + v0;
                    y[n] = v1;
                }
            }
        }
    }
}

/// The vector x times the rows of a matrix, 512 x 64; x first: norm.
kernel void matvec_f32_norm_512x64(
    device const float* x [[buffer(0)]],
    device const float* gain [[buffer(1)]],
    device const float* weight [[buffer(2)]],
    device float* y [[buffer(3)]],
    threadgroup float* prepared [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[16] = {};
    for (uint k = thread_index * 16; k < 64; k += 16) {
        device const float* block = row + k;
        for (uint j = 0; j < 16; ++j) squares[j] += block[j] * block[j];
    }
    const float total = simd_sum(pairwise_sum<16>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 1) prepared[i] = row[i] * factor * gain[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 128; block += 1) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    y[n] = v0;
                }
            }
        }
    }
}

/// Draws the next of 512 ids, stores it after the tokens so far and ends the step.
kernel void sample_512(
    device const float* x [[buffer(0)]],
    device const float* sampling [[buffer(1)]],
    device const int* seed [[buffer(2)]],
    device int* ids [[buffer(3)]],
    device Step& step [[buffer(4)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]]
) {
    device const float* row = x;
    const float temperature = sampling[0];
    const uint next = step.position + step.tokens;
    const float top_k = sampling[1];
    const float top_p = sampling[2];
    const float min_p = sampling[3];
    const bool limited = top_k > 0.0f && top_k < 512.0f;
    // Whether any id may be drawn, or the likeliest is wanted.
    const bool every = temperature <= 0.0f || (!limited && top_p >= 1.0f && min_p <= 0.0f);
    // Candidates are the elements with keys of at least `least` that are not below `lowest`.
    uint least = 0;
    float lowest = -INFINITY;
    if (!every) {
        float most = -INFINITY;
        for (uint i = thread_index; i < 512; i += 1) most = metal::max(most, row[i]);
        const float greatest = simd_max(most);
        if (limited) {
            // The greatest key that no fewer than top_k elements have reached.
            uint high = order_key(greatest);
            while (least < high) {
                const uint middle = high - (high - least) / 2;
                float own = 0.0f;
                for (uint i = thread_index; i < 512; i += 1)
                    if (order_key(row[i]) >= middle) own += 1.0f;
                if (simd_sum(own) >= top_k) least = middle;
                else high = middle - 1;
            }
        }
        if (top_p < 1.0f) {
            float own = 0.0f;
            for (uint i = thread_index; i < 512; i += 1)
                if (order_key(row[i]) >= least) own += metal::exp((row[i] - greatest) / temperature);
            const float enough = top_p * simd_sum(own);
            // The least key above which there is not enough.
            uint high = order_key(greatest);
            while (least < high) {
                const uint middle = least + (high - least) / 2;
                own = 0.0f;
                for (uint i = thread_index; i < 512; i += 1)
                    if (order_key(row[i]) > middle) own += metal::exp((row[i] - greatest) / temperature);
                if (simd_sum(own) < enough) high = middle;
                else least = middle + 1;
            }
        }
        if (min_p > 0.0f) lowest = greatest + temperature * metal::precise::log(min_p);
    }
    float best = -INFINITY;
    uint index = 512;
    // Elements are loaded a few at a time: one after the other, each would be waited for.
    for (uint begin = thread_index; begin < 512; begin += 1 * 1) {
        float own[1];
        for (uint j = 0; j < 1; ++j) own[j] = row[metal::min(begin + j * 1, 512u - 1)];
        for (uint j = 0; j < 1; ++j) {
            const uint i = begin + j * 1;
            if (i >= 512 || order_key(own[j]) < least || own[j] < lowest) continue;
            const float noise = temperature > 0.0f ? temperature * gumbel(i, next, uint(seed[0])) : 0.0f;
            if (own[j] + noise > best) {
                best = own[j] + noise;
                index = i;
            }
        }
    }
    const float highest = simd_max(best);
    // The lowest of equals; ids are exact as floats.
    const uint winner = uint(-simd_max(best == highest ? -float(index) : -512.0f));
    if (thread_index == 0) {
        ids[next] = int(winner % 512);
        step.position = next;
    }
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
    device const float* row = table + uint(ids[step.position + t]) * 64;
    for (uint n = group.y * 4096 + thread_index; n < metal::min(64u, (group.y + 1) * 4096); n += 1) {
        const float v0 = row[n];
        y[t * 64 + n] = v0;
    }
}

/// Each vector of x times the rows of matrices, 64 + 32 + 32 x 64; x first: norm.
/// Result 0: then rope.
/// Result 1: then rope; into the cache.
/// Result 2: into the cache.
kernel void matmul_f32_norm_rope_cache_64_32_32x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* gain [[buffer(1)]],
    device const float* weight0 [[buffer(2)]],
    device const float* angles [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    device float* y0 [[buffer(5)]],
    device const float* weight1 [[buffer(6)]],
    device float* cache1 [[buffer(7)]],
    device const float* weight2 [[buffer(8)]],
    device float* cache2 [[buffer(9)]],
    threadgroup float* prepared [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* row = x + t * 64;
    float squares[16] = {};
    for (uint k = thread_index * 16; k < 64; k += 16) {
        device const float* block = row + k;
        for (uint j = 0; j < 16; ++j) squares[j] += block[j] * block[j];
    }
    const float total = simd_sum(pairwise_sum<16>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 1) prepared[i] = row[i] * factor * gain[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 32; block += 1) {
        if (block < 16) {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = pair_order<8, 8>(first + r);
                matrix[r] = weight0 + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            device const float* angle = angles + (step.position + t) * 8;
            for (uint r = 0; r < 4; r += 2) {
                if (lane == 0) {
                    const uint n0 = pair_order<8, 8>(first + r);
                    const uint n1 = pair_order<8, 8>(first + r + 1);
                    const uint i = n0 % 8;
                    const float c = angle[i];
                    const float s = angle[i + 4];
                    const float a = products[r];
                    const float b = products[r + 1];
                    {
                        const uint n = n0;
                        const float v0 = a * c - b * s;
                        y0[t * 64 + n] = v0;
                    }
                    {
                        const uint n = n1;
                        const float v0 = b * c + a * s;
                        y0[t * 64 + n] = v0;
                    }
                }
            }
        } else if (block < 24) {
            const uint first = (block - 16) * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = pair_order<8, 8>(first + r);
                matrix[r] = weight1 + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            device const float* angle = angles + (step.position + t) * 8;
            for (uint r = 0; r < 4; r += 2) {
                if (lane == 0) {
                    const uint n0 = pair_order<8, 8>(first + r);
                    const uint n1 = pair_order<8, 8>(first + r + 1);
                    const uint i = n0 % 8;
                    const float c = angle[i];
                    const float s = angle[i + 4];
                    const float a = products[r];
                    const float b = products[r + 1];
                    {
                        const uint n = n0;
                        const float v0 = a * c - b * s;
                        cache1[(step.position + t) * 32 + n] = v0;
                    }
                    {
                        const uint n = n1;
                        const float v0 = b * c + a * s;
                        cache1[(step.position + t) * 32 + n] = v0;
                    }
                }
            }
        } else {
            const uint first = (block - 24) * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight2 + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    cache2[(step.position + t) * 32 + n] = v0;
                }
            }
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
    const uint start = 0;
    const uint end = keys;
    device const float* query = q + t * 64 + head * 8;
    device const float* head_keys = k + (head / 2) * 8;
    device const float* head_values = v + (head / 2) * 8;
    // Softmax over blocks of 32 positions: the greatest score so far, and sums scaled to it.
    float greatest = -INFINITY;
    float total = 0.0f;
    float mixed[8] = {};
    for (uint begin = start; begin < end; begin += 32) {
        float score[32];
        for (uint i = 0; i < 32; ++i) {
            const uint own = begin + i + lane;
            const uint position = metal::min(own, end - 1);
            device const float* key = head_keys + position * 32;
            float partial[8] = {};
            for (uint d = 0; d < 8; d += 8)
                for (uint j = 0; j < 8; ++j) partial[j] += query[d + j] * key[d + j];
            score[i] = own < end ? pairwise_sum<8>(partial) * 0.35355338f : -INFINITY;
        }
        float power[32];
        for (uint i = 0; i < 32; ++i) power[i] = score[i];
        const float block_greatest = metal::max(greatest, simd_max(pairwise_max<32>(power)));
        const float keep = metal::exp(greatest - block_greatest);
        greatest = block_greatest;
        for (uint i = 0; i < 32; ++i) score[i] = metal::exp(score[i] - greatest);
        for (uint i = 0; i < 32; ++i) power[i] = score[i];
        total = total * keep + simd_sum(pairwise_sum<32>(power));
        for (uint i = 0; i < 8; ++i) mixed[i] *= keep;
        const uint count = metal::min(32u, end - begin);
        for (uint j = 0; j < count; ++j) {
            const float weight = simd_shuffle(score[j], ushort(0));
            device const float* value = head_values + (begin + j) * 32;
            for (uint i = 0; i < 8; ++i) {
                const uint d = i + lane;
                if (d < 8) mixed[i] += weight * value[d];
            }
        }
    }
    for (uint i = 0; i < 8; ++i) {
        const uint d = i + lane;
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
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* operand = x + t * 64;
    for (uint block = group.y; block < 16; block += 16) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = r2[t * 64 + n] + v0;
                    y[t * 64 + n] = v1;
                }
            }
        }
    }
}

/// Each vector of x times the rows of matrices, 172 x 64; x first: norm; then silu, mul.
kernel void matmul_f32_norm_silu_mul_172x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* gain [[buffer(1)]],
    device const float* weight [[buffer(2)]],
    device const float* weight_1 [[buffer(3)]],
    device float* y [[buffer(4)]],
    constant Step& step [[buffer(5)]],
    threadgroup float* prepared [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* row = x + t * 64;
    float squares[16] = {};
    for (uint k = thread_index * 16; k < 64; k += 16) {
        device const float* block = row + k;
        for (uint j = 0; j < 16; ++j) squares[j] += block[j] * block[j];
    }
    const float total = simd_sum(pairwise_sum<16>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 1) prepared[i] = row[i] * factor * gain[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 43; block += 1) {
        {
            const uint first = block * 4;
            device const float* matrix[8];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
                matrix[4 + r] = weight_1 + n * 64;
            }
            float products[8];
            multiply_rows<8, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = products[4 + r];
                    const float v2 = silu(v0);
                    const float v3 = v2 * v1;
                    y[t * 172 + n] = v3;
                }
            }
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
    uint lane [[thread_index_in_simdgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* operand = x + t * 172;
    for (uint block = group.y; block < 16; block += 16) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 172;
            }
            float products[4];
            multiply_rows<4, 16, 1, 172>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = r2[t * 64 + n] + v0;
                    y[t * 64 + n] = v1;
                }
            }
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
    uint lane [[thread_index_in_simdgroup]]
) {
    device const float* operand = x + (step.tokens - 1) * 64;
    for (uint block = group.y; block < 16; block += 16) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = r2[(step.tokens - 1) * 64 + n] + v0;
                    y[n] = v1;
                }
            }
        }
    }
}

/// Each vector of x times the rows of a matrix, 512 x 64; x first: norm.
kernel void matmul_f32_norm_512x64_tokens(
    device const float* x [[buffer(0)]],
    device const float* gain [[buffer(1)]],
    device const float* weight [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    threadgroup float* prepared [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* row = x + t * 64;
    float squares[16] = {};
    for (uint k = thread_index * 16; k < 64; k += 16) {
        device const float* block = row + k;
        for (uint j = 0; j < 16; ++j) squares[j] += block[j] * block[j];
    }
    const float total = simd_sum(pairwise_sum<16>(squares));
    const float factor = metal::precise::rsqrt(total / 64.0f + 0.00001f);
    for (uint i = thread_index; i < 64; i += 1) prepared[i] = row[i] * factor * gain[i];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 128; block += 1) {
        {
            const uint first = block * 4;
            device const float* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 64;
            }
            float products[4];
            multiply_rows<4, 16, 1, 64>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    y[t * 512 + n] = v0;
                }
            }
        }
    }
}
