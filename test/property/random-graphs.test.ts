import { mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { compile } from '../../src/compiler.js';
import type { Graph } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import { ops, type OpName } from '../../src/ir/ops/index.js';
import { formatGraph } from '../../src/ir/text.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { loadAddon } from '../../src/runtime/addon.js';
import type { NativeProgram } from '../../src/runtime/native.js';
import {
  arenaNames,
  buildFiles,
  readPlan,
  type EntryName,
  type Plan,
  type Region,
} from '../../src/runtime/plan.js';
import { samplingOf } from '../../src/runtime/sampling.js';
import { programSpec, Session } from '../../src/runtime/session.js';
import { compare, errorBounds, type Approximate, type Comparison } from '../support/error-bound.js';
import {
  buildRecipe,
  contextOf,
  recipeModel,
  recipes,
  samplingAt,
  samplingSeed,
  tokensOf,
  weightValues,
  writeCheckpoint,
  type Recipe,
} from '../support/random-graph.js';
import { possibleIds } from '../support/sample-bound.js';

/**
 * Random models through the whole compiler and the CPU device, against the interpreter: every logit of every entry
 * point within its error bound (test/support/error-bound.ts), and every id one that could have been drawn.
 */

const casesPerSeed = 80;
const seeds = [1, 2, 3, 4] as const;

/** What the runs came to. */
const seen = {
  ratios: [] as number[],
  unbounded: 0,
  targets: new Map<string, number>(),
  ops: new Map<string, number>(),
  /** Greatest bound of a case in units of its greatest logit. */
  widths: [] as number[],
  /** How many ids could have been drawn, of each draw. */
  possible: [] as number[],
};

const count = (counts: Map<string, number>, key: string): void =>
  void counts.set(key, (counts.get(key) ?? 0) + 1);
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;

/** What the logits of a text should be, and how far from that the device's may be. */
function reference(graph: Graph, recipe: Recipe, tokens: readonly number[]): Approximate {
  const values = weightValues(graph);
  const bound = { ...graph, dims: { C: contextOf(recipe) + 1 } };
  const step = interpret(bound, {
    inputs: new Map([['tokens', tokens]]),
    weights: (name) => values.get(name) ?? new Float64Array(),
  });
  const logits = graph.outputs.get('logits');
  const result = logits && errorBounds(bound, step.values).get(logits);
  if (!result) throw new Error('the graph has no logits');
  return result;
}

/** Rows `start` to `end` of a matrix. */
function rowsOf({ shape: [, width = 1], data, error }: Approximate, start: number, end: number): Approximate {
  const part = (values: Float64Array): Float64Array => values.subarray(start * width, end * width);
  return { shape: [end - start, width], data: part(data), error: part(error) };
}

/** What a step left. */
interface Left {
  readonly logits: Float32Array;
  /** What lies after the step's ids. */
  readonly next: number;
  readonly position: number;
}

/** Runs steps by hand, so that the logits of every entry can be read and memory nobody wrote can be made to hurt. */
class Steps {
  private constructor(
    private readonly plan: Plan,
    private readonly program: NativeProgram,
  ) {}

  static async open(build: string): Promise<Steps> {
    const plan = readPlan(build);
    const steps = new Steps(plan, await loadAddon().createProgram('cpu', programSpec(build, plan)));
    // Nobody may read a cache past what was appended, the pool before it is written, or ids past the step's.
    steps.fill('state');
    return steps;
  }

  async run(entry: EntryName, position: number, tokens: readonly number[]): Promise<Left> {
    const { inputs, entries, model } = this.plan;
    this.fill('pool');
    this.fill('io');
    const end = position + tokens.length;
    this.write(inputs.tokens, Int32Array.from(tokens), position);
    this.write(inputs.step, Uint32Array.of(position, tokens.length));
    this.write(inputs.sampling, samplingAt(end));
    this.write(inputs.seed, Uint32Array.of(samplingSeed));
    await this.program.submit((['decode', 'prefill', 'score'] as const).indexOf(entry));
    const logits = new Float32Array((entry === 'score' ? tokens.length : 1) * model.vocabulary);
    const [next = 0] = this.read(inputs.tokens, new Int32Array(1), end);
    const [after = 0] = this.read(inputs.step, new Uint32Array(2));
    return { logits: this.read(entries[entry].outputs.logits, logits), next, position: after };
  }

  /** A whole text in steps of at most `chunk` tokens; what each left, and the rows that its logits are of. */
  async *text(
    entry: EntryName,
    tokens: readonly number[],
    chunk = this.plan.entries[entry].tokens,
  ): AsyncGenerator<Left & { start: number; end: number }> {
    for (let start = 0; start < tokens.length; start += chunk) {
      const part = tokens.slice(start, start + chunk);
      const left = await this.run(entry, start, part);
      const end = start + part.length;
      const wanted = entry === 'score' ? [-1, start] : [left.next, end];
      expect([left.next, left.position], `${entry}: the id after the step, its position`).toEqual(wanted);
      yield { ...left, start: entry === 'score' ? start : end - 1, end };
    }
  }

  close(): void {
    this.program.close();
  }

  private write({ arena, offset }: Region, data: Int32Array | Uint32Array | Float32Array, start = 0): void {
    this.program.write(arenaNames.indexOf(arena), offset + 4 * start, new Uint8Array(data.buffer));
  }

  private read<A extends Int32Array | Uint32Array | Float32Array>(
    { arena, offset }: Region,
    into: A,
    start = 0,
  ): A {
    this.program.read(arenaNames.indexOf(arena), offset + 4 * start, new Uint8Array(into.buffer));
    return into;
  }

  /** Every byte 0xff: NaN, and an id that is in no vocabulary. */
  private fill(arena: (typeof arenaNames)[number]): void {
    const { bytes } = this.plan.arenas[arena];
    if (bytes > 0) this.program.write(arenaNames.indexOf(arena), 0, new Uint8Array(bytes).fill(0xff));
  }
}

/** A folder with a checkpoint for a recipe, and its build in `build`; removed after `body`. */
async function compiled<R>(recipe: Recipe, graph: Graph, body: (build: string) => Promise<R>): Promise<R> {
  const dir = mkdtempSync(path.join(realpathSync(tmpdir()), 'upgc-random-'));
  const [weights, build] = [path.join(dir, 'checkpoint'), path.join(dir, 'build')];
  try {
    writeCheckpoint(weights, graph, weightValues(graph));
    const { target, chunk } = recipe;
    await compile({
      model: recipeModel(recipe),
      weights,
      out: build,
      target,
      chunk,
      context: contextOf(recipe),
    });
    return await body(build);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The first difference in what the session and the entry points compute; the greatest ratio otherwise. */
async function difference(
  build: string,
  recipe: Recipe,
  graph: Graph,
): Promise<{ wrong: string | undefined; ratio: number; expected: Approximate }> {
  const tokens = tokensOf(recipe, graph);
  const expected = reference(graph, recipe, tokens);
  const [, vocabulary = 1] = expected.shape;
  let ratio = 0;
  const differs = (what: string, start: number, comparison: Comparison): string | undefined => {
    ratio = Math.max(ratio, comparison.ratio);
    const { wrong } = comparison;
    if (!wrong) return undefined;
    const row = start + Math.floor(wrong.index / vocabulary);
    return `${what}: logit ${wrong.index % vocabulary} of token ${row} ${wrong.text}`;
  };
  const session = await Session.open(build, { device: 'cpu' });
  try {
    const prompt = tokens.slice(0, Math.ceil(tokens.length / 2));
    let wrong = differs('session.score', 0, compare(await session.score(tokens), expected));
    for (const options of [{ greedy: true }, { temperature: 1.5, topK: 20, topP: 0.9, seed: samplingSeed }]) {
      session.reset();
      const ids: number[] = [];
      for await (const { id } of session.generate(prompt, { ...options, maxTokens: 4 })) ids.push(id);
      const { parameters } = samplingOf(options);
      const text = reference(graph, recipe, [...prompt, ...ids.slice(0, -1)]);
      wrong ??= unlikely(text, prompt.length, ids, () => parameters);
    }
    if (wrong !== undefined) return { wrong, ratio, expected };
  } finally {
    session.close();
  }
  const steps = await Steps.open(build);
  try {
    const wrongIn = async (entry: EntryName, chunk?: number): Promise<string | undefined> => {
      for await (const { logits, next, start, end } of steps.text(entry, tokens, chunk)) {
        const wrong =
          differs(`entry ${entry}`, start, compare(logits, rowsOf(expected, start, end))) ??
          (entry === 'score' ? undefined : unlikely(expected, end, [next], samplingAt));
        if (wrong !== undefined) return wrong;
      }
      return undefined;
    };
    const wrong =
      (await wrongIn('prefill')) ??
      (await wrongIn('decode')) ??
      (await wrongIn('score')) ??
      // A prefill may be of fewer tokens than it could.
      (await wrongIn('prefill', Math.ceil(recipe.chunk / 2)));
    return { wrong, ratio, expected };
  } finally {
    steps.close();
  }
}

/** The first of the ids from position `first` on that cannot be drawn, whatever the errors within their bounds. */
function unlikely(
  expected: Approximate,
  first: number,
  ids: readonly number[],
  sampling: (position: number) => Float32Array,
): string | undefined {
  for (const [i, id] of ids.entries()) {
    const next = first + i;
    const row = rowsOf(expected, next - 1, next);
    // Without a bound nothing can be said.
    if (row.error.includes(Infinity)) continue;
    const possible = possibleIds(row, sampling(next), samplingSeed, next);
    seen.possible.push(possible.length);
    if (!possible.includes(id)) return `generated id ${id} at position ${next}, not ${possible.join(' or ')}`;
  }
  return undefined;
}

async function check(recipe: Recipe): Promise<void> {
  const graph = buildRecipe(recipe);
  const described = (what: string): string =>
    `target ${recipe.target}, ${recipe.tokens} tokens, chunk ${recipe.chunk}, context ${contextOf(recipe)}\n${what}\n${formatGraph(graph)}`;
  try {
    await compiled(recipe, graph, async (build) => {
      const { wrong, ratio, expected } = await difference(build, recipe, graph);
      if (wrong !== undefined) throw new Error(wrong);
      record(recipe, graph, expected, ratio);
    });
  } catch (error) {
    throw new Error(described(error instanceof Error ? error.message : String(error)), { cause: error });
  }
}

function record(recipe: Recipe, graph: Graph, { data, error }: Approximate, ratio: number): void {
  count(seen.targets, recipe.target);
  for (const op of new Set(graph.nodes.map((node) => node.op))) count(seen.ops, op);
  if (error.some((bound) => bound === Infinity)) seen.unbounded++;
  seen.ratios.push(ratio);
  const greatest = data.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  seen.widths.push(error.reduce((a, b) => Math.max(a, b), 0) / greatest);
}

describe('random models equal the interpreter on the CPU device', () => {
  it.concurrent.each(seeds)(
    `${casesPerSeed} cases of seed %i`,
    async (seed) => {
      await fc.assert(fc.asyncProperty(recipes, check), { seed, numRuns: casesPerSeed });
    },
    600_000,
  );

  it('tried every op and both targets, with bounds that mean something', () => {
    const total = casesPerSeed * seeds.length;
    expect(seen.ratios).toHaveLength(total);
    const madeByPasses: readonly OpName[] = ['state', 'cache_append', 'last', 'sample'];
    const written = (Object.keys(ops) as OpName[]).filter((op) => !madeByPasses.includes(op));
    for (const op of written)
      expect([op, seen.ops.get(op) ?? 0]).toEqual([op, expect.toSatisfy(atLeast(total / 20))]);
    for (const target of Object.keys(targets))
      expect([target, seen.targets.get(target) ?? 0]).toEqual([target, expect.toSatisfy(atLeast(total / 3))]);
    // An argmax of near-equals inside a model has no bound.
    expect(seen.unbounded).toBeLessThan(total / 20);
    // A worst case is far from the common one, but not absurdly far, and well below what a wrong kernel does.
    expect(median(seen.ratios)).toBeGreaterThan(1e-3);
    expect(median(seen.widths)).toBeLessThan(1e-4);
    // Nearly every draw is certain.
    const certain = seen.possible.filter((count) => count === 1).length;
    expect(certain).toBeGreaterThan(0.9 * seen.possible.length);
  });

  afterAll(() => {
    process.stdout.write(
      `random graphs: ${seen.ratios.length} cases, ${[...seen.targets].map(([name, n]) => `${name} ${n}`).join(', ')}; ` +
        `error in units of its bound: median ${median(seen.ratios).toPrecision(2)}, greatest ${Math.max(...seen.ratios).toPrecision(2)}; ` +
        `bound in units of the greatest logit: median ${median(seen.widths).toExponential(1)}; ` +
        `${seen.unbounded} without a bound\n`,
    );
  });
});

const atLeast =
  (least: number) =>
  (value: number): boolean =>
    value >= least;

const shape = { target: 'cpu', tokens: 40, chunk: 7, spare: 2, vocabulary: 37, width: 33 } as const;

/** A small transformer that uses most kernels, over two blocks of attention. */
const transformer: Recipe = {
  ...shape,
  steps: [
    { op: 'rms_norm', a: 0, b: 0, c: 0, d: 0 },
    { op: 'self_attention', a: 0, b: 1, c: 1, d: 5 },
    { op: 'gated_mlp', a: 0, b: 30, c: 0, d: 1 },
  ],
  result: { kind: 'linear', a: 0, b: 0, c: 1, d: 2 },
};

/** Worst cases multiply from layer to layer: small mistakes show in small models. */
const small: Recipe = { ...transformer, steps: transformer.steps.slice(0, 1) };

/** A window of 5 and a chunk of 7: the text goes round a ring of 12 rows three times. */
const windowed: Recipe = {
  ...shape,
  steps: [{ op: 'self_attention', a: 0, b: 1, c: 55, d: 5 }],
  result: { kind: 'linear', a: 0, b: 0, c: 1, d: 2 },
};

describe('a wrong result is found', () => {
  /** Changes to kernels.metal, each a mistake that someone could make. */
  const mistakes: Readonly<Record<string, readonly [Recipe, RegExp, string]>> = {
    'attention blind to its own token': [transformer, /(const uint keys = step\.position.*?) \+ 1;/g, '$1;'],
    'a window that is one token too long': [windowed, /min\(keys, 5u\)/g, 'min(keys, 6u)'],
    'a ring that is two rows too short': [windowed, / % 12\)/g, ' % 10)'],
    'attention that does not rescale': [transformer, /mixed\[i\] \*= keep;/g, ';'],
    'rope that turns the other way': [transformer, /a \* c - b \* s/g, 'a * c + b * s'],
    'silu of -x': [transformer, /metal::exp\(-x\)/g, 'metal::exp(x)'],
    'bf16 with another last bit': [transformer, /uint\(bits\) << 16/g, '(uint(bits) << 16) + 0x8000u'],
    'a norm off by 1e-4': [small, /rsqrt\(total/g, 'rsqrt(1.0002f * total'],
    'products off by 1e-4': [small, /simd_sum\((?=pairwise_sum<vector>)/g, '1.0001f * simd_sum('],
  };
  const cases = (Object.keys(targets) as TargetName[]).flatMap((target) =>
    Object.entries(mistakes).map(([mistake, [recipe, pattern, replacement]]) => ({
      title: `${mistake} (${target})`,
      recipe: { ...recipe, target },
      pattern,
      replacement,
    })),
  );

  it.concurrent.each(cases)('$title', async ({ recipe, pattern, replacement }) => {
    const graph = buildRecipe(recipe);
    await compiled(recipe, graph, async (build) => {
      const file = path.join(build, buildFiles.kernels);
      const right = readFileSync(file, 'utf8');
      const wrong = right.replaceAll(pattern, replacement);
      expect(wrong).not.toBe(right);
      writeFileSync(file, wrong);
      expect((await difference(build, recipe, graph)).wrong).toMatch(/logit|generated/);
    });
  });

  it.concurrent.each(Object.keys(targets) as TargetName[])('and right ones are not (%s)', async (target) => {
    for (const recipe of [transformer, small, windowed].map((model) => ({ ...model, target }))) {
      const graph = buildRecipe(recipe);
      await compiled(recipe, graph, async (build) => {
        expect((await difference(build, recipe, graph)).wrong).toBeUndefined();
      });
    }
  });

  it('one logit off by four bounds, or not a number', () => {
    const expected = reference(
      buildRecipe(transformer),
      transformer,
      tokensOf(transformer, buildRecipe(transformer)),
    );
    const right = Float64Array.from(expected.data);
    expect(compare(right, expected).wrong).toBeUndefined();
    for (const [index, bound] of [...expected.error.entries()].filter(([i]) => i % 97 === 0)) {
      expect(compare(right.with(index, (right[index] ?? 0) + 4 * bound), expected).wrong?.index).toBe(index);
      expect(compare(right.with(index, Number.NaN), expected).wrong?.index).toBe(index);
    }
  });

  it('and shrinks to a graph one can read (seed 5)', () => {
    const failed = fc.check(
      fc.property(recipes, (recipe) => !buildRecipe(recipe).nodes.some(({ op }) => op === 'gelu')),
      { seed: 5, numRuns: 200 },
    );
    const [recipe = transformer] = failed.counterexample ?? [];
    expect(formatGraph(buildRecipe(recipe))).toMatchInlineSnapshot(`
      "graph random {
        %tokens = input : i32[T]
        @w0.f32.table : f32[1, 1]
        @w1.f32.matrix : f32[1, 1]
        %embed = embed %tokens, @w0.f32.table : f32[T, 1]
        %gelu = gelu %embed : f32[T, 1]
        %linear = linear %gelu, @w1.f32.matrix : f32[T, 1]
        return logits = %linear
      }
      "
    `);
  });
});
