import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import type { NativeProgram, ProgramSpec } from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  defined,
  failure,
  launchSpec,
  position,
  row,
  type Launch,
} from '../native/support.js';
import { hasCuda, noteSkipped } from '../support/devices.js';
import { generateGreedily, largestDifference } from '../support/golden.js';

/** The CUDA device by itself; test/support/devices.ts brings it into the tests of whole builds. */

const folder = mkdtempSync(path.join(tmpdir(), 'upgc-cuda-'));
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});
const cache = path.join(folder, 'cache');

describe('a machine without a GPU', () => {
  it.skipIf(hasCuda)('does not list the device, and says what it misses', async () => {
    expect(addon.devices()).toEqual(['cpu']);
    const { code, message } = await failure(() => addon.createProgram('cuda', spec({})));
    expect(code).toBe('UPGC_NO_CUDA');
    expect(message).toMatch(/libcuda\.so\.1|GPU|NVRTC|does not start/);
    expect(message).toContain('run on another device');
  });
});

const add = `kernel void add(device float* y [[buffer(0)]], device const float* x [[buffer(1)]],
    uint i [[thread_position_in_grid]]) { y[i] += 2.0f * x[i]; }`;

function spec(parts: Partial<Launch>, source = add, name = 'add'): ProgramSpec {
  const kernel = {
    name,
    threads: row(64),
    arguments: [...buffers(2), position('thread_position_in_grid')],
  };
  return launchSpec(cache, {
    source,
    kernel,
    grid: [4, 1, 1],
    data: [new Float32Array(256), new Float32Array(256)],
    ...parts,
  });
}

const bytesOf = (data: Float32Array | Uint32Array): Uint8Array => new Uint8Array(data.buffer);
const ramp = Float32Array.from({ length: 256 }, (_, i) => i);

function readFloats(program: NativeProgram, arena: number, count: number): Float32Array {
  const result = new Float32Array(count);
  program.read(arena, 0, bytesOf(result));
  return result;
}

describe('what the CUDA device refuses', () => {
  const unit = (given: ProgramSpec) => failure(() => addon.cudaSource(given));

  it('simdgroups of one lane', async () => {
    expect((await unit({ ...spec({}), simdWidth: 1 })).message).toContain(
      'compile with --target cuda or metal',
    );
  });

  it('sanitizing and shuffling', async () => {
    expect((await unit({ ...spec({}), sanitize: true })).message).toContain('only the CPU device');
    expect((await unit({ ...spec({}), shuffle: 1 })).message).toContain('only the CPU device');
  });

  it('a kernel that writes what is bound to a file', async () => {
    const given = spec({});
    const arenas = given.arenas.map((arena, i) =>
      i === 0 ? { ...arena, file: import.meta.filename } : arena,
    );
    const { code, message } = await unit({ ...given, arenas });
    expect(code).toBe('UPGC_BAD_PLAN');
    expect(message).toContain('binding 0 is not const, but arena buffer0 is a read-only file');
  });
});

describe.runIf(hasCuda)('a program on cuda', () => {
  it('runs, and keeps what it has written', async () => {
    const program = await addon.createProgram('cuda', spec({}));
    program.write(1, 0, bytesOf(ramp.slice()));
    await program.submit(0, 3);
    expect(readFloats(program, 0, 256)).toEqual(ramp.map((x) => 6 * x));
    program.clear(0);
    expect(readFloats(program, 0, 256)).toEqual(new Float32Array(256));
    expect(program.stats()).toEqual({ allocations: 2, allocatedBytes: 2048, submissions: 1, dispatches: 3 });
    program.close();
    expect((await failure(() => program.submit(0))).code).toBe('UPGC_CLOSED');
  });

  it('finds its compiled kernels again, and compiles anew what is damaged', async () => {
    const own = path.join(folder, 'own');
    const given = { ...spec({}), cache: own };
    (await addon.createProgram('cuda', given)).close();
    const [file, ...others] = readdirSync(own);
    expect(others).toEqual([]);
    const cached = path.join(own, file ?? '');
    const { ino } = statSync(cached);
    (await addon.createProgram('cuda', given)).close();
    expect(statSync(cached).ino).toBe(ino);
    const content = readFileSync(cached);
    writeFileSync(cached, content.subarray(0, -100));
    (await addon.createProgram('cuda', given)).close();
    expect(readFileSync(cached).equals(content)).toBe(true);
  });

  it('has grids with more than 65535 threadgroups along y', async () => {
    const source = `kernel void add(device uint* y [[buffer(0)]], device const uint* x [[buffer(1)]],
      uint3 g [[threadgroup_position_in_grid]]) { y[g.x + 2 * g.y] = g.x + 10 * g.y + x[0]; }`;
    const count = 140_000;
    const program = await addon.createProgram(
      'cuda',
      spec(
        {
          grid: [2, count / 2, 1],
          data: [new Uint32Array(count), new Uint32Array(1)],
          kernel: {
            name: 'add',
            threads: row(32),
            arguments: [...buffers(2), position('threadgroup_position_in_grid')],
          },
        },
        source,
      ),
    );
    await program.submit(0);
    const found = new Uint32Array(count);
    program.read(0, 0, bytesOf(found));
    expect(found).toEqual(Uint32Array.from({ length: count }, (_, i) => (i % 2) + 10 * Math.floor(i / 2)));
    program.close();
  });

  it('multiplies simdgroup matrices, of halves by tensor cores', async () => {
    const source = `kernel void add(device float* y [[buffer(0)]], device const float* x [[buffer(1)]],
      threadgroup half* h [[threadgroup(0)]], uint lane [[thread_index_in_simdgroup]]) {
      for (uint i = lane; i < 128; i += 32) h[i] = half(x[i]);
      simdgroup_barrier(mem_flags::mem_threadgroup);
      simdgroup_float8x8 a, b, c(1.0f);
      simdgroup_load(a, x, 8);
      simdgroup_load(b, x + 64, 8, ulong2(0), true);
      simdgroup_multiply_accumulate(c, a, b, c);
      simdgroup_store(c, y, 8);
      simdgroup_half8x8 ha, hb;
      simdgroup_float8x8 hc(1.0f);
      simdgroup_load(ha, h, 8);
      simdgroup_load(hb, h + 64, 8, ulong2(0), true);
      simdgroup_multiply_accumulate(hc, ha, hb, hc);
      simdgroup_store(hc, y + 64, 8, ulong2(0), true);
    }`;
    const program = await addon.createProgram(
      'cuda',
      spec(
        {
          grid: [1, 1, 1],
          data: [new Float32Array(128), new Float32Array(128)],
          kernel: {
            name: 'add',
            threads: row(32),
            arguments: [
              ...buffers(2),
              { kind: 'threadgroup', index: 0, bytes: 256 },
              position('thread_index_in_simdgroup'),
            ],
          },
        },
        source,
      ),
    );
    const x = Float32Array.from({ length: 128 }, (_, i) => ((7 * i) % 31) - 15);
    program.write(1, 0, bytesOf(x));
    await program.submit(0);
    const product = Array.from({ length: 64 }, (_, at) => {
      const [r, c] = [Math.floor(at / 8), at % 8];
      return Array.from({ length: 8 }, (_, k) => defined(x[8 * r + k]) * defined(x[64 + 8 * c + k])).reduce(
        (a, b) => a + b,
        r === c ? 1 : 0,
      );
    });
    const found = readFloats(program, 0, 128);
    expect([...found.subarray(0, 64)]).toEqual(product);
    expect([...found.subarray(64)]).toEqual(
      product.map((_, at) => product[(at % 8) * 8 + Math.floor(at / 8)]),
    );
    program.close();
  });

  it('says what does not fit the memory of the GPU', async () => {
    const given = spec({});
    const arenas = given.arenas.map((arena) => ({ ...arena, bytes: 2 ** 41 }));
    const { code, message } = await failure(() => addon.createProgram('cuda', { ...given, arenas }));
    expect(code).toBe('UPGC_BAD_PLAN');
    expect(message).toContain('arena buffer0 of 2199023255552 bytes: the GPU has not that much memory left');
  });

  it('frees everything when it closes', async () => {
    const used = (): number =>
      Number(
        execFileSync('nvidia-smi', ['--query-gpu=memory.used', '--format=csv,noheader,nounits'], {
          encoding: 'utf8',
        }).split('\n')[0],
      );
    const before = used();
    const given = spec({});
    const arenas = given.arenas.map((arena) => ({ ...arena, bytes: 2 ** 31 }));
    for (let i = 0; i < 3; i++) {
      const program = await addon.createProgram('cuda', { ...given, arenas });
      // 4 GiB, give or take what other tests do on the GPU at the same time.
      expect(used() - before).toBeGreaterThanOrEqual(3072);
      program.close();
      expect(used() - before).toBeLessThanOrEqual(1024);
    }
  });
});

describe.runIf(hasCuda)('whole builds on cuda', () => {
  it.each([
    ['llama', 'stories260k', 255],
    ['phi4', 'phi4-shakespeare', 120],
  ])('%s: the greedy text and the logits of %s are those of the CPU device', async (model, name, count) => {
    const weights = `examples/${name}`;
    const out = path.join(folder, name);
    await compile({ model: `models/${model}.graph.ts`, weights, target: 'cuda', out });
    const [gpu, cpu] = [
      await Session.open(out, { device: 'cuda' }),
      await Session.open(out, { device: 'cpu' }),
    ];
    const start = [gpu.plan.model.bosToken ?? 1];
    const [found, expected] = [
      await generateGreedily(gpu, start, count),
      await generateGreedily(cpu, start, count),
    ];
    expect(found).toEqual(expected);
    const ids = [...start, ...expected.ids].slice(0, 100);
    const logits = await cpu.score(ids);
    const largest = logits.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    expect(largestDifference(await gpu.score(ids), logits)).toBeLessThanOrEqual(1e-4 * largest);
    expect(gpu.stats.deviceAllocations).toBe(0);
    gpu.close();
    cpu.close();
  });

  it('tells the published story in several sessions at once', async () => {
    const out = path.join(folder, 'several');
    await compile({ model: 'models/llama.graph.ts', weights: 'examples/stories260k', target: 'cuda', out });
    const sessions = await Promise.all([0, 1, 2].map(() => Session.open(out, { device: 'cuda' })));
    const texts = await Promise.all(sessions.map((session) => generateGreedily(session, [1], 255)));
    const story = readFileSync('test/fixtures/stories260k/greedy.txt', 'utf8');
    expect(texts.map(({ text }) => text)).toEqual([story, story, story]);
    for (const session of sessions) session.close();
  });
});

if (!hasCuda) noteSkipped();
