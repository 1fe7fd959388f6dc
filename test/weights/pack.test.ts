import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CompilerBug } from '../../src/diagnostic.js';
import { packWeights, type PackedWeight } from '../../src/weights/pack.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import type { TensorEntry } from '../../src/weights/stored.js';
import { alone } from '../support/packed.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

/** A folder with an empty `build/` and a checkpoint of two tensors. */
function scene(): { dir: string; output: string; a: TensorEntry; b: TensorEntry } {
  const dir = temporaryFolder();
  mkdirSync(path.join(dir, 'build'));
  const file = path.join(dir, 'model.safetensors');
  writeSafetensors(file, { a: f32([3], [1, 2, 3]), b: f32([1], [4]) });
  const { tensors } = openSafetensors(file);
  const [a, b] = [tensors.get('a'), tensors.get('b')];
  if (!a || !b) throw new Error('no tensors');
  return { dir, output: path.join(dir, 'build', 'weights.bin'), a, b };
}

/** An f32 row. */
const row = (
  offset: number,
  columns: number,
  source: PackedWeight['source'],
  rest: Partial<PackedWeight> = {},
): PackedWeight => ({ offset, bytes: 4 * columns, shape: [1, columns], format: 'f32', source, ...rest });

describe('packWeights', () => {
  it('copies, computes, converts and pads', async () => {
    const { output, a, b } = scene();
    const progress: [number, number][] = [];
    const stats = await packWeights(
      output,
      [
        row(16, 3, { tensor: a }),
        row(0, 1, { tensor: b }),
        row(32, 2, { compute: () => Float32Array.of(0.5, -2) }),
        row(40, 0, { compute: () => new Float32Array() }),
        row(40, 3, { tensor: a }, { format: 'f16', bytes: 6 }),
        row(46, 1, { tensor: b }, { format: 'bf16', bytes: 2 }),
      ],
      52,
      (done, total) => progress.push([done, total]),
    );
    const expected = Buffer.alloc(52);
    expected.writeFloatLE(4, 0);
    [1, 2, 3].forEach((value, i) => expected.writeFloatLE(value, 16 + 4 * i));
    [0.5, -2].forEach((value, i) => expected.writeFloatLE(value, 32 + 4 * i));
    [0x3c00, 0x4000, 0x4200, 0x4080].forEach((bits, i) => expected.writeUInt16LE(bits, 40 + 2 * i));
    expect(readFileSync(output)).toEqual(expected);
    expect(progress[0]?.[1]).toBe(32);
    expect(progress.at(-1)).toEqual([32, 32]);
    const done = progress.map(([bytes]) => bytes);
    expect(done).toEqual([...done].sort((x, y) => x - y));
    expect(stats).toMatchObject({ bytesWritten: 32, bytesRead: 32, resumedBytes: 0 });
    expect(readdirSync(path.dirname(output))).toEqual(['weights.bin']);
  });

  it('copies more than a slice, with any number of threads', async () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'model.safetensors');
    const columns = 1_100_003;
    const data = new Uint8Array(2 * 2 * columns).map((_, i) => (i * 31 + (i >> 12)) & 255);
    writeSafetensors(file, { w: { dtype: 'F16', shape: [2, columns], data } });
    const tensor = openSafetensors(file).tensors.get('w');
    if (!tensor) throw new Error('no tensor');
    const shape = [2, columns] as const;
    for (const threads of [1, 3]) {
      const output = path.join(dir, `weights${threads}.bin`);
      const layout: PackedWeight[] = [
        { offset: 5, bytes: data.length, shape, format: 'f16', source: { tensor } },
      ];
      const stats = await packWeights(output, layout, data.length + 5, undefined, { threads });
      expect(stats.threads).toBe(threads);
      const written = readFileSync(output);
      expect(written.subarray(0, 5).equals(Buffer.alloc(5))).toBe(true);
      expect(written.subarray(5).equals(data)).toBe(true);
    }
  });

  it('rounds to the nearest, ties to even', async () => {
    const f16: [number, number][] = [
      [1 + 2 ** -11, 0x3c00],
      [1 + 3 * 2 ** -11, 0x3c02],
      [65519.99, 0x7bff],
      [65520, 0x7c00],
      [-Infinity, 0xfc00],
      [2 ** -25, 0],
      [1.0001 * 2 ** -25, 1],
      [2 ** -14 * (1 - 2 ** -12), 0x0400],
      [-0, 0x8000],
      [1e-20, 0],
    ];
    const bf16: [number, number][] = [
      [1 + 2 ** -8, 0x3f80],
      [1 + 3 * 2 ** -8, 0x3f82],
      [3.4e38, 0x7f80],
      [2 ** -133 * 1.5, 0x0002],
    ];
    const output = path.join(temporaryFolder(), 'weights.bin');
    for (const [format, cases] of [
      ['f16', f16],
      ['bf16', bf16],
    ] as const) {
      const n = cases.length;
      const source = { compute: () => Float32Array.from(cases, ([value]) => value) };
      await packWeights(output, [row(0, n, source, { format, bytes: 2 * n })], 2 * n);
      const written = readFileSync(output);
      cases.forEach(([value, bits], i) => {
        expect(written.readUInt16LE(2 * i), `${format} of ${value}`).toBe(bits);
      });
    }
  });

  it('writes an empty file of zeros for an empty layout', async () => {
    const output = path.join(temporaryFolder(), 'weights.bin');
    await packWeights(output, [], 7);
    expect(readFileSync(output)).toEqual(Buffer.alloc(7));
  });

  it('explains a checkpoint that ends early, and leaves the old file', async () => {
    const { dir, output, a, b } = scene();
    writeFileSync(output, 'old');
    truncateSync(a.file, a.offset + 8);
    const pack = () => packWeights(output, [row(0, 3, { tensor: a })], 12);
    expect((await renderedRejection(pack, dir)).replace(/byte \d+/, 'byte N')).toMatchInlineSnapshot(`
      "error: cannot read tensor "a": <dir>/model.safetensors ends at byte N, expected 4 more
       note: the file changed while it was in use, or its download is incomplete: download it again"
    `);
    expect(readFileSync(output, 'utf8')).toBe('old');

    const gone = { ...b, file: path.join(dir, 'gone.safetensors') };
    const packGone = () => packWeights(output, [row(0, 1, { tensor: gone })], 4);
    expect(await renderedRejection(packGone, dir)).toMatchInlineSnapshot(
      `"error: cannot read <dir>/gone.safetensors: no such file or folder"`,
    );
    const folder = { ...b, file: path.dirname(output) };
    const packFolder = () => packWeights(output, [row(0, 1, { tensor: folder })], 4);
    expect(await renderedRejection(packFolder, dir)).toMatchInlineSnapshot(
      `"error: cannot read <dir>/build: it is a folder"`,
    );
    expect(readdirSync(path.dirname(output))).toEqual(['weights.bin']);
  });

  it('explains an output that cannot be written', async () => {
    const { dir, output, b } = scene();
    const layout = [row(0, 1, { tensor: b })];
    const absent = () => packWeights(path.join(dir, 'absent', 'weights.bin'), layout, 4);
    expect(await renderedRejection(absent, dir)).toMatchInlineSnapshot(
      `"error: cannot write <dir>/absent/weights.bin: no such file or folder"`,
    );
    mkdirSync(output);
    expect(await renderedRejection(() => packWeights(output, layout, 4), dir)).toMatchInlineSnapshot(
      `"error: cannot write <dir>/build/weights.bin: it is a folder"`,
    );
    expect(readdirSync(path.dirname(output))).toEqual(['weights.bin']);
  });

  it('explains values that cannot be quantised', async () => {
    const output = path.join(temporaryFolder(), 'weights.bin');
    const values = new Float32Array(3 * 64).fill(1);
    for (const bad of [NaN, Infinity]) {
      values[2 * 64 + 3] = bad;
      const weight = alone({ compute: () => values }, [3, 64], 'q4g32');
      const pack = () => packWeights(output, [weight], weight.bytes);
      await expect(pack()).rejects.toThrow('row 2 has a value that is infinite or not a number');
    }
    expect(readdirSync(path.dirname(output))).toEqual([]);
  });

  it('leaves nothing when a callback throws', async () => {
    const { output, b } = scene();
    const fail = () => {
      throw new Error('no');
    };
    await expect(packWeights(output, [row(0, 1, { compute: fail })], 4)).rejects.toThrow('no');
    expect(readdirSync(path.dirname(output))).toEqual([]);
    await expect(packWeights(output, [row(0, 1, { tensor: b })], 4, fail)).rejects.toThrow('no');
    expect(readdirSync(path.dirname(output)).filter((name) => name !== 'weights.bin')).toEqual([]);
  });

  it.each<[string, number, (a: TensorEntry, b: TensorEntry) => PackedWeight[]]>([
    ['overlap', 64, (a, b) => [row(8, 1, { tensor: b }), row(0, 3, { tensor: a })]],
    ['run past the end', 11, (a) => [row(0, 3, { tensor: a })]],
    ['differ from the tensor in size', 64, (a) => [row(0, 2, { tensor: a })]],
    ['differ from their format in size', 64, (a) => [row(0, 3, { tensor: a }, { bytes: 8 })]],
    ['differ from the computed size', 64, () => [row(0, 2, { compute: () => new Float32Array(3) })]],
    ['cannot be packed', 64, (a) => [row(0, 3, { tensor: a }, { format: 'q4g32', planes: [], bytes: 0 })]],
  ])('refuses weights that %s', async (_, total, layout) => {
    const { output, a, b } = scene();
    const pack = async () => packWeights(output, layout(a, b), total);
    await expect(pack()).rejects.toThrow(CompilerBug);
    expect(readdirSync(path.dirname(output))).toEqual([]);
  });
});
