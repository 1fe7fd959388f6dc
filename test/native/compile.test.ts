import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import type { ProgramSpec } from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  defined,
  emptySpec,
  failure,
  launchSpec,
  position,
  row,
  root,
  run,
  temporaryFolder,
} from './support.js';

const folder = temporaryFolder();
const scratch = (name: string): string => path.join(folder, name);

const double = {
  source: `kernel void twice(device float* x [[buffer(0)]], uint i [[thread_position_in_grid]]) { x[i] *= 2.0f; }`,
  kernel: { name: 'twice', threads: row(1), arguments: [...buffers(1), position('thread_position_in_grid')] },
  simdWidth: 1 as const,
};

async function runTwice(cache: string): Promise<number> {
  const data = Float32Array.of(21);
  const start = performance.now();
  await run(cache, { ...double, data: [data] });
  expect(data[0]).toBe(42);
  return performance.now() - start;
}

/** The one compiled program of a cache folder. */
function cached(cache: string): { folder: string; inode: number } {
  const [name, ...others] = readdirSync(cache);
  expect(others).toEqual([]);
  const entry = path.join(cache, defined(name));
  return { folder: entry, inode: statSync(path.join(entry, 'kernels.so')).ino };
}

it('compiles once and finds the kernels in the cache afterwards', async () => {
  const cache = scratch('a/b/cache');
  await runTwice(scratch('other')); // finds the compiler, which is remembered
  const cold = await runTwice(cache);
  expect(statSync(cache).mode & 0o777).toBe(0o700);
  const { inode } = cached(cache);
  const warm = await runTwice(cache);
  expect(cached(cache).inode).toBe(inode);
  expect(warm).toBeLessThan(cold / 4);
  if (process.env['UPGC_MEASURE']) console.log(`cold ${cold.toFixed(1)} ms, warm ${warm.toFixed(1)} ms`);
});

it('runs no compiler when the kernels are in the cache', () => {
  const log = scratch('log');
  const clang = scratch('logging-clang');
  const names = ['clang++', ...[21, 20, 19, 18, 17, 16].map((version) => `clang++-${version}`)].join(' ');
  const real = execFileSync('sh', ['-c', `for name in ${names}; do command -v $name && break; done`]);
  writeFileSync(clang, `#!/bin/sh\necho run >> '${log}'\nexec ${real.toString().trim()} "$@"\n`, {
    mode: 0o755,
  });
  const spec = { ...launchSpec(scratch('warm'), { ...double, data: [Float32Array.of(1)] }), clang };
  // In a process of its own: this one remembers what compilers it knows.
  const create = `const addon = require(process.argv[1]);
    addon.createProgram('cpu', JSON.parse(process.argv[2])).then((program) => program.close());`;
  const addonFile = path.join(root, 'native/build/Release/upgc.node');
  const runs = (): number => {
    execFileSync(process.execPath, ['-e', create, addonFile, JSON.stringify(spec)]);
    return readFileSync(log, 'utf8').split('\n').length - 1;
  };
  expect([runs(), runs()]).toEqual([2, 2]); // --version and the compilation, then nothing
});

it('compiles again when the key or the library is damaged', async () => {
  const cache = scratch('damaged');
  await runTwice(cache);
  for (const damage of [
    (entry: string) =>
      writeFileSync(path.join(entry, 'key'), readFileSync(path.join(entry, 'key'), 'utf8') + 'x'),
    (entry: string) => rmSync(path.join(entry, 'key')),
    // A new file, not the old one overwritten: that may still be mapped.
    (entry: string) => {
      rmSync(path.join(entry, 'kernels.so'));
      writeFileSync(path.join(entry, 'kernels.so'), 'ELF?');
    },
  ]) {
    const before = cached(cache);
    damage(before.folder);
    await runTwice(cache);
    expect(cached(cache).folder).toBe(before.folder);
    expect(readFileSync(path.join(before.folder, 'key'), 'utf8')).toContain('twice');
    expect(statSync(path.join(before.folder, 'kernels.so')).size).toBeGreaterThan(1000);
  }
});

it('lets several programs compile the same kernels at once', async () => {
  const cache = scratch('race');
  await Promise.all([1, 2, 3, 4].map(() => runTwice(cache)));
  cached(cache);
});

it('refuses a cache folder that others can write, or that is a file', async () => {
  const open = scratch('open');
  mkdirSync(open);
  chmodSync(open, 0o777);
  expect(await failure(() => runTwice(open))).toMatchObject({ code: 'UPGC_IO' });
  writeFileSync(scratch('file'), '');
  expect(await failure(() => runTwice(scratch('file')))).toMatchObject({ code: 'UPGC_IO' });
  expect(await failure(() => runTwice(scratch('file/below')))).toMatchObject({ code: 'UPGC_IO' });
});

it('says what to install when there is no clang', async () => {
  const spec = launchSpec(scratch('none'), { ...double, data: [Float32Array.of(1)] });
  const nowhere = await failure(() => addon.createProgram('cpu', { ...spec, clang: '/nowhere/clang' }));
  expect(nowhere.code).toBe('UPGC_NO_CLANG');
  expect(nowhere.message).toContain('/nowhere/clang does not exist');
  expect(nowhere.message).toContain('apt-get install clang-16');

  const old = scratch('old-clang');
  writeFileSync(old, '#!/bin/sh\necho "clang version 14.0.6"\n', { mode: 0o755 });
  const tooOld = await failure(() => addon.createProgram('cpu', { ...spec, clang: old }));
  expect(tooOld).toMatchObject({ code: 'UPGC_NO_CLANG' });
  expect(tooOld.message).toContain('is clang 14');

  const savedPath = process.env['PATH'];
  process.env['PATH'] = '';
  try {
    const empty = await failure(() => addon.createProgram('cpu', spec));
    expect(empty.code).toBe('UPGC_NO_CLANG');
    expect(empty.message).toContain('looked for clang++, clang++-21, clang++-20, clang++-19');
  } finally {
    process.env['PATH'] = savedPath;
  }
});

it('points at the place in the .metal file that does not compile', async () => {
  const spec = {
    ...launchSpec(scratch('errors'), { ...double, data: [Float32Array.of(1)] }),
    sourceName: 'build/a "quoted" \\ name.metal',
    source: `#include <metal_stdlib>\nusing namespace metal;\nkernel void twice(device float* x [[buffer(0)]],\n  uint i [[thread_position_in_grid]]) { x[i] = missing; }\n`,
  };
  const { code, message } = await failure(() => addon.createProgram('cpu', spec));
  expect(code).toBe('UPGC_COMPILE');
  expect(message).toContain(
    `build/a "quoted" \\ name.metal:4:48: error: use of undeclared identifier 'missing'`,
  );
  expect(readdirSync(spec.cache)).toEqual([]);
});

it('explains how text and plan differ', async () => {
  const compile = async (source: string, change: Partial<ProgramSpec> = {}): Promise<string> => {
    const spec = {
      ...launchSpec(scratch('errors'), { ...double, data: [Float32Array.of(1)] }),
      source,
      ...change,
    };
    const { code, message } = await failure(() => addon.createProgram('cpu', spec));
    expect(code).toBe('UPGC_COMPILE');
    return message;
  };
  expect(await compile('')).toContain(`plan, kernel twice:1:16: error: use of undeclared identifier 'twice'`);
  expect(await compile('kernel void twice(device float* x [[buffer(0)]]) {}')).toContain(
    'the plan lists another number of arguments than the kernel declares',
  );
  expect(await compile('kernel void twice(float x, uint i) {}')).toContain(
    'the plan says `buffer`, but the parameter is not a pointer or reference',
  );
  expect(await compile('kernel void twice(device float* x, device float* i) {}')).toContain(
    'the plan says `thread_position_in_grid`, but the parameter is no integer',
  );
  expect(await compile('kernel void twice(device float* x [[buffer(0), uint i) {}')).toContain(
    'kernels.metal:1:35: attribute without closing ]]',
  );
  expect(await compile('#include <cstdio>')).toContain(`'cstdio' file not found`);
  expect(await compile(double.source.replace('{', '{ volatile float big[100000]; big[i] = x[i];'))).toContain(
    'stack frame size',
  );
});

it('reports headers and cache folders that do not exist', async () => {
  const spec = emptySpec(scratch('headers'), { headers: path.join(root, 'nowhere') });
  expect(await failure(() => addon.createProgram('cpu', spec))).toMatchObject({ code: 'UPGC_IO' });
});
