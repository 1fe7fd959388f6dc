import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import type { NativeDispatch, NativeKernel, NativeProgram, ProgramSpec } from '../../src/runtime/native.js';
import { addon, buffers, emptySpec, position, row, temporaryFolder, threadgroup } from './support.js';

/** `ProgramSpec.shuffle`: the order of what no barrier orders. Seeds are in the titles or written out. */

const cache = temporaryFolder();
const seeds = [1, 2, 3, 4, 5];
const ascending = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

type Program = Pick<ProgramSpec, 'source' | 'simdWidth' | 'kernels'> & {
  /** Bytes of each arena; all start as zeros. */
  readonly arenas: readonly number[];
  readonly dispatches: readonly NativeDispatch[];
};

function open(program: Program, shuffle?: number): Promise<NativeProgram> {
  return addon.createProgram(
    'cpu',
    emptySpec(cache, {
      source: `#include <metal_stdlib>\nusing namespace metal;\n${program.source}`,
      simdWidth: program.simdWidth,
      kernels: program.kernels,
      arenas: program.arenas.map((bytes, i) => ({ name: `arena${i}`, bytes })),
      entries: [{ name: 'run', dispatches: program.dispatches }],
      ...(shuffle === undefined ? {} : { shuffle }),
    }),
  );
}

/** The uints of one arena. */
function words(program: NativeProgram, arena: number, count: number): number[] {
  const into = new Uint32Array(count);
  program.read(arena, 0, new Uint8Array(into.buffer));
  return [...into];
}

/** What one submission of a new program leaves in an arena. */
async function outcome(program: Program, arena: number, count: number, shuffle?: number): Promise<number[]> {
  const opened = await open(program, shuffle);
  try {
    await opened.submit(0);
    return words(opened, arena, count);
  } finally {
    opened.close();
  }
}

describe.each([1, 32] as const)('threadgroups at width %i', (simdWidth) => {
  const threads = simdWidth;

  /** Dispatches of 128 threads: x[i] = i + 1, then y[i] = x[127 - i]. */
  const reversal = (barrier: boolean): Program => ({
    simdWidth,
    source: `
      kernel void count(device uint* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] = i + 1; }
      kernel void reverse(device const uint* x [[buffer(0)]], device uint* y [[buffer(1)]],
                          uint i [[thread_position_in_grid]]) { y[i] = x[127 - i]; }`,
    kernels: [
      {
        name: 'count',
        threads: row(threads),
        arguments: [...buffers(1), position('thread_position_in_grid')],
      },
      {
        name: 'reverse',
        threads: row(threads),
        arguments: [...buffers(2), position('thread_position_in_grid')],
      },
    ],
    arenas: [512, 512],
    dispatches: [0, 1].map((kernel) => ({
      kernel,
      grid: [128 / threads, 1, 1],
      bindings: [0, 1].slice(0, kernel + 1).map((arena) => ({ arena, offset: 0, bytes: 512 })),
      barrier: kernel === 1 && barrier,
    })),
  });
  const reversed = ascending(128).map((i) => 128 - i);

  it(`shows a missing barrier that list order hides, seeds ${seeds.join(', ')}`, async () => {
    expect(await outcome(reversal(false), 1, 128)).toEqual(reversed);
    const found = await Promise.all(seeds.map((seed) => outcome(reversal(false), 1, 128, seed)));
    expect(found.filter((y) => y.join() !== reversed.join()).length).toBeGreaterThan(0);
    for (const seed of seeds) expect(await outcome(reversal(true), 1, 128, seed)).toEqual(reversed);
  });

  /**
   * Every threadgroup notes its place: arena 1 holds label + x + 10 y + 100 z in the order in which they ran. The label
   * of dispatch d is 1000 d.
   */
  const log = (grids: readonly NativeDispatch['grid'][], barriers: readonly number[] = []): Program => ({
    simdWidth,
    source: grids
      .map(
        (_, d) => `kernel void note_${d}(device uint* turn [[buffer(0)]], device uint* order [[buffer(1)]],
          uint3 group [[threadgroup_position_in_grid]], uint thread_index [[thread_index_in_threadgroup]]) {
          if (thread_index == 0) order[turn[0]++] = ${1000 * d} + group.x + 10 * group.y + 100 * group.z;
        }`,
      )
      .join('\n'),
    kernels: grids.map((_, d) => ({
      name: `note_${d}`,
      threads: row(threads),
      arguments: [
        ...buffers(2),
        position('threadgroup_position_in_grid'),
        position('thread_index_in_threadgroup'),
      ],
    })),
    arenas: [16, 8192],
    dispatches: grids.map((grid, kernel) => ({
      kernel,
      grid,
      bindings: [16, 8192].map((bytes, arena) => ({ arena, offset: 0, bytes })),
      barrier: barriers.includes(kernel),
    })),
  });

  it('runs the dispatches of an epoch interleaved, and epochs one after another', async () => {
    const program = log([[8, 1, 1] as const, [8, 1, 1] as const, [4, 1, 1] as const], [2]);
    const listed = [...ascending(8), ...ascending(8).map((i) => 1000 + i), ...[2000, 2001, 2002, 2003]];
    expect(await outcome(program, 1, 20)).toEqual(listed);
    for (const seed of seeds) {
      const order = await outcome(program, 1, 20, seed);
      expect([...order].sort((a, b) => a - b)).toEqual(listed);
      expect(order.slice(16).every((place) => place >= 2000)).toBe(true);
      // One dispatch after the other would change dispatch once.
      const changes = order.slice(1, 16).filter((place, i) => place < 1000 !== (order[i] ?? NaN) < 1000);
      expect(changes.length, `seed ${seed}: ${order.join()}`).toBeGreaterThan(2);
    }
  });

  it('runs every threadgroup of a grid once', async () => {
    const program = log([[10, 7, 3] as const, [1, 1, 10] as const]);
    // 210 and 10 threadgroups, and one word more that must stay 0.
    const listed = await outcome(program, 1, 221);
    const order = await outcome(program, 1, 221, 9);
    expect(order[220]).toBe(0);
    expect(order).not.toEqual(listed);
    expect(order.sort((a, b) => a - b)).toEqual(listed.sort((a, b) => a - b));
  });

  it('has one order for a seed, and another for each submission', async () => {
    const program = log([[6, 1, 1] as const, [6, 1, 1] as const]);
    const two = async (seed: number): Promise<[number[], number[]]> => {
      const opened = await open(program, seed);
      await opened.submit(0);
      await opened.submit(0);
      const order = words(opened, 1, 24);
      opened.close();
      return [order.slice(0, 12), order.slice(12)];
    };
    const [first, second] = await two(7);
    expect(await two(7)).toEqual([first, second]);
    expect(second).not.toEqual(first);
    const [other] = await two(8);
    expect(other).not.toEqual(first);
    await two(0);
    await two(2 ** 32 - 1);
  });

  it('can run three dispatches in each of their six orders, seeds 0 to 63', async () => {
    const program = log([[1, 1, 1] as const, [1, 1, 1] as const, [1, 1, 1] as const]);
    const orders = await Promise.all(ascending(64).map((seed) => outcome(program, 1, 3, seed)));
    expect(new Set(orders.map((order) => order.join())).size).toBe(6);
  });

  it('poisons threadgroup memory between threadgroups of different dispatches', async () => {
    const scratch = (name: string): NativeKernel => ({
      name,
      threads: row(threads),
      arguments: [...buffers(1), threadgroup(0, 16), position('threadgroup_position_in_grid')],
    });
    const program: Program = {
      simdWidth,
      source: `
        kernel void leave(device uint* found [[buffer(0)]], threadgroup uint* scratch [[threadgroup(0)]],
                          uint group [[threadgroup_position_in_grid]]) { scratch[group & 3] = group; }
        kernel void find(device uint* found [[buffer(0)]], threadgroup uint* scratch [[threadgroup(0)]],
                         uint group [[threadgroup_position_in_grid]]) { found[group] = scratch[group & 3]; }`,
      kernels: [scratch('leave'), scratch('find')],
      arenas: [64],
      dispatches: [0, 1].map((kernel) => ({
        kernel,
        grid: [16, 1, 1] as const,
        bindings: [{ arena: 0, offset: 0, bytes: 64 }],
        barrier: false,
      })),
    };
    for (const seed of seeds)
      expect(await outcome(program, 0, 16, seed)).toEqual(Array(16).fill(2 ** 32 - 1));
  });

  it(`leaves the bits of a correct program alone, seeds ${seeds.join(', ')}`, async () => {
    const reduction: NativeKernel = {
      name: 'reduce',
      threads: row(simdWidth === 1 ? 1 : 96),
      arguments: [
        ...buffers(2),
        threadgroup(0, 16),
        position('threadgroup_position_in_grid'),
        position('thread_index_in_threadgroup'),
        position('thread_index_in_simdgroup'),
        position('simdgroup_index_in_threadgroup'),
        position('simdgroups_per_threadgroup'),
        position('threads_per_threadgroup'),
      ],
    };
    const binding = (offset: number): { arena: number; offset: number; bytes: number } => ({
      arena: 0,
      offset,
      bytes: 1024,
    });
    const step = (from: number, to: number, barrier: boolean): NativeDispatch => ({
      kernel: 0,
      grid: [16, 16, 1],
      bindings: [binding(from), binding(to)],
      barrier,
    });
    // Two reductions at the same time, then one that reads what both have left.
    const program: Program = {
      simdWidth,
      source: `kernel void reduce(device const float* x [[buffer(0)]], device float* y [[buffer(1)]],
        threadgroup float* partial [[threadgroup(0)]], uint2 group [[threadgroup_position_in_grid]],
        uint thread_index [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]],
        uint simdgroup [[simdgroup_index_in_threadgroup]], uint simdgroups [[simdgroups_per_threadgroup]],
        uint threads [[threads_per_threadgroup]]) {
        const uint row = group.x + 16 * group.y;
        float total = 0.0f;
        for (uint k = thread_index; k < 256; k += threads) total += sin(x[k] * 1.1f + float(k * row));
        total = simd_sum(total);
        if (lane == 0) partial[simdgroup] = total;
        threadgroup_barrier(mem_flags::mem_threadgroup);
        if (thread_index != 0) return;
        total = 0.0f;
        for (uint i = 0; i < simdgroups; i++) total += partial[i];
        y[row] = total;
      }`,
      kernels: [reduction],
      arenas: [5120],
      dispatches: [
        step(0, 1024, false),
        step(0, 2048, false),
        step(1024, 3072, true),
        step(2048, 4096, false),
      ],
    };
    const expected = await outcome(program, 0, 1280);
    expect(new Set(expected).size).toBeGreaterThan(256);
    for (const seed of seeds) expect(await outcome(program, 0, 1280, seed)).toEqual(expected);
  });
});

describe('lanes and simdgroups', () => {
  /** Arena 0 holds when each of 96 threads came by, in three phases. */
  const phases: Program = {
    simdWidth: 32,
    source: `kernel void phases(device uint* turns [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
      device uint* count = turns + 288;
      turns[i] = count[0]++;
      simdgroup_barrier(mem_flags::mem_none);
      turns[96 + i] = count[1]++;
      threadgroup_barrier(mem_flags::mem_none);
      turns[192 + i] = count[2]++;
    }`,
    kernels: [
      {
        name: 'phases',
        threads: row(96),
        arguments: [...buffers(1), position('thread_index_in_threadgroup')],
      },
    ],
    arenas: [1168],
    dispatches: [
      { kernel: 0, grid: [1, 1, 1], bindings: [{ arena: 0, offset: 0, bytes: 1168 }], barrier: true },
    ],
  };
  /** In order: the threads of each phase. */
  const threadsOf = (turns: readonly number[]): number[][] =>
    [0, 96, 192].map((from) => {
      const order: number[] = [];
      turns.slice(from, from + 96).forEach((turn, thread) => (order[turn] = thread));
      return order;
    });

  it('go on in ascending order without a seed', async () => {
    expect(threadsOf(await outcome(phases, 0, 288))).toEqual(Array(3).fill(ascending(96)));
  });

  it(`go on in any order that Metal allows with seeds ${seeds.join(', ')}`, async () => {
    const firstSimdgroups = new Set<number>();
    const seen = new Set<string>();
    for (const seed of seeds) {
      const orders = threadsOf(await outcome(phases, 0, 288, seed));
      for (const order of orders) {
        expect([...order].sort((a, b) => a - b)).toEqual(ascending(96));
        // The lanes of a simdgroup vary too, not only the simdgroups.
        expect(order.filter((thread) => thread < 32)).not.toEqual(ascending(32));
        firstSimdgroups.add(Math.floor((order[0] ?? NaN) / 32));
        seen.add(order.join());
      }
    }
    expect(firstSimdgroups).toEqual(new Set([0, 1, 2]));
    expect(seen.size).toBe(3 * seeds.length);
  });

  it('show a missing threadgroup barrier that ascending order hides', async () => {
    const neighbour = (barrier: string): Program => ({
      ...phases,
      source: `kernel void phases(device uint* turns [[buffer(0)]], uint i [[thread_index_in_threadgroup]]) {
        threadgroup uint shared[96];
        shared[i] = i;
        ${barrier}
        turns[i] = i >= 32 ? shared[i - 32] : i;
      }`,
    });
    const expected = ascending(96).map((i) => (i >= 32 ? i - 32 : i));
    const correct = neighbour('threadgroup_barrier(mem_flags::mem_threadgroup);');
    const racy = neighbour('');
    expect(await outcome(racy, 0, 96)).toEqual(expected);
    const found = await Promise.all(seeds.map((seed) => outcome(racy, 0, 96, seed)));
    expect(found.filter((turns) => turns.join() !== expected.join()).length).toBeGreaterThan(0);
    for (const seed of seeds) expect(await outcome(correct, 0, 96, seed)).toEqual(expected);
  });
});

describe.each(['cpu', 'metal'] as const)('a model compiled for %s', (target) => {
  const model = 'models/llama.graph.ts';
  const weights = 'examples/stories260k';
  const tokens = [1, 403, 407, 261, 378];

  it(`gives the same bits in every order, seeds ${seeds.join(', ')}`, async () => {
    const out = path.join(cache, target);
    await compile({ model, weights, target, chunk: 4, out });
    const run = async (shuffle?: number): Promise<[Float32Array, number[]]> => {
      const session = await Session.open(out, {
        device: 'cpu',
        ...(shuffle === undefined ? {} : { shuffle }),
      });
      try {
        const logits = await session.score(tokens);
        const ids: number[] = [];
        for await (const { id } of session.generate(tokens, { greedy: true, maxTokens: 5 })) ids.push(id);
        return [logits, ids];
      } finally {
        session.close();
      }
    };
    const expected = await run();
    for (const seed of seeds) expect(await run(seed)).toEqual(expected);
    await expect(run(2 ** 32)).rejects.toThrow('shuffle is 4294967296; a seed is at most 4294967295');
  });
});
