import { describe, expect, it } from 'vitest';
import { defined } from '../support.js';
import { bfloat, half, runTest } from './support.js';

const lanes = Array.from({ length: 32 }, (_, lane) => lane);
const parameters = `uint lane [[thread_index_in_simdgroup]], uint thread_index [[thread_index_in_threadgroup]],
  uint group [[threadgroup_position_in_grid]]`;
const positions = [
  'thread_index_in_simdgroup',
  'thread_index_in_threadgroup',
  'threadgroup_position_in_grid',
];

/** Every lane's operand: small enough for products of four, of both signs. */
const value = (lane: number): number => ((lane * 7) % 5) - 2;
const filling = (lane: number): number => 100 + lane;

type Reference = (values: readonly number[], index: number) => number;
const fold = (f: (a: number, b: number) => number) => (values: readonly number[]) =>
  values.reduce((a, b) => f(a, b));
const at =
  (source: (index: number, width: number) => number): Reference =>
  (values, index) => {
    const found = source(index, values.length);
    return values[found] ?? defined(values[index]);
  };
const before = (f: (a: number, b: number) => number, identity: number, own: number): Reference => {
  return (values, index) => values.slice(0, index + own).reduce((a, b) => f(a, b), identity);
};
const plus = (a: number, b: number): number => a + b;
const times = (a: number, b: number): number => Math.imul(a, b);

/** What a group's function gives the lane of an index, of the values of the group's lanes. */
const functions: Record<string, Reference> = {
  'sum(v)': fold(plus),
  'product(v)': fold(times),
  'min(v)': fold(Math.min),
  'max(v)': fold(Math.max),
  'and(v)': fold((a, b) => a & b),
  'or(v)': fold((a, b) => a | b),
  'xor(v)': fold((a, b) => a ^ b),
  'prefix_inclusive_sum(v)': before(plus, 0, 1),
  'prefix_exclusive_sum(v)': before(plus, 0, 0),
  'prefix_inclusive_product(v)': before(times, 1, 1),
  'prefix_exclusive_product(v)': before(times, 1, 0),
  'shuffle(v, (lane * 3) % 4)': at((i) => (i * 3) % 4),
  'broadcast(v, 2)': at(() => 2),
  'broadcast_first(v)': at(() => 0),
  'shuffle_xor(v, 3)': at((i) => i ^ 3),
  'shuffle_up(v, 2)': at((i) => i - 2),
  'shuffle_down(v, 1)': at((i) => i + 1),
  'shuffle_rotate_up(v, 3)': at((i, width) => (i - 3 + width) % width),
  'shuffle_rotate_down(v, 3)': at((i, width) => (i + 3) % width),
  'any(v == 2)': (values) => Number(values.includes(2)),
  'all(v >= -2)': () => 1,
  'all(v >= -1)': (values) => Number(!values.includes(-2)),
  'is_first()': (_, index) => Number(index === 0),
};

async function perLane(
  body: string,
  expressions: readonly string[],
  simdWidth: 1 | 32 = 32,
): Promise<Int32Array[]> {
  const out = new Uint32Array(expressions.length * 32);
  await runTest(
    `kernel void test(device int* out [[buffer(0)]], ${parameters}) {
      ${body}
      ${expressions.map((expression, k) => `out[${32 * k} + lane] = int(${expression});`).join('\n')}
    }`,
    [out],
    { simdWidth, threads: simdWidth, positions },
  );
  return expressions.map((_, k) => new Int32Array(out.buffer, 128 * k, simdWidth));
}

describe('groups of lanes', () => {
  for (const [group, width] of [
    ['simd', 32],
    ['quad', 4],
  ] as const)
    it(`${group}_ functions are those of ${width} lanes`, async () => {
      const names = Object.keys(functions);
      const found = await perLane(
        'const int v = int((lane * 7) % 5) - 2;',
        names.map((name) => `${group}_${name}`),
      );
      names.forEach((name, k) => {
        const expected = lanes.map((lane) => {
          const first = lane - (lane % width);
          const values = lanes.slice(first, first + width).map(value);
          return defined(functions[name])(values, lane - first);
        });
        expect([name, ...defined(found[k])]).toEqual([name, ...expected]);
      });
    });

  it('shuffle in what falls off the end of another value', async () => {
    const cases = [
      ['simd', 5, 32],
      ['simd', 3, 8],
      ['quad', 1, 4],
      ['quad', 1, 2],
    ] as const;
    const found = await perLane(
      'const int v = int((lane * 7) % 5) - 2, f = 100 + int(lane);',
      cases.flatMap(([group, delta, modulo]) =>
        ['up', 'down'].map((way) => {
          const whole = modulo === (group === 'simd' ? 32 : 4);
          return `${group}_shuffle_and_fill_${way}(v, f, ${delta}${whole ? '' : `, ${modulo}`})`;
        }),
      ),
    );
    cases.forEach(([, delta, width], k) => {
      // Up: the last `delta` of the filling lie before the data. Down: its first lie behind them.
      const place = (lane: number, by: number): number => {
        const first = lane - (lane % width);
        const source = lane + by;
        if (source < first) return filling(source + width);
        return source >= first + width ? filling(source - width) : value(source);
      };
      expect([...defined(found[2 * k])]).toEqual(lanes.map((lane) => place(lane, -delta)));
      expect([...defined(found[2 * k + 1])]).toEqual(lanes.map((lane) => place(lane, delta)));
    });
  });

  it('take vectors, halves, bfloats and 64-bit numbers', async () => {
    const found = await perLane('', [
      'simd_sum(float3(lane, 1, 2)).x + simd_sum(float3(lane, 1, 2)).z',
      'simd_max(int2(lane, -int(lane))).x - simd_min(short2(lane, 7 - lane)).y',
      'simd_prefix_inclusive_sum(half2(1, lane)).x',
      'simd_sum(bfloat(2.0f))',
      'simd_sum(1ul << lane) >> 16',
      'simd_xor(uint2(lane, 1u << lane)).y >> 30',
      'simd_shuffle(ulong4(lane, 1, 2, 3), 9).x',
      'quad_sum(half(lane)) + half(quad_product(bfloat2(2)).y)',
      'simd_shuffle_down(bfloat(float(lane)), 1)',
    ]);
    const same = (x: number): number[] => lanes.map(() => x);
    expect(found.map((row) => [...row])).toEqual([
      same((31 * 32) / 2 + 64),
      same(31 + 24),
      lanes.map((lane) => lane + 1),
      same(64),
      same(0xffff),
      same(3),
      same(9),
      lanes.map((lane) => 4 * (lane - (lane % 4)) + 6 + 16),
      lanes.map((lane) => Math.min(lane + 1, 31)),
    ]);
  });

  it('vote', async () => {
    const found = await perLane('const simd_vote odd = simd_ballot(lane % 2 == 1);', [
      'ulong(odd) >> 1',
      'odd.any() && !odd.all() && simd_ballot(true).all()',
      'simd_vote::vote_t(quad_ballot(lane % 8 == 1))',
      'quad_ballot(true).all() && !quad_ballot(lane == 3).all()',
      'ulong(quad_active_threads_mask())',
      'lane < 6 ? int(simd_vote::vote_t(simd_active_threads_mask())) : 0',
    ]);
    expect(found.map((row) => [...row])).toEqual([
      lanes.map(() => 0x55555555),
      lanes.map(() => 1),
      lanes.map((lane) => (lane % 8 < 4 ? 2 : 0)),
      lanes.map(() => 1),
      lanes.map(() => 15),
      lanes.map((lane) => (lane < 6 ? 63 : 0)),
    ]);
  });

  it('are one thread at width 1', async () => {
    const names = Object.keys(functions);
    for (const group of ['simd', 'quad']) {
      const found = await perLane(
        'const int v = int((lane * 7) % 5) - 2;',
        [...names.map((name) => `${group}_${name}`), `${group}_shuffle_and_fill_up(v, 9, 1)`],
        1,
      );
      expect(found.map((row) => row[0])).toEqual([
        ...names.map((name) => defined(functions[name])([value(0)], 0)),
        9,
      ]);
    }
  });
});

describe.each([1, 32] as const)('atomics at width %i', (simdWidth) => {
  it('count over all threads of all threadgroups', async () => {
    const threads = simdWidth === 1 ? 1 : 64;
    const grid = 2048 / threads;
    const counters = Uint32Array.of(0, 0, 0x80000000, 0, ~0, 0, 0, 1000000, 0, 0, 0, 0);
    const groups = new Uint32Array(grid);
    await runTest(
      `struct Counters {
        atomic_uint count; atomic_int least, greatest; atomic_uint bits, kept, flipped; atomic_float sum;
        atomic_int left;
        atomic_ulong wide; atomic_uint exchanged; atomic_bool flag; };
      kernel void test(device Counters& counters [[buffer(0)]], device uint* groups [[buffer(1)]], ${parameters}) {
        threadgroup atomic_uint shared;
        const uint i = group * ${threads} + thread_index;
        if (thread_index == 0) atomic_store_explicit(&shared, 5u, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup | mem_flags::mem_device);
        atomic_fetch_add_explicit(&shared, i, memory_order_relaxed);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (thread_index == 0) groups[group] = atomic_load_explicit(&shared, memory_order_relaxed);
        atomic_fetch_add_explicit(&counters.count, 1u, memory_order_relaxed);
        atomic_fetch_min_explicit(&counters.least, -int(i), memory_order_relaxed);
        atomic_fetch_max_explicit(&counters.greatest, int(i), memory_order_relaxed);
        atomic_fetch_or_explicit(&counters.bits, 1u << (i % 20), memory_order_relaxed);
        atomic_fetch_and_explicit(&counters.kept, ~(1u << (i % 10)), memory_order_acq_rel);
        atomic_fetch_xor_explicit(&counters.flipped, i, memory_order_relaxed);
        atomic_fetch_add_explicit(&counters.sum, 0.5f, memory_order_relaxed);
        atomic_fetch_sub_explicit(&counters.left, 3, memory_order_seq_cst);
        atomic_fetch_add_explicit(&counters.wide, 1ul << 30, memory_order_relaxed);
        uint expected = atomic_load_explicit(&counters.exchanged, memory_order_relaxed);
        while (!atomic_compare_exchange_weak_explicit(&counters.exchanged, &expected, expected + 2,
                                                      memory_order_relaxed, memory_order_relaxed)) {}
        atomic_thread_fence(mem_flags::mem_device, memory_order_seq_cst);
        atomic_exchange_explicit(&counters.flag, true, memory_order_relaxed);
      }`,
      [counters, groups],
      { simdWidth, threads, grid, positions },
    );
    const xor = Array.from({ length: 2048 }, (_, i) => i).reduce((a, b) => a ^ b, 0);
    expect([...new Int32Array(counters.buffer)]).toEqual([
      2048,
      -2047,
      2047,
      2 ** 20 - 1,
      -1024,
      xor,
      new Int32Array(Float32Array.of(1024).buffer)[0],
      1000000 - 3 * 2048,
      0,
      512,
      4096,
      1,
    ]);
    groups.forEach((total, group) => {
      const first = group * threads;
      expect(total).toBe(5 + threads * first + (threads * (threads - 1)) / 2);
    });
  });
});

describe.each([1, 32] as const)('8 x 8 matrices at width %i', (simdWidth) => {
  it('multiply as matrices do, from and to device and threadgroup memory', async () => {
    const a = Float32Array.from({ length: 16 * 12 }, (_, i) => ((i * 37) % 23) / 4 - 2);
    const b = Float32Array.from({ length: 64 }, (_, i) => ((i * 11) % 17) / 8 - 1);
    const out = new Float32Array(6 * 64);
    await runTest(
      `kernel void test(device const float* a [[buffer(0)]], device const float* b [[buffer(1)]],
                        device float* out [[buffer(2)]], ${parameters}) {
        simdgroup_float8x8 ma, mb, mc = make_filled_simdgroup_matrix<float, 8, 8>(0.5f);
        simdgroup_load(ma, a, 12, ulong2(3, 5));
        simdgroup_load(mb, b);
        simdgroup_multiply_accumulate(mc, ma, mb, mc);
        simdgroup_store(mc, out, 8);
        simdgroup_load(ma, a + 2, 12, ulong2(0, 1), true);
        simdgroup_multiply(mc, ma, simdgroup_float8x8(2.0f));
        simdgroup_store(mc, out + 64);
        simdgroup_store(mb, out + 128, 8, 0, true);

        threadgroup half halves[64];
        threadgroup bfloat bfloats[64];
        for (uint i = thread_index; i < 64; i += ${simdWidth})
          halves[i] = half(b[i] / 3), bfloats[i] = bfloat(b[i] / 3);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        simdgroup_half8x8 mh;
        simdgroup_bfloat8x8 mx;
        simdgroup_load(mh, halves, 8);
        simdgroup_load(mx, bfloats, 8);
        simdgroup_multiply_accumulate(mc, mh, mb, simdgroup_float8x8(1.0f));
        simdgroup_store(mc, out + 192);
        simdgroup_multiply(mc, mx, mb);
        simdgroup_store(mc, out + 256);
        simdgroup_store(mh * mh, halves, 8);
        threadgroup_barrier(mem_flags::mem_threadgroup);
        for (uint i = thread_index; i < 64; i += ${simdWidth}) out[320 + i] = float(halves[i]);
      }`,
      [a, b, out],
      { simdWidth, threads: simdWidth, positions },
    );
    type Matrix = (row: number, column: number) => number;
    const ma: Matrix = (r, c) => defined(a[(r + 5) * 12 + c + 3]);
    const mb: Matrix = (r, c) => defined(b[8 * r + c]);
    const third =
      (rounding: (x: number) => number): Matrix =>
      (r, c) =>
        rounding(Math.fround(mb(r, c) / 3));
    const product =
      (x: Matrix, y: Matrix, start: Matrix): Matrix =>
      (r, c) =>
        Array.from({ length: 8 }, (_, k) => x(r, k) * y(k, c)).reduce(plus, start(r, c));
    const zero: Matrix = () => 0;
    const expected: Matrix[] = [
      product(ma, mb, () => 0.5),
      (r, c) => 2 * defined(a[(c + 1) * 12 + r + 2]),
      (r, c) => mb(c, r),
      product(third(half), mb, (r, c) => Number(r === c)),
      product(third(bfloat), mb, zero),
      product(third(half), third(half), zero),
    ];
    expected.forEach((matrix, m) => {
      for (let i = 0; i < 64; i++) {
        // Sums of eight products below 8: in float exact to 2^-17, and a half has 11 bits.
        const error = Math.abs(defined(out[64 * m + i]) - matrix(i >> 3, i % 8));
        expect(error, `matrix ${m}, element ${i}`).toBeLessThanOrEqual(
          m === 5 ? 2 ** -11 : m < 3 ? 0 : 2 ** -17,
        );
      }
    });
  });
});

it('lays 8 x 8 matrices out over lanes as Apple GPUs do', async () => {
  // The coordinates as public kernels work them out from the lane.
  const out = new Float32Array(128);
  await runTest(
    `kernel void test(device float* out [[buffer(0)]], ${parameters}) {
      const short quad = lane / 4;
      const short row = (quad & 4) + ((lane / 2) % 4), column = (quad & 2) * 2 + (lane % 2) * 2;
      simdgroup_float8x8 m;
      m.thread_elements() = float2(8 * row + column, 8 * row + column + 1);
      simdgroup_store(m, out);
      simdgroup_barrier(mem_flags::mem_device);
      simdgroup_load(m, out, 8, 0, true);
      m.thread_elements()[1] += 0.5f;
      reinterpret_cast<thread float2&>(m.thread_elements()).x *= 2;
      simdgroup_store(m, out + 64);
    }`,
    [out],
    { simdWidth: 32, threads: 32, positions },
  );
  expect([...out.subarray(0, 64)]).toEqual(Array.from({ length: 64 }, (_, i) => i));
  expect([...out.subarray(64)]).toEqual(
    Array.from({ length: 64 }, (_, i) => {
      const transposed = 8 * (i % 8) + (i >> 3);
      return i % 2 === 0 ? 2 * transposed : transposed + 0.5;
    }),
  );
});
