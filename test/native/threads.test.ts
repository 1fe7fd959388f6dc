import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import type { NativeProgram } from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  failure,
  launchSpec,
  position,
  row,
  temporaryFolder,
  threadgroup,
  type Launch,
} from './support.js';

/** `ProgramSpec.threads`: several OS threads that share the threadgroups of a dispatch. */

const cache = temporaryFolder();
/** Above what a dispatch must have to be shared. */
const largeBytes = 1 << 16;

function open(launch: Launch, threads: number): Promise<NativeProgram> {
  return addon.createProgram('cpu', { ...launchSpec(cache, launch), threads });
}

function words(program: NativeProgram, arena: number, count: number): Uint32Array {
  const into = new Uint32Array(count);
  program.read(arena, 0, new Uint8Array(into.buffer));
  return into;
}

describe.each([1, 32] as const)('at width %i', (simdWidth) => {
  it('runs threadgroups at the same time, and the same way with any number of OS threads', async () => {
    const launch = (sequential: boolean): Launch => ({
      // The first threadgroup waits, not for ever, for a sign of the last one.
      source: `kernel void meet(device volatile uint* x [[buffer(0)]], uint group [[threadgroup_position_in_grid]],
          uint i [[thread_index_in_threadgroup]]) {
        if (i != 0) return;
        if (group == 1) x[1] = 1;
        if (group == 0) for (uint k = 0; k < 400000000u && x[0] == 0; k++) x[0] = x[1];
      }`,
      kernel: {
        name: 'meet',
        threads: row(simdWidth),
        arguments: [
          ...buffers(1),
          position('threadgroup_position_in_grid'),
          position('thread_index_in_threadgroup'),
        ],
        sequential,
      },
      grid: [2, 1, 1],
      data: [new Uint32Array(largeBytes / 4)],
      simdWidth,
    });
    const shared = await open(launch(false), 2);
    await shared.submit(0);
    expect([...words(shared, 0, 2)]).toEqual([1, 1]);
    shared.close();
    const sequential = await open(launch(true), 2);
    await sequential.submit(0);
    expect([...words(sequential, 0, 2)]).toEqual([0, 1]);
    sequential.close();
  });

  const chain = (grid: Launch['grid'] & {}): Launch => ({
    source: `kernel void chain(device const uint* x [[buffer(0)]], device uint* y [[buffer(1)]],
        threadgroup uint* scratch [[threadgroup(0)]], uint3 at [[thread_position_in_grid]],
        uint3 size [[threads_per_grid]], uint i [[thread_index_in_threadgroup]]) {
      const uint place = at.x + size.x * (at.y + size.y * at.z);
      scratch[i] = 3 * x[place] + place;
      threadgroup_barrier(mem_flags::mem_threadgroup);
      y[place] += scratch[i ^ (size.x & 0)];
    }`,
    kernel: {
      name: 'chain',
      threads: row(simdWidth),
      arguments: [
        ...buffers(2),
        threadgroup(0, 128),
        position('thread_position_in_grid'),
        position('threads_per_grid'),
        position('thread_index_in_threadgroup'),
      ],
    },
    grid,
    data: [new Uint32Array(largeBytes / 4).map((_, i) => i * 7), new Uint32Array(largeBytes / 4)],
    simdWidth,
  });

  it.each([[[29, 1, 1]], [[3, 17, 2]], [[2, 2, 2]], [[1, 1, 5]]] as const)(
    'runs every threadgroup of a grid of %s once',
    async (grid) => {
      const launch = chain(grid);
      const count = grid[0] * grid[1] * grid[2] * simdWidth;
      const expected = Array.from({ length: count }, (_, i) => 5 * (22 * i));
      for (const threads of [1, 2, 3, 8]) {
        const program = await open(launch, threads);
        launch.data.forEach((data, arena) => program.write(arena, 0, new Uint8Array(data.buffer)));
        await program.submit(0, 5);
        const y = words(program, 1, count + 1);
        expect([...y]).toEqual([...expected, 0]);
        program.close();
      }
    },
  );

  it('hands 100000 dispatches over without losing or repeating one', async () => {
    const program = await open(
      {
        source: `kernel void count(device uint* x [[buffer(0)]], uint group [[threadgroup_position_in_grid]],
            uint i [[thread_index_in_threadgroup]]) { if (i == 0) x[32 * group] += 1 + x[32 * group + 1]; }`,
        kernel: {
          name: 'count',
          threads: row(simdWidth),
          arguments: [
            ...buffers(1),
            position('threadgroup_position_in_grid'),
            position('thread_index_in_threadgroup'),
          ],
        },
        grid: [3, 1, 1],
        data: [new Uint32Array(largeBytes / 4)],
        simdWidth,
      },
      3,
    );
    for (const steps of [1, 2, 49_997, 50_000]) await program.submit(0, steps);
    const x = words(program, 0, 96);
    expect([x[0], x[32], x[64]]).toEqual([100_000, 100_000, 100_000]);
    program.close();
  });

  it('sleeps between submissions and wakes up', async () => {
    const launch = chain([8, 1, 1]);
    const program = await open(launch, 2);
    launch.data.forEach((data, arena) => program.write(arena, 0, new Uint8Array(data.buffer)));
    for (let i = 0; i < 10; i++) {
      await program.submit(0);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    expect(words(program, 1, 8)[7]).toBe(10 * 22 * 7);
    program.close();
  });
});

it('reports the first threadgroup that fails', async () => {
  const launch: Launch = {
    source: `kernel void split(device uint* x [[buffer(0)]], uint3 group [[threadgroup_position_in_grid]],
        uint i [[thread_index_in_threadgroup]]) {
      if (group.y + 10 * group.z >= x[0] && i == 0) return;
      threadgroup_barrier(mem_flags::mem_none);
    }`,
    kernel: {
      name: 'split',
      threads: row(32),
      arguments: [
        ...buffers(1),
        position('threadgroup_position_in_grid'),
        position('thread_index_in_threadgroup'),
      ],
    },
    grid: [1, 10, 3],
    data: [new Uint32Array(largeBytes / 4)],
  };
  for (const threads of [1, 3]) {
    const program = await open(launch, threads);
    for (const [first, place] of [
      [13, '(0, 3, 1)'],
      [0, '(0, 0, 0)'],
      [29, '(0, 9, 2)'],
    ] as const) {
      program.write(0, 0, new Uint8Array(Uint32Array.of(first).buffer));
      const { code, message } = await failure(() => program.submit(0));
      expect(code).toBe('UPGC_KERNEL');
      expect(message).toContain(`kernel split, threadgroup ${place}: barrier not reached by all threads`);
    }
    program.write(0, 0, new Uint8Array(Uint32Array.of(30).buffer));
    await program.submit(0);
    program.close();
  }
});

it('refuses numbers of OS threads that make no sense', async () => {
  const launch: Launch = {
    source: 'kernel void nothing() {}',
    kernel: { name: 'nothing', threads: row(1), arguments: [] },
    data: [],
  };
  for (const threads of [0, 1025])
    expect(await failure(() => open(launch, threads))).toEqual({
      code: 'UPGC_BAD_PLAN',
      message: `threads is ${threads}; it can be 1 to 1024`,
    });
});

it.each(['cpu', 'metal'] as const)('gives a model compiled for %s the same bits', async (target) => {
  const out = path.join(cache, target);
  await compile({ model: 'models/llama.graph.ts', weights: 'examples/stories260k', target, chunk: 32, out });
  const tokens = Array.from({ length: 40 }, (_, i) => 1 + ((i * 37) % 500));
  const run = async (options: { threads?: number; shuffle?: number }): Promise<Float32Array> => {
    const session = await Session.open(out, { device: 'cpu', ...options });
    try {
      return await session.score(tokens);
    } finally {
      session.close();
    }
  };
  const expected = await run({});
  expect(await run({ threads: 2 })).toEqual(expected);
  expect(await run({ threads: 3 })).toEqual(expected);
  expect(await run({ threads: 2, shuffle: 1 })).toEqual(expected);
});
