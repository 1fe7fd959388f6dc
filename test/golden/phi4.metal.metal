// phi4 for target metal, written by upgc 0.1.0. Compile the model again instead of editing this.
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
    for (uint r = 0; r < rows; ++r) products[r] = simd_sum(pairwise_sum<vector>(sums[r]));
}

/// Two numbers as halves; what is beyond the greatest half becomes that.
inline uint two_halves(float a, float b) {
    return as_type<uint>(half2(metal::clamp(float2(a, b), -65504.0f, 65504.0f)));
}

/// A matrix is multiplied 64 bytes of its rows at a time, which are 32 halves or 16 floats. This is what one of two threads
/// takes of a row: elements 8 * part to 8 * part + 7, and of halves those 16 further on.
struct float_part { float4 elements[2]; };
struct half_part { uint4 elements[2]; };
struct ushort_part { uint4 elements[2]; };

inline float_part load_part(device const float* row, uint run, uint part) {
    device const float4* own = (device const float4*)row + run * 4 + part * 2;
    return { {own[0], own[1]} };
}
inline half_part load_part(device const half* row, uint run, uint part) {
    device const uint4* own = (device const uint4*)row + run * 4 + part;
    return { {own[0], own[2]} };
}
inline ushort_part load_part(device const ushort* row, uint run, uint part) {
    device const uint4* own = (device const uint4*)row + run * 4 + part;
    return { {own[0], own[2]} };
}

/// Stores it in a row of threadgroup memory, as it is multiplied.
inline void store_part(thread const float_part& own, uint part, threadgroup float* row) {
    threadgroup float4* to = (threadgroup float4*)row + part * 2;
    to[0] = own.elements[0];
    to[1] = own.elements[1];
}
inline void store_part(thread const half_part& own, uint part, threadgroup half* row) {
    threadgroup uint4* to = (threadgroup uint4*)row + part;
    to[0] = own.elements[0];
    to[2] = own.elements[1];
}
inline uint two_halves(uint two_bfloats) {
    return two_halves(as_type<float>(two_bfloats << 16), as_type<float>(two_bfloats & 0xffff0000u));
}
inline uint4 eight_halves(uint4 bfloats) {
    return uint4(two_halves(bfloats.x), two_halves(bfloats.y), two_halves(bfloats.z), two_halves(bfloats.w));
}
inline void store_part(thread const ushort_part& own, uint part, threadgroup half* row) {
    threadgroup uint4* to = (threadgroup uint4*)row + part;
    to[0] = eight_halves(own.elements[0]);
    to[2] = eight_halves(own.elements[1]);
}

/// 16 bytes of a vector, likewise.
inline void store_piece(thread const float4* own, threadgroup float* to) { *(threadgroup float4*)to = own[0]; }
inline void store_piece(thread const float4* own, threadgroup half* to) {
    *(threadgroup uint4*)to = uint4(two_halves(own[0].x, own[0].y), two_halves(own[0].z, own[0].w),
                                    two_halves(own[1].x, own[1].y), two_halves(own[1].z, own[1].w));
}

/// The products of 64 rows of a matrix with 32 vectors, of which each simdgroup has 32 x 16. Two threads
/// take a row, four a vector; `x` and `starts` say where the vectors begin. What is multiplied next is loaded before the
/// present is multiplied.
template <uint length, typename T, typename Part, typename Row>
inline void multiply_tile(Row row, device const float* x, thread const uint* starts, threadgroup T* tiles, uint thread_index,
                          uint simdgroup, thread simdgroup_float8x8* sums) {
    const uint depth = 64 / sizeof(T);
    const uint stride = 80 / sizeof(T);
    const uint quads = 4 / sizeof(T);
    const uint steps = length / depth;
    const uint part = thread_index % 2;
    const uint piece = thread_index % 4;
    threadgroup T* matrix = tiles;
    threadgroup T* vectors = tiles + 64 * stride;
    for (uint i = 0; i < 8; ++i) sums[i] = make_filled_simdgroup_matrix<float, 8>(0.0f);
    Part own_row = load_part(row, 0, part);
    float4 own_vectors[1][quads];
    for (uint i = 0; i < 1; ++i)
        for (uint q = 0; q < quads; ++q) own_vectors[i][q] = ((device const float4*)(x + starts[i]))[piece * quads + q];
    for (uint step = 0; step < steps; ++step) {
        const uint stage = step % 2 * 96;
        store_part(own_row, part, matrix + (stage + thread_index / 2) * stride);
        for (uint i = 0; i < 1; ++i)
            store_piece(own_vectors[i], vectors + (stage + (i * 128 + thread_index) / 4) * stride + piece * 4 * quads);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (step + 1 < steps) {
            own_row = load_part(row, step + 1, part);
            for (uint i = 0; i < 1; ++i)
                for (uint q = 0; q < quads; ++q)
                    own_vectors[i][q] = ((device const float4*)(x + starts[i]))[((step + 1) * 4 + piece) * quads + q];
        }
        threadgroup const T* a = matrix + (stage + simdgroup % 2 * 32) * stride;
        threadgroup const T* b = vectors + (stage + simdgroup / 2 * 16) * stride;
        #pragma unroll
        for (uint k = 0; k < depth; k += 8) {
            simdgroup_matrix<T, 8, 8> left[4];
            simdgroup_matrix<T, 8, 8> right[2];
            for (uint i = 0; i < 4; ++i) simdgroup_load(left[i], a + i * 8 * stride + k, stride);
            for (uint j = 0; j < 2; ++j) simdgroup_load(right[j], b + j * 8 * stride + k, stride, 0, true);
            for (uint i = 0; i < 4; ++i)
                for (uint j = 0; j < 2; ++j)
                    simdgroup_multiply_accumulate(sums[i * 2 + j], left[i], right[j], sums[i * 2 + j]);
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
}

/// Stores the products of a simdgroup, those of a token side by side.
inline void store_tile(thread simdgroup_float8x8* sums, threadgroup float* products, uint simdgroup) {
    products += simdgroup % 2 * 32;
    for (uint i = 0; i < 4; ++i)
        for (uint j = 0; j < 2; ++j)
            simdgroup_store(sums[i * 2 + j], products + j * 8 * 68 + i * 8, 68, 0, true);
}

/// Where the element lies in a row of heads that comes `slot`-th when the two of every rotated pair follow each other.
template <uint width, uint dims>
inline uint pair_order(uint slot) {
    const uint i = slot % width;
    return i < dims ? slot - i + i / 2 + i % 2 * (dims / 2) : slot;
}

/// The elements of a vector; a uint4 has the bits of eight halves.
inline void unpack(float4 x, thread float* elements) {
    elements[0] = x.x;
    elements[1] = x.y;
    elements[2] = x.z;
    elements[3] = x.w;
}
inline void unpack(half4 x, thread float* elements) {
    elements[0] = float(x.x);
    elements[1] = float(x.y);
    elements[2] = float(x.z);
    elements[3] = float(x.w);
}
inline void unpack(uint4 bits, thread float* elements) {
    const half2 a = as_type<half2>(bits.x);
    const half2 b = as_type<half2>(bits.y);
    const half2 c = as_type<half2>(bits.z);
    const half2 d = as_type<half2>(bits.w);
    elements[0] = float(a.x);
    elements[1] = float(a.y);
    elements[2] = float(b.x);
    elements[3] = float(b.y);
    elements[4] = float(c.x);
    elements[5] = float(c.y);
    elements[6] = float(d.x);
    elements[7] = float(d.y);
}

/// Sum over the lanes whose number differs in the bits from `first` up to below `end`, both powers of two.
template <uint first, uint end>
inline float lanes_sum(float x) {
    for (uint bit = first; bit < end; bit *= 2) x += simd_shuffle_xor(x, ushort(bit));
    return x;
}

/// Maximum over them.
template <uint first, uint end>
inline float lanes_max(float x) {
    for (uint bit = first; bit < end; bit *= 2) x = metal::max(x, simd_shuffle_xor(x, ushort(bit)));
    return x;
}

/// Row ids[t] of a table with 5120 columns.
kernel void embed_bf16_5120(
    device const int* ids [[buffer(0)]],
    device const ushort* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const ushort* row = table + uint(ids[step.position]) * 5120;
    for (uint n = group.y * 1024 + thread_index; n < metal::min(5120u, (group.y + 1) * 1024); n += 256) {
        const float v0 = bf16(row[n]);
        y[n] = v0;
    }
}

/// The vector x times the rows of a matrix, 5120 + 1280 + 1280 x 5120; x first: norm.
/// Result 0: then rope.
/// Result 1: then rope; into the cache.
/// Result 2: into the cache.
kernel void matvec_bf16_norm_rope_cache_5120_1280_1280x5120(
    device const float* x [[buffer(0)]],
    device const ushort* gain [[buffer(1)]],
    device const ushort* weight0 [[buffer(2)]],
    device const float* angles [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    device float* y0 [[buffer(5)]],
    device float* cache1 [[buffer(6)]],
    device float* cache2 [[buffer(7)]],
    threadgroup float* scratch [[threadgroup(0)]],
    threadgroup float* prepared [[threadgroup(1)]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[4] = {};
    for (uint k = thread_index * 4; k < 5120; k += 1024) {
        device const float* block = row + k;
        for (uint j = 0; j < 4; ++j) squares[j] += block[j] * block[j];
    }
    const float total = threadgroup_sum<8>(pairwise_sum<4>(squares), scratch, lane, simdgroup);
    const float factor = metal::precise::rsqrt(total / 5120.0f + 0.00001f);
    for (uint i = thread_index; i < 5120; i += 256) prepared[i] = row[i] * factor * bf16(gain[i]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 240; block += 240) {
        if (block < 160) {
            const uint first = (block * 8 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = pair_order<128, 128>(first + r);
                matrix[r] = weight0 + n * 5120;
            }
            float products[4];
            multiply_rows<4, 4, 32, 5120>(operand, matrix, lane, products);
            device const float* angle = angles + step.position * 128;
            for (uint r = 0; r < 4; r += 2) {
                if (lane == 0) {
                    const uint n0 = pair_order<128, 128>(first + r);
                    const uint n1 = pair_order<128, 128>(first + r + 1);
                    const uint i = n0 % 128;
                    const float c = angle[i];
                    const float s = angle[i + 64];
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
        } else if (block < 200) {
            const uint first = ((block - 160) * 8 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = pair_order<128, 128>(first + r);
                matrix[r] = weight0 + (n + 5120) * 5120;
            }
            float products[4];
            multiply_rows<4, 4, 32, 5120>(operand, matrix, lane, products);
            device const float* angle = angles + step.position * 128;
            for (uint r = 0; r < 4; r += 2) {
                if (lane == 0) {
                    const uint n0 = pair_order<128, 128>(first + r);
                    const uint n1 = pair_order<128, 128>(first + r + 1);
                    const uint i = n0 % 128;
                    const float c = angle[i];
                    const float s = angle[i + 64];
                    const float a = products[r];
                    const float b = products[r + 1];
                    {
                        const uint n = n0;
                        const float v0 = a * c - b * s;
                        cache1[step.position * 1280 + n] = v0;
                    }
                    {
                        const uint n = n1;
                        const float v0 = b * c + a * s;
                        cache1[step.position * 1280 + n] = v0;
                    }
                }
            }
        } else {
            const uint first = ((block - 200) * 8 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight0 + (n + 6400) * 5120;
            }
            float products[4];
            multiply_rows<4, 4, 32, 5120>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    cache2[step.position * 1280 + n] = v0;
                }
            }
        }
    }
}

/// Causal attention of 40 heads over the cached keys and values of 10 in 32 parts, not yet divided: sums, greatest score, total of each.
kernel void attention_parts_32_40x10x128(
    device const float* q [[buffer(0)]],
    device const float* k [[buffer(1)]],
    device const float* v [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    threadgroup float* sums [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint tile = group.y / 32;
    const uint keys = step.position + 1;
    const uint first = 0;
    const uint count = 32 * ((keys - first + 1024 - 1) / 1024);
    const uint start = metal::min(keys, first + group.y % 32 * count);
    const uint end = metal::min(keys, start + count);
    // 32 lanes share a row of keys and values and hold their part of the queries. Of the rows that they take
    // they know the greatest score so far, and sums scaled to it.
    const uint part = lane % 32 * 4;
    const uint row = simdgroup * 1 + lane / 32;
    device const float* queries = q + tile * 512;
    device const float* head_keys = k + tile * 128 + part;
    device const float* head_values = v + tile * 128 + part;
    // The rows of a block are on their way while those before it are weighed; of the first one, all but the row of this step
    // before earlier kernels have finished.
    float4 key[4][1];
    float4 value[4][1];
    if (start < end) {
        const uint begin = start;
        for (uint r = 0; r < 4; ++r) {
            const uint position = metal::min(begin + r * 4 + row, end - 1);
            for (uint c = 0; c < 1; ++c)
                key[r][c] = *(device const float4*)(head_keys + position * 1280);
        }
        for (uint r = 0; r < 4; ++r) {
            const uint position = metal::min(begin + r * 4 + row, end - 1);
            for (uint c = 0; c < 1; ++c)
                value[r][c] = *(device const float4*)(head_values + position * 1280);
        }
    }
    float query[4][4];
    float greatest[4];
    float total[4];
    float mixed[4][4];
    for (uint h = 0; h < 4; ++h) {
        for (uint i = 0; i < 4; ++i) {
            query[h][i] = queries[h * 128 + part + i];
            mixed[h][i] = 0.0f;
        }
        greatest[h] = -3e38f;
        total[h] = 0.0f;
    }
    for (uint begin = start; begin < end;) {
        float score[4][4];
        for (uint r = 0; r < 4; ++r) {
            float x[4];
            for (uint c = 0; c < 1; ++c) unpack(key[r][c], x + c * 4);
            for (uint h = 0; h < 4; ++h) {
                float dot = 0.0f;
                for (uint i = 0; i < 4; ++i) dot += query[h][i] * x[i];
                dot = lanes_sum<1, 32>(dot);
                score[h][r] = begin + r * 4 + row < end ? dot * 0.088388346f : -INFINITY;
            }
        }
        begin += 16;
        if (begin < end) {
            for (uint r = 0; r < 4; ++r) {
                const uint position = metal::min(begin + r * 4 + row, end - 1);
                for (uint c = 0; c < 1; ++c)
                    key[r][c] = *(device const float4*)(head_keys + position * 1280);
            }
        }
        for (uint h = 0; h < 4; ++h) {
            float most = greatest[h];
            for (uint r = 0; r < 4; ++r) most = metal::max(most, score[h][r]);
            const float keep = metal::exp(greatest[h] - most);
            greatest[h] = most;
            total[h] *= keep;
            for (uint i = 0; i < 4; ++i) mixed[h][i] *= keep;
            for (uint r = 0; r < 4; ++r) {
                score[h][r] = metal::exp(score[h][r] - most);
                total[h] += score[h][r];
            }
        }
        for (uint r = 0; r < 4; ++r) {
            float x[4];
            for (uint c = 0; c < 1; ++c) unpack(value[r][c], x + c * 4);
            for (uint h = 0; h < 4; ++h)
                for (uint i = 0; i < 4; ++i) mixed[h][i] += score[h][r] * x[i];
        }
        if (begin < end) {
            for (uint r = 0; r < 4; ++r) {
                const uint position = metal::min(begin + r * 4 + row, end - 1);
                for (uint c = 0; c < 1; ++c)
                    value[r][c] = *(device const float4*)(head_values + position * 1280);
            }
        }
    }
    // All rows of a simdgroup, then those of all simdgroups.
    for (uint h = 0; h < 4; ++h) {
        const float most = lanes_max<32, 32>(greatest[h]);
        const float keep = metal::exp(greatest[h] - most);
        total[h] = lanes_sum<32, 32>(total[h] * keep);
        for (uint i = 0; i < 4; ++i) mixed[h][i] = lanes_sum<32, 32>(mixed[h][i] * keep);
        threadgroup float* own = sums + (simdgroup * 4 + h) * 130;
        if (lane < 32)
            for (uint i = 0; i < 4; ++i) own[part + i] = mixed[h][i];
        if (lane == 0) {
            own[128] = most;
            own[128 + 1] = total[h];
        }
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    for (uint i = thread_index; i < 512; i += 128) {
        const uint h = i / 128;
        const uint d = i % 128;
        float most = -INFINITY;
        for (uint s = 0; s < 4; ++s)
            most = metal::max(most, sums[(s * 4 + h) * 130 + 128]);
        float all = 0.0f;
        float element = 0.0f;
        for (uint s = 0; s < 4; ++s) {
            threadgroup const float* own = sums + (s * 4 + h) * 130;
            const float keep = metal::exp(own[128] - most);
            all += keep * own[128 + 1];
            element += keep * own[d];
        }
        device float* output = y + ((tile * 4 + h) * 32 + group.y % 32) * 130;
        output[d] = element;
        if (d == 0) {
            output[128] = start < end ? most : -INFINITY;
            output[128 + 1] = all;
        }
    }
}

/// Combines 32 parts of each of 40 heads.
kernel void attention_combine_32_40x128(
    device const float* parts [[buffer(0)]],
    device float* y [[buffer(1)]],
    threadgroup float* shares [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* head = parts + group.y * 4160;
    // An element of every part, on its way while the parts are weighed.
    const uint d = metal::min(thread_index, 128u - 1);
    float own[32];
    for (uint p = 0; p < 32; ++p) own[p] = head[p * 130 + d];
    // What each part adds to the softmax of the head; lanes take parts in turn.
    float power[1];
    float most = -INFINITY;
    for (uint i = 0; i < 1; ++i) {
        const uint p = i * 32 + lane;
        power[i] = head[p * 130 + 128];
        most = metal::max(most, power[i]);
    }
    most = simd_max(most);
    float total = 0.0f;
    for (uint i = 0; i < 1; ++i) {
        const uint p = i * 32 + lane;
        power[i] = metal::exp(power[i] - most);
        total += power[i] * head[p * 130 + 129];
    }
    total = simd_sum(total);
    for (uint i = 0; i < 1; ++i) {
        const uint p = i * 32 + thread_index;
        if (thread_index < 32) shares[p] = power[i] / total;
    }
    threadgroup_barrier(mem_flags::mem_threadgroup);
    if (thread_index < 128) {
        float mixed = 0.0f;
        for (uint p = 0; p < 32; ++p) mixed += shares[p] * own[p];
        const uint n = group.y * 128 + d;
        const float v0 = mixed;
        y[n] = v0;
    }
}

/// The vector x times the rows of a matrix, 5120 x 5120; then add.
kernel void matvec_bf16_add_5120x5120(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    device const float* operand = x;
    for (uint block = group.y; block < 640; block += 640) {
        {
            const uint first = (block * 2 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 5120;
            }
            float products[4];
            multiply_rows<4, 4, 32, 5120>(operand, matrix, lane, products);
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

/// The vector x times the rows of a matrix, 17920 x 5120; x first: norm; then silu, mul.
kernel void matvec_bf16_norm_silu_mul_17920x5120(
    device const float* x [[buffer(0)]],
    device const ushort* gain [[buffer(1)]],
    device const ushort* weight [[buffer(2)]],
    device float* y [[buffer(3)]],
    threadgroup float* scratch [[threadgroup(0)]],
    threadgroup float* prepared [[threadgroup(1)]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[4] = {};
    for (uint k = thread_index * 4; k < 5120; k += 1024) {
        device const float* block = row + k;
        for (uint j = 0; j < 4; ++j) squares[j] += block[j] * block[j];
    }
    const float total = threadgroup_sum<8>(pairwise_sum<4>(squares), scratch, lane, simdgroup);
    const float factor = metal::precise::rsqrt(total / 5120.0f + 0.00001f);
    for (uint i = thread_index; i < 5120; i += 256) prepared[i] = row[i] * factor * bf16(gain[i]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 560; block += 512) {
        {
            const uint first = (block * 8 + simdgroup) * 4;
            device const ushort* matrix[8];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 5120;
                matrix[4 + r] = weight + (n + 17920) * 5120;
            }
            float products[8];
            multiply_rows<8, 4, 32, 5120>(operand, matrix, lane, products);
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

/// The vector x times the rows of a matrix, 5120 x 17920; then add.
kernel void matvec_bf16_add_5120x17920(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    device const float* operand = x;
    for (uint block = group.y; block < 640; block += 640) {
        {
            const uint first = (block * 2 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 17920;
            }
            float products[4];
            multiply_rows<4, 4, 32, 17920>(operand, matrix, lane, products);
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

/// The vector x times the rows of a matrix, 100352 x 5120; x first: norm.
kernel void matvec_bf16_norm_100352x5120(
    device const float* x [[buffer(0)]],
    device const ushort* gain [[buffer(1)]],
    device const ushort* weight [[buffer(2)]],
    device float* y [[buffer(3)]],
    threadgroup float* scratch [[threadgroup(0)]],
    threadgroup float* prepared [[threadgroup(1)]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    device const float* row = x;
    float squares[4] = {};
    for (uint k = thread_index * 4; k < 5120; k += 1024) {
        device const float* block = row + k;
        for (uint j = 0; j < 4; ++j) squares[j] += block[j] * block[j];
    }
    const float total = threadgroup_sum<8>(pairwise_sum<4>(squares), scratch, lane, simdgroup);
    const float factor = metal::precise::rsqrt(total / 5120.0f + 0.00001f);
    for (uint i = thread_index; i < 5120; i += 256) prepared[i] = row[i] * factor * bf16(gain[i]);
    threadgroup_barrier(mem_flags::mem_threadgroup);
    threadgroup const float* operand = prepared;
    for (uint block = group.y; block < 3136; block += 512) {
        {
            const uint first = (block * 8 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 5120;
            }
            float products[4];
            multiply_rows<4, 4, 32, 5120>(operand, matrix, lane, products);
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

/// The winner of each of 98 parts of 100352 ids when all may be drawn: its score and the id.
kernel void sample_parts_98_100352(
    device const float* x [[buffer(0)]],
    device const float* sampling [[buffer(1)]],
    device const int* seed [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    threadgroup float* scratch [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    device const float* row = x;
    const float temperature = sampling[0];
    const uint next = step.position + step.tokens;
    const uint end = metal::min((group.y + 1) * 1024, 100352u);
    float best = -INFINITY;
    uint index = 100352;
    for (uint i = group.y * 1024 + thread_index; i < end; i += 256) {
        const float noise = temperature > 0.0f ? temperature * gumbel(i, next, uint(seed[0])) : 0.0f;
        if (row[i] + noise > best) {
            best = row[i] + noise;
            index = i;
        }
    }
    const float highest = threadgroup_max<8>(best, scratch, lane, simdgroup);
    const float winner = -threadgroup_max<8>(best == highest ? -float(index) : -100352.0f, scratch, lane, simdgroup);
    if (thread_index == 0) {
        device float* output = y + group.y * 2;
        output[0] = highest;
        output[1] = winner;
    }
}

/// Draws the next of 100352 ids, stores it after the tokens so far and ends the step.
kernel void sample_of_98_100352(
    device const float* x [[buffer(0)]],
    device const float* sampling [[buffer(1)]],
    device const int* seed [[buffer(2)]],
    device const float* winners [[buffer(3)]],
    device int* ids [[buffer(4)]],
    device Step& step [[buffer(5)]],
    threadgroup float* scratch [[threadgroup(0)]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    device const float* row = x;
    const float temperature = sampling[0];
    const uint next = step.position + step.tokens;
    const float top_k = sampling[1];
    const float top_p = sampling[2];
    const float min_p = sampling[3];
    const bool limited = top_k > 0.0f && top_k < 100352.0f;
    // Whether any id may be drawn, or the likeliest is wanted.
    const bool every = temperature <= 0.0f || (!limited && top_p >= 1.0f && min_p <= 0.0f);
    // Candidates are the elements with keys of at least `least` that are not below `lowest`.
    uint least = 0;
    float lowest = -INFINITY;
    if (!every) {
        float most = -INFINITY;
        for (uint i = thread_index; i < 100352; i += 1024) most = metal::max(most, row[i]);
        const float greatest = threadgroup_max<32>(most, scratch, lane, simdgroup);
        if (limited) {
            // The greatest key that no fewer than top_k elements have reached.
            uint high = order_key(greatest);
            while (least < high) {
                const uint middle = high - (high - least) / 2;
                float own = 0.0f;
                for (uint i = thread_index; i < 100352; i += 1024)
                    if (order_key(row[i]) >= middle) own += 1.0f;
                if (threadgroup_sum<32>(own, scratch, lane, simdgroup) >= top_k) least = middle;
                else high = middle - 1;
            }
        }
        if (top_p < 1.0f) {
            float own = 0.0f;
            for (uint i = thread_index; i < 100352; i += 1024)
                if (order_key(row[i]) >= least) own += metal::exp((row[i] - greatest) / temperature);
            const float enough = top_p * threadgroup_sum<32>(own, scratch, lane, simdgroup);
            // The least key above which there is not enough.
            uint high = order_key(greatest);
            while (least < high) {
                const uint middle = least + (high - least) / 2;
                own = 0.0f;
                for (uint i = thread_index; i < 100352; i += 1024)
                    if (order_key(row[i]) > middle) own += metal::exp((row[i] - greatest) / temperature);
                if (threadgroup_sum<32>(own, scratch, lane, simdgroup) < enough) high = middle;
                else least = middle + 1;
            }
        }
        if (min_p > 0.0f) lowest = greatest + temperature * metal::precise::log(min_p);
    }
    float best = -INFINITY;
    uint index = 100352;
    for (uint p = thread_index; every && p < 98; p += 1024) {
        if (winners[2 * p] > best) {
            best = winners[2 * p];
            index = uint(winners[2 * p + 1]);
        }
    }
    // Elements are loaded a few at a time: one after the other, each would be waited for.
    for (uint begin = every ? 100352 : thread_index; begin < 100352; begin += 8 * 1024) {
        float own[8];
        for (uint j = 0; j < 8; ++j) own[j] = row[metal::min(begin + j * 1024, 100352u - 1)];
        for (uint j = 0; j < 8; ++j) {
            const uint i = begin + j * 1024;
            if (i >= 100352 || order_key(own[j]) < least || own[j] < lowest) continue;
            const float noise = temperature > 0.0f ? temperature * gumbel(i, next, uint(seed[0])) : 0.0f;
            if (own[j] + noise > best) {
                best = own[j] + noise;
                index = i;
            }
        }
    }
    const float highest = threadgroup_max<32>(best, scratch, lane, simdgroup);
    // The lowest of equals; ids are exact as floats.
    const uint winner = uint(-threadgroup_max<32>(best == highest ? -float(index) : -100352.0f, scratch, lane, simdgroup));
    if (thread_index == 0) {
        ids[next] = int(winner % 100352);
        step.position = next;
    }
}

/// Row ids[t] of a table with 5120 columns.
kernel void embed_bf16_5120_tokens(
    device const int* ids [[buffer(0)]],
    device const ushort* table [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const ushort* row = table + uint(ids[step.position + t]) * 5120;
    for (uint n = group.y * 1024 + thread_index; n < metal::min(5120u, (group.y + 1) * 1024); n += 256) {
        const float v0 = bf16(row[n]);
        y[t * 5120 + n] = v0;
    }
}

/// x / sqrt(mean(x^2) + eps) * gain over rows of 5120.
kernel void rms_norm_bf16_5120_tokens(
    device const float* x [[buffer(0)]],
    device const ushort* gain [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    threadgroup float* scratch [[threadgroup(0)]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]]
) {
    const uint t = group.x;
    if (t >= step.tokens) return;
    device const float* row = x + t * 5120;
    float squares[4] = {};
    for (uint k = thread_index * 4; k < 5120; k += 1024) {
        device const float* block = row + k;
        for (uint j = 0; j < 4; ++j) squares[j] += block[j] * block[j];
    }
    const float total = threadgroup_sum<8>(pairwise_sum<4>(squares), scratch, lane, simdgroup);
    const float factor = metal::precise::rsqrt(total / 5120.0f + 0.00001f);
    for (uint i = thread_index; i < 5120; i += 256) {
        const uint n = i;
        const float v0 = row[i] * factor * bf16(gain[i]);
        y[t * 5120 + n] = v0;
    }
}

/// Vectors of x times the rows of a matrix, 5120 + 1280 + 1280 x 5120, in tiles of 64 rows and 32 tokens.
/// Result 0: then rope.
/// Result 1: then rope; into the cache.
/// Result 2: into the cache.
kernel void matmul_bf16_rope_cache_5120_1280_1280x5120_tokens(
    device const float* x [[buffer(0)]],
    device const ushort* weight0 [[buffer(1)]],
    device const float* angles [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    device float* y0 [[buffer(4)]],
    device float* cache1 [[buffer(5)]],
    device float* cache2 [[buffer(6)]],
    threadgroup float* tiles [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first_token = group.x * 32;
    if (first_token >= step.tokens) return;
    uint starts[1];
    for (uint i = 0; i < 1; ++i)
        starts[i] = metal::min(first_token + (i * 128 + thread_index) / 4, step.tokens - 1) * 5120;
    simdgroup_float8x8 sums[8];
    if (group.y < 80) {
        const uint first_row = group.y * 64;
        device const ushort* row;
        {
            const uint r = thread_index / 2;
            const uint n = pair_order<128, 128>(first_row + r);
            row = weight0 + n * 5120;
        }
        multiply_tile<5120, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 512; i += 128) {
                const uint t = first_token + turn * 16 + i / 32;
                const uint first = first_row + i % 32 * 2;
                threadgroup const float* products = tiles + i / 32 * 68 + (first - first_row);
                device const float* angle = angles + (step.position + t) * 128;
                for (uint r = 0; r < 2; r += 2) {
                    if (t < step.tokens) {
                        const uint n0 = pair_order<128, 128>(first + r);
                        const uint n1 = pair_order<128, 128>(first + r + 1);
                        const uint i = n0 % 128;
                        const float c = angle[i];
                        const float s = angle[i + 64];
                        const float a = products[r];
                        const float b = products[r + 1];
                        {
                            const uint n = n0;
                            const float v0 = a * c - b * s;
                            y0[t * 5120 + n] = v0;
                        }
                        {
                            const uint n = n1;
                            const float v0 = b * c + a * s;
                            y0[t * 5120 + n] = v0;
                        }
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    } else if (group.y < 100) {
        const uint first_row = (group.y - 80) * 64;
        device const ushort* row;
        {
            const uint r = thread_index / 2;
            const uint n = pair_order<128, 128>(first_row + r);
            row = weight0 + (n + 5120) * 5120;
        }
        multiply_tile<5120, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 512; i += 128) {
                const uint t = first_token + turn * 16 + i / 32;
                const uint first = first_row + i % 32 * 2;
                threadgroup const float* products = tiles + i / 32 * 68 + (first - first_row);
                device const float* angle = angles + (step.position + t) * 128;
                for (uint r = 0; r < 2; r += 2) {
                    if (t < step.tokens) {
                        const uint n0 = pair_order<128, 128>(first + r);
                        const uint n1 = pair_order<128, 128>(first + r + 1);
                        const uint i = n0 % 128;
                        const float c = angle[i];
                        const float s = angle[i + 64];
                        const float a = products[r];
                        const float b = products[r + 1];
                        {
                            const uint n = n0;
                            const float v0 = a * c - b * s;
                            cache1[(step.position + t) * 1280 + n] = v0;
                        }
                        {
                            const uint n = n1;
                            const float v0 = b * c + a * s;
                            cache1[(step.position + t) * 1280 + n] = v0;
                        }
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    } else {
        const uint first_row = (group.y - 100) * 64;
        device const ushort* row;
        {
            const uint r = thread_index / 2;
            const uint n = first_row + r;
            row = weight0 + (n + 6400) * 5120;
        }
        multiply_tile<5120, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 1024; i += 128) {
                const uint t = first_token + turn * 16 + i / 64;
                const uint first = first_row + i % 64;
                threadgroup const float* products = tiles + i / 64 * 68 + (first - first_row);
                for (uint r = 0; r < 1; ++r) {
                    if (t < step.tokens) {
                        const uint n = first + r;
                        const float v0 = products[r];
                        cache2[(step.position + t) * 1280 + n] = v0;
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}

/// Causal attention of 40 heads over the cached keys and values of 10; 4 heads of 16 tokens at a time.
kernel void attention_flash_40x10x128_tokens(
    device const float* q [[buffer(0)]],
    device const float* k [[buffer(1)]],
    device const float* v [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    threadgroup float* block_keys [[threadgroup(0)]],
    threadgroup float* block_values [[threadgroup(1)]],
    threadgroup float* scores [[threadgroup(2)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first_token = group.x * 16;
    if (first_token >= step.tokens) return;
    // A simdgroup has 8 tokens of a head as the rows of its matrices. Four lanes look after a row's scores: which
    // elements of a matrix a lane has differs from GPU to GPU, so scores go through memory.
    const uint own_token = first_token + simdgroup % 2 * 8;
    const uint head = group.y * 4 + simdgroup / 2;
    const uint row = lane / 4;
    const uint column = lane % 4 * 2;
    const bool is_token = own_token + row < step.tokens;
    const uint t = metal::min(own_token + row, step.tokens - 1);
    threadgroup float* row_scores = scores + (simdgroup * 8 + row) * 24;
    threadgroup float* tile_scores = scores + simdgroup * 192;
    // The same memory in the type of the cache.
    threadgroup float* row_powers = (threadgroup float*)row_scores;
    threadgroup float* tile_powers = (threadgroup float*)tile_scores;

    device const float* queries = q + t * 5120 + head * 128;
    simdgroup_float8x8 query[16];
    for (uint i = 0; i < 16; ++i) {
        row_powers[column] = float(queries[8 * i + column]);
        row_powers[column + 1] = float(queries[8 * i + column + 1]);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_load(query[i], tile_powers, 24);
        simdgroup_barrier(mem_flags::mem_threadgroup);
    }

    // What the lane's row sees; where what the rows of the simdgroup see ends, and of the threadgroup.
    const uint keys = step.position + t + 1;
    const uint start = 0;
    const uint own_end = own_token < step.tokens ? step.position + metal::min(own_token + 8, step.tokens) : 0;
    const uint end = step.position + metal::min(first_token + 16, step.tokens);
    device const float* head_keys = k + group.y * 128;
    device const float* head_values = v + group.y * 128;

    // Softmax over blocks of 16 positions: the greatest score so far, and sums scaled to it. The total is of what the
    // lane has seen of its row.
    float greatest = -3e38f;
    float total = 0.0f;
    simdgroup_float8x8 mixed[16];
    for (uint i = 0; i < 16; ++i) mixed[i] = make_filled_simdgroup_matrix<float, 8>(0.0f);
    for (uint begin = 0; begin < end; begin += 16) {
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = thread_index; i < 512; i += 256) {
            const uint j = i / 32;
            const uint d = i % 32 * 4;
            const uint position = metal::min(begin + j, end - 1);
            *(threadgroup float4*)(block_keys + j * 132 + d) =
                *(device const float4*)(head_keys + position * 1280 + d);
            *(threadgroup float4*)(block_values + j * 132 + d) =
                *(device const float4*)(head_values + position * 1280 + d);
        }
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (begin >= own_end) continue;

        for (uint j = 0; j < 16; j += 8) {
            simdgroup_float8x8 dots = make_filled_simdgroup_matrix<float, 8>(0.0f);
            for (uint i = 0; i < 16; ++i) {
                simdgroup_float8x8 key;
                simdgroup_load(key, block_keys + j * 132 + 8 * i, 132, ulong2(0, 0), true);
                simdgroup_multiply_accumulate(dots, query[i], key, dots);
            }
            simdgroup_store(dots, tile_scores + j, 24);
        }
        simdgroup_barrier(mem_flags::mem_threadgroup);

        float score[4];
        float most = greatest;
        for (uint i = 0; i < 4; ++i) {
            const uint j = i / 2 * 8 + column + i % 2;
            const float dot = row_scores[j];
            score[i] = begin + j >= start && begin + j < keys ? dot * 0.088388346f : -INFINITY;
            most = metal::max(most, score[i]);
        }
        most = lanes_max<1, 4>(most);
        const float keep = metal::exp(greatest - most);
        greatest = most;
        total *= keep;
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = 0; i < 4; ++i) {
            const float power = float(metal::exp(score[i] - most));
            row_powers[i / 2 * 8 + column + i % 2] = power;
            total += float(power);
        }
        // A matrix of the rows' factors: its elements lie in lanes as those of the sums do, wherever that is.
        row_scores[16 + column] = keep;
        row_scores[16 + column + 1] = keep;
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_float8x8 factors;
        simdgroup_load(factors, tile_scores + 16, 24);
        for (uint i = 0; i < 16; ++i) mixed[i].thread_elements() *= factors.thread_elements();
        for (uint j = 0; j < 16; j += 8) {
            simdgroup_float8x8 powers;
            simdgroup_load(powers, tile_powers + j, 24);
            for (uint i = 0; i < 16; ++i) {
                simdgroup_float8x8 value;
                simdgroup_load(value, block_values + j * 132 + 8 * i, 132);
                simdgroup_multiply_accumulate(mixed[i], powers, value, mixed[i]);
            }
        }
    }

    total = lanes_sum<1, 4>(total);
    for (uint i = 0; i < 16; ++i) {
        simdgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_store(mixed[i], tile_scores, 24);
        simdgroup_barrier(mem_flags::mem_threadgroup);
        for (uint j = column; is_token && j < column + 2; ++j) {
            const uint n = head * 128 + 8 * i + j;
            const float v0 = row_scores[j] / total;
            y[t * 5120 + n] = v0;
        }
    }
}

/// Vectors of x times the rows of a matrix, 5120 x 5120, in tiles of 64 rows and 32 tokens; then add.
kernel void matmul_bf16_add_5120x5120_tokens(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    threadgroup float* tiles [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first_token = group.x * 32;
    if (first_token >= step.tokens) return;
    uint starts[1];
    for (uint i = 0; i < 1; ++i)
        starts[i] = metal::min(first_token + (i * 128 + thread_index) / 4, step.tokens - 1) * 5120;
    simdgroup_float8x8 sums[8];
    {
        const uint first_row = group.y * 64;
        device const ushort* row;
        {
            const uint r = thread_index / 2;
            const uint n = first_row + r;
            row = weight + n * 5120;
        }
        multiply_tile<5120, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 1024; i += 128) {
                const uint t = first_token + turn * 16 + i / 64;
                const uint first = first_row + i % 64;
                threadgroup const float* products = tiles + i / 64 * 68 + (first - first_row);
                for (uint r = 0; r < 1; ++r) {
                    if (t < step.tokens) {
                        const uint n = first + r;
                        const float v0 = products[r];
                        const float v1 = r2[t * 5120 + n] + v0;
                        y[t * 5120 + n] = v1;
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}

/// Vectors of x times the rows of a matrix, 17920 x 5120, in tiles of 64 rows and 32 tokens; then silu, mul.
kernel void matmul_bf16_silu_mul_17920x5120_tokens(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    threadgroup float* tiles [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first_token = group.x * 32;
    if (first_token >= step.tokens) return;
    uint starts[1];
    for (uint i = 0; i < 1; ++i)
        starts[i] = metal::min(first_token + (i * 128 + thread_index) / 4, step.tokens - 1) * 5120;
    simdgroup_float8x8 sums[8];
    {
        const uint first_row = group.y * 32;
        device const ushort* row;
        {
            const uint r = thread_index / 2 % 32;
            const uint n = first_row + r;
            row = weight + n * 5120;
            if (thread_index / 2 >= 32) row = weight + (n + 17920) * 5120;
        }
        multiply_tile<5120, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 512; i += 128) {
                const uint t = first_token + turn * 16 + i / 32;
                const uint first = first_row + i % 32;
                threadgroup const float* products = tiles + i / 32 * 68 + (first - first_row);
                for (uint r = 0; r < 1; ++r) {
                    if (t < step.tokens) {
                        const uint n = first + r;
                        const float v0 = products[r];
                        const float v1 = products[32 + r];
                        const float v2 = silu(v0);
                        const float v3 = v2 * v1;
                        y[t * 17920 + n] = v3;
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}

/// Vectors of x times the rows of a matrix, 5120 x 17920, in tiles of 64 rows and 32 tokens; then add.
kernel void matmul_bf16_add_5120x17920_tokens(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    threadgroup float* tiles [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first_token = group.x * 32;
    if (first_token >= step.tokens) return;
    uint starts[1];
    for (uint i = 0; i < 1; ++i)
        starts[i] = metal::min(first_token + (i * 128 + thread_index) / 4, step.tokens - 1) * 17920;
    simdgroup_float8x8 sums[8];
    {
        const uint first_row = group.y * 64;
        device const ushort* row;
        {
            const uint r = thread_index / 2;
            const uint n = first_row + r;
            row = weight + n * 17920;
        }
        multiply_tile<17920, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 1024; i += 128) {
                const uint t = first_token + turn * 16 + i / 64;
                const uint first = first_row + i % 64;
                threadgroup const float* products = tiles + i / 64 * 68 + (first - first_row);
                for (uint r = 0; r < 1; ++r) {
                    if (t < step.tokens) {
                        const uint n = first + r;
                        const float v0 = products[r];
                        const float v1 = r2[t * 5120 + n] + v0;
                        y[t * 5120 + n] = v1;
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}

/// The vector x times the rows of a matrix, 5120 x 5120; then add.
kernel void matvec_bf16_add_5120x5120_last(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device const float* r2 [[buffer(2)]],
    device float* y [[buffer(3)]],
    constant Step& step [[buffer(4)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint lane [[thread_index_in_simdgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    device const float* operand = x + (step.tokens - 1) * 5120;
    for (uint block = group.y; block < 640; block += 640) {
        {
            const uint first = (block * 2 + simdgroup) * 4;
            device const ushort* matrix[4];
            for (uint r = 0; r < 4; ++r) {
                const uint n = first + r;
                matrix[r] = weight + n * 5120;
            }
            float products[4];
            multiply_rows<4, 4, 32, 5120>(operand, matrix, lane, products);
            for (uint r = 0; r < 4; ++r) {
                if (lane == 0) {
                    const uint n = first + r;
                    const float v0 = products[r];
                    const float v1 = r2[(step.tokens - 1) * 5120 + n] + v0;
                    y[n] = v1;
                }
            }
        }
    }
}

/// Vectors of x times the rows of a matrix, 100352 x 5120, in tiles of 64 rows and 32 tokens.
kernel void matmul_bf16_100352x5120_tokens(
    device const float* x [[buffer(0)]],
    device const ushort* weight [[buffer(1)]],
    device float* y [[buffer(2)]],
    constant Step& step [[buffer(3)]],
    threadgroup float* tiles [[threadgroup(0)]],
    uint3 group [[threadgroup_position_in_grid]],
    uint thread_index [[thread_index_in_threadgroup]],
    uint simdgroup [[simdgroup_index_in_threadgroup]]
) {
    const uint first_token = group.x * 32;
    if (first_token >= step.tokens) return;
    uint starts[1];
    for (uint i = 0; i < 1; ++i)
        starts[i] = metal::min(first_token + (i * 128 + thread_index) / 4, step.tokens - 1) * 5120;
    simdgroup_float8x8 sums[8];
    {
        const uint first_row = group.y * 64;
        device const ushort* row;
        {
            const uint r = thread_index / 2;
            const uint n = first_row + r;
            row = weight + n * 5120;
        }
        multiply_tile<5120, half, ushort_part>(row, x, starts, (threadgroup half*)tiles, thread_index, simdgroup, sums);
        for (uint turn = 0; turn < 2; ++turn) {
            if (simdgroup / 2 == turn) store_tile(sums, tiles, simdgroup);
            threadgroup_barrier(mem_flags::mem_threadgroup);
            for (uint i = thread_index; i < 1024; i += 128) {
                const uint t = first_token + turn * 16 + i / 64;
                const uint first = first_row + i % 64;
                threadgroup const float* products = tiles + i / 64 * 68 + (first - first_row);
                for (uint r = 0; r < 1; ++r) {
                    if (t < step.tokens) {
                        const uint n = first + r;
                        const float v0 = products[r];
                        y[t * 100352 + n] = v0;
                    }
                }
            }
            threadgroup_barrier(mem_flags::mem_threadgroup);
        }
    }
}
