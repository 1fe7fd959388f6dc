import { describe, expect, it } from 'vitest';
import type { NativeArgument, NativeDispatch, NativeKernel } from '../../src/runtime/native.js';
import { addon, emptySpec, failure, position, temporaryFolder, threadgroup } from './support.js';

/** `ProgramSpec.sanitize`: each kernel commits one fault, and its neighbour, which is right, has no finding. */

const cache = temporaryFolder();

const positions = {
  i: position('thread_index_in_threadgroup'),
  group: position('threadgroup_position_in_grid'),
  lane: position('thread_index_in_simdgroup'),
};

/** A buffer argument and what is bound to it: bytes `from` to `from` + `bytes` of the one arena. */
interface Bound {
  readonly name: string;
  readonly type?: string;
  readonly from: number;
  readonly bytes: number;
}

interface Step {
  readonly body: string;
  readonly buffers?: readonly Bound[];
  readonly scratch?: Readonly<Record<string, number>>;
  readonly threads?: NativeKernel['threads'];
  readonly grid?: readonly [number, number, number];
  readonly gridThreads?: readonly [number, number, number];
  readonly barrier?: boolean;
}

const x: Bound = { name: 'x', from: 0, bytes: 256 };

/** Line 3 of the text holds the body of the first kernel, the next line that of the next one. */
function spec(steps: readonly Step[], simdWidth: 1 | 32, before = '') {
  const kernels: NativeKernel[] = [];
  const dispatches: NativeDispatch[] = [];
  const lines = ['#include <metal_stdlib>', `using namespace metal; ${before}`];
  steps.forEach((step, k) => {
    const {
      body,
      buffers = [x],
      scratch = {},
      threads,
      grid = [1, 1, 1],
      gridThreads,
      barrier = false,
    } = step;
    const list: NativeArgument[] = [
      ...buffers.map(({ name }, index) => ({ kind: 'buffer', index, bytes: 0, name })),
      ...Object.entries(scratch).map(([name, bytes], index) => ({ ...threadgroup(index, bytes), name })),
      ...Object.values(positions),
    ];
    const parameters = [
      ...buffers.map(({ name, type = 'uint' }, n) => `device ${type}* ${name} [[buffer(${n})]]`),
      ...Object.keys(scratch).map((name, n) => `threadgroup uint* ${name} [[threadgroup(${n})]]`),
      ...Object.entries(positions).map(([name, { kind }]) => `uint ${name} [[${kind}]]`),
    ];
    const name = `k${k}`;
    lines.push(`kernel void ${name}(${parameters.join(', ')}) {${' '.repeat(4)}${body} }`);
    kernels.push({ name, threads: threads ?? [simdWidth, 1, 1], arguments: list });
    dispatches.push({
      kernel: k,
      grid,
      ...(gridThreads ? { gridThreads } : {}),
      bindings: buffers.map(({ from: offset, bytes }) => ({ arena: 0, offset, bytes })),
      barrier,
    });
  });
  return emptySpec(cache, {
    source: lines.join('\n'),
    simdWidth,
    kernels,
    arenas: [{ name: 'pool', bytes: 4096 }],
    entries: [{ name: 'run', dispatches }],
    sanitize: true,
  });
}

/** The findings of one submission; columns are left out, for they count the parameters. '' when there are none. */
async function findings(steps: readonly Step[], simdWidth: 1 | 32 = 32, before = ''): Promise<string> {
  const program = await addon.createProgram('cpu', spec(steps, simdWidth, before));
  try {
    await program.submit(0);
    return '';
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    expect(code).toBe('UPGC_SANITIZER');
    return message.replace(/(kernels\.metal:\d+):\d+/g, '$1:C');
  } finally {
    program.close();
  }
}

/** As `findings`, of which there must be some. */
async function faults(...args: Parameters<typeof findings>): Promise<string> {
  const found = await findings(...args);
  expect(found).not.toBe('');
  return found;
}

describe.each([1, 32] as const)('at width %i', (simdWidth) => {
  const two = [16, 1, 1] as const;

  it('finds reads outside a buffer, before and behind', async () => {
    expect(await faults([{ body: 'if (i == 0) x[0] = x[64 + group];' }], simdWidth)).toMatchSnapshot();
    const behind = [{ ...x, from: 256 }];
    expect(
      await faults([{ body: 'if (i == 0) x[1] = x[int(group) - 2];', buffers: behind }], simdWidth),
    ).toMatchSnapshot();
    expect(await findings([{ body: 'if (i == 0) x[0] = x[63 - group];' }], simdWidth)).toBe('');
  });

  it('finds an overrun into the next value of the arena, also one that the kernel takes', async () => {
    const y: Bound = { name: 'y', from: 256, bytes: 64 };
    const step = (n: number): Step => ({
      body: `if (i == 0) x[${n}] = y[3];`,
      buffers: [x, y],
      grid: [1, 1, 1],
    });
    expect(await faults([step(64)], simdWidth)).toMatchSnapshot();
    expect(await findings([step(63)], simdWidth)).toBe('');
  });

  it('finds accesses of every size', async () => {
    const of = (type: string, body: string): Step => ({ body, buffers: [{ ...x, type }] });
    for (const [type, size] of [
      ['uchar', 1],
      ['ushort', 2],
      ['half', 2],
      ['float', 4],
      ['float2', 8],
      ['float4', 16],
      ['ulong4', 32],
    ] as const) {
      const body = (n: number): string => `if (i == 0) x[${n}] = x[0];`;
      expect(await findings([of(type, body(256 / size))], simdWidth)).toContain(
        `write of ${size} bytes out of bounds: at byte 256 of buffer x`,
      );
      expect(await findings([of(type, body(256 / size - 1))], simdWidth)).toBe('');
    }
    const struct = 'struct Large { uint word[24]; };';
    const copy = (n: number): Step => of('Large', `if (i == 0) x[0] = x[${n}];`);
    expect(await findings([copy(2)], simdWidth, struct)).toContain(
      'read of 96 bytes out of bounds: at byte 192 of buffer x',
    );
    expect(await findings([copy(1)], simdWidth, struct)).toBe('');
  });

  it('leaves a kernel that would crash, and runs the next submission', async () => {
    const body = 'if (i == 0) x[0] = x[x[1]];';
    const program = await addon.createProgram('cpu', spec([{ body }], simdWidth));
    const write = (word: number): void => program.write(0, 4, new Uint8Array(Uint32Array.of(word).buffer));
    write(0x3fffffff);
    expect((await failure(() => program.submit(0))).message).toContain(
      'read of 4 bytes out of bounds: at byte 4294967292 of buffer x',
    );
    write(3);
    await program.submit(0);
    program.close();
  });

  it('finds accesses outside threadgroup memory', async () => {
    const step = (n: number): Step => ({
      body: `if (i == 0) { a[0] = 1; b[3] = 2; a[${n}] = 3; x[group] = a[0]; }`,
      scratch: { a: 16, b: 16 },
    });
    expect(await faults([step(4)], simdWidth)).toMatchSnapshot();
    expect(await findings([step(3)], simdWidth)).toBe('');
    const variable = (n: number, name = 'left'): Step => ({
      body: `threadgroup uint left[4]; threadgroup uint right[4];
        if (i == 0) { left[0] = 1; right[3] = 2; ${name}[${n}] = 3; x[group] = left[0] + right[3]; }`,
    });
    expect(await faults([variable(4, 'right')], simdWidth)).toContain(
      'at byte 16 of threadgroup variable right',
    );
    expect(await faults([variable(4)], simdWidth)).toMatchSnapshot();
    expect(await findings([variable(3)], simdWidth)).toBe('');
  });

  it('finds reads of threadgroup memory that nothing has written in this threadgroup', async () => {
    const step = (from: number): Step => ({
      body: `if (i == 0) { if (group >= ${from}) scratch[2] = group; x[group] = scratch[2]; }`,
      scratch: { scratch: 16 },
      grid: [3, 1, 1],
    });
    expect(await faults([step(1)], simdWidth)).toMatchSnapshot();
    // What another threadgroup has left there does not count.
    expect(
      await faults([{ ...step(0), body: step(0).body.replace('>= 0', '!= 2') }], simdWidth),
    ).toMatchSnapshot();
    expect(await findings([step(0)], simdWidth)).toBe('');
    const variable = (written: number): Step => ({
      body: `threadgroup uint v[4]; if (i == 0) { v[${written}] = group; x[group] = v[2]; }`,
    });
    expect(await faults([variable(1)], simdWidth)).toMatchSnapshot();
    expect(await findings([variable(2)], simdWidth)).toBe('');
  });

  it('finds races between threadgroups', async () => {
    const racy = { body: 'if (i == 0) x[group / 2] = group;', grid: two };
    expect(await faults([racy], simdWidth)).toMatchSnapshot();
    expect(await findings([{ ...racy, body: 'if (i == 0) x[group] = group;' }], simdWidth)).toBe('');
    const reading = { body: 'if (i == 0) x[group] = x[(group + 1) & 15];', grid: two };
    expect(await faults([reading], simdWidth)).toMatchSnapshot();
    // All may read what nobody writes.
    expect(await findings([{ ...reading, body: 'if (i == 0) x[group] = x[63];' }], simdWidth)).toBe('');
    // A byte each is no race.
    const bytes = { body: 'if (i == 0) x[group] = group;', grid: two, buffers: [{ ...x, type: 'uchar' }] };
    expect(await findings([bytes], simdWidth)).toBe('');
  });

  it('finds races between dispatches that no barrier separates', async () => {
    const y: Bound = { name: 'y', from: 1024, bytes: 256 };
    const steps = (barrier: boolean, from = 0): Step[] => [
      { body: 'if (i == 0) x[group] = 7;', grid: [4, 1, 1] },
      { body: 'if (i == 0) y[group] = x[group];', buffers: [{ ...x, from }, y], grid: [4, 1, 1], barrier },
    ];
    expect(await faults(steps(false), simdWidth)).toMatchSnapshot();
    expect(await findings(steps(true), simdWidth)).toBe('');
    expect(await findings(steps(false, 512), simdWidth)).toBe('');
  });

  it('lists ten faults at most, each once', async () => {
    const body = (n: number): string =>
      `if (i == 0) { for (uint r = 0; r < 3; r++) { ${Array.from({ length: n }, (_, k) => `x[${k}] = x[64 + ${k} + r];`).join(' ')} } }`;
    const found = await findings([{ body: body(12), grid: [2, 1, 1] }], simdWidth);
    expect(found).toContain('the sanitizer found more than 10 faults:');
    expect(found.match(/out of bounds/g)).toHaveLength(10);
    expect((await findings([{ body: body(4) }], simdWidth)).match(/out of bounds/g)).toHaveLength(4);
  });
});

describe('lanes of a threadgroup', () => {
  const threads = [16, 4, 1] as const;

  it('race without a barrier between them', async () => {
    const step = (barrier: string): Step => ({
      body: `s[i] = i; ${barrier} x[i] = s[(i + 32) & 63];`,
      scratch: { s: 256 },
      threads,
    });
    expect(await faults([step('')])).toMatchSnapshot();
    expect(await findings([step('threadgroup_barrier(mem_flags::mem_threadgroup);')])).toBe('');
    // Neither orders two simdgroups.
    expect(await findings([step('simdgroup_barrier(mem_flags::mem_threadgroup);')])).toContain(
      'race on byte',
    );
    expect(await findings([step('simd_sum(i);')])).toContain('race on byte');
  });

  it('of one simdgroup may exchange with its barrier, and with no other simdgroup function', async () => {
    const step = (barrier: string): Step => ({
      body: `s[i] = i; ${barrier} x[i] = s[i ^ 1];`,
      scratch: { s: 256 },
      threads,
    });
    expect(await findings([step('simdgroup_barrier(mem_flags::mem_threadgroup);')])).toBe('');
    expect(await faults([step('x[i] = simd_sum(i);')])).toMatchSnapshot();
  });

  it('race in device memory and in variables of a function', async () => {
    const barrier = 'threadgroup_barrier(mem_flags::mem_device);';
    const device = (text: string): Step => ({ body: `x[i] = i; ${text} if (i == 0) x[0] = x[63];`, threads });
    expect(await faults([device('')])).toMatchSnapshot();
    expect(await findings([device(barrier)])).toBe('');
    const variable = (text: string): Step => ({
      body: `threadgroup uint v[64]; v[i] = i; ${text} x[i] = v[63 - i];`,
      threads,
    });
    expect(await findings([variable('')])).toContain('of threadgroup variable v, which has 256 bytes');
    expect(await findings([variable('threadgroup_barrier(mem_flags::mem_threadgroup);')])).toBe('');
  });

  it('race when one writes after several have read', async () => {
    const step = (barrier: string): Step => ({
      body: `const uint y = x[63]; ${barrier} if (i == 3) x[63] = 0; if (i < 63) x[i] = y;`,
      threads,
    });
    expect(await faults([step('')])).toMatchSnapshot();
    expect(await findings([step('threadgroup_barrier(mem_flags::mem_device);')])).toBe('');
  });

  it('do not race with atomics, and do with anything else', async () => {
    const before =
      'void add(device uint* p, uint n) { atomic_fetch_add_explicit((device atomic_uint*)p, n, memory_order_relaxed); }';
    const step = (last: string): Step => ({ body: `add(x + 5, i); ${last}`, threads, grid: [3, 1, 1] });
    expect(await findings([step('')], 32, before)).toBe('');
    expect(await findings([step('if (i == 9) x[5] = 0;')], 32, before)).toContain(
      'race on byte 20 of buffer x',
    );
  });

  it('that do not all reach a barrier are reported with what was found before', async () => {
    const step = {
      body: 'if (i == 0) x[64] = 1; if (i < 3) threadgroup_barrier(mem_flags::mem_none);',
      threads,
    };
    const found = await findings([step]);
    expect(found).toContain('out of bounds');
    expect(found).toContain('barrier not reached by all threads: 3 of 64 wait');
    const kernelOnly = await failure(async () => {
      const program = await addon.createProgram(
        'cpu',
        spec([{ ...step, body: step.body.replace('x[64]', 'x[63]') }], 32),
      );
      await program.submit(0);
    });
    expect(kernelOnly.code).toBe('UPGC_KERNEL');
  });
});

it('names the place in the text: in helpers their own, in headers the call', async () => {
  const before = `
uint helper(device const uint* p) {
  return p[
    70]; }
`;
  const program = await addon.createProgram(
    'cpu',
    spec(
      [{ body: 'if (i == 0) {\n x[0] = helper(x);\n x[1] = fma(1.0f, 2.0f,\n float(x[80])); }' }],
      32,
      before,
    ),
  );
  const { message } = await failure(() => program.submit(0));
  program.close();
  expect(message).toMatchSnapshot();
});

it('says where in a grid of three dimensions with ragged edges', async () => {
  const step: Step = {
    body: 'if (group == 1 && i == 7) x[64] = 1;',
    threads: [8, 2, 2],
    grid: [2, 2, 1],
    gridThreads: [11, 3, 2],
  };
  expect(await findings([step])).toContain('by thread (1, 0, 1) of threadgroup (1, 0, 0)');
});

it('goes through a program in random order too', async () => {
  const racy = { body: 'if (i == 0) x[group / 2] = group;', grid: [16, 1, 1] as const };
  const right = { body: 'if (i == 0) x[group] = group;', grid: [16, 1, 1] as const };
  for (const [step, wrong] of [
    [racy, true],
    [right, false],
  ] as const) {
    const program = await addon.createProgram('cpu', { ...spec([step], 32), shuffle: 3 });
    const found = await failure(async () => {
      await program.submit(0);
      throw new Error('nothing');
    });
    expect(found.message.includes('race')).toBe(wrong);
    program.close();
  }
});
