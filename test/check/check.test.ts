import { readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from '../../src/compiler.js';
import type { Finding } from '../../src/runtime/native.js';
import { addon, defined, failure, root, temporaryFolder } from '../native/support.js';

const cache = temporaryFolder();
const options = { headers: path.join(root, 'native/msl'), cache };
const check = (text: string): Promise<Finding[]> => addon.checkKernels(text, 'kernels.metal', options);
const places = (findings: readonly Finding[]): string[] =>
  findings.map(({ line, column, rule }) => `${line}:${column} ${rule}`);

const metalFiles = (folder: string): string[] =>
  readdirSync(path.join(root, folder)).filter((file) => file.endsWith('.metal'));
const read = (...parts: readonly string[]): string => readFileSync(path.join(root, ...parts), 'utf8');

/** `code  // expect: rule column | the line without the fault` */
interface Fault {
  readonly rule: string;
  readonly place: string;
  readonly faulty: string;
  readonly mended: string;
}

function readFault(file: string): Fault {
  const faulty = read('test/check/faults', file);
  const lines = faulty.split('\n');
  const marked = lines.flatMap((text, index) => {
    const match = /^.* {2}\/\/ expect: (\S+) (\d+) \| (.*)$/.exec(text);
    return match
      ? [{ index, rule: defined(match[1]), column: defined(match[2]), right: defined(match[3]) }]
      : [];
  });
  expect(marked).toHaveLength(1);
  const { index, rule, column, right } = defined(marked[0]);
  const mended = lines.map((text, i) => (i === index ? right : text)).join('\n');
  return { rule, place: `${index + 1}:${column} ${rule}`, faulty, mended };
}

const faults = metalFiles('test/check/faults');

describe('faults', () => {
  it.each(faults)('%s: is the only finding, and none is left without it', async (file) => {
    const { place, faulty, mended } = readFault(file);
    expect(places(await check(faulty))).toEqual([place]);
    expect(await check(mended)).toEqual([]);
  });

  it('break every rule', () => {
    const broken = new Set(faults.map((file) => readFault(file).rule));
    expect(
      addon
        .checkRules()
        .map(({ id }) => id)
        .filter((id) => !broken.has(id)),
    ).toEqual([]);
  });

  it('are all found in one text', async () => {
    const text = `#include <metal_stdlib>
using namespace metal;
float scale = 2.0f;
inline float first(float* p) { return p[0]; }
kernel int k(device float* x [[buffer(40)]], int i [[thread_position_in_grid]]) {
    static int calls;
    x[i] = double(first(x)) + std::exp(1.0f);
    threadgroup float* t = x;
    x[i] = nothing(x[i]);
}`;
    expect(places(await check(text))).toEqual([
      '3:7 program-variable',
      '4:25 missing-address-space',
      '5:8 kernel-returns',
      '5:32 index-range',
      '5:50 position-type',
      '6:5 static-variable',
      '7:12 wide-type',
      '7:31 std-name',
      '8:24 address-space',
      '9:12 unknown-name',
    ]);
  });
});

describe('valid texts', () => {
  it.each(metalFiles('test/check/valid'))('%s has no finding', async (file) => {
    expect(await check(read('test/check/valid', file))).toEqual([]);
  });

  it.each(metalFiles('test/golden'))('the golden %s has no finding', async (file) => {
    expect(await check(read('test/golden', file))).toEqual([]);
  });

  const fixtures = ['stories260k', 'random-llama', 'random-phi3', 'random-phi3-sliding'];
  const builds = fixtures.flatMap((fixture) =>
    (['metal', 'cpu'] as const).map((target) => [fixture, target] as const),
  );
  it.each(builds)('a build of %s for %s has no finding', async (fixture, target) => {
    const weights = fixture === 'stories260k' ? 'examples/stories260k' : `test/fixtures/${fixture}`;
    const model = `models/${fixture.includes('phi3') ? 'phi4' : 'llama'}.graph.ts`;
    const out = path.join(temporaryFolder(), 'build');
    await compile({ model: path.join(root, model), weights: path.join(root, weights), out, target });
    expect(await check(readFileSync(path.join(out, 'kernels.metal'), 'utf8'))).toEqual([]);
  });
});

describe('findings', () => {
  const kernel = (body: string): string =>
    `#include <metal_stdlib>\nusing namespace metal;\nkernel void k(device float* x [[buffer(0)]]) {\n${body}\n}\n`;

  it('say what to do, in the words of Metal', async () => {
    const text = kernel(
      '  threadgroup float s[2]; threadgroup float* p = s; thread float* q = p; q[0] = x[0];',
    );
    expect(await check(text)).toEqual([
      {
        rule: 'address-space',
        severity: 'error',
        message: '`threadgroup float*` cannot become `thread float*`',
        fix: 'declare the pointer with threadgroup, or copy what it points to',
        line: 4,
        column: 67,
        length: 1,
      },
    ]);
  });

  it('have the lines of the text behind macros, splices and conditions', async () => {
    const text = kernel(
      '#define CALLS static uint\n#if __METAL_VERSION__ >= 300\n  CALLS \\\n    n;\n#endif\n  x[0] = n++;',
    );
    expect(places(await check(text))).toEqual(['6:3 static-variable']);
  });

  it('are of a template once, however often it is instantiated', async () => {
    const text = `#include <metal_stdlib>
using namespace metal;
template <typename T> kernel void k(device T* x [[buffer(0)]]) { threadgroup T* p = x; x[0] = p[0]; }
template [[host_name("a")]] kernel void k<float>(device float*);
template [[host_name("b")]] kernel void k<half>(device half*);`;
    expect(places(await check(text))).toEqual(['3:81 address-space']);
  });

  it('come from kernels in namespaces too', async () => {
    const text = `#include <metal_stdlib>
namespace a { namespace {
template <typename T> kernel void k(device T* x [[buffer(0)]]) { x[0] = missing(x[0]); }
template [[host_name("a")]] kernel void k<float>(device float*);
} }`;
    expect(places(await check(text))).toEqual(['3:73 unknown-name']);
  });

  it('end after 200', async () => {
    expect(await check(kernel('  goto a;\n'.repeat(1000)))).toHaveLength(200);
  });

  it('need a compiler, and say so', async () => {
    const without = () => addon.checkKernels(kernel(''), 'k.metal', { ...options, clang: 'no-such-clang' });
    expect((await failure(without)).code).toBe('UPGC_NO_CLANG');
  });
});

describe('hostile text', () => {
  const many = 200_000;
  const texts: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['bytes that are no text', '\0\x01\xff'],
    ['open brackets', '('.repeat(many)],
    ['open template lists', 'a<'.repeat(many)],
    ['nested scopes', 'namespace a { struct b {'.repeat(20_000)],
    ['a row of const', `void f() { ${'const '.repeat(many)} }`],
    ['a row of static', `void f() { ${'static '.repeat(many)} }`],
    ['a row of threadgroup', `void f() { ${'; threadgroup a'.repeat(many)} }`],
    ['labels of threadgroup', `void f() { ${': threadgroup a '.repeat(many)} }`],
    ['attributes', 'kernel void k(device float* x [[buffer(0)]]) {}\n'.repeat(5000)],
    ['deep calls', Array.from({ length: 5000 }, (_, i) => `inline void f${i}() { f${i + 1}(); }`).join('\n')],
    ['parameters', `kernel void k(${'device float* x [[buffer(a + b)]],'.repeat(20_000)} int y) {}`],
  ];
  it.each(texts)('%s ends in time', { timeout: 60_000 }, async (_, text) => {
    const began = process.cpuUsage();
    await check(text).catch((error: unknown) => {
      expect(error).toMatchObject({ code: 'UPGC_COMPILE' });
    });
    const { user, system } = process.cpuUsage(began);
    // Without what clang takes, which is not of this process.
    expect((user + system) / 1e6).toBeLessThan(5);
  });

  it('is not run', async () => {
    const findings = await check('asm("int3"); __attribute__((constructor)) void f() { __builtin_trap(); }');
    expect(findings.map(({ rule }) => rule)).toContain('keyword');
  });
});

describe('docs/check.md', () => {
  it('lists the rules', () => {
    const rows = addon.checkRules().map(({ id, severity, doc }) => `| \`${id}\` | ${severity} | ${doc} |`);
    const listed = read('docs/check.md')
      .split('\n')
      .filter((line) => line.startsWith('| `'));
    expect(listed).toEqual(rows);
  });
});
