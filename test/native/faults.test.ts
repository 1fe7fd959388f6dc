import { describe, expect, it } from 'vitest';
import {
  addon,
  buffers,
  failure,
  launchSpec,
  position,
  run,
  temporaryFolder,
  type Launch,
} from './support.js';

const cache = temporaryFolder();

const launch = (simdWidth: 1 | 32, body: string, data: Launch['data']): Launch => ({
  source: `kernel void k(device int* x [[buffer(0)]], device int* n [[buffer(1)]],
    uint group [[threadgroup_position_in_grid]]) { ${body} }`,
  kernel: {
    name: 'k',
    threads: [simdWidth, 1, 1],
    arguments: [...buffers(2), position('threadgroup_position_in_grid')],
  },
  grid: [64, 1, 1],
  data,
  simdWidth,
});

/** What the kernel's run rejects with, on this many OS threads. The buffers are large enough to be shared out. */
async function fault(simdWidth: 1 | 32, body: string, threads: number): Promise<string> {
  const data = [new Int32Array(1 << 16), Int32Array.of(0)];
  const spec = { ...launchSpec(cache, launch(simdWidth, body, data)), threads };
  const program = await addon.createProgram('cpu', spec);
  const { code, message } = await failure(() => program.submit(0));
  // The program and its threads live on.
  expect((await failure(() => program.submit(0))).message).toBe(message);
  program.close();
  return `${code ?? ''} ${message}`;
}

describe.each([1, 32] as const)('at simdgroups of %i, what a kernel does wrong is an error', (simdWidth) => {
  it.each([1, 2])('on %i OS threads', async (threads) => {
    const outside =
      'UPGC_KERNEL kernel k: access to memory outside of all buffers; a sanitized run tells where';
    expect(await fault(simdWidth, 'x[group + (1ul << 40)] = 1;', threads)).toBe(outside);
    expect(await fault(simdWidth, 'x[group] = x[(1 << 16) + 4096];', threads)).toBe(outside);
    expect(await fault(simdWidth, 'x[group] = x[-1024];', threads)).toBe(outside);
    expect(await fault(simdWidth, 'x[group] = 7 / n[0];', threads)).toBe(
      'UPGC_KERNEL kernel k: integer division by zero',
    );
  });

  it('and right kernels run afterwards', async () => {
    const x = new Int32Array(64);
    await run(cache, launch(simdWidth, 'x[group] = int(group) / n[0];', [x, Int32Array.of(2)]));
    expect(x).toEqual(Int32Array.from({ length: 64 }, (_, i) => i >> 1));
  });
});
