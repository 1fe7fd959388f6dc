import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import type { NativeProgram } from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  defined,
  emptySpec,
  failure,
  launchSpec,
  loadLaunch,
  position,
  row,
  temporaryFolder,
} from './support.js';

const cache = temporaryFolder();

const increment = {
  source: `kernel void increment(device uint* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] += 1; }`,
  kernel: {
    name: 'increment',
    threads: row(32),
    arguments: [...buffers(1), position('thread_position_in_grid')],
  },
  data: [new Uint32Array(32).fill(5)],
};
const code = async (action: () => unknown): Promise<unknown> => (await failure(action)).code;

it('lists its devices and refuses others', async () => {
  expect(addon.devices()).toContain('cpu');
  const unknown = await failure(() => addon.createProgram('tpu', launchSpec(cache, increment)));
  expect(unknown).toEqual({
    code: 'UPGC_UNKNOWN_DEVICE',
    message: 'this build has no device "tpu"; it has: cuda, cpu',
  });
});

it('writes, runs, reads and clears', async () => {
  const program = await loadLaunch(cache, increment);
  await program.submit(0);
  await program.submit(0);
  const two = new Uint8Array(8);
  program.read(0, 4, two);
  expect([...two]).toEqual([7, 0, 0, 0, 7, 0, 0, 0]);
  program.write(0, 4, Uint8Array.of(9));
  program.clear(0);
  program.read(0, 4, two);
  expect([...two]).toEqual(Array(8).fill(0));
  program.close();
});

it('allocates nothing after creation', async () => {
  const program = await loadLaunch(cache, increment);
  const before = program.stats();
  expect(before.allocations).toBe(2); // the arena and the stacks
  expect(before.allocatedBytes).toBeGreaterThan(128);
  for (let i = 0; i < 100; i++) await program.submit(0);
  expect(program.stats()).toEqual({ ...before, submissions: 100, dispatches: 100 });
  program.close();
});

it('runs one submission at a time, and none after close', async () => {
  const program = await loadLaunch(cache, increment);
  const bytes = new Uint8Array(4);
  const running = program.submit(0);
  expect(await code(() => program.submit(0))).toBe('UPGC_BUSY');
  await running;
  const again = program.submit(0);
  // In the same turn the submission cannot have settled yet.
  for (const action of [
    () => program.close(),
    () => program.read(0, 0, bytes),
    () => program.write(0, 0, bytes),
    () => program.clear(0),
  ]) {
    expect(action).toThrow(expect.objectContaining({ code: 'UPGC_BUSY' }));
  }
  expect(program.stats().allocations).toBe(2);
  await again;
  program.close();
  for (const action of [
    () => program.close(),
    () => program.stats(),
    () => program.read(0, 0, bytes),
    () => program.write(0, 0, bytes),
    () => program.clear(0),
    () => program.submit(0),
  ]) {
    expect(await code(action)).toBe('UPGC_CLOSED');
  }
});

it('runs several steps in one submission, each after the last', async () => {
  // Every step doubles x and adds what its first dispatch has counted; a step that saw an old x or count would show.
  const kernel = (name: string) => ({
    name,
    threads: row(32),
    arguments: [...buffers(2), ...increment.kernel.arguments.slice(1)],
  });
  const bindings = [0, 1].map((arena) => ({ arena, offset: 0, bytes: 128 }));
  const spec = {
    ...launchSpec(cache, {
      ...increment,
      source: `
        kernel void tally(device uint* count [[buffer(0)]], device uint* x [[buffer(1)]],
                          uint i [[thread_position_in_grid]]) { count[i] += 1; }
        kernel void mix_in(device const uint* count [[buffer(0)]], device uint* x [[buffer(1)]],
                           uint i [[thread_position_in_grid]]) { x[i] = 2 * x[i] + count[31 - i]; }`,
      data: [new Uint32Array(32), new Uint32Array(32)],
    }),
    kernels: [kernel('tally'), kernel('mix_in')],
    // Only the second dispatch asks for a barrier: the one between steps is implied.
    entries: [
      {
        name: 'run',
        dispatches: [0, 1].map((k) => ({ kernel: k, grid: [1, 1, 1] as const, bindings, barrier: k === 1 })),
      },
    ],
  };
  for (const shuffle of [undefined, 1, 2, 3]) {
    const program = await addon.createProgram('cpu', shuffle === undefined ? spec : { ...spec, shuffle });
    const before = program.stats();
    await program.submit(0, 5);
    expect(program.stats()).toEqual({ ...before, submissions: 1, dispatches: 10 });
    await program.submit(0, 1);
    await program.submit(0, undefined);
    expect(program.stats()).toEqual({ ...before, submissions: 3, dispatches: 14 });
    const x = new Uint32Array(32);
    program.read(1, 0, new Uint8Array(x.buffer));
    let expected = 0;
    for (let count = 1; count <= 7; count++) expected = 2 * expected + count;
    expect([...x]).toEqual(Array(32).fill(expected));
    program.close();
  }
});

it('is busy until the last step, and refuses numbers of steps that make no sense', async () => {
  const program = await loadLaunch(cache, increment);
  const most = 2 ** 20;
  for (const steps of [0, -1, 0.5, NaN, Infinity, most + 1, 2 ** 53, 2 ** 60, '1', null, {}, 1n, true]) {
    const found = await failure(() => program.submit(0, steps as number));
    expect([steps, found.code]).toEqual([steps, 'UPGC_BAD_PLAN']);
    expect(found.message).toContain('steps');
  }
  expect((await failure(() => program.submit(0, most + 1))).message).toBe(
    'steps is 1048577; a submission has 1 to 1048576',
  );
  const running = program.submit(0, most);
  let settled = false;
  void running.then(() => (settled = true));
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(settled).toBe(false);
  expect(await code(() => program.close())).toBe('UPGC_BUSY');
  expect(await code(() => program.submit(0, 2))).toBe('UPGC_BUSY');
  await running;
  expect(program.stats()).toMatchObject({ submissions: 1, dispatches: most });
  const last = new Uint32Array(1);
  program.read(0, 124, new Uint8Array(last.buffer));
  expect([...last]).toEqual([most + 5]);
  program.close();
  expect(await code(() => program.submit(0, 2))).toBe('UPGC_CLOSED');
});

it('stops at the step whose kernel misbehaves', async () => {
  const program = await loadLaunch(cache, {
    ...increment,
    source: `kernel void increment(device uint* x [[buffer(0)]], uint i [[thread_position_in_grid]]) {
      if (x[0] == 8 && i != 0) return; // in the fourth step
      threadgroup_barrier(mem_flags::mem_none);
      x[i] += 1;
    }`,
  });
  const error = await failure(() => program.submit(0, 10));
  expect(error.code).toBe('UPGC_KERNEL');
  expect(program.stats()).toMatchObject({ submissions: 1, dispatches: 3 });
  program.close();
});

it('keeps a program alive while it runs, and frees dropped ones', async () => {
  for (let i = 0; i < 50; i++) await (await loadLaunch(cache, increment)).submit(0);
});

it('runs several programs at the same time', async () => {
  const programs = await Promise.all([1, 2, 3, 4].map(() => loadLaunch(cache, increment)));
  for (let i = 0; i < 20; i++) await Promise.all(programs.map((program) => program.submit(0)));
  for (const program of programs) {
    const last = new Uint8Array(4);
    program.read(0, 124, last);
    expect([...last]).toEqual([25, 0, 0, 0]);
    program.close();
  }
});

it('maps files read-only', async () => {
  const file = path.join(cache, 'weights.bin');
  writeFileSync(file, new Uint8Array(Float32Array.of(1, 2, 3, 4).buffer));
  const pool = { name: 'pool', bytes: 16 };
  const spec = {
    ...launchSpec(cache, {
      source: `kernel void copy(device const float* w [[buffer(0)]], device float* y [[buffer(1)]],
        uint i [[thread_position_in_grid]]) { y[i] = 10.0f * w[i]; }`,
      kernel: {
        name: 'copy',
        threads: row(4),
        arguments: [...buffers(2), position('thread_position_in_grid')],
      },
      data: [new Float32Array(4), new Float32Array(4)],
    }),
    arenas: [{ name: 'weights', bytes: 16, file }, pool],
  };
  const program = await addon.createProgram('cpu', spec);
  await program.submit(0);
  const out = new Float32Array(4);
  program.read(1, 0, new Uint8Array(out.buffer));
  expect([...out]).toEqual([10, 20, 30, 40]);
  const write = await failure(() => program.write(0, 0, new Uint8Array(4)));
  expect(write.code).toBe('UPGC_BAD_PLAN');
  expect(write.message).toBe(`arena weights is the file ${file}, mapped read-only`);
  expect(await code(() => program.clear(0))).toBe('UPGC_BAD_PLAN');
  program.close();

  const arenas = (bytes: number, name: string) => [{ name: 'weights', bytes, file: name }, pool];
  const short = await failure(() => addon.createProgram('cpu', { ...spec, arenas: arenas(4096, file) }));
  expect(short).toEqual({ code: 'UPGC_IO', message: `${file}: has 16 bytes, the plan needs 4096` });
  const missing = await failure(() =>
    addon.createProgram('cpu', { ...spec, arenas: arenas(16, `${file}.not`) }),
  );
  expect(missing).toEqual({ code: 'UPGC_IO', message: `${file}.not: No such file or directory` });
  expect(await code(() => addon.createProgram('cpu', { ...spec, arenas: arenas(16, cache) }))).toBe(
    'UPGC_IO',
  );

  const entries = [
    {
      name: 'run',
      dispatches: [
        {
          ...defined(spec.entries[0]?.dispatches[0]),
          bindings: [1, 0].map((arena) => ({ arena, offset: 0, bytes: 16 })),
        },
      ],
    },
  ];
  const written = await failure(() => addon.createProgram('cpu', { ...spec, entries }));
  expect(written.code).toBe('UPGC_BAD_PLAN');
  expect(written.message).toBe(
    'entry run, dispatch 0 (copy): binding 1 is not const, but arena weights is a read-only file',
  );
});

it('allows programs without kernels and arenas without bytes', async () => {
  const spec = emptySpec(cache, {
    arenas: [{ name: 'nothing', bytes: 0 }],
    entries: [{ name: 'idle', dispatches: [] }],
  });
  const program: NativeProgram = await addon.createProgram('cpu', spec);
  await program.submit(0);
  program.read(0, 0, new Uint8Array(0));
  program.clear(0);
  expect(program.stats()).toEqual({ allocations: 0, allocatedBytes: 0, submissions: 1, dispatches: 0 });
  program.close();
});

it('allocates an arena anew', async () => {
  const launch = launchSpec(cache, increment);
  const [run] = launch.entries;
  const twice = { name: 'twice', dispatches: [...defined(run).dispatches, ...defined(run).dispatches] };
  const spec = { ...launch, entries: [...launch.entries, twice] };
  const words = new Uint32Array(32);
  const program = await addon.createProgram('cpu', spec);
  const before = program.stats();
  for (const [entry, value] of [[0, 1] as const, [1, 2] as const]) {
    await program.submit(entry);
    program.reallocate(0);
    await program.submit(entry);
    program.read(0, 0, new Uint8Array(words.buffer));
    expect([...words]).toEqual(Array(32).fill(value));
    program.reallocate(0);
  }
  expect(program.stats().allocations - before.allocations).toBe(4);
  expect(program.stats().allocatedBytes - before.allocatedBytes).toBe(4 * 128);
  program.close();
  expect(await code(() => program.reallocate(0))).toBe('UPGC_CLOSED');

  const sanitized = await addon.createProgram('cpu', { ...spec, sanitize: true });
  expect((await failure(() => sanitized.reallocate(0))).message).toContain('sanitized');
  sanitized.close();
});

it('checks the arguments of every method', async () => {
  const program = await loadLaunch(cache, increment);
  const bytes = new Uint8Array(16);
  // As plain JavaScript sees them: any `this`, any arguments.
  type Method = (this: unknown, ...args: unknown[]) => unknown;
  const methodOf = (name: keyof NativeProgram): Method => Reflect.get(program, name) as Method;
  const bad: [Method, unknown[]][] = [];
  for (const method of [methodOf('write'), methodOf('read')]) {
    for (const offset of [-1, 0.5, NaN, Infinity, 2 ** 60, 113, 2 ** 53, '0', null, undefined, {}, 1n])
      bad.push([method, [0, offset, bytes]]);
    for (const arena of [1, -1, 1e9, 'x', undefined, Symbol('x')]) bad.push([method, [arena, 0, bytes]]);
    for (const data of [
      undefined,
      null,
      'text',
      [1, 2],
      new Float32Array(4),
      new ArrayBuffer(4),
      new Uint8Array(129),
    ])
      bad.push([method, [0, 0, data]]);
    bad.push([method, []]);
  }
  for (const index of [1, -1, 0.5, NaN, 2 ** 40, '0', undefined, null, {}]) {
    bad.push([methodOf('clear'), [index]]);
    bad.push([methodOf('reallocate'), [index]]);
    bad.push([methodOf('submit'), [index]]);
  }
  for (const [method, args] of bad)
    expect([args, await code(() => method.apply(program, args))]).toEqual([args, 'UPGC_BAD_PLAN']);
  const detached = new Uint8Array(16);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  program.write(0, 0, detached);

  const { Program } = { Program: program.constructor as new () => NativeProgram };
  expect(await code(() => new Program().submit(0))).toBe('UPGC_CLOSED');
  expect(() => methodOf('write').call({}, 0, 0, bytes)).toThrow();
  expect(() => (program.constructor as unknown as () => void)()).toThrow();
  program.close();
});
