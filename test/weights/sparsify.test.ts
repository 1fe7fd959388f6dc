import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compile } from '../../src/compiler.js';
import { CompilerBug } from '../../src/diagnostic.js';
import * as dsl from '../../src/ir/dsl.js';
import { sparsityOf } from '../../src/ir/sparsity.js';
import { formatGraph } from '../../src/ir/text.js';
import { loadAddon } from '../../src/runtime/addon.js';
import { arenaNames, readPlan } from '../../src/runtime/plan.js';
import { programSpec, Session } from '../../src/runtime/session.js';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { packWeights, type PackedWeight, type WeightSource } from '../../src/weights/pack.js';
import { readTensor } from '../../src/weights/read.js';
import { sparsify } from '../../src/weights/sparsify.js';
import type { TensorEntry } from '../../src/weights/stored.js';
import { alone } from '../support/packed.js';
import { renderedError, renderedRejection } from '../support/snapshot.js';
import { pruned } from '../support/sparse.js';
import { temporaryFolder } from '../support/temporary.js';

type Size = readonly [number, number];

/** A table that is also the head, products with matrices of good and bad sizes. */
function body(): dsl.Tensor {
  const table = dsl.weight('table', [40, 64]);
  const x = dsl.embed(dsl.tokens(), table);
  const h = dsl.linear(x, dsl.weight('mlp.up', [96, 64]), dsl.weight('mlp.bias', [96]));
  const odd = dsl.linear(h, dsl.weight('mlp.odd', [33, 96]));
  return dsl.linear(dsl.linear(odd, dsl.weight('mlp.narrow', [64, 33])), table);
}

const graph = dsl.buildGraph('small', { dtype: 'bf16', dtypeOf: () => undefined }, body);
const applied = (how: string) => sparsify(graph, sparsityOf(how));

describe('sparsify', () => {
  it('splits matrices into values and columns, and their products with them', () => {
    const { graph: sparse, notes } = applied('mlp.*=magnitude:0.5:4x8');
    expect([formatGraph(sparse), notes]).toMatchSnapshot();
  });

  it('rounds what is kept up to runs of 32, and leaves the graph alone where nothing is chosen', () => {
    const kept = (density: number) =>
      /@mlp.up : bf16\[96, (\d+)\]/.exec(formatGraph(applied(`mlp.up=magnitude:${density}`).graph))?.[1];
    expect([0.01, 0.5, 0.51, 1].map(kept)).toEqual(['32', '32', '64', '64']);
    expect(applied('*=none').graph).toEqual(graph);
  });

  it('says what stays dense, and why', () => {
    expect(applied('magnitude:0.5:4x8').notes).toMatchSnapshot();
  });

  it.each(['mlp=magnitude:0.5', 'mlp.upp=magnitude:0.5', 'qkv=magnitude:0.5', '*.attn.*=none'])(
    'refuses %s, which is for no matrix',
    (how) => {
      expect(renderedError(() => applied(how), process.cwd())).toMatchSnapshot();
    },
  );

  it('is refused by compile before anything is written', async () => {
    const out = path.join(temporaryFolder(), 'build');
    const model = dsl.model({ name: 'small', config: dsl.z.looseObject({}), context: () => 8 }, body);
    const refused = (sparsify: string) =>
      renderedRejection(
        () => compile({ model, weights: 'random:1', out, target: 'cpu', sparsify }),
        process.cwd(),
      );
    expect([
      await refused('magnitude:2'),
      await refused('*.mpl.*=magnitude:0.5'),
      await refused('missing.json'),
    ]).toMatchSnapshot();
  });
});

/** A tensor in a file of its own. */
function stored(dir: string, values: Float32Array, shape: Size): TensorEntry {
  const file = path.join(dir, 'tensor');
  writeFileSync(file, values);
  return { name: 'w', dtype: 'F32', shape, file, offset: 0, bytes: values.byteLength };
}

async function packed(dir: string, weight: PackedWeight, threads = 2): Promise<Buffer> {
  const file = path.join(dir, 'weights.bin');
  await packWeights(file, [weight], weight.bytes, undefined, { threads });
  return readFileSync(file);
}

const parts = (source: WeightSource, of: Size, block: Size, kept: number) => {
  const about = { of: [...of] as [number, number], block: [...block] as [number, number] };
  const [rows] = of;
  return {
    values: alone(source, [rows, kept], 'f32', { pruned: { ...about, part: 'values' } }),
    columns: alone(source, [rows / block[0], kept / block[1]], 'u16', {
      pruned: { ...about, part: 'columns' },
    }),
  };
};

describe('packing a pruned matrix', () => {
  it('keeps the greatest blocks, of equals the first; the same for any number of threads', async () => {
    const dir = temporaryFolder();
    const cases = fc.record({
      block: fc.constantFrom<Size>([1, 1], [16, 1], [4, 8]),
      bands: fc.integer({ min: 1, max: 3 }),
      runs: fc.integer({ min: 1, max: 4 }),
      kept: fc.integer({ min: 1, max: 4 }),
      transposed: fc.boolean(),
      // Few values, so that many are equal.
      values: fc.array(fc.constantFrom(0, 0, 0, 1, -1, 0.5, -3), { minLength: 64, maxLength: 64 }),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ block, bands, runs, kept, transposed, values }) => {
        const of: Size = [bands * block[0], runs * 32];
        const matrix = Float64Array.from(
          { length: of[0] * of[1] },
          (_, i) => values[(i * 37 + (i >> 6)) % 64] ?? 0,
        );
        const inFile = transposed
          ? matrix.map((_, i) => matrix[(i % of[0]) * of[1] + Math.floor(i / of[0])] ?? 0)
          : matrix;
        const source = { tensor: stored(dir, Float32Array.from(inFile), of), transposed };
        const count = Math.min(kept, runs) * 32;
        const layout = parts(source, of, block, count);
        const expected = pruned(matrix, of, block, count);
        const columns = await packed(dir, layout.columns, 1);
        expect([...new Uint16Array(new Uint8Array(columns).buffer)]).toEqual(expected.columns.flat());
        const written = new Float32Array(new Uint8Array(await packed(dir, layout.values)).buffer);
        const inRow = (row: number) =>
          (expected.columns[Math.floor(row / block[0])] ?? []).flatMap((index) =>
            Array.from({ length: block[1] }, (_, j) => matrix[row * of[1] + index * block[1] + j]),
          );
        expect([...written]).toEqual(Array.from({ length: of[0] }, (_, row) => inRow(row)).flat());
      }),
      { numRuns: 40 },
    );
  });

  it('cuts a large one into slices, whose blocks are whole', async () => {
    const dir = temporaryFolder();
    const of: Size = [1200, 1024];
    const data = Float32Array.from({ length: of[0] * of[1] }, (_, i) =>
      Math.fround(Math.sin(i * 12.9898) * 43758),
    );
    const { values, columns } = parts({ tensor: stored(dir, data, of) }, of, [4, 8], 256);
    const expected = pruned(Float64Array.from(data), of, [4, 8], 256);
    for (const threads of [1, 3]) {
      const indices = new Uint16Array(new Uint8Array(await packed(dir, columns, threads)).buffer);
      expect([...indices]).toEqual(expected.columns.flat());
      const kept = new Float32Array(new Uint8Array(await packed(dir, values, threads)).buffer);
      const whole = expected.data.filter((value) => value !== 0);
      expect(Float64Array.from(kept)).toEqual(whole);
    }
  });

  it('prunes random weights alike for values and columns', async () => {
    const dir = temporaryFolder();
    const of: Size = [8, 64];
    const source = { random: { seed: 7, mean: 0, deviation: 1 } };
    const whole = new Float32Array(new Uint8Array(await packed(dir, alone(source, of, 'f32'))).buffer);
    const expected = pruned(Float64Array.from(whole), of, [1, 1], 32);
    const { values, columns } = parts(source, of, [1, 1], 32);
    expect([...new Uint16Array(new Uint8Array(await packed(dir, columns)).buffer)]).toEqual(
      expected.columns.flat(),
    );
    const kept = new Float32Array(new Uint8Array(await packed(dir, values)).buffer);
    expect([...kept]).toEqual(expected.columns.flatMap((row, i) => row.map((k) => whole[i * 64 + k])));
  });

  it('refuses values that have no magnitude', async () => {
    const dir = temporaryFolder();
    const data = new Float32Array(8 * 64);
    data[5 * 64 + 3] = NaN;
    const { values, columns } = parts({ tensor: stored(dir, data, [8, 64]) }, [8, 64], [4, 8], 32);
    for (const part of [values, columns])
      expect(await renderedRejection(() => packed(dir, part), dir)).toBe(
        'error: weight w cannot be pruned: row 5 has a value that is infinite or not a number',
      );
  });

  it('refuses parts that are none', async () => {
    const dir = temporaryFolder();
    const source = { tensor: stored(dir, new Float32Array(8 * 64), [8, 64]) };
    const { values, columns } = parts(source, [8, 64], [4, 8], 32);
    const about = { of: [8, 64], block: [4, 8], part: 'values' } as const;
    const wrong: readonly (readonly [PackedWeight, string])[] = [
      [{ ...values, pruned: { ...about, of: [8, 64], block: [3, 8] } }, 'no whole blocks'],
      [
        { ...values, pruned: { ...about, of: [8, 64], block: [0, 8] } },
        'blocks have 1 to 64 rows and columns',
      ],
      [{ ...values, shape: [4, 64], pruned: { ...about, of: [8, 64], block: [4, 8] } }, 'are no part of'],
      [{ ...columns, pruned: { ...about, of: [8, 64], block: [4, 8] } }, 'are no part of'],
      [
        { ...columns, format: 'f16', pruned: { ...about, of: [8, 64], block: [4, 8], part: 'columns' } },
        'u16',
      ],
      [
        {
          ...alone({ compute: () => new Float32Array(512) }, [8, 32], 'f32'),
          pruned: { ...about, of: [8, 64], block: [4, 8] },
        },
        'not pruned',
      ],
      [
        { ...alone(source, [8, 64], 'f32'), format: 'u16', bytes: 1024 },
        'only integers can be stored as u16',
      ],
    ];
    for (const [weight, message] of wrong)
      await expect(packed(dir, weight)).rejects.toSatisfy(
        (error) => error instanceof CompilerBug && error.message.includes(message),
        message,
      );
  });
});

describe('a model with --sparsify', () => {
  const example = 'examples/phi4-shakespeare';

  /** The checkpoint with all that pruning drops set to zero. */
  function denseTwin(dir: string, block: Size, density: number): void {
    const checkpoint = openCheckpoint(example);
    const file = readFileSync(path.join(example, 'model.safetensors'));
    for (const { name, shape, offset } of checkpoint.tensors.values()) {
      const [rows = 0, columns = 0] = shape;
      if (shape.length !== 2 || name.includes('embed_tokens')) continue;
      const tensor = checkpoint.tensors.get(name);
      const kept = Math.ceil((density * columns) / 32) * 32;
      if (!tensor) throw new Error('no tensor');
      const { data } = pruned(readTensor(tensor), [rows, columns], block, kept);
      data.forEach((value, i) => {
        if (value === 0) file.writeUInt16LE(0, offset + 2 * i);
      });
    }
    for (const name of ['config.json', 'tokenizer.json', 'tokenizer_config.json'])
      writeFileSync(path.join(dir, name), readFileSync(path.join(example, name)));
    writeFileSync(path.join(dir, 'model.safetensors'), file);
  }

  async function told(build: string): Promise<number[]> {
    const session = await Session.open(build, { device: 'cpu' });
    try {
      const prompt = session.tokenizer?.encode('To be, or not to be') ?? [];
      const ids: number[] = [];
      for await (const { id } of session.generate(prompt, { greedy: true, maxTokens: 24 })) ids.push(id);
      return ids;
    } finally {
      session.close();
    }
  }

  it.each(['1x1', '4x8'] as const)('says what its dense twin says, with blocks of %s', async (block) => {
    const dir = temporaryFolder();
    const [sparse, twin] = ['sparse', 'twin'].map((name) => path.join(dir, name));
    if (sparse === undefined || twin === undefined) throw new Error('no folders');
    denseTwin(dir, block === '1x1' ? [1, 1] : [4, 8], 0.5);
    const options = { target: 'cpu', context: 64 } as const;
    const summary = await compile({
      ...options,
      weights: example,
      sparsify: `magnitude:0.5:${block}`,
      out: sparse,
    });
    const dense = await compile({ ...options, weights: dir, out: twin });
    expect(summary?.parameters).toBe(dense?.parameters);
    expect(summary?.formats['sparse bf16']?.weights).toBeGreaterThan(10);
    expect(await told(sparse)).toEqual(await told(twin));
  });

  it('has plans whose columns cannot be bound to less than the kernel reads', async () => {
    const out = path.join(temporaryFolder(), 'build');
    await compile({ weights: example, target: 'cpu', context: 64, sparsify: 'magnitude:0.5:4x8', out });
    const plan = readPlan(out);
    const columns = plan.weights.find(({ name }) => name.endsWith('o_proj.weight.columns'));
    const damaged = (change: object) => ({
      ...programSpec(out, plan),
      entries: programSpec(out, plan).entries.map((entry) => ({
        ...entry,
        dispatches: entry.dispatches.map((dispatch) => ({
          ...dispatch,
          bindings: dispatch.bindings.map((binding) =>
            binding.arena === arenaNames.indexOf('weights') && binding.offset === columns?.offset
              ? { ...binding, ...change }
              : binding,
          ),
        })),
      })),
    });
    const opened = async (change: object) =>
      (await loadAddon().createProgram('cpu', damaged(change))).close();
    await expect(opened({})).resolves.toBeUndefined();
    await expect(opened({ bytes: (columns?.bytes ?? 0) - 2 })).rejects.toMatchObject({
      code: 'UPGC_BAD_PLAN',
    });
    await expect(opened({ offset: plan.arenas.weights.bytes })).rejects.toMatchObject({
      code: 'UPGC_BAD_PLAN',
    });
    await expect(opened({ offset: (columns?.offset ?? 0) + 1 })).rejects.toMatchObject({
      code: 'UPGC_BAD_PLAN',
    });
  });
});
