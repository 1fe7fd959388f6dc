import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { CompilerBug } from '../../src/diagnostic.js';
import { packWeights, type PackedWeight } from '../../src/weights/pack.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import type { TensorEntry } from '../../src/weights/stored.js';
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

describe('packWeights', () => {
  it('copies, computes and pads', async () => {
    const { output, a, b } = scene();
    const progress: [number, number][] = [];
    await packWeights(
      output,
      [
        { offset: 16, bytes: 12, source: a },
        { offset: 0, bytes: 4, source: b },
        { offset: 32, bytes: 2, source: { compute: () => Uint8Array.of(9, 8) } },
        { offset: 40, bytes: 0, source: { compute: () => new Uint8Array() } },
      ],
      48,
      (done, total) => progress.push([done, total]),
    );
    const expected = Buffer.alloc(48);
    expected.writeFloatLE(4, 0);
    [1, 2, 3].forEach((value, i) => expected.writeFloatLE(value, 16 + 4 * i));
    expected.set([9, 8], 32);
    expect(readFileSync(output)).toEqual(expected);
    expect(progress).toEqual([
      [12, 18],
      [16, 18],
      [18, 18],
    ]);
    expect(readdirSync(path.dirname(output))).toEqual(['weights.bin']);
  });

  it('copies more than a buffer holds', async () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'model.safetensors');
    const data = new Uint8Array(20 * 2 ** 20 + 3).map((_, i) => (i * 31 + (i >> 12)) & 255);
    writeSafetensors(file, { w: { dtype: 'U8', shape: [data.length], data } });
    const w = openSafetensors(file).tensors.get('w');
    if (!w) throw new Error('no tensor');
    const output = path.join(dir, 'weights.bin');
    const layout: PackedWeight[] = [
      { offset: 5, bytes: data.length, source: w },
      { offset: data.length + 5, bytes: data.length, source: { compute: () => data } },
    ];
    const done: number[] = [];
    await packWeights(output, layout, 2 * data.length + 5, (bytes) => done.push(bytes));
    const written = readFileSync(output);
    expect(written.subarray(0, 5).equals(Buffer.alloc(5))).toBe(true);
    expect(written.subarray(5, 5 + data.length).equals(data)).toBe(true);
    expect(written.subarray(5 + data.length).equals(data)).toBe(true);
    expect(done.at(-1)).toBe(2 * data.length);
    expect(done).toEqual([...done].sort((x, y) => x - y));
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
    const pack = () => packWeights(output, [{ offset: 0, bytes: 12, source: a }], 12);
    expect((await renderedRejection(pack, dir)).replace(/byte \d+/, 'byte N')).toMatchInlineSnapshot(`
      "error: cannot read tensor "a": <dir>/model.safetensors ends at byte N, expected 4 more
       note: the file changed while it was in use, or its download is incomplete: download it again"
    `);
    expect(readFileSync(output, 'utf8')).toBe('old');

    const gone = { ...b, file: path.join(dir, 'gone.safetensors') };
    const packGone = () => packWeights(output, [{ offset: 0, bytes: 4, source: gone }], 4);
    expect(await renderedRejection(packGone, dir)).toMatchInlineSnapshot(
      `"error: cannot read <dir>/gone.safetensors: no such file or folder"`,
    );
    expect(readdirSync(path.dirname(output))).toEqual(['weights.bin']);
  });

  it('explains an output that cannot be written', async () => {
    const { dir, output, b } = scene();
    const layout = [{ offset: 0, bytes: 4, source: b }];
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

  it('removes the temporary file when a callback throws', async () => {
    const { output, b } = scene();
    const fail = () => {
      throw new Error('no');
    };
    await expect(
      packWeights(output, [{ offset: 0, bytes: 4, source: { compute: fail } }], 4),
    ).rejects.toThrow('no');
    await expect(packWeights(output, [{ offset: 0, bytes: 4, source: b }], 4, fail)).rejects.toThrow('no');
    expect(readdirSync(path.dirname(output))).toEqual([]);
  });

  it.each<[string, number, (a: TensorEntry, b: TensorEntry) => PackedWeight[]]>([
    [
      'overlap',
      64,
      (a, b) => [
        { offset: 8, bytes: 4, source: b },
        { offset: 0, bytes: 12, source: a },
      ],
    ],
    ['run past the end', 11, (a) => [{ offset: 0, bytes: 12, source: a }]],
    ['differ from the tensor in size', 64, (a) => [{ offset: 0, bytes: 8, source: a }]],
    [
      'differ from the computed size',
      64,
      () => [{ offset: 0, bytes: 8, source: { compute: () => new Uint8Array(7) } }],
    ],
  ])('refuses weights that %s', async (_, total, layout) => {
    const { output, a, b } = scene();
    await expect(packWeights(output, layout(a, b), total)).rejects.toThrow(CompilerBug);
    expect(readdirSync(path.dirname(output))).toEqual([]);
  });
});
