import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { normalise } from '../support/snapshot.js';
import { sharedFolder, temporaryFolder } from '../support/temporary.js';
import { upgc, type Result } from '../support/upgc.js';

const text = `#include <metal_stdlib>
using namespace metal;
constant int rounds [[function_constant(0)]];
constant int turns = is_function_constant_defined(rounds) ? rounds : 0;
kernel void scale(device const float* x, device float* y, constant float& factor,
                  uint i [[thread_position_in_grid]]) {
  y[i] = factor * x[i];
}
kernel void total(device const int* x [[buffer(0)]], device int* sums [[buffer(1)]], device long* squares [[buffer(2)]],
                  threadgroup int* parts [[threadgroup(0)]], uint2 group [[threadgroup_position_in_grid]],
                  uint2 groups [[threadgroups_per_grid]], uint2 at [[thread_position_in_grid]],
                  uint2 grid [[threads_per_grid]], uint i [[thread_index_in_threadgroup]]) {
  const int value = x[at.y * grid.x + at.x];
  const int sum = simd_sum(value);
  if (i == 0) {
    parts[0] = sum;
    sums[group.y * groups.x + group.x] = parts[0];
    squares[group.y * groups.x + group.x] = long(sum) * sum * 1000000000;
  }
}
kernel void add(device uint* x, uint i [[thread_position_in_grid]]) { x[i] += turns; }
kernel void lanes(device half* out [[buffer(0)]], uint n [[threads_per_simdgroup]]) { out[0] = half(n) + 0.5h; }
kernel void wait(device float* out, uint i [[thread_position_in_grid]]) {
  out[i] = 1;
  if (i == 3) threadgroup_barrier(mem_flags::mem_none);
}
`;

let file: string;

beforeAll(() => {
  file = path.join(sharedFolder(), 'some.metal');
  writeFileSync(file, text);
});

const run = (...args: readonly string[]): Promise<Result> => upgc('kernel', 'run', ...args);
const wholeGrid = ['--grid', '6', '--threads', '4'];

/** A .npy file of format version 1.0, as NumPy documents it: magic, version, length of the header, a Python literal. */
function npy(descr: string, shape: readonly number[], data: ArrayBufferView, fortranOrder = false): Buffer {
  const dims = shape.length === 1 ? `${shape.join()},` : shape.join(', ');
  const literal = `{'descr': '${descr}', 'fortran_order': ${fortranOrder ? 'True' : 'False'}, 'shape': (${dims}), }`;
  const unpadded = 10 + literal.length + 1;
  const header = `${literal}${' '.repeat(Math.ceil(unpadded / 64) * 64 - unpadded)}\n`;
  const length = Buffer.alloc(2);
  length.writeUInt16LE(header.length);
  return Buffer.concat([
    Buffer.from('\x93NUMPY\x01\x00', 'latin1'),
    length,
    Buffer.from(header, 'latin1'),
    Buffer.from(data.buffer, data.byteOffset, data.byteLength),
  ]);
}

/** What a .npy file of version 1.0 says, by the documented format. */
function readNpy(at: string) {
  const bytes = readFileSync(at);
  expect(bytes.subarray(0, 8).toString('latin1')).toBe('\x93NUMPY\x01\x00');
  const end = 10 + bytes.readUInt16LE(8);
  expect(end % 64).toBe(0);
  const header = bytes.subarray(10, end).toString('latin1');
  expect(header).toMatch(/^\{.*\} *\n$/);
  const [, descr] = /'descr': *'([^']*)'/.exec(header) ?? [];
  const [, order] = /'fortran_order': *(\w+)/.exec(header) ?? [];
  const [, shape] = /'shape': *\(([^)]*)\)/.exec(header) ?? [];
  return { descr, order, shape: shape?.replace(/,$/, '').split(',').map(Number), data: bytes.subarray(end) };
}

const bytesOf = (data: ArrayBufferView): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

describe('upgc kernel run', () => {
  it.each([[['kernel']], [['kernel', 'run']]])('explains itself: %s --help', async (command) => {
    const { code, stdout } = await upgc(...command, '--help');
    expect(code).toBe(0);
    expect(stdout).toMatchSnapshot();
  });

  it('reads and writes NumPy files', async () => {
    const dir = temporaryFolder();
    const [x, y] = [path.join(dir, 'x.npy'), path.join(dir, 'y.npy')];
    writeFileSync(x, npy('<f4', [2, 3], Float32Array.of(1, 2, 3, 4, 5, -6.5)));
    const buffers = ['--buffer', `x=f32:${x}`, '--buffer', '1=f32[2,3]', '--buffer', 'factor=f32:2'];
    expect(await run(file, '--kernel', 'scale', ...wholeGrid, ...buffers, '--out', `y=${y}`)).toEqual({
      code: 0,
      stdout: '',
      stderr: '',
    });
    expect(readNpy(y)).toEqual({
      descr: '<f4',
      order: 'False',
      shape: [2, 3],
      data: bytesOf(Float32Array.of(2, 4, 6, 8, 10, -13)),
    });
    expect(readdirSync(dir).sort()).toEqual(['x.npy', 'y.npy']);
  });

  it('writes over a file that it has read', async () => {
    const x = path.join(temporaryFolder(), 'x.npy');
    writeFileSync(x, npy('<u4', [3], Uint32Array.of(1, 2, 2 ** 32 - 1)));
    const flags = ['--kernel', 'add', '--grid', '3', '--threads', '3', '--constant', 'rounds=7'];
    const result = await run(file, ...flags, '--buffer', `x=u32:${x}`, '--out', `0=${x}`);
    expect(result).toMatchObject({ code: 0, stderr: '' });
    expect(readNpy(x)).toMatchObject({ descr: '<u4', shape: [3], data: bytesOf(Uint32Array.of(8, 9, 6)) });
  });

  it('prints what was written, of several buffers and in two dimensions', async () => {
    const x = path.join(temporaryFolder(), 'x.npy');
    writeFileSync(
      x,
      npy(
        '<i4',
        [2, 40],
        Int32Array.from({ length: 80 }, (_, i) => i),
      ),
    );
    const buffers = [
      '--buffer',
      `0=i32:${x}`,
      '--buffer',
      'sums=i32[2,2]',
      '--buffer',
      'squares=i64:-1,-1,-1,-1',
    ];
    const flags = ['--kernel', 'total', '--grid', '40,2', '--threads', '32', '--threadgroup', 'parts=16'];
    // Sums of 0 to 31, 32 to 39, 40 to 71 and 72 to 79: threadgroups at the edge have 8 threads.
    const sums = [496, 284, 1776, 604];
    expect(await run(file, ...flags, ...buffers)).toEqual({
      code: 0,
      stdout: `sums i32[2, 2] ${sums.join(' ')}\nsquares i64[4] ${sums.map((sum) => BigInt(sum) ** 2n * 10n ** 9n).join(' ')}\n`,
      stderr: '',
    });
  });

  it('prints the first elements of many', async () => {
    const flags = ['--kernel', 'add', '--grid', '20', '--threads', '32', '--constant', '0=3'];
    const { stdout } = await run(file, ...flags, '--buffer', 'x=u32[20]');
    expect(stdout).toBe(`x u32[20] ${Array.from({ length: 16 }, () => 3).join(' ')} …\n`);
  });

  it('runs with simdgroups of either width, in any order, on several OS threads', async () => {
    const flags = ['--kernel', 'lanes', '--grid', '1', '--threads', '1', '--buffer', 'out=f16[1]'];
    expect((await run(file, ...flags)).stdout).toBe('out f16[1] 32.5\n');
    expect((await run(file, ...flags, '--simd-width', '1')).stdout).toBe('out f16[1] 1.5\n');
    expect((await run(file, ...flags, '--shuffle', '5', '--os-threads', '2')).stdout).toBe(
      'out f16[1] 32.5\n',
    );
  });

  it('repeats, and tells the time', async () => {
    const flags = [
      '--kernel',
      'add',
      '--grid',
      '2',
      '--threads',
      '2',
      '--constant',
      'rounds=1',
      '--repeat',
      '50',
    ];
    const { code, stdout, stderr } = await run(file, ...flags, '--buffer', 'x=u32:0,100');
    expect({ code, stdout }).toEqual({ code: 0, stdout: 'x u32[2] 50 150\n' });
    expect(stderr).toMatch(/^\d+\.\d\d µs a run, the least of 50\n$/);
  });

  it('needs no name for the only kernel', async () => {
    const one = path.join(temporaryFolder(), 'one.metal');
    writeFileSync(one, 'kernel void k(device float* out) { out[0] = 0.1; }');
    const { stdout } = await run(one, '--grid', '1', '--threads', '1', '--buffer', 'out=f32[1]');
    expect(stdout).toBe('out f32[1] 0.1\n');
  });

  const scaled = ['--kernel', 'scale', ...wholeGrid];
  const given = (x: string): string[] => [
    '--buffer',
    `x=${x}`,
    '--buffer',
    'y=f32[6]',
    '--buffer',
    'factor=f32:2',
  ];
  it.each<[string, readonly string[]]>([
    ['no kernel', wholeGrid],
    ['a kernel that is not there', ['--kernel', 'scales', ...wholeGrid]],
    ['no grid', ['--kernel', 'scale', '--threads', '4']],
    ['a grid that is none', ['--kernel', 'scale', '--grid', '6,0', '--threads', '4']],
    ['no buffer', scaled],
    ['a buffer without a value', [...scaled, '--buffer', 'x']],
    ['a buffer given twice', [...scaled, ...given('f32[6]'), '--buffer', 'x=f32[6]']],
    ['an unknown type', [...scaled, ...given('f64[6]')]],
    ['an empty shape', [...scaled, ...given('f32[2,,3]')]],
    ['a number out of range', [...scaled, ...given('u8:1,256')]],
    ['no number', [...scaled, ...given('f32:1,,2')]],
    ['no whole number', [...scaled, ...given('i64:1.5')]],
    ['numbers of 16 bits', [...scaled, ...given('f16:1')]],
    ['an unknown constant', [...scaled, ...given('f32[6]'), '--constant', 'times=1']],
    ['a constant that is none', [...scaled, '--constant', 'rounds=many']],
    ['threadgroup memory of some size', [...scaled, '--threadgroup', 'parts=some']],
    ['simdgroups of 16', [...scaled, '--simd-width', '16']],
    ['results of what is only read', [...scaled, ...given('f32[6]'), '--out', 'x=x.npy']],
    ['results of no buffer', [...scaled, '--out', 'y=y.npy']],
    ['a file that is not there', [...scaled, ...given('f32:none.npy')]],
    ['a file that is none of NumPy', [...scaled, ...given('f32:package.json')]],
  ])('says what is wrong with %s', async (_what, args) => {
    const { code, stdout, stderr } = await run(file, ...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(normalise(stderr, sharedFolder())).toMatchSnapshot();
  });

  it.each([
    ['of other elements', npy('<f8', [6], new Float64Array(6))],
    ['of big-endian elements', npy('>f4', [6], new Float32Array(6))],
    ['in column-major order', npy('<f4', [2, 3], new Float32Array(6), true)],
    ['that is cut off', npy('<f4', [6], new Float32Array(5))],
  ])('says what is wrong with a NumPy file %s', async (_what, bytes) => {
    const dir = temporaryFolder();
    const x = path.join(dir, 'x.npy');
    writeFileSync(x, bytes);
    const { code, stderr } = await run(file, ...scaled, ...given(`f32:${x}`));
    expect(code).toBe(1);
    expect(normalise(stderr, dir)).toMatchSnapshot();
  });

  it('says what is wrong with the text', async () => {
    const dir = temporaryFolder();
    const wrong = path.join(dir, 'wrong.metal');
    writeFileSync(wrong, 'kernel void k(device float* out) {\n  out[0] = missing;\n}');
    const errors = [];
    for (const name of [wrong, path.join(dir, 'none.metal')]) {
      const { code, stderr } = await run(name, '--grid', '1', '--threads', '1', '--buffer', 'out=f32[1]');
      expect(code).toBe(1);
      errors.push(normalise(stderr, dir));
    }
    writeFileSync(wrong, 'void helper() {}');
    errors.push(normalise((await run(wrong, '--grid', '1', '--threads', '1')).stderr, dir));
    expect(errors).toMatchSnapshot();
  });

  it('writes no file when the kernel fails, and says when it cannot write', async () => {
    const dir = temporaryFolder();
    const out = path.join(dir, 'out.npy');
    const flags = ['--grid', '4', '--threads', '4', '--buffer', 'out=f32[4]'];
    const failed = await run(file, '--kernel', 'wait', ...flags, '--out', `out=${out}`);
    expect({ ...failed, stderr: normalise(failed.stderr, sharedFolder()) }).toMatchSnapshot();
    expect(existsSync(out)).toBe(false);

    const nowhere = path.join(dir, 'none', 'y.npy');
    const unwritten = await run(file, ...scaled, ...given('f32[6]'), '--out', `y=${nowhere}`);
    expect({ ...unwritten, stderr: normalise(unwritten.stderr, dir) }).toMatchSnapshot();
    expect(readdirSync(dir)).toEqual([]);
  });
});
