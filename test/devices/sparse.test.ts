import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkMetal } from 'upgc/metal-cpu';
import { compile, compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { interpret } from '../../src/ir/interpret.js';
import type { BlockName, Sparsify } from '../../src/ir/sparsity.js';
import { blocks } from '../../src/ir/sparsity.js';
import type { StoredAs } from '../../src/ir/type.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { buildFiles, readPlan } from '../../src/runtime/plan.js';
import { Session } from '../../src/runtime/session.js';
import { compare, errorBounds } from '../support/error-bound.js';
import { dtypeOf, weightValues } from '../support/random-graph.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { pruned, storedMatrices } from '../support/sparse.js';
import { temporaryFolder } from '../support/temporary.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/** Sparse matrices on the CPU device, as every target reads them, against the interpreter on their dense twins. */

const width = 128;
const vocabulary = 64;
const rows = (x: dsl.Tensor, name: string, n: number): dsl.Tensor =>
  dsl.linear(x, dsl.weight(`${name}.bf16.matrix`, [n, Number(x.type.shape[1])]));

type Quantize = NonNullable<Trial['quantize']>;

/** Matrices in every way that there is: alone, parts of one result after a norm, a transposed one with a bias. */
function shallow(): dsl.Tensor {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table.f32.table', [vocabulary, width]));
  const h = dsl.rmsNorm(x, dsl.weight('gain.f32.factor', [width]), { eps: 1e-5 });
  const gated = dsl.mul(dsl.silu(rows(h, 'gate', vocabulary)), rows(h, 'up', vocabulary));
  const turned = dsl.weight('turned.f16.matrix', [vocabulary, width], { transposed: true });
  const biased = dsl.linear(x, turned, dsl.weight('bias.f32.vector', [vocabulary]));
  return dsl.add(rows(x, 'alone', vocabulary), dsl.add(gated, biased));
}

/** A layer: queries, keys and values cut from one matrix, two of them turned; gate and up from another. */
function layer(): dsl.Tensor {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table.f32.table', [vocabulary, width]));
  const h = dsl.rmsNorm(x, dsl.weight('gain.f32.factor', [width]), { eps: 1e-5 });
  const [q, k, v] = dsl.split(rows(h, 'qkv', 2 * 16 + 16 + 16), [32, 16, 16]);
  const turned = (of: dsl.Tensor, heads: number): dsl.Tensor =>
    dsl.rope(dsl.splitHeads(of, heads), { theta: 10000, dims: 12 });
  const mixed = dsl.mergeHeads(
    dsl.attention(turned(q, 2), turned(k, 1), dsl.splitHeads(v, 1), { causal: true }),
  );
  const [gate, up] = dsl.split(rows(mixed, 'both', 2 * 60), [60, 60]);
  return dsl.mul(dsl.silu(gate), up);
}

function trialOf(body: () => dsl.Tensor, sparsify: Sparsify, quantize: Quantize, target: TargetName): Trial {
  return {
    model: dsl.model({ name: 'sparse', config: dsl.z.looseObject({}), context: () => 12 }, body),
    graph: dsl.buildGraph('sparse', { dtype: 'f32', dtypeOf }, body),
    quantize,
    sparsify,
    target,
    tokens: [1, 36, 0, 5, 5, 7],
    chunk: 3,
    context: 12,
  };
}

const shapes = Object.keys(blocks) as BlockName[];
const formats: Readonly<Record<BlockName, readonly StoredAs[]>> = {
  '1x1': ['f16', 'q4g32'],
  '16x1': ['bf16', 'q4g32'],
  '4x8': ['f32', 'f16', 'bf16', 'q4g32', 'q4g64b', 'q8g32'],
};
const matricesAs = (format: StoredAs): Quantize => [{ match: '*.matrix', format }] as Quantize;

/** Floats and packed values in one text. */
const mixture: Quantize = [
  { match: 'alone.*', format: 'q4g32' },
  { match: '*', format: 'stored' },
];

/** What someone could get wrong in the text, by the form that shows it. */
const mistakes: Readonly<Record<string, readonly [Sparsify, Quantize, RegExp, string]>> = {
  'a row of other columns': ['magnitude:0.5', 'stored', /(columns\w*) \+ n \* 64/, '$1 + (n ^ 1) * 64'],
  'columns of other blocks': ['magnitude:0.5:4x8', 'stored', /(columns\w*) \+ n \/ 4/, '$1 + n / 8'],
  'elements of a block moved by one': [
    'magnitude:0.5:4x8',
    'q4g32',
    /x\[column \+ j\]/,
    'x[column + (j ^ 1)]',
  ],
  'the last block left out': ['magnitude:0.25:16x1', 'q4g32', /kept \/ 32/, 'kept / 32 - 1'],
};

// What cuda adds to the text of metal, these products have no part in: one test below says so.
describe.each(['cpu', 'metal'] as const)('target %s', (target) => {
  const cases = shapes.flatMap((block) => formats[block].map((format) => [block, format] as const));

  it.each(cases)('computes with blocks of %s in %s what the interpreter does', async (block, format) => {
    const trial = trialOf(shallow, `magnitude:0.5:${block}`, matricesAs(format), target);
    await compiled(trial, async (build) => {
      const { wrong, ratio } = await difference(build, trial);
      expect(wrong).toBeUndefined();
      expect(ratio).toBeGreaterThan(1e-4);
      const stored = readPlan(build).weights.map(({ name, dtype, shape }) => [name, dtype, shape.join()]);
      const [r, c] = blocks[block];
      expect(stored).toContainEqual(['alone.bf16.matrix', format, `${vocabulary},${width / 2}`]);
      expect(stored).toContainEqual([
        'alone.bf16.matrix.columns',
        'u16',
        `${vocabulary / r},${width / 2 / c}`,
      ]);
    });
  });

  it.each(shapes)('splits, turns and joins what comes of blocks of %s', async (block) => {
    const trial = trialOf(layer, `*=magnitude:0.25:${block}`, 'stored', target);
    await compiled(trial, async (build) => {
      expect((await difference(build, trial)).wrong).toBeUndefined();
    });
  });

  it('computes with sparse and dense matrices of one operand', async () => {
    const trial = trialOf(shallow, 'gate.*=none,*=magnitude:0.3', 'q8g32', target);
    await compiled(trial, async (build) => {
      expect((await difference(build, trial)).wrong).toBeUndefined();
    });
  });

  it('keeps everything at density 1', async () => {
    const trial = trialOf(shallow, 'magnitude:1:4x8', 'stored', target);
    await compiled(trial, async (build) => {
      expect((await difference(build, trial)).wrong).toBeUndefined();
      const values = weightValues(trial.graph);
      for (const [name, { data }] of storedMatrices(build, trial.graph))
        expect(data).toEqual(values.get(name));
    });
  });

  it.each(Object.entries(mistakes))('finds %s', async (_, [sparsify, quantize, pattern, replacement]) => {
    const trial = trialOf(shallow, sparsify, quantize, target);
    await compiled(trial, async (build) => {
      const file = path.join(build, buildFiles.kernels);
      const right = readFileSync(file, 'utf8');
      const wrong = right.replaceAll(new RegExp(pattern, 'g'), replacement);
      expect(wrong).not.toBe(right);
      writeFileSync(file, wrong);
      expect((await difference(build, trial)).wrong).toMatch(/logit|generated/);
    });
  });

  it('writes kernels that a Metal compiler would take', async () => {
    for (const block of shapes) {
      const trial = trialOf(shallow, `magnitude:0.5:${block}`, mixture, target);
      await compiled(trial, async (build) => {
        const text = readFileSync(path.join(build, buildFiles.kernels), 'utf8');
        expect(await checkMetal(text, 'kernels.metal')).toEqual([]);
      });
    }
  });

  it('takes an index past the end of a row for the last', async () => {
    const trial = trialOf(shallow, 'magnitude:0.5', 'stored', target);
    await compiled(trial, async (build) => {
      const { weights } = readPlan(build);
      const file = path.join(build, buildFiles.weights);
      const bytes = readFileSync(file);
      const columns = weights.find(({ name }) => name === 'alone.bf16.matrix.columns');
      if (!columns) throw new Error('no columns');
      const logits = async (index: number): Promise<Float32Array> => {
        for (let at = columns.offset; at < columns.offset + columns.bytes; at += 6)
          bytes.writeUInt16LE(index, at);
        writeFileSync(file, bytes);
        const session = await Session.open(build, { device: 'cpu' });
        try {
          return await session.score(trial.tokens);
        } finally {
          session.close();
        }
      };
      const last = await logits(width - 1);
      expect(await logits(width - 2)).not.toEqual(last);
      for (const index of [width, 0x7fff, 0xffff]) expect(await logits(index)).toEqual(last);
    });
  });
});

describe('target cuda', () => {
  it('has the kernels of metal, beside others that are split', async () => {
    const kernels = async (target: TargetName): Promise<Set<string>> => {
      const trial = trialOf(shallow, 'gate.*=none,up.*=none,*=magnitude:0.5:4x8', mixture, target);
      return compiled(trial, async (build) => {
        expect((await difference(build, trial)).wrong).toBeUndefined();
        const text = readFileSync(path.join(build, buildFiles.kernels), 'utf8');
        const own = text.split('\n\n').filter((part) => part.includes('multiply_sparse'));
        return new Set(own);
      });
    };
    expect(await kernels('cuda')).toEqual(await kernels('metal'));
  });
});

describe('sparseLinear', () => {
  const [vocabularySize, length, rowCount] = [16, 96, 16];
  const body = (): dsl.Tensor => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [vocabularySize, length]));
    const columns = dsl.weight('columns', [rowCount, 32], { dtype: 'u16' });
    const bias = dsl.weight('bias', [rowCount]);
    return dsl.sparseLinear(x, dsl.weight('values', [rowCount, 32]), columns, bias);
  };
  const model = dsl.model({ name: 'own', config: dsl.z.looseObject({}), context: () => 8 }, body);

  it.each(['cpu', 'metal'] as const)('reads a sparse matrix of the checkpoint, target %s', async (target) => {
    const dir = temporaryFolder();
    const [checkpoint, out] = [path.join(dir, 'checkpoint'), path.join(dir, 'build')];
    const values = (count: number, of: (i: number) => number) =>
      Array.from({ length: count }, (_, i) => of(i));
    const weights = {
      table: values(vocabularySize * length, (i) => Math.fround(Math.sin(i))),
      // An empty row among them.
      values: values(rowCount * 32, (i) => (i < 32 ? 0 : Math.fround(Math.cos(7 * i)))),
      bias: values(rowCount, (i) => i / 8),
      columns: values(rowCount * 32, (i) => (i * 29 + (i >> 5)) % length),
    };
    mkdirSync(checkpoint);
    writeFileSync(path.join(checkpoint, 'config.json'), '{}');
    writeSafetensors(path.join(checkpoint, 'model.safetensors'), {
      table: f32([vocabularySize, length], weights.table),
      values: f32([rowCount, 32], weights.values),
      bias: f32([rowCount], weights.bias),
      columns: {
        dtype: 'U16',
        shape: [rowCount, 32],
        data: new Uint8Array(Uint16Array.from(weights.columns).buffer),
      },
    });
    await compile({ model, weights: checkpoint, target, out });
    const tokens = [3, 0, 15, 7];
    const { graph } = model.build({}, (name) => (name === 'columns' ? 'u16' : 'f32'));
    const step = interpret(graph, {
      inputs: new Map([['tokens', tokens]]),
      weights: (name) => Float64Array.from(weights[name as keyof typeof weights]),
    });
    const logits = graph.outputs.get('logits');
    const expected = logits && errorBounds(graph, step.values).get(logits);
    if (!expected) throw new Error('no logits');
    const session = await Session.open(out, { device: 'cpu' });
    try {
      expect(compare(await session.score(tokens), expected).wrong).toBeUndefined();
    } finally {
      session.close();
    }
  });

  it('has no columns out of nothing', async () => {
    const out = path.join(temporaryFolder(), 'build');
    const compiling = compile({ model, weights: 'random:1', target: 'cpu', out });
    await expect(compiling).rejects.toThrow(
      "weight 'columns' is of u16, and random weights are real numbers",
    );
  });

  it('needs weights to be weights', () => {
    const computed = dsl.buildGraph('computed', { dtype: 'f32', dtypeOf: () => undefined }, () => {
      const x = dsl.embed(dsl.tokens(), dsl.weight('table', [16, 96]));
      const half = dsl.scale(dsl.weight('values', [16, 32]), { by: 0.5 });
      return dsl.sparseLinear(x, half, dsl.weight('columns', [16, 32], { dtype: 'u16' }));
    });
    expect(() => compileGraph(computed, { target: targets.cpu, context: 8 })).toThrow(
      'its values and columns must be weights',
    );
  });
});

describe('what is kept', () => {
  it.each(shapes)('is of the greatest magnitude, in blocks of %s', async (block) => {
    const trial = trialOf(shallow, `magnitude:0.3:${block}`, 'stored', 'cpu');
    await compiled(trial, (build) => {
      const values = weightValues(trial.graph);
      const stored = storedMatrices(build, trial.graph);
      expect([...stored.keys()].sort()).toEqual([
        'alone.bf16.matrix',
        'gate.bf16.matrix',
        'turned.f16.matrix',
        'up.bf16.matrix',
      ]);
      for (const [name, { data }] of stored) {
        const whole = values.get(name) ?? new Float64Array();
        // 0.3 · 128 = 38.4, in whole runs of 32.
        const { data: expected } = pruned(whole, [vocabulary, width], blocks[block], 64);
        expect([name, data]).toEqual([name, expected]);
      }
      return Promise.resolve();
    });
  });
});
