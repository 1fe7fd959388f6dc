import { afterAll, describe, expect, it } from 'vitest';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { addon, buffers, failure, launchSpec, position, row } from '../native/support.js';
import { hasCuda, noteSkipped } from '../support/devices.js';

/** A kernel that fails on a GPU ends CUDA for its process, so this is a file, and so a process, of its own. */

const folder = mkdtempSync(path.join(tmpdir(), 'upgc-cuda-failure-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const spec = (offset: string) =>
  launchSpec(path.join(folder, 'cache'), {
    source: `kernel void add(device float* y [[buffer(0)]], uint i [[thread_position_in_grid]]) { y[i + ${offset}] += 1.0f; }`,
    kernel: {
      name: 'add',
      threads: row(64),
      arguments: [...buffers(1), position('thread_position_in_grid')],
    },
    data: [new Float32Array(64)],
  });

describe.runIf(hasCuda)('a kernel that touches memory that is not there', () => {
  it('fails by name, and ends this device for the process, but not the process', async () => {
    const good = await addon.createProgram('cuda', spec('0'));
    const bad = await addon.createProgram('cuda', spec('0x40000000000ul'));
    const first = await failure(() => bad.submit(0));
    expect(first.code).toBe('UPGC_KERNEL');
    expect(first.message).toMatch(/^kernel add failed on the GPU: .*ILLEGAL_ADDRESS/);
    for (const next of [
      () => bad.submit(0),
      () => good.submit(0),
      () => addon.createProgram('cuda', spec('0')),
    ]) {
      const { code, message } = await failure(next);
      expect(code).toBe('UPGC_KERNEL');
      expect(message).toContain('start the process again or use another device');
    }
    bad.close();
    good.close();
    expect(addon.devices()).toEqual(['cpu']);
    const onCpu = await addon.createProgram('cpu', spec('0'));
    await onCpu.submit(0);
    onCpu.close();
  });
});

if (!hasCuda) noteSkipped();
