import { readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  add,
  attention,
  embed,
  linear,
  mergeHeads,
  model,
  rmsNorm,
  silu,
  splitHeads,
  tokens,
  weight,
  z,
  type Model,
} from 'upgc';
import { compile, compileGraph, targets, type CompileOptions } from '../../src/compiler.js';
import { makeGraph, type Node } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import { Session } from '../../src/runtime/session.js';
import { openTokenizer } from '../../src/runtime/tokenizer.js';
import { measureImportance, probesOf } from '../../src/calibrate.js';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { quantise } from '../../src/weights/quantise.js';
import { policyOf } from '../../src/ir/policy.js';
import { renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';
import { writeCheckpoint } from '../support/tiny.js';

const width = 32;
const words = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
const square = (name: string) => weight(name, [width, width]);

/** One operand of three products, a matrix with two operands, a table that is the head too. */
const source: Model = model({ name: 'probed', config: z.object({}), context: () => 64 }, () => {
  const table = weight('table', [8, width]);
  const x = embed(tokens(), table);
  const h = rmsNorm(x, weight('norm', [width]), { eps: 1e-5 });
  const mixed = attention(
    splitHeads(linear(h, square('q')), 2),
    splitHeads(linear(h, square('k')), 2),
    splitHeads(linear(h, square('v')), 2),
    { causal: true },
  );
  const once = add(x, linear(mergeHeads(mixed), square('twice')));
  return linear(add(once, linear(silu(once), square('twice'))), table);
});

/** A checkpoint whose tokenizer has a word for each of ids 1 to 7. */
function checkpointFolder(
  of = source,
  valueOf: (weight: string, column: number) => number | undefined = () => undefined,
): { readonly dir: string; readonly values: ReadonlyMap<string, Float32Array> } {
  const dir = temporaryFolder();
  const values = writeCheckpoint(dir, of, valueOf);
  const vocab = Object.fromEntries(['<unk>', ...words].map((word, id) => [word, id]));
  const tokenizer = {
    version: '1.0',
    added_tokens: [],
    normalizer: null,
    pre_tokenizer: { type: 'WhitespaceSplit' },
    post_processor: null,
    decoder: null,
    model: {
      type: 'WordPiece',
      vocab,
      unk_token: '<unk>',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 9,
    },
  };
  writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify(tokenizer));
  return { dir, values };
}

function textFile(text: string): string {
  const file = path.join(temporaryFolder(), 'text.txt');
  writeFileSync(file, text);
  return file;
}

describe('importance', () => {
  it.each(['cpu', 'metal'] as const)(
    'is the mean square of what the interpreter multiplies each column with, on %s',
    async (target) => {
      const { dir, values } = checkpointFolder();
      const checkpoint = openCheckpoint(dir);
      const { graph } = source.build({});
      const { methods } = quantise(graph, policyOf('q4g32'), checkpoint);
      const probes = probesOf(graph, methods);
      expect([...probes.values()].map(({ weights }) => weights)).toEqual([
        ['q', 'k', 'v'],
        ['twice'],
        ['twice'],
        ['table'],
      ]);
      // Steps of 5 tokens, so that the last is short and rings go round.
      const build = compileGraph(graph, {
        target: targets[target],
        context: 64,
        chunk: 5,
        checkpoint,
        kept: new Map([...probes].map(([name, { operand }]) => [operand, name])),
      });
      if (!build) throw new Error('not compiled');
      const text = Array.from({ length: 23 }, (_, i) => words[(i * i + 2) % 7]).join(' ');
      const beside = path.join(temporaryFolder(), 'build');
      const importance = await measureImportance(text, probes, { build, checkpoint, beside });
      expect(readdirSync(path.dirname(beside))).toEqual([]);

      const ids = openTokenizer(dir)?.encode(text) ?? [];
      expect(ids).toHaveLength(23);
      const exact = new Map<string, Float64Array>();
      for (const { operand, weights } of probes.values()) {
        const squares = columnMeanSquares(operand, ids, values);
        for (const name of weights)
          exact.set(
            name,
            squares.map((square, k) => square + (exact.get(name)?.[k] ?? 0)),
          );
      }
      expect([...importance.keys()].sort()).toEqual([...exact.keys()].sort());
      for (const [name, squares] of exact)
        squares.forEach((square, k) => expect((importance.get(name)?.[k] ?? NaN) / square).toBeCloseTo(1, 5));
    },
  );
});

/** A fifth of the columns of `head` are multiplied with elements a hundred times as large as the others. */
const uneven: Model = model({ name: 'uneven', config: z.object({}), context: () => 64 }, () => {
  const x = embed(tokens(), weight('table', [64, width]));
  return linear(rmsNorm(x, weight('norm', [width]), { eps: 1e-5 }), weight('head', [64, width]));
});

it('makes the products of uneven columns more exact', async () => {
  const { dir, values } = checkpointFolder(uneven, (name, column) =>
    name === 'norm' ? (column % 5 === 0 ? 100 : 1) : undefined,
  );
  const ids = [1, 2, 3, 4, 5, 6, 7];
  const exact = interpret(uneven.build({}).graph, {
    inputs: new Map([['tokens', ids]]),
    weights: (name) => Float64Array.from(values.get(name) ?? []),
  }).outputs.get('logits');
  const squaredError = async (options: Partial<CompileOptions>): Promise<number> => {
    const out = path.join(temporaryFolder(), 'build');
    const quantize = [{ match: 'head', format: 'q4g32' } as const];
    await compile({ model: uneven, weights: dir, quantize, out, ...options });
    const session = await Session.open(out);
    const logits = await session.score(ids);
    session.close();
    return logits.reduce((sum, logit, i) => sum + (logit - (exact?.data[i] ?? NaN)) ** 2, 0);
  };
  const search = await squaredError({});
  const calibrated = await squaredError({ calibrate: textFile(words.join(' ')) });
  expect(calibrated).toBeLessThan(0.7 * search);
});

function columnMeanSquares(
  operand: Node,
  ids: readonly number[],
  values: ReadonlyMap<string, Float32Array>,
): Float64Array {
  const graph = makeGraph({
    name: 'operand',
    outputs: new Map([['operand', operand]]),
    updates: new Map(),
    dims: {},
  });
  const { data = [] } =
    interpret(graph, {
      inputs: new Map([['tokens', ids]]),
      weights: (name) => Float64Array.from(values.get(name) ?? []),
    }).outputs.get('operand') ?? {};
  const sums = new Float64Array(width);
  data.forEach((value, i) => (sums[i % width] = (sums[i % width] ?? 0) + value ** 2 / ids.length));
  return sums;
}

describe('--calibrate refuses', () => {
  const refusal = (options: Partial<CompileOptions>): Promise<string> => {
    const { dir } = checkpointFolder();
    const out = path.join(temporaryFolder(), 'build');
    return renderedRejection(
      () =>
        compile({
          model: source,
          weights: dir,
          quantize: 'q4',
          calibrate: textFile('a b c'),
          out,
          ...options,
        }),
      dir,
    );
  };

  it('a missing text', async () => {
    expect(await refusal({ calibrate: '/nowhere/text.txt' })).toMatchInlineSnapshot(
      `"error: cannot read /nowhere/text.txt: no such file or folder"`,
    );
  });

  it('an empty text', async () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'empty.txt');
    writeFileSync(file, ' \n');
    const message = await refusal({ calibrate: file });
    expect(message.replace(/\S*empty\.txt/, 'empty.txt')).toMatchInlineSnapshot(
      `"error: empty.txt is empty: there is nothing to calibrate with"`,
    );
  });

  it('random weights', async () => {
    expect(await refusal({ weights: 'random:1' })).toMatchInlineSnapshot(`
      "error: --calibrate needs a checkpoint: other weights have nothing to say about a text
       note: give --weights the folder of a checkpoint"
    `);
  });

  it('formats that search nothing', async () => {
    expect(await refusal({ quantize: 'q8' })).toMatchInlineSnapshot(`
      "error: --calibrate has nothing to choose: no matrix is quantised by scale search
       note: give --quantize as well, such as q4; what a GGUF file has quantised keeps its integers, and q8 needs no search"
    `);
  });

  it('what is quantised already', async () => {
    const weights = 'test/fixtures/gguf/phi4-shakespeare-Q4_0.gguf';
    expect(await refusal({ model: 'models/phi4.graph.ts', weights, quantize: 'stored' }))
      .toMatchInlineSnapshot(`
      "error: --calibrate has nothing to choose: no matrix is quantised by scale search
       note: give --quantize as well, such as q4; what a GGUF file has quantised keeps its integers, and q8 needs no search"
    `);
  });

  it('a checkpoint without a tokenizer', async () => {
    const dir = temporaryFolder();
    writeCheckpoint(dir, source);
    const message = await refusal({ weights: dir });
    expect(message.replace(/\S*upgc-test-\w+/, 'CHECKPOINT')).toMatchInlineSnapshot(
      `"error: CHECKPOINT has no tokenizer, so --calibrate cannot read a text"`,
    );
  });
});
