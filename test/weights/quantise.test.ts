import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { isOp } from '../../src/ir/graph.js';
import { policyOf, type Quantize } from '../../src/ir/policy.js';
import { readPlan } from '../../src/runtime/plan.js';
import type { TensorEntry } from '../../src/weights/stored.js';
import { quantise } from '../../src/weights/quantise.js';
import { renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

const ids = dsl.tokens;

/** Rows of 64 and of 33 elements, a table that is also the head, weights that other ops read. */
function body(): dsl.Tensor {
  const table = dsl.weight('table', [40, 64]);
  const x = dsl.add(dsl.embed(ids(), table), dsl.positions(dsl.weight('places', [64, 64])));
  const h = dsl.rmsNorm(x, dsl.weight('gain', [64]), { eps: 1e-5 });
  const narrow = dsl.linear(h, dsl.weight('narrow', [33, 64]));
  const odd = dsl.linear(narrow, dsl.weight('odd', [64, 33]));
  const shared = dsl.weight('shared', [64, 64]);
  const mixed = dsl.linear(odd, dsl.add(shared, shared));
  return dsl.scale(
    dsl.linear(dsl.linear(mixed, dsl.weight('turned', [64, 64], { transposed: true })), table),
    {
      by: 0.5,
    },
  );
}

const graph = dsl.buildGraph('small', { dtype: 'bf16', dtypeOf: () => undefined }, body);

const stored = (types: Readonly<Record<string, string>>) => ({
  tensors: new Map(
    Object.entries(types).map(([name, dtype]): [string, TensorEntry] => [
      name,
      { name, dtype, shape: [], file: 'x', offset: 0, bytes: 0 },
    ]),
  ),
});

function formats(quantize: Quantize, types: Readonly<Record<string, string>> = {}): Record<string, string> {
  const quantised = quantise(graph, policyOf(quantize), stored(types));
  return Object.fromEntries(
    quantised.graph.nodes.flatMap((node) =>
      isOp(node, 'weight') ? [[node.attrs.name, node.type.dtype]] : [],
    ),
  );
}

const untouched = { places: 'bf16', gain: 'bf16', shared: 'bf16' };

describe('formats of matrices', () => {
  it('are the recipe’s where rows allow them; a tied table has one', () => {
    expect(formats('q4')).toEqual({
      ...untouched,
      table: 'q5g32',
      narrow: 'q4g32',
      odd: 'bf16',
      turned: 'q4g32',
    });
    expect(formats('stored')).toEqual({
      ...untouched,
      table: 'bf16',
      narrow: 'bf16',
      odd: 'bf16',
      turned: 'bf16',
    });
    expect(formats('f32')).toEqual({ ...untouched, table: 'f32', narrow: 'f32', odd: 'f32', turned: 'f32' });
  });

  it('are said to stay where rows are too short, in one note', () => {
    expect(quantise(graph, policyOf('q4'), undefined).notes).toMatchInlineSnapshot(`
      [
        "'odd' stays bf16: q4g32 needs rows of a multiple of 32 elements",
      ]
    `);
    expect(quantise(graph, policyOf('q4k'), undefined).notes).toMatchInlineSnapshot(`
      [
        "'table' and 3 more matrices stay bf16: q4k needs rows of a multiple of 256 elements",
      ]
    `);
  });

  it('have a method where they are quantised here', () => {
    const policy = policyOf([
      { match: 'narrow', format: 'q4g32', method: 'nearest' },
      { match: 'turned', format: 'q8g32' },
      { match: 'table', format: 'q5g32' },
    ]);
    expect([...quantise(graph, policy, undefined).methods].sort()).toEqual([
      ['narrow', 'nearest'],
      ['table', 'search'],
      ['turned', 'nearest'],
    ]);
  });

  it('of quantised tensors are their own, unless the policy wants floats or another op reads them', () => {
    const types = { table: 'Q5_0', narrow: 'Q4_0', shared: 'Q8_0', turned: 'Q5_1' };
    expect(formats('stored', types)).toMatchObject({
      ...untouched,
      table: 'q5g32',
      narrow: 'q4g32',
      turned: 'bf16',
    });
    expect(formats([{ match: 'narrow', format: 'f16' }], types)).toMatchObject({
      narrow: 'f16',
      table: 'q5g32',
    });
    expect(formats([{ match: 'narrow', format: 'q4g32' }], types)).toMatchObject({ narrow: 'q4g32' });
    expect(quantise(graph, policyOf('stored'), stored(types)).methods.size).toBe(0);
  });
});

describe('compile({ quantize })', () => {
  const gguf = 'test/fixtures/gguf/stories260k-Q4_0.gguf';

  it('keeps GGML’s integers', async () => {
    const out = path.join(temporaryFolder(), 'build');
    const summary = await compile({ weights: gguf, out, context: 8 });
    expect(Object.keys(summary?.formats ?? {}).sort()).toEqual(['f16', 'f32', 'q4g32', 'q8g32']);
    expect(new Set(readPlan(out).weights.map(({ dtype }) => dtype))).toContain('q4g32');
    expect(summary?.bitsPerWeight).toBeLessThan(8.6);
  });

  it('refuses to quantise twice', async () => {
    expect(
      await renderedRejection(() => compile({ weights: gguf, out: null, quantize: 'q6' }), process.cwd()),
    ).toMatchInlineSnapshot(`
      "error: weight 'model.embed_tokens.weight' is stored as Q8_0; what is quantised is not quantised again, to q6g32
         ┌─ models/llama.graph.ts:80:17
      80 │ const table = weight('model.embed_tokens.weight', [c.vocab_size, c.hidden_size]);
         │               ^^^^^^
         note: a rule before can leave it as it is: { "match": "model.embed_tokens.weight", "format": "stored" }
         note: without --quantize every tensor keeps its integers"
    `);
  });

  it('takes rules from a file and from the model', async () => {
    const folder = temporaryFolder();
    const file = path.join(folder, 'policy.json');
    const small = dsl.model(
      { name: 'small', config: dsl.z.looseObject({}), context: () => 4, dtype: 'bf16', quantize: 'q8' },
      body,
    );
    const formatsOf = async (quantize?: string) =>
      (await compile({ model: small, out: null, ...(quantize === undefined ? {} : { quantize }) }))
        ?.formats ?? {};
    expect(Object.keys(await formatsOf()).sort()).toEqual(['bf16', 'q8g32']);
    expect(Object.keys(await formatsOf('stored'))).toEqual(['bf16']);
    writeFileSync(file, JSON.stringify([{ role: 'embedding', format: 'q4g64b' }]));
    expect(Object.keys(await formatsOf(file)).sort()).toEqual(['bf16', 'q4g64b']);
    writeFileSync(file, '[{]');
    expect(
      await renderedRejection(() => compile({ model: small, out: null, quantize: file }), folder),
    ).toMatch(/policy\.json is not valid JSON/);
    expect(
      await renderedRejection(() => compile({ model: small, out: null, quantize: 'q4x' }), folder),
    ).toMatch(/no quantisation 'q4x'/);
  });
});
