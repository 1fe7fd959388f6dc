import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { ProgramSpec } from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  defined,
  failure,
  launchSpec,
  loadLaunch,
  position,
  row,
  run,
  temporaryFolder,
  threadgroup,
  type Launch,
} from './support.js';

const cache = temporaryFolder();
const range = (n: number): Float32Array => Float32Array.from({ length: n }, (_, i) => i);
const sum = (values: Iterable<number>): number => [...values].reduce((a, b) => a + b, 0);

describe('both simdgroup widths', () => {
  for (const simdWidth of [1, 32] as const) {
    it(`adds vectors at width ${simdWidth}`, async () => {
      const threads = simdWidth === 1 ? 1 : 64;
      const n = 1000;
      const x = range(n);
      const y = x.map((v) => 2 * v);
      const out = new Float32Array(n);
      await run(cache, {
        source: `kernel void add(device const float* x [[buffer(0)]], device const float* y [[buffer(1)]],
          device float* out [[buffer(2)]], constant uint& n [[buffer(3)]], uint i [[thread_position_in_grid]]) {
          if (i < n) out[i] = x[i] + y[i];
        }`,
        kernel: {
          name: 'add',
          threads: row(threads),
          arguments: [...buffers(4), position('thread_position_in_grid')],
        },
        grid: [Math.ceil(n / threads), 1, 1],
        data: [x, y, out, Uint32Array.of(n)],
        simdWidth,
      });
      expect(out).toEqual(x.map((v) => 3 * v));
    });

    it(`computes a linear layer from bf16 and f16 at width ${simdWidth}`, async () => {
      const threads = simdWidth;
      // 1 + k/4 in bf16 and f16; y[row] = sum over k of x[k] * w16[row][k] * h[k]
      const columns = 64;
      const rows = 3;
      const x = range(columns);
      const bf16 = new Uint16Array(rows * columns).map(
        (_, i) => defined(new Uint32Array(Float32Array.of(1 + (i % 4) / 4).buffer)[0]) >> 16,
      );
      const half = new Uint16Array(columns).fill(0x3800); // 0.5
      const y = new Float32Array(rows);
      await run(cache, {
        source: `struct Step { uint position; uint tokens; };
        kernel void linear(device const float* x [[buffer(0)]], device const ushort* weight [[buffer(1)]],
          device const half* scale [[buffer(2)]], device float* y [[buffer(3)]], constant Step& step [[buffer(4)]],
          uint3 group [[threadgroup_position_in_grid]], ushort lane [[thread_index_in_simdgroup]],
          uint width [[threads_per_simdgroup]]) {
          float total = 0.0f;
          for (uint k = lane; k < ${columns}; k += width)
            total += x[k] * as_type<float>(uint(weight[group.x * ${columns} + k]) << 16) * float(scale[k]);
          total = simd_sum(total);
          if (lane == 0) y[group.x] = total * float(step.tokens);
        }`,
        kernel: {
          name: 'linear',
          threads: row(threads),
          arguments: [
            ...buffers(5),
            position('threadgroup_position_in_grid'),
            position('thread_index_in_simdgroup'),
            position('threads_per_simdgroup'),
          ],
        },
        grid: [rows, 1, 1],
        data: [x, bf16, half, y, Uint32Array.of(7, 2)],
        simdWidth,
      });
      const expected = sum(x.map((v, k) => v * (1 + (k % 4) / 4)));
      expect([...y]).toEqual([expected, expected, expected]);
    });
  }

  describe.each([1, 32] as const)('what kernels are written with, at width %i', (simdWidth) => {
    const lane = position('thread_index_in_simdgroup');
    const group = position('threadgroup_position_in_grid');

    const advance: Launch = {
      source: `struct Step { uint position; uint tokens; };
        kernel void advance(device Step& step [[buffer(0)]], constant Step& other [[buffer(1)]],
                            uint lane [[thread_index_in_simdgroup]]) {
          if (lane == 0) step.position += step.tokens + other.position;
        }`,
      kernel: { name: 'advance', threads: row(simdWidth), arguments: [...buffers(2), lane] },
      data: [Uint32Array.of(7, 2), Uint32Array.of(100, 0)],
      simdWidth,
    };

    it('writes a struct through a device reference', async () => {
      const program = await loadLaunch(cache, advance);
      await program.submit(0, 3);
      const step = new Uint32Array(2);
      program.read(0, 0, new Uint8Array(step.buffer));
      expect([...step]).toEqual([7 + 3 * 102, 2]);
      program.close();
    });

    it('knows that a device reference is written and a constant one is not', async () => {
      const file = path.join(cache, 'step.bin');
      writeFileSync(file, new Uint8Array(8));
      const spec = launchSpec(cache, advance);
      const [step, other] = spec.arenas.map((arena) => [arena, { ...arena, file }] as const);
      const arenas = (a = step?.[0], b = other?.[0]): ProgramSpec => ({
        ...spec,
        arenas: [defined(a), defined(b)],
      });
      (await addon.createProgram('cpu', arenas(undefined, other?.[1]))).close();
      expect(await failure(() => addon.createProgram('cpu', arenas(step?.[1])))).toEqual({
        code: 'UPGC_BAD_PLAN',
        message:
          'entry run, dispatch 0 (advance): binding 0 is not const, but arena buffer0 is a read-only file',
      });
    });

    it('passes threadgroup and device pointers to one template', async () => {
      const x = range(64);
      const out = new Float32Array(4);
      await run(cache, {
        source: `
          template <uint rows, typename X>
          inline void add_rows(X x, uint columns, thread float* sums) {
            for (uint row = 0; row < rows; ++row)
              for (uint k = 0; k < columns; ++k) sums[row] += x[row * columns + k];
          }
          kernel void add_up(device const float* x [[buffer(0)]], device float* out [[buffer(1)]],
                             threadgroup float* scratch [[threadgroup(0)]],
                             uint lane [[thread_index_in_simdgroup]], uint width [[threads_per_simdgroup]]) {
            for (uint k = lane; k < 64; k += width) scratch[k] = -2.0f * x[k];
            threadgroup_barrier(mem_flags::mem_threadgroup);
            threadgroup const float* copy = scratch;
            float sums[2] = {0.0f, 0.0f};
            add_rows<2>(x, 32, sums);
            add_rows<2, threadgroup const float*>(copy, 32, sums);
            if (lane == 0) out[0] = sums[0], out[1] = sums[1];
          }`,
        kernel: {
          name: 'add_up',
          threads: row(simdWidth),
          arguments: [...buffers(2), threadgroup(0, 256), lane, position('threads_per_simdgroup')],
        },
        data: [x, out],
        simdWidth,
      });
      expect([...out]).toEqual([-sum(x.subarray(0, 32)), -sum(x.subarray(32)), 0, 0]);
    });

    it('keeps pointers to rows in thread memory', async () => {
      const weight = new Uint16Array(4 * 8).map((_, i) => i);
      const out = new Uint32Array(8);
      await run(cache, {
        source: `kernel void columns(device const ushort* weight [[buffer(0)]], device uint* out [[buffer(1)]],
            uint group [[threadgroup_position_in_grid]], uint lane [[thread_index_in_simdgroup]]) {
          device const ushort* rows[4];
          for (uint r = 0; r < 4; ++r) rows[r] = weight + 8 * r;
          uint total = 0;
          for (uint r = 0; r < 4; ++r) total += rows[r][group] << (4 * r);
          if (lane == 0) out[group] = total;
        }`,
        kernel: { name: 'columns', threads: row(simdWidth), arguments: [...buffers(2), group, lane] },
        grid: [8, 1, 1],
        data: [weight, out],
        simdWidth,
      });
      expect([...out]).toEqual(
        Array.from({ length: 8 }, (_, k) => k + ((8 + k) << 4) + ((16 + k) << 8) + ((24 + k) << 12)),
      );
    });

    it('draws random numbers with integer mathematics and reduces them over the lanes', async () => {
      const out = new Uint32Array(5 * 4);
      await run(cache, {
        // One round of Philox 4x32 (Salmon et al., 2011), then a float in [1, 2) from the high bits.
        source: `kernel void draw(device uint* out [[buffer(0)]], uint group [[threadgroup_position_in_grid]],
                                  uint lane [[thread_index_in_simdgroup]]) {
          const uint counter = 77u * group + lane;
          const uint bits = mulhi(0xd2511f53u, counter) ^ 0xa4093822u ^ (counter * 0xcd9e8d57u);
          const ulong wide = ulong(bits) * 0x9e3779b97f4a7c15ul;
          const float unit = as_type<float>(bits >> 9 | 0x3f800000u);
          device uint* row = out + 5 * group;
          row[0] = simd_max(bits);
          row[1] = simd_min(uint(wide >> 32));
          row[2] = simd_sum(uint(popcount(wide)));
          row[3] = as_type<uint>(simd_max(unit));
          row[4] = simd_broadcast_first(bits) + simd_sum(unit < 2.0f && unit >= 1.0f ? 1u : 0u);
        }`,
        kernel: { name: 'draw', threads: row(simdWidth), arguments: [...buffers(1), group, lane] },
        grid: [4, 1, 1],
        data: [out],
        simdWidth,
      });
      const expected = Array.from({ length: 4 }, (_, g) => {
        const bits = Array.from({ length: simdWidth }, (_, l) => {
          const counter = 77 * g + l;
          const high = Number((0xd2511f53n * BigInt(counter)) >> 32n);
          return (high ^ 0xa4093822 ^ Math.imul(counter, 0xcd9e8d57)) >>> 0;
        });
        const wide = bits.map((b) => BigInt.asUintN(64, BigInt(b) * 0x9e3779b97f4a7c15n));
        const ones = wide.map((w) => w.toString(2).replaceAll('0', '').length);
        return [
          Math.max(...bits),
          Math.min(...wide.map((w) => Number(w >> 32n))),
          sum(ones),
          Math.max(...bits.map((b) => ((b >>> 9) | 0x3f800000) >>> 0)),
          (defined(bits[0]) + simdWidth) % 2 ** 32,
        ];
      });
      expect([...out]).toEqual(expected.flat());
    });
  });

  it('passes every thread position', async () => {
    const kinds = [
      'thread_position_in_grid',
      'threadgroup_position_in_grid',
      'thread_position_in_threadgroup',
      'thread_index_in_threadgroup',
      'thread_index_in_simdgroup',
      'simdgroup_index_in_threadgroup',
      'simdgroups_per_threadgroup',
      'threads_per_threadgroup',
      'threadgroups_per_grid',
      'threads_per_simdgroup',
      'threads_per_grid',
    ];
    const types = [
      'uint3',
      'uint3',
      'ushort3',
      'uint',
      'ushort',
      'uint',
      'uint',
      'uint2',
      'uint3',
      'uint',
      'uint',
    ];
    const names = kinds.map((_, i) => `p${i}`);
    const columns = names.map((name, i) =>
      defined(types[i]).endsWith('3') ? `${name}.x` : types[i] === 'uint2' ? `${name}.x` : name,
    );
    const parameters = names.map((name, i) => `${types[i]} ${name} [[${kinds[i]}]]`).join(', ');
    const threads = 40;
    const out = new Uint32Array(kinds.length + 2);
    await run(cache, {
      source: `kernel void positions(device uint* out [[buffer(0)]], ${parameters}) {
        if (p0.x == 77 && p0.y == 1 && p0.z == 3) {
          ${columns.map((c, i) => `out[${i}] = ${c};`).join(' ')}
          out[${kinds.length}] = p1.y; out[${kinds.length + 1}] = p8.z;
        }
      }`,
      kernel: {
        name: 'positions',
        threads: row(threads),
        arguments: [...buffers(1), ...kinds.map(position)],
      },
      grid: [3, 2, 4],
      data: [out],
    });
    // thread 77 of x: threadgroup 1, thread 37, lane 5 of simdgroup 1
    expect([...out]).toEqual([77, 1, 37, 37, 5, 1, 2, 40, 3, 32, 120, 1, 4]);
  });

  it('leaves comments, strings and line numbers alone when it strips attributes', async () => {
    const out = new Uint32Array(4);
    await run(cache, {
      source: `// a [[comment that never closes
        /* nor [[ this one */
        constant char text[] = "[[not an attribute]]"; constant char quote = '"';
        [[max_total_threads_per_threadgroup(32), host_name("a ]] b")]]
        kernel void strip(device uint* out [[ buffer ( 0 ) ]]) {
          uint index[2] = {1'000 - 997, 1}; uint table[4] = {0, 5, 6, 7};
          out[0] = table[index[0]]; out[1] = text[0]; out[2] = quote; out[3] = __LINE__;
        }`,
      kernel: { name: 'strip', threads: row(1), arguments: buffers(1) },
      data: [out],
    });
    expect([...out]).toEqual([7, '['.charCodeAt(0), '"'.charCodeAt(0), 9]);
  });
});

describe('simdgroups of 32', () => {
  /** Runs `body` in `threads` threads; `out[thread]` is what it leaves in `result`. */
  async function perThread(name: string, threads: number, body: string, scratch = 0): Promise<number[]> {
    const out = new Float32Array(threads);
    await run(cache, {
      source: `kernel void ${name}(device float* out [[buffer(0)]], threadgroup float* scratch [[threadgroup(0)]],
        uint thread_index [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
        uint simdgroup [[simdgroup_index_in_threadgroup]], uint simdgroups [[simdgroups_per_threadgroup]]) {
        float result = -1.0f;
        ${body}
        out[thread_index] = result;
      }`,
      kernel: {
        name,
        threads: row(threads),
        arguments: [
          ...buffers(1),
          threadgroup(0, scratch),
          position('thread_index_in_threadgroup'),
          position('thread_index_in_simdgroup'),
          position('simdgroup_index_in_threadgroup'),
          position('simdgroups_per_threadgroup'),
        ],
      },
      data: [out],
    });
    return [...out];
  }
  const lanes = Array.from({ length: 32 }, (_, i) => i);

  it('reduces 256 threads through threadgroup memory', async () => {
    const out = await perThread(
      'reduce',
      256,
      `float total = simd_sum(float(thread_index));
       if (lane == 0) scratch[simdgroup] = total;
       threadgroup_barrier(mem_flags::mem_threadgroup);
       result = simd_sum(lane < simdgroups ? scratch[lane] : 0.0f);`,
      32,
    );
    expect(out).toEqual(Array(256).fill((256 * 255) / 2));
  });

  it('sums over the lanes of a branch', async () => {
    const out = await perThread(
      'branch',
      32,
      `if (lane < 16) result = simd_sum(1.0f); else if (lane % 2 == 0) result = simd_sum(10.0f);`,
    );
    expect(out).toEqual(lanes.map((lane) => (lane < 16 ? 16 : lane % 2 === 0 ? 80 : -1)));
  });

  it('goes on without lanes that have returned', async () => {
    const out = await perThread('early_return', 40, `if (lane >= 20) return; result = simd_sum(1.0f);`);
    expect(out).toEqual(Array.from({ length: 40 }, (_, i) => (i < 20 ? 20 : i < 32 ? 0 : 8)));
  });

  it('runs a loop whose lanes leave one by one before what follows', async () => {
    const out = await perThread(
      'shrinking',
      32,
      `result = 0.0f;
       for (uint i = 0; i <= lane; i++) result += simd_sum(1.0f);
       result = simd_sum(1.0f) * 1000.0f + result;`,
    );
    // round i has the lanes >= i
    expect(out).toEqual(lanes.map((lane) => 32000 + sum(lanes.filter((i) => i <= lane).map((i) => 32 - i))));
  });

  it('has reductions, prefixes, votes, broadcasts and shuffles', async () => {
    const cases: [string, (lane: number) => number][] = [
      ['simd_max(float(lane))', () => 31],
      ['simd_min(float(lane) - 5.0f)', () => -5],
      ['simd_product(lane < 3 ? 2.0f : 1.0f)', () => 8],
      ['float(simd_or(1u << (lane % 4)))', () => 15],
      ['float(simd_and(lane | 64u))', () => 64],
      ['float(simd_xor(lane == 7 ? 5u : 0u))', () => 5],
      ['simd_prefix_inclusive_sum(float(lane))', (lane) => (lane * (lane + 1)) / 2],
      ['simd_prefix_exclusive_sum(float(lane))', (lane) => sum(lanes.slice(0, lane))],
      ['float(simd_any(lane == 9))', () => 1],
      ['float(simd_all(lane < 31))', () => 0],
      ['float(ulong(simd_ballot(lane < 24 && lane % 8 == 0)))', () => 0x010101],
      ['simd_broadcast(float(lane), 11)', () => 11],
      ['simd_broadcast_first(float(lane) + 3.0f)', () => 3],
      ['simd_shuffle(float(lane), 31 - lane)', (lane) => 31 - lane],
      ['simd_shuffle_xor(float(lane), 5)', (lane) => lane ^ 5],
      ['simd_shuffle_up(float(lane), 2)', (lane) => (lane < 2 ? lane : lane - 2)],
      ['simd_shuffle_down(float(lane), 3)', (lane) => (lane > 28 ? lane : lane + 3)],
      ['simd_sum(float2(float(lane), 1.0f)).y', () => 32],
      ['float(simd_sum(half(2)))', () => 64],
      ['simd_is_first() ? 1.0f : 0.0f', (lane) => (lane === 0 ? 1 : 0)],
    ];
    const body = cases.map(([expression], i) => `if (simdgroup == ${i}) result = ${expression};`).join('\n');
    const out = await perThread('functions', 32 * cases.length, body);
    cases.forEach(([expression, expected], i) => {
      expect(out.slice(32 * i, 32 * i + 32), expression).toEqual(lanes.map(expected));
    });
  });

  it('shares threadgroup variables declared in a kernel', async () => {
    const body = `threadgroup float partial[2], last; // two variables
      threadgroup float* pointer = partial; threadgroup float& reference = *(pointer + 1);
      if (lane == 0) partial[simdgroup] = float(10 + simdgroup);
      if (thread_index == 63) last = 0.5f;
      threadgroup_barrier(mem_flags::mem_threadgroup);
      result = pointer[0] * 100.0f + reference + last;`;
    expect(await perThread('variables', 64, body)).toEqual(Array(64).fill(1011.5));
  });

  it('poisons threadgroup memory, so that reading before writing shows', async () => {
    const out = await perThread('unwritten', 1, 'result = scratch[3];', 16);
    expect(out).toEqual([NaN]);
  });

  it('gives the same bits on every run', async () => {
    const body = 'for (uint i = 0; i < 9; i++) result += simd_sum(metal::sin(float(thread_index * i)));';
    const [first, ...others] = await Promise.all([1, 2, 3].map(() => perThread('same', 96, body)));
    for (const other of others) expect(other).toEqual(first);
  });

  it('names kernel, threadgroup and lines of a barrier that not all threads reach', async () => {
    const kernel = (name: string, body: string) => ({
      source: `kernel void ${name}(device float* out [[buffer(0)]], uint lane [[thread_index_in_threadgroup]],
        uint group [[threadgroup_position_in_grid]]) {
        ${body}
      }`,
      kernel: {
        name,
        threads: row(64),
        arguments: [
          ...buffers(1),
          position('thread_index_in_threadgroup'),
          position('threadgroup_position_in_grid'),
        ],
      },
      grid: [3, 1, 1] as const,
      data: [new Float32Array(4)],
    });
    const barrier = 'threadgroup_barrier(mem_flags::mem_none);';
    const returned = await failure(() =>
      run(cache, kernel('some_return', `if (group == 1 && lane < 10) return; ${barrier}`)),
    );
    expect(returned.code).toBe('UPGC_KERNEL');
    expect(returned.message).toBe(
      'kernel some_return, threadgroup (1, 0, 0): barrier not reached by all threads: 54 of 64 wait at ' +
        'kernels.metal:5:46, the others have returned',
    );
    const program = await loadLaunch(
      cache,
      kernel('two_barriers', `if (lane < 10) ${barrier}\n else ${barrier}`),
    );
    const divergent = await failure(() => program.submit(0));
    expect(divergent.code).toBe('UPGC_KERNEL');
    expect(divergent.message).toContain('they wait at kernels.metal:5:24 and kernels.metal:6:7');
    // The program survives: the next submission starts afresh and fails the same way.
    expect(await failure(() => program.submit(0))).toEqual(divergent);
    program.close();
  });
});
