import { cpSync, existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { totalmem } from 'node:os';
import path from 'node:path';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  add,
  attention,
  embed,
  linear,
  mergeHeads,
  model,
  scale,
  splitHeads,
  tokens,
  weight,
  z,
  type Tensor,
} from 'upgc';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { readPlan } from '../../src/runtime/plan.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { renderedError, renderedRejection } from '../support/snapshot.js';
import { sharedFolder, temporaryFolder } from '../support/temporary.js';
import { openTiny, tiny, writeCheckpoint } from '../support/tiny.js';

/** What is refused rather than computed wrongly. */

const x = (): Tensor => embed(tokens(), weight('table', [8, 4]));
const refusal = (graph: () => Tensor): Promise<string> =>
  renderedRejection(() => compile({ model: tiny(graph), out: path.join(temporaryFolder(), 'build') }), '/');

describe('graphs', () => {
  it('attention to what is not the tokens', async () => {
    const graph = (): Tensor => {
      const keys = weight('keys', [4, 2, 2]);
      return linear(
        mergeHeads(attention(splitHeads(x(), 2), keys, keys, { causal: true })),
        weight('table', [8, 4]),
      );
    };
    expect(await refusal(graph)).toMatchInlineSnapshot(`
      "unsupported: attention over f32[4, 2, 2]: its rows are not the tokens of the text
       note: the first axis must be T"
    `);
  });

  it('a product of weights', async () => {
    const graph = (): Tensor =>
      linear(x(), add(weight('table', [8, 4]), linear(weight('b', [8, 2]), weight('a', [4, 2]))));
    expect(await refusal(graph)).toMatchInlineSnapshot(
      `"unsupported: linear with 8 rows: only the rows of the step's tokens can be computed"`,
    );
  });

  it('a table that lacks ids', async () => {
    expect(await refusal(() => linear(x(), weight('head', [9, 4])))).toMatchInlineSnapshot(`
      "error: embed: the table has 8 rows; its ids run to 9
       note: the embedding table must have a row for every logit"
    `);
  });

  it('tensors that kernels cannot count through', async () => {
    expect(
      await refusal(() =>
        linear(embed(tokens(), weight('t', [2 ** 20, 2 ** 12])), weight('t', [2 ** 20, 2 ** 12])),
      ),
    ).toMatchInlineSnapshot(`
      "unsupported: weight of [1048576, 4096]: a tensor can have at most 2^32 - 1 elements
       note: a shorter --context or a smaller --chunk may do"
    `);
  });

  it('numbers that f32 cannot hold', async () => {
    expect(
      await refusal(() => linear(scale(x(), { by: 1e39 }), weight('table', [8, 4]))),
    ).toMatchInlineSnapshot(`"error: scale: by: must be within the range of f32"`);
  });

  it('a model name that is no file name', () => {
    expect(
      renderedError(() => model({ name: '../evil', config: z.object({}), context: () => 1 }, x), '/'),
    ).toMatchInlineSnapshot(
      `"error: a model's name must be letters, digits, '.', '_' and '-', not '..<dir>evil'"`,
    );
  });

  it('a model file that throws', async () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'broken.graph.ts');
    writeFileSync(
      file,
      `import { model, tokens, embed, weight, z } from 'upgc';
const sizes: { [name: string]: number[] } = {};
export default model({ name: 'broken', config: z.object({}), context: () => 8 }, () => {
  console.log('building');
  return embed(tokens(), weight('t', [sizes['table']!.length, 4]));
});
`,
    );
    expect(await renderedRejection(() => compile({ model: file, out: path.join(dir, 'b') }), dir))
      .toMatchInlineSnapshot(`
      "error: TypeError: Cannot read properties of undefined (reading 'length')
        ┌─ broken.graph.ts:5:3
      5 │ return embed(tokens(), weight('t', [sizes['table']!.length, 4]));
        │ ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
    `);
  });
});

describe('checkpoints', () => {
  it('tensors that the model leaves out', async () => {
    const dir = temporaryFolder();
    const source = tiny(() => linear(x(), weight('table', [8, 4])));
    writeSafetensors(path.join(dir, 'model.safetensors'), {
      table: f32([8, 4], new Array<number>(32).fill(1)),
      'layers.0.q_proj.bias': f32([4], [1, 2, 3, 4]),
    });
    writeFileSync(path.join(dir, 'config.json'), '{}');
    expect(
      await renderedRejection(() => compile({ model: source, weights: dir, out: path.join(dir, 'b') }), dir),
    ).toMatchInlineSnapshot(`
      "error: model tiny does not use 'layers.0.q_proj.bias' of the checkpoint <dir>
       note: the checkpoint is of another architecture, or the model lacks a part, such as a bias"
    `);
  });

  it('leaves no tokenizer of an earlier build', async () => {
    const out = temporaryFolder();
    await compile({ model: 'models/llama.graph.ts', weights: 'examples/stories260k', out });
    expect(existsSync(path.join(out, 'tokenizer.json'))).toBe(true);
    const dir = temporaryFolder();
    const source = tiny(() => linear(x(), weight('table', [8, 4])));
    writeCheckpoint(dir, source);
    await compile({ model: source, weights: dir, out });
    expect(existsSync(path.join(out, 'tokenizer.json'))).toBe(false);
    expect(existsSync(path.join(out, 'tokenizer_config.json'))).toBe(false);
  });
});

describe('build folders', () => {
  const source = tiny(() => linear(x(), weight('table', [8, 4])));
  const compileTo = (out: string, weights?: string): Promise<unknown> =>
    compile({ model: source, out, ...(weights === undefined ? {} : { weights }) });

  it('keeps what is not a build', async () => {
    const dir = temporaryFolder();
    writeFileSync(path.join(dir, 'tokenizer.json'), 'precious');
    expect(await renderedRejection(() => compileTo(dir), dir)).toMatchInlineSnapshot(`
      "error: <dir> is not empty, and not a build folder
       note: give another --out"
    `);
    const file = path.join(dir, 'tokenizer.json');
    expect(await renderedRejection(() => compileTo(file), dir)).toMatchInlineSnapshot(`
      "error: <dir>/tokenizer.json is a file: a build needs a folder
       note: give another --out"
    `);
    expect(await renderedRejection(() => compileTo(''), dir)).toMatchInlineSnapshot(`
      "error: the build folder has no name
       note: give --out a folder"
    `);
    expect(readFileSync(file, 'utf8')).toBe('precious');
  });

  it('keeps packed weights', async () => {
    const dir = temporaryFolder();
    writeCheckpoint(dir, source);
    const out = path.join(dir, 'build');
    await compileTo(out, dir);
    expect(await renderedRejection(() => compileTo(out), dir)).toMatchInlineSnapshot(`
      "error: <dir>/build holds a build with weights, which one without would remove
       note: give another --out, or --weights, or remove the folder"
    `);
    expect(existsSync(path.join(out, 'weights.bin'))).toBe(true);
  });
});

describe('plans', () => {
  let build: string;

  beforeAll(async () => {
    build = path.join(sharedFolder(), 'build');
    await compile({
      model: 'models/llama.graph.ts',
      weights: 'examples/stories260k',
      target: 'cpu',
      out: build,
    });
  });

  /** Opens a copy of the build whose plan.json has gone through `damage`. */
  async function open(damage: (text: string) => string): Promise<string> {
    const dir = path.join(temporaryFolder(), 'copy');
    cpSync(build, dir, { recursive: true });
    const file = path.join(dir, 'plan.json');
    const before = readFileSync(file, 'utf8');
    const after = damage(before);
    expect(after).not.toBe(before);
    writeFileSync(file, after);
    return renderedRejection(() => Session.open(dir), dir);
  }

  it.each([
    ['a context the caches do not have', /"context": 512/, '"context": 100000'],
    ['a vocabulary the logits do not have', /"vocabulary": 512/, '"vocabulary": 100000'],
    ['caches of no bytes', /"state": \{\s+"bytes": 655360/, '"state": { "bytes": 0'],
    [
      'a binding smaller than the kernel reads',
      /"arena": "pool",\s+"offset": (\d+),\s+"bytes": 256/,
      '"arena": "pool", "offset": $1, "bytes": 16',
    ],
    ['lanes of another target', /"simdWidth": 1/, '"simdWidth": 32'],
  ])('%s', async (_, from, to) => {
    expect(await open((text) => text.replace(from, to))).toMatchSnapshot();
  });

  it('caches larger than the memory of the machine', async () => {
    const dir = path.join(temporaryFolder(), 'copy');
    cpSync(build, dir, { recursive: true });
    const file = path.join(dir, 'plan.json');
    const plan = readPlan(dir);
    // 1280 bytes a token, for far more tokens than any machine holds.
    const context = 2 ** 40;
    const more = (context - plan.context) * 4;
    // What lies in io after the ids moves on.
    const moved = <R extends { readonly offset: number }>(region: R): R => ({
      ...region,
      offset: region.offset + more,
    });
    const { tokens, step, sampling, seed } = plan.inputs;
    const entries = Object.entries(plan.entries).map(([name, entry]) => [
      name,
      { ...entry, outputs: { logits: moved(entry.outputs.logits) } },
    ]);
    const grown = {
      ...plan,
      context,
      inputs: {
        tokens: { ...tokens, bytes: (context + 1) * 4 },
        step: moved(step),
        sampling: moved(sampling),
        seed: moved(seed),
      },
      entries: Object.fromEntries(entries) as unknown,
      arenas: {
        ...plan.arenas,
        state: { bytes: context * 1280 },
        io: { bytes: plan.arenas.io.bytes + more },
      },
      state: plan.state.map((tensor) => ({ ...tensor, shape: [context, ...tensor.shape.slice(1)] })),
    };
    writeFileSync(file, JSON.stringify(grown));
    const message = await renderedRejection(() => Session.open(dir), dir);
    expect(
      message.replace(String(totalmem()), '<memory>').replace(/--context \d+/, '--context <n>'),
    ).toMatchSnapshot();
    const longest = Number(/--context (\d+) or less/.exec(message)?.[1]);
    const { pool, io } = plan.arenas;
    // Of the ids, which lie in io, four bytes a token.
    const rest = pool.bytes + io.bytes - plan.context * 4;
    expect(longest * 1284 + rest).toBeLessThanOrEqual(totalmem());
    expect((longest + 1) * 1284 + rest).toBeGreaterThan(totalmem());
  });

  it('finds the compiled kernels of a build that has moved', async () => {
    // A cache of its own, so that its entries can be counted.
    const cache = temporaryFolder();
    vi.stubEnv('UPGC_CACHE', cache);
    onTestFinished(() => void vi.unstubAllEnvs());
    const moved = path.join(temporaryFolder(), 'moved');
    cpSync(build, moved, { recursive: true });
    (await Session.open(build)).close();
    expect(readdirSync(cache)).toHaveLength(1);
    (await Session.open(moved)).close();
    expect(readdirSync(cache)).toHaveLength(1);
  });
});

describe('sessions', () => {
  const source = tiny(() => linear(x(), weight('table', [8, 4])));

  it('refuses options that mean nothing', async () => {
    const dir = temporaryFolder();
    writeCheckpoint(dir, source);
    const session = await openTiny(dir, source, { target: 'cpu', device: 'cpu' });
    const refused = async (options: object): Promise<string> =>
      (await renderedRejection(() => session.generate([1], options).next(), dir)).split('\n')[0] ?? '';
    const bad: readonly object[] = [
      { temperature: -1 },
      { temperature: NaN },
      { temperature: Infinity },
      { temperature: 1e38 },
      { topK: -1 },
      { topK: 2.5 },
      { topK: 2 ** 24 },
      { topP: 0 },
      { topP: 1.5 },
      { topP: NaN },
      { minP: -0.1 },
      { minP: 2 },
      { seed: -1 },
      { seed: 0.5 },
      { seed: 2 ** 32 },
      { maxTokens: 1.5 },
      { maxTokens: -1 },
      { maxTokens: NaN },
      // Also where they would not matter.
      { greedy: true, topP: 7 },
    ];
    const messages: string[] = [];
    for (const options of bad) messages.push(await refused(options));
    expect(messages).toMatchInlineSnapshot(`
      [
        "error: temperature must be from 0 to 1e37, not -1",
        "error: temperature must be from 0 to 1e37, not NaN",
        "error: temperature must be from 0 to 1e37, not Infinity",
        "error: temperature must be from 0 to 1e37, not 1e+38",
        "error: topK must be a whole number from 0 to 2^24 - 1, not -1",
        "error: topK must be a whole number from 0 to 2^24 - 1, not 2.5",
        "error: topK must be a whole number from 0 to 2^24 - 1, not 16777216",
        "error: topP must be above 0 and at most 1, not 0",
        "error: topP must be above 0 and at most 1, not 1.5",
        "error: topP must be above 0 and at most 1, not NaN",
        "error: minP must be from 0 to 1, not -0.1",
        "error: minP must be from 0 to 1, not 2",
        "error: seed must be a whole number from 0 to 2^32 - 1, not -1",
        "error: seed must be a whole number from 0 to 2^32 - 1, not 0.5",
        "error: seed must be a whole number from 0 to 2^32 - 1, not 4294967296",
        "error: maxTokens must be a whole number, at least 0, not 1.5",
        "error: maxTokens must be a whole number, at least 0, not -1",
        "error: maxTokens must be a whole number, at least 0, not NaN",
        "error: topP must be above 0 and at most 1, not 7",
      ]
    `);
    expect(session.stats.submissions).toBe(0);
    for (const options of [{ temperature: 0 }, { topK: 0, topP: 1, minP: 0, seed: 0 }, { maxTokens: 0 }])
      await session.generate([1], options).next();
    session.close();
  });

  it('lives on when a generator is dropped, and ends it when the text changes', async () => {
    const dir = temporaryFolder();
    writeCheckpoint(dir, source);
    const session = await openTiny(dir, source, { target: 'cpu', device: 'cpu' });
    const dropped = session.generate([1], { greedy: true });
    expect((await dropped.next()).done).toBe(false);
    session.reset();
    const ids: number[] = [];
    for await (const { id } of session.generate([1], { greedy: true, maxTokens: 3 })) ids.push(id);
    expect(ids).toHaveLength(3);
    expect(await dropped.next()).toEqual({ done: true, value: undefined });
    const last = session.generate([], { greedy: true });
    await last.next();
    session.close();
    expect(await last.next()).toEqual({ done: true, value: undefined });
  });
});
