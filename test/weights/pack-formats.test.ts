import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { packedFormats, rowMultiple, type PackedName } from '../../src/ir/packed.js';
import { openGguf } from '../../src/weights/gguf.js';
import { packWeights, type PackedWeight, type WeightSource } from '../../src/weights/pack.js';
import { randomLike, randomSeed } from '../../src/weights/random.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import type { TensorEntry } from '../../src/weights/stored.js';
import { readValues } from '../support/blocks.js';
import type { typeNumbers } from '../support/gguf.js';
import { ggufBytes, randomTensor, type Draw } from '../support/gguf.js';
import { alignment, alone, packedValues, shapeOf } from '../support/packed.js';
import { writeSafetensors } from '../support/safetensors.js';
import { sharedFolder } from '../support/temporary.js';

const names = Object.keys(packedFormats) as PackedName[];
let files = 0;

/** The bytes of weights.bin for one weight. */
async function packedBytes(weight: PackedWeight, threads = 2): Promise<Buffer> {
  const file = path.join(sharedFolder(), `${files++}.bin`);
  await packWeights(file, [weight], weight.bytes, undefined, { threads });
  return readFileSync(file);
}

type Options = Parameters<typeof alone>[3] & { readonly threads?: number };

/** A matrix packed and read again. */
async function roundTrip(
  source: WeightSource,
  shape: readonly [number, number],
  format: PackedName,
  options: Options = {},
): Promise<Float32Array> {
  const bytes = await packedBytes(alone(source, shape, format, options), options.threads);
  return packedValues(bytes, format, shape, { tileRows: options.tileRows ?? 1, alignment });
}

const drawing = (seed: number): Draw => {
  const numbers = fc.sample(fc.nat(), { seed, numRuns: 1 });
  let state = (numbers[0] ?? 1) | 1;
  return (end) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
};

/** Normal values, every row with another deviation. */
function normal([rows, columns]: readonly [number, number], draw: Draw): Float32Array {
  const uniform = () => (draw(2 ** 24) + 0.5) / 2 ** 24;
  return Float32Array.from({ length: rows * columns }, (_, i) => {
    const radius = Math.sqrt(-2 * Math.log(uniform()));
    return radius * Math.cos(2 * Math.PI * uniform()) * 0.02 * (1 + (Math.floor(i / columns) % 3));
  });
}

/** Σ weight · (a - b)² */
function squaredError(a: Float32Array, b: Float32Array, importance?: Float32Array): number {
  return a.reduce((sum, value, i) => {
    const difference = value - (b[i] ?? NaN);
    return sum + (importance?.[i % importance.length] ?? 1) * difference * difference;
  }, 0);
}

const twins: readonly (readonly [keyof typeof typeNumbers, PackedName])[] = [
  ['Q4_0', 'q4g32'],
  ['Q4_1', 'q4g32b'],
  ['Q5_0', 'q5g32'],
  ['Q5_1', 'q5g32b'],
  ['Q8_0', 'q8g32'],
  ['Q4_K', 'q4k'],
  ['Q5_K', 'q5k'],
  ['Q6_K', 'q6k'],
];

/** A GGUF file of one matrix of random blocks. */
function ggufTensor(type: keyof typeof typeNumbers, shape: readonly [number, number]): TensorEntry {
  const file = path.join(sharedFolder(), `${files++}.gguf`);
  writeFileSync(file, ggufBytes({ tensors: [randomTensor('w', type, shape, drawing(shape[0]))] }));
  const tensor = openGguf(file).tensors.get('w');
  if (!tensor) throw new Error('no tensor');
  return tensor;
}

describe('blocks of GGML', () => {
  it.each(twins)('%s as %s keeps every value', async (type, format) => {
    for (const [tileRows, headRows] of [
      [1, undefined],
      [4, undefined],
      [8, 6],
    ] as const) {
      const entry = ggufTensor(type, [18, 3]);
      const tensor = headRows === undefined ? entry : { ...entry, headRows };
      const values = await roundTrip({ tensor }, shapeOf(tensor), format, { tileRows });
      expect(values).toEqual(Float32Array.from(readValues(tensor)));
    }
  });

  const folder = path.resolve('test/fixtures/gguf');
  it.each(readdirSync(folder).filter((name) => name.endsWith('.gguf') && !name.includes('Q3_K')))(
    '%s keeps every value of every quantised matrix',
    async (name) => {
      const twinOf = new Map<string, PackedName>(twins);
      let checked = 0;
      for (const tensor of openGguf(path.join(folder, name)).tensors.values()) {
        const format = twinOf.get(tensor.dtype);
        // A few are enough.
        if (!format || checked >= 6) continue;
        const values = await roundTrip({ tensor }, shapeOf(tensor), format, { tileRows: 4 });
        expect(values).toEqual(Float32Array.from(readValues(tensor)));
        checked++;
      }
      if (!name.includes('F16')) expect(checked).toBeGreaterThan(0);
    },
  );

  it('become floats, and other formats from those', async () => {
    for (const [type] of twins) {
      const tensor = ggufTensor(type, [8, 2]);
      const [rows, columns] = shapeOf(tensor);
      const values = Float32Array.from(readValues(tensor));
      const exact = await packedBytes(alone({ tensor }, [rows, columns], 'f32'));
      expect(exact.equals(Buffer.from(values.buffer))).toBe(true);
      const direct = await packedBytes(alone({ tensor }, [rows, columns], 'q8g32'));
      const through = await packedBytes(alone({ compute: () => values }, [rows, columns], 'q8g32'));
      // Its own blocks stay as they are.
      if (type !== 'Q8_0') expect(direct.equals(through)).toBe(true);
    }
  });
});

describe.each(names)('%s', (format) => {
  const { bits, group, scale } = packedFormats[format];
  const multiple = rowMultiple(packedFormats[format]);

  it('holds floats as near as its steps are, in any layout', async () => {
    for (const [rows, tileRows, count] of [
      [5, 1, 1],
      [6, 4, 3],
      [3, 64, 2],
    ] as const) {
      const shape = [rows, multiple * count] as const;
      const x = normal(shape, drawing(rows));
      for (const method of ['nearest', 'search'] as const) {
        const values = await roundTrip({ compute: () => x }, shape, format, { tileRows, method });
        const relative = squaredError(values, x) / squaredError(x, new Float32Array(x.length));
        // Steps of a group of normal values are at most 8 deviations / 2^bits wide: an error of a twelfth of the square.
        expect(relative).toBeLessThan(8 ** 2 / 12 / 4 ** bits);
        expect(relative).toBeGreaterThan(0);
      }
    }
  });

  it('searches for a smaller error than that of the nearest', async () => {
    const shape = [24, 1024] as const;
    const x = normal(shape, drawing(7));
    const importance = Float32Array.from({ length: 1024 }, (_, i) => 0.1 + (i % 7) ** 2);
    for (const weights of [undefined, importance]) {
      const options = weights ? { importance: weights } : {};
      const errors = [];
      for (const method of ['nearest', 'search'] as const) {
        const values = await roundTrip({ compute: () => x }, shape, format, { ...options, method });
        errors.push(squaredError(values, x, weights));
      }
      const [nearest = NaN, search = NaN] = errors;
      // A symmetric 8-bit grid has little to gain.
      expect(search / nearest).toBeLessThan(bits === 8 ? 1 : 0.92);
    }
  });

  it('holds zeros, the tiny, the huge and the constant', async () => {
    const shape = [1, multiple] as const;
    for (const [value, tolerance] of [
      [0, 0],
      [1e-30, 1e-6],
      // Scales below 2^-25 become 0, as halves do.
      [3e-6, 2 ** -25 * 127],
      [1, 0.02],
      [-1, 0.02],
      [60000, 1200],
      [-3e38, Infinity],
    ] as const) {
      for (const method of ['nearest', 'search'] as const) {
        const x = new Float32Array(multiple).fill(value);
        const values = await roundTrip({ compute: () => x }, shape, format, { method });
        for (const found of values) {
          expect(Number.isFinite(found)).toBe(true);
          expect(Math.abs(found - value)).toBeLessThanOrEqual(tolerance);
        }
      }
    }
  });

  it('is the same for any number of threads and any width of a slice', async () => {
    const shape = [70, 5120] as const;
    const x = normal(shape, drawing(3));
    const weight = alone({ compute: () => x }, shape, format, { tileRows: 4 });
    const [one, four] = [await packedBytes(weight, 1), await packedBytes(weight, 4)];
    expect(one.equals(four)).toBe(true);
    // A row so long that it is cut.
    const long = normal([3, multiple], drawing(4));
    const columns = Math.ceil(8400 / multiple) * multiple;
    const repeated = Float32Array.from({ length: 3 * columns }, (_, i) => {
      const row = Math.floor(i / columns);
      return long[row * multiple + ((i % columns) % multiple)] ?? NaN;
    });
    const values = await roundTrip({ compute: () => repeated }, [3, columns], format, { tileRows: 32 });
    const short = await roundTrip({ compute: () => long }, [3, multiple], format);
    const same = values.every((value, i) => {
      const row = Math.floor(i / columns);
      return value === short[row * multiple + ((i % columns) % multiple)];
    });
    expect(same).toBe(true);
  });

  it('is filled at random with values of the deviation asked for', async () => {
    const shape = [66, multiple * 8] as const;
    const random = { seed: 5, mean: 1, deviation: 0.03 };
    const options = { tileRows: 4 };
    const values = await roundTrip({ random }, shape, format, options);
    const n = values.length;
    const mean = values.reduce((a, b) => a + b, 0) / n;
    const deviation = Math.sqrt(values.reduce((a, b) => a + b * b, 0) / n);
    expect(Math.abs(mean)).toBeLessThan(0.03 * 0.05);
    expect(Math.abs(deviation / 0.03 - 1)).toBeLessThan(0.08);
    expect(new Set(values).size).toBeGreaterThan(500);
    const weight = alone({ random }, shape, format, options);
    expect((await packedBytes(weight, 1)).equals(await packedBytes(weight, 3))).toBe(true);
    const other = alone({ random: { ...random, seed: 6 } }, shape, format, options);
    expect((await packedBytes(weight)).equals(await packedBytes(other))).toBe(false);
  });

  it('has groups that do not know of each other', async () => {
    if (scale === 'block' || scale === 'block_bias') return;
    const shape = [1, multiple * 3] as const;
    const x = normal(shape, drawing(11));
    const before = await roundTrip({ compute: () => x }, shape, format);
    const changed = x.map((value, i) => (i < group ? value * 50 : value));
    const after = await roundTrip({ compute: () => changed }, shape, format);
    expect(after.subarray(group)).toEqual(before.subarray(group));
  });
});

describe('stored floats', () => {
  it.each(['F32', 'F16', 'BF16'] as const)('%s are packed in the order of the model', async (dtype) => {
    const dir = path.join(sharedFolder(), dtype);
    mkdirSync(dir);
    const [rows, columns] = [12, 256];
    const size = dtype === 'F32' ? 4 : 2;
    const draw = drawing(size);
    const data = Buffer.alloc(rows * columns * size);
    for (let i = 0; i < rows * columns; i++) {
      // Finite, of moderate size.
      if (dtype === 'F32') data.writeFloatLE((draw(2 ** 24) - 2 ** 23) * 2 ** -20, 4 * i);
      if (dtype === 'F16') data.writeUInt16LE((draw(2) << 15) | ((10 + draw(10)) << 10) | draw(1024), 2 * i);
      if (dtype === 'BF16') data.writeUInt16LE((draw(2) << 15) | ((120 + draw(10)) << 7) | draw(128), 2 * i);
    }
    const file = path.join(dir, 'model.safetensors');
    writeSafetensors(file, { w: { dtype, shape: [rows, columns], data } });
    const entry = openSafetensors(file).tensors.get('w');
    if (!entry) throw new Error('no tensor');

    const values = Float32Array.from(readValues(entry));
    const ordered = { ...entry, headRows: 4 };
    const inOrder = Float32Array.from(readValues(ordered));
    expect(inOrder).not.toEqual(values);
    for (const [tensor, expected] of [
      [entry, values],
      [ordered, inOrder],
    ] as const) {
      const direct = await packedBytes(alone({ tensor }, [rows, columns], 'q6k', { tileRows: 2 }));
      const through = await packedBytes(
        alone({ compute: () => expected }, [rows, columns], 'q6k', { tileRows: 2 }),
      );
      expect(direct.equals(through)).toBe(true);
      const floats = await packedBytes(alone({ tensor }, [rows, columns], 'f32'));
      expect(floats.equals(Buffer.from(expected.buffer))).toBe(true);
    }
    // Stored as [columns, rows]: the same file, read the other way.
    const turned = Float32Array.from(values, (_, i) => {
      const [row, column] = [Math.floor(i / rows), i % rows];
      return values[column * columns + row] ?? NaN;
    });
    const shape = [columns, rows] as const;
    const source = { tensor: entry, transposed: true };
    const floats = await packedBytes(alone(source, shape, 'f32'));
    expect(floats.equals(Buffer.from(turned.buffer))).toBe(true);
  });

  it('can be turned and packed at once', async () => {
    const shape = [96, 512] as const;
    const x = normal(shape, drawing(2));
    const stored = Float32Array.from(x, (_, i) => {
      const [column, row] = [Math.floor(i / shape[0]), i % shape[0]];
      return x[row * shape[1] + column] ?? NaN;
    });
    const file = path.join(sharedFolder(), 'turned.safetensors');
    writeSafetensors(file, {
      w: { dtype: 'F32', shape: [shape[1], shape[0]], data: new Uint8Array(stored.buffer) },
    });
    const tensor = openSafetensors(file).tensors.get('w');
    if (!tensor) throw new Error('no tensor');
    const direct = await packedBytes(alone({ tensor, transposed: true }, shape, 'q4k', { tileRows: 4 }));
    const straight = await packedBytes(alone({ compute: () => x }, shape, 'q4k', { tileRows: 4 }));
    expect(direct.equals(straight)).toBe(true);
  });
});

describe('random weights', () => {
  it.each(['f32', 'f16', 'bf16'] as const)('of %s have mean and deviation', async (format) => {
    const bytes = await packedBytes(
      alone({ random: { seed: 1, mean: 1, deviation: 0.05 } }, [1, 30_000], format),
    );
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const size = format === 'f32' ? 4 : 2;
    const values = Array.from({ length: 30_000 }, (_, i) => {
      if (format === 'f32') return view.getFloat32(4 * i, true);
      const bits = view.getUint16(size * i, true);
      if (format === 'bf16') return new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? NaN;
      return (1 + (bits & 1023) / 1024) * 2 ** ((bits >> 10) - 15);
    });
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
    // Five deviations of the mean; the deviation's own is a 245th.
    expect(Math.abs(mean - 1)).toBeLessThan((5 * 0.05) / Math.sqrt(30_000) + 1e-3);
    expect(Math.abs(Math.sqrt(variance) / 0.05 - 1)).toBeLessThan(0.03);
  });

  it('depend on the seed and the name', () => {
    expect(randomSeed('random:12')).toEqual({ randomSeed: 12 });
    for (const other of ['random:', 'random:x', 'random', 'a/random:1', 'random:-1'])
      expect(randomSeed(other)).toBeUndefined();
    const seeds = [randomLike('a', [2, 3], 1), randomLike('b', [2, 3], 1), randomLike('a', [2, 3], 2)].map(
      ({ seed }) => seed,
    );
    expect(new Set(seeds).size).toBe(3);
    expect(randomLike('a', [2, 3], 1)).toEqual(randomLike('a', [2, 3], 1));
    expect(randomLike('norm.weight', [64], 1)).toMatchObject({ mean: 1 });
    expect(randomLike('q.bias', [64], 1)).toMatchObject({ mean: 0, deviation: 0.02 });
    expect(randomLike('q.weight', [7, 64], 1)).toMatchObject({ mean: 0, deviation: 1 / 8 });
  });
});
