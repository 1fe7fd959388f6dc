import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { MetalOnCpu, type BufferValue, type Launch, type LibraryOptions } from 'upgc/metal-cpu';
import { renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';
import { kernelFile } from './support.js';

const header = '#include <metal_stdlib>\nusing namespace metal;\n';

const text = `${header}
struct Line { float slope; packed_float3 offsets; short shift; };
constant bool doubled [[function_constant(0)]];
constant int extra [[function_constant(3)]];

kernel void scale(device const float* x, device float* y, constant float& factor, constant uint& count,
                  uint i [[thread_position_in_grid]]) {
  if (i < count) y[i] = factor * x[i];
}
kernel void with_constants(device float* y, uint i [[thread_position_in_grid]]) {
  y[i] += (doubled ? 2 : 1) + (is_function_constant_defined(extra) ? extra : 0);
}
[[max_total_threads_per_threadgroup(64)]] kernel void lines(
    device float* y [[buffer(5)]], constant Line& line [[buffer(2)]], uint i [[thread_position_in_grid]]) {
  y[i] = line.slope * i + line.offsets[i % 3] + line.shift;
}
kernel void shared(device uint* out, threadgroup uint* first [[threadgroup(0)]], threadgroup uint* second [[threadgroup(1)]],
                   uint i [[thread_index_in_threadgroup]], uint n [[threads_per_threadgroup]]) {
  first[i] = i;
  second[n - 1 - i] = 10 * i;
  threadgroup_barrier(mem_flags::mem_threadgroup);
  out[i] = first[n - 1 - i] + second[i];
}
kernel void swap_halves(device const uint* from, device uint* to, constant uint& half_size, uint i [[thread_position_in_grid]]) {
  const uint value = from[i];
  to[(i + half_size) % (2 * half_size)] = value;
}
`;

const opened = (options: LibraryOptions = {}): Promise<MetalOnCpu> =>
  MetalOnCpu.library(text, { constants: { doubled: false }, ...options });

/** What a user reads when `scale` is launched so. */
async function scaleError(
  change: Partial<Launch>,
  buffers: Record<string, BufferValue> = {},
): Promise<string> {
  const [x, y] = [new Float32Array(4), new Float32Array(4)];
  const launch = { grid: 4, threads: 4, buffers: { x, y, factor: 1, count: 4, ...buffers }, ...change };
  return renderedRejection(async () => (await opened()).run('scale', launch), process.cwd());
}

const libraryError = (source: string, options: LibraryOptions = {}): Promise<string> =>
  renderedRejection(() => MetalOnCpu.library(source, options), process.cwd());

/** What a user reads when the only kernel of a text, `k`, is compiled. */
const compileError = (source: string, options: LibraryOptions = {}): Promise<string> =>
  renderedRejection(async () => {
    const library = await MetalOnCpu.library(source, options);
    await library.run('k', { grid: 1, threads: 1, buffers: { x: new Float32Array(1) } });
  }, process.cwd());

describe('a run', () => {
  it('leaves its results in the arrays it was given, and nothing else', async () => {
    const memory = new Float32Array(8).fill(-1);
    const x = Float32Array.of(1, 2, 3, 4);
    const { seconds } = await (
      await opened()
    ).run('scale', { grid: 4, threads: 2, buffers: { x, y: memory.subarray(2, 6), factor: 2.5, count: 3 } });
    expect([...memory]).toEqual([-1, -1, 2.5, 5, 7.5, -1, -1, -1]);
    expect([...x]).toEqual([1, 2, 3, 4]);
    expect(seconds).toBeGreaterThan(0);
    expect(seconds).toBeLessThan(10);
  });

  it('takes buffers by name or index, and several at a time', async () => {
    const library = await opened();
    const runs = [1, 2, 3].map(async (factor) => {
      const y = new Float32Array(2);
      const buffers = { 0: Float32Array.of(1, 2), y, 2: Float32Array.of(factor), count: 2 };
      await library.run('scale', { grid: [2], threads: [1, 1, 1], buffers });
      return [...y];
    });
    expect(await Promise.all(runs)).toEqual([
      [1, 2],
      [2, 4],
      [3, 6],
    ]);
  });

  it('sees one memory where an array is bound twice', async () => {
    const library = await opened({ simdWidth: 1 });
    const data = Uint32Array.of(1, 2, 3, 4);
    await library.run('swap_halves', {
      grid: 4,
      threads: 1,
      buffers: { from: data, to: data, half_size: 2 },
    });
    // The first two threads write over what the last two read.
    expect([...data]).toEqual([1, 2, 1, 2]);
    const rest = data.subarray(1);
    const launch = { grid: 4, threads: 1, buffers: { from: data, to: rest, half_size: 2 } };
    expect(
      await renderedRejection(() => library.run('swap_halves', launch), process.cwd()),
    ).toMatchSnapshot();
  });

  it.each([
    ['char', Int8Array.of(-5, 127)],
    ['uchar', Uint8Array.of(5, 254)],
    ['uchar', Uint8ClampedArray.of(5, 254)],
    ['uchar', Buffer.from([5, 254])],
    ['short', Int16Array.of(-500, 32766)],
    ['ushort', Uint16Array.of(500, 65534)],
    ['int', Int32Array.of(-500000, 2147483646)],
    ['uint', Uint32Array.of(500000, 4294967294)],
    ['float', Float32Array.of(-0.5, 1e30)],
    ['long', BigInt64Array.of(-5n, 2n ** 62n)],
    ['ulong', BigUint64Array.of(5n, 2n ** 63n)],
    ['half', Uint16Array.of(0x3c00, 0xc100)],
    ['bfloat', Uint16Array.of(0x3f80, 0xc000)],
  ] as const)('takes arrays of %s in %s', async (type, array) => {
    const library = await MetalOnCpu.library(
      `${header}kernel void copy(device const ${type}* x, device ${type}* y, uint i [[thread_position_in_grid]]) { y[i] = x[i]; }`,
    );
    const result = new Uint8Array(array.byteLength);
    const y = new DataView(result.buffer);
    await library.run('copy', { grid: 2, threads: 2, buffers: { x: array, y } });
    expect([...result]).toEqual([...new Uint8Array(array.buffer, array.byteOffset, array.byteLength)]);
  });

  it.each([
    ['bool', true, 1],
    ['bool', 0, 0],
    ['char', -128, -128],
    ['uint8_t', 255, 255],
    ['short', -32768, -32768],
    ['ushort', 65535, 65535],
    ['int', -5n, -5],
    ['uint32_t', 2 ** 32 - 256, 2 ** 32 - 256],
    ['long', -(2n ** 40n), -(2 ** 40)],
    ['size_t', 2 ** 40, 2 ** 40],
    ['float', -0.75, -0.75],
  ] as const)('takes numbers for a constant %s: %s', async (type, value, expected) => {
    const library = await MetalOnCpu.library(
      `${header}kernel void put(constant ${type}& value, device float* y) { y[0] = float(value); }`,
    );
    const y = new Float32Array(1);
    await library.run('put', { grid: 1, threads: 1, buffers: { value, y } });
    expect([...y]).toEqual([expected]);
  });

  it('takes a struct as its bytes', async () => {
    const line = new DataView(new ArrayBuffer(20));
    [2, 10, 20, 30].forEach((value, i) => line.setFloat32(4 * i, value, true));
    line.setInt16(16, -1, true);
    const y = new Float32Array(4);
    await (await opened()).run('lines', { grid: 4, threads: 4, buffers: { y, line } });
    expect([...y]).toEqual([9, 21, 33, 15]);
  });

  it('takes buffers without any bytes', async () => {
    const [x, y] = [new Float32Array(0), new Float32Array(0)];
    const launch = { grid: 1, threads: 1, buffers: { x, y, factor: 1, count: 0 } };
    expect((await (await opened()).run('scale', launch)).seconds).toBeGreaterThan(0);
  });

  it('gives threadgroup parameters their memory', async () => {
    const out = new Uint32Array(40);
    const threadgroup = { first: 160, 1: 160 };
    await (await opened()).run('shared', { grid: 40, threads: 40, buffers: { out }, threadgroup });
    expect([...out]).toEqual(Array.from(out, (_, i) => 11 * (39 - i)));
  });

  it.each([
    [{ doubled: true }, 2],
    [{ doubled: false, extra: -7 }, -6],
    [{ 0: true, 3: 5 }, 7],
  ])('takes function constants: %s', async (constants, expected) => {
    const y = new Float32Array(1);
    const library = await opened({ constants });
    await library.run('with_constants', { grid: 1, threads: 1, buffers: { y } });
    expect([...y]).toEqual([expected]);
  });

  it('repeats as often as it is told, on what the last time left', async () => {
    const library = await opened();
    for (const repeat of [1, 2, 1000]) {
      const y = new Float32Array(3);
      const { seconds } = await library.run('with_constants', {
        grid: 3,
        threads: 3,
        buffers: { y },
        repeat,
      });
      expect([...y]).toEqual([repeat, repeat, repeat]);
      expect(seconds).toBeGreaterThan(0);
    }
  });

  it('knows simdgroups of 1 and of 32', async () => {
    const source = `${header}kernel void k(device uint* x, uint i [[thread_position_in_grid]], uint lanes [[threads_per_simdgroup]]) {
      x[i] = 100 * lanes + simd_sum(1u);
    }`;
    const found = [];
    for (const options of [{}, { simdWidth: 32 }, { simdWidth: 1 }] as const) {
      const x = new Uint32Array(3);
      await (await MetalOnCpu.library(source, options)).run('k', { grid: 3, threads: 3, buffers: { x } });
      found.push([...x]);
    }
    expect(found).toEqual([
      [3203, 3203, 3203],
      [3203, 3203, 3203],
      [101, 101, 101],
    ]);
  });

  it('finds a kernel by a host name that is no identifier', async () => {
    const library = await MetalOnCpu.library(
      '[[host_name("fill.with 7")]] kernel void fill(device float* x) { x[0] = 7; }',
    );
    const x = new Float32Array(1);
    await library.run('fill.with 7', { grid: 1, threads: 1, buffers: { x } });
    expect([...x]).toEqual([7]);
  });
});

describe('a library', () => {
  it('tells its kernels and their parameters', async () => {
    const { kernels } = await opened();
    expect(kernels.map(({ name }) => name)).toEqual([
      'scale',
      'with_constants',
      'lines',
      'shared',
      'swap_halves',
    ]);
    expect(kernels[2]).toMatchObject({
      maxTotalThreads: 64,
      parameters: [
        { name: 'y', kind: 'buffer', index: 5, type: 'float', addressSpace: 'device', access: 'write' },
        { name: 'line', kind: 'buffer', index: 2, type: 'Line', addressSpace: 'constant', access: 'read' },
        { name: 'i', kind: 'thread_position_in_grid', type: 'uint' },
      ],
    });
  });

  it('opens a file, and says where in it something is wrong', async () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'wrong.metal');
    const good = readFileSync(kernelFile('transposition'), 'utf8');
    writeFileSync(file, good.replace('elements[turned.x]', 'element[turned.x]'));
    const library = await MetalOnCpu.open(file);
    const buffers = { in: new Float32Array(1), out: new Float32Array(1) };
    expect(
      await renderedRejection(() => library.run('transpose_float', { grid: 1, threads: 1, buffers }), dir),
    ).toContain(
      `${path.basename(file)}:23:40: error: use of undeclared identifier 'element'; did you mean 'elements'?`,
    );
    expect(
      await renderedRejection(() => MetalOnCpu.open(path.join(dir, 'none.metal')), dir),
    ).toMatchSnapshot();
    expect(await renderedRejection(() => MetalOnCpu.open(dir), dir)).toMatchSnapshot();
  });

  it.each([
    ['whose parameter is nothing', 'kernel void k(float x) {}'],
    ['that reads a file', '#include "/etc/passwd"\nkernel void k(device float* x) {}'],
    ['with assembly', 'kernel void k(device float* x) { asm("nop"); }'],
    [
      'that declares a function of the process',
      'extern "C" int system(const char*);\nkernel void k(device float* x) {}',
    ],
    ['with a pragma of the compiler', '#pragma clang attribute push\nkernel void k(device float* x) {}'],
    [
      'with an attribute of the compiler',
      '__attribute__((constructor)) void f() {}\nkernel void k(device float* x) {}',
    ],
    ['with a macro that does not end', '#define X(\nkernel void k(device float* x) {}'],
  ])('refuses a text %s', async (_what, source) => {
    expect(await compileError(source)).toMatchSnapshot();
  });

  it.each([
    ['an error of types', `${header}kernel void k(device float* x) {\n  x[0] = float4(1);\n}`, {}],
    ['an unknown function', `${header}kernel void k(device float* x) {\n  x[0] = fsqrt(x[0]);\n}`, {}],
    [
      'a function constant without a value',
      'constant int n [[function_constant(2)]];\nkernel void k(device float* x) { x[0] = n; }',
      {},
    ],
    [
      'a function constant out of range',
      'constant uchar n [[function_constant(2)]];\nkernel void k(device float* x) { x[0] = n; }',
      { constants: { n: 256 } },
    ],
    [
      'a function constant that is not whole',
      'constant int n [[function_constant(2)]];\nkernel void k(device float* x) { x[0] = n; }',
      { constants: { n: 0.5 } },
    ],
  ] as const)('does not compile %s', async (_what, source, options) => {
    expect(await compileError(source, options)).toMatchSnapshot();
  });

  it('compiles neither a text that is cut off nor one that calls a function of the process', async () => {
    expect(await compileError('kernel void k(device float* x) {')).toContain(
      'kernels.metal:1:32: `{` is never closed',
    );
    const call = 'int system(const char*);\nkernel void k(device float* x) { system("true"); }';
    expect(await compileError(call)).toContain(
      'kernels.metal declares system(char const*) and does not define it',
    );
  });

  it('refuses constants that the text does not have, and one given twice', async () => {
    expect(await libraryError(text, { constants: { double: true } })).toMatchSnapshot();
    expect(
      await libraryError('kernel void k(device float* x) {}', { constants: { 0: true } }),
    ).toMatchSnapshot();
    expect(await libraryError(text, { constants: { doubled: true, 0: true } })).toMatchSnapshot();
  });

  it('refuses a name that is no path', async () => {
    expect(await libraryError(text, { name: 'a\nb' })).toMatchSnapshot();
  });
});

describe('a launch is refused', () => {
  const [x, y] = [new Float32Array(4), new Float32Array(4)];

  it('with a kernel that is not there', async () => {
    const run = async (name: string) => (await opened()).run(name, { grid: 1, threads: 1, buffers: {} });
    expect(await renderedRejection(() => run('scales'), process.cwd())).toMatchSnapshot();
    expect(await renderedRejection(() => run('softmax'), process.cwd())).toMatchSnapshot();
  });

  it.each<[string, Partial<Launch>]>([
    ['without a buffer', { buffers: { x, y, factor: 1 } }],
    ['with a buffer too many', { buffers: { x, y, factor: 1, count: 1, z: x } }],
    ['with a slip in a name', { buffers: { x, y, facto: 1, count: 1 } }],
    ['with a buffer given twice', { buffers: { x, y, 1: y, factor: 1, count: 1 } }],
    ['with threadgroup memory that nothing takes', { threadgroup: { first: 16 } }],
    ['without threads', { threads: 0 }],
    ['with half a thread', { grid: [4, 0.5] }],
    ['with too many threads', { threads: [32, 33] }],
    ['with too large a grid', { grid: 2 ** 33 }],
    ['without repetitions', { repeat: 0 }],
    ['without OS threads', { osThreads: 0 }],
    ['with too many OS threads', { osThreads: 5000 }],
    ['with a seed that is none', { shuffle: -1 }],
  ])('%s', async (_what, change) => {
    expect(await scaleError(change)).toMatchSnapshot();
  });

  it.each<[string, Record<string, BufferValue>]>([
    ['a number out of range', { count: 2 ** 32 }],
    ['a negative number', { count: -1 }],
    ['a number that is not whole', { count: 1.5 }],
    ['a number where results go', { y: 0 }],
    ['a string', { factor: 'half' as unknown as number }],
    ['an untyped array', { x: [1, 2, 3, 4] as unknown as Float32Array }],
  ])('with %s', async (_what, buffers) => {
    expect(await scaleError({}, buffers)).toMatchSnapshot();
  });

  it('with a number for a struct', async () => {
    const launch = { grid: 1, threads: 1, buffers: { y, line: 3 } };
    expect(
      await renderedRejection(async () => (await opened()).run('lines', launch), process.cwd()),
    ).toMatchSnapshot();
  });

  it('with more threads than the kernel allows', async () => {
    const launch = { grid: 65, threads: 65, buffers: { y, line: x } };
    expect(
      await renderedRejection(async () => (await opened()).run('lines', launch), process.cwd()),
    ).toMatchSnapshot();
  });

  it.each([
    [{ first: 16 }],
    [{ first: 16, second: 0 }],
    [{ first: 16, second: 20 }],
    [{ first: 16384, second: 32768 }],
  ])('with threadgroup memory %s', async (threadgroup) => {
    const launch = { grid: 1, threads: 1, buffers: { out: x }, threadgroup };
    expect(
      await renderedRejection(async () => (await opened()).run('shared', launch), process.cwd()),
    ).toMatchSnapshot();
  });
});

it('says which barrier not all threads reach, and changes nothing then', async () => {
  const library =
    await MetalOnCpu.library(`${header}kernel void k(device float* x, uint i [[thread_position_in_grid]]) {
    x[i] = 1;
    if (i < 20) threadgroup_barrier(mem_flags::mem_device);
  }`);
  const x = new Float32Array(64);
  const launch = { grid: 64, threads: 64, buffers: { x } };
  expect(await renderedRejection(() => library.run('k', launch), process.cwd())).toMatchSnapshot();
  expect([...x]).toEqual(Array.from(x, () => 0));
});
