import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'vitest';
import { compile } from '../../src/compiler.js';
import type { Model } from '../../src/ir/dsl.js';
import type { Graph } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import type { Quantize } from '../../src/ir/policy.js';
import { matrixSize } from '../../src/passes/flash-shape.js';
import type { Sparsify } from '../../src/ir/sparsity.js';
import { insertKvCache, type CacheDType } from '../../src/passes/insert-kv-cache.js';
import { leastTokens } from '../../src/passes/matmul.js';
import type { TargetName } from '../../src/passes/target.js';
import { loadAddon } from '../../src/runtime/addon.js';
import type { NativeProgram } from '../../src/runtime/native.js';
import { arenaNames, readPlan, type EntryName, type Plan, type Region } from '../../src/runtime/plan.js';
import { samplingOf } from '../../src/runtime/sampling.js';
import { programSpec, Session } from '../../src/runtime/session.js';
import type { Run } from './devices.js';
import { compare, errorBounds, type Approximate, type Comparison } from './error-bound.js';
import { samplingAt, samplingSeed, weightValues, writeCheckpoint } from './random-graph.js';
import type { PackedValues } from './packed.js';
import { possibleIds } from './sample-bound.js';
import { storedMatrices } from './sparse.js';

/** A model, and the text that every entry point of its build computes. */
export interface Trial {
  readonly model: Model;
  /** Of the model, its weights named as those of random graphs. */
  readonly graph: Graph;
  readonly target: TargetName;
  readonly quantize?: Quantize;
  readonly sparsify?: Sparsify;
  /** By default the CPU device. */
  readonly device?: Run['device'];
  readonly tokens: readonly number[];
  readonly chunk: number;
  readonly context: number;
  /** How keys and values are cached; f32 by default. */
  readonly kv?: CacheDType;
  /** By default true. */
  readonly fuse?: boolean;
}

/** Whether attention over halves may work with halves itself: that of chunks with matrices. */
const worksInHalves = ({ target, chunk }: Pick<Trial, 'target' | 'chunk'>): boolean =>
  target !== 'cpu' && chunk >= matrixSize;

/** What the logits of a text should be, and how far from that the device's may be; `packed` are the build's own values. */
export function reference(
  { graph, target, chunk, context, kv }: Trial,
  tokens: readonly number[],
  packed: ReadonlyMap<string, PackedValues> = new Map(),
): Approximate {
  const values = weightValues(graph);
  // The model knows of no cache; what one rounds is seen in a step of all tokens.
  const cached = insertKvCache(graph, { context, chunk: tokens.length, kv }).entries.get('score');
  const bound = kv === 'f16' && cached ? cached : { ...graph, dims: { C: context } };
  const step = interpret(bound, {
    inputs: new Map([
      ['tokens', tokens],
      ['position', [0]],
    ]),
    weights: (name) => packed.get(name)?.data ?? values.get(name) ?? new Float64Array(),
  });
  const logits = bound.outputs.get('logits');
  const halves = kv === 'f16' && worksInHalves({ target, chunk });
  const tiled = target !== 'cpu' && chunk >= leastTokens;
  const result = logits && errorBounds(bound, step.values, packed, { halves, tiled }).get(logits);
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

  static async open(build: string, device: string): Promise<Steps> {
    const plan = readPlan(build);
    const steps = new Steps(plan, await loadAddon().createProgram(device, programSpec(build, plan)));
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

/** A folder with a checkpoint for a model, and its build in `build`; removed after `body`. */
export async function compiled<R>(trial: Trial, body: (build: string) => Promise<R>): Promise<R> {
  const { model, graph, target, chunk, context, kv, fuse = true, quantize = 'stored', sparsify } = trial;
  const dir = mkdtempSync(path.join(realpathSync(tmpdir()), 'upgc-random-'));
  const [weights, build] = [path.join(dir, 'checkpoint'), path.join(dir, 'build')];
  try {
    writeCheckpoint(weights, graph, weightValues(graph));
    await compile({
      model,
      weights,
      out: build,
      target,
      chunk,
      context,
      quantize,
      fuse,
      ...(kv && { kv }),
      ...(sparsify && { sparsify }),
    });
    return await body(build);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

export interface Difference {
  readonly wrong: string | undefined;
  /** Greatest error in units of its bound. */
  readonly ratio: number;
  readonly expected: Approximate;
  /** How many ids could have been drawn, of each draw. */
  readonly possible: readonly number[];
}

/** The first difference in what the session and the entry points compute; the greatest ratio otherwise. */
export async function difference(build: string, trial: Trial): Promise<Difference> {
  const { tokens, chunk, device = 'cpu' } = trial;
  const packed = storedMatrices(build, trial.graph);
  const expected = reference(trial, tokens, packed);
  const possible: number[] = [];
  const [, vocabulary = 1] = expected.shape;
  let ratio = 0;
  const differs = (what: string, start: number, comparison: Comparison): string | undefined => {
    ratio = Math.max(ratio, comparison.ratio);
    const { wrong } = comparison;
    if (!wrong) return undefined;
    const row = start + Math.floor(wrong.index / vocabulary);
    return `${what}: logit ${wrong.index % vocabulary} of token ${row} ${wrong.text}`;
  };
  // On the CPU device, what no barrier orders runs in a random order here, and in the plan's below.
  const shuffle = device === 'cpu' ? { shuffle: tokens.length } : {};
  const session = await Session.open(build, { device, ...shuffle });
  try {
    const prompt = tokens.slice(0, Math.ceil(tokens.length / 2));
    let wrong = differs('session.score', 0, compare(await session.score(tokens), expected));
    for (const options of [{ greedy: true }, { temperature: 1.5, topK: 20, topP: 0.9, seed: samplingSeed }]) {
      session.reset();
      const ids: number[] = [];
      for await (const { id } of session.generate(prompt, { ...options, maxTokens: 4 })) ids.push(id);
      const { parameters } = samplingOf(options);
      const text = reference(trial, [...prompt, ...ids.slice(0, -1)], packed);
      wrong ??= unlikely(text, prompt.length, ids, () => parameters, possible);
    }
    if (wrong !== undefined) return { wrong, ratio, expected, possible };
  } finally {
    session.close();
  }
  const steps = await Steps.open(build, device);
  try {
    const wrongIn = async (entry: EntryName, chunk?: number): Promise<string | undefined> => {
      for await (const { logits, next, start, end } of steps.text(entry, tokens, chunk)) {
        const wrong =
          differs(`entry ${entry}`, start, compare(logits, rowsOf(expected, start, end))) ??
          (entry === 'score' ? undefined : unlikely(expected, end, [next], samplingAt, possible));
        if (wrong !== undefined) return wrong;
      }
      return undefined;
    };
    const wrong =
      (await wrongIn('prefill')) ??
      (await wrongIn('decode')) ??
      (await wrongIn('score')) ??
      // A prefill may be of fewer tokens than it could.
      (await wrongIn('prefill', Math.ceil(chunk / 2)));
    return { wrong, ratio, expected, possible };
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
  counts: number[],
): string | undefined {
  for (const [i, id] of ids.entries()) {
    const next = first + i;
    const row = rowsOf(expected, next - 1, next);
    // Without a bound nothing can be said.
    if (row.error.includes(Infinity)) continue;
    const possible = possibleIds(row, sampling(next), samplingSeed, next);
    counts.push(possible.length);
    if (!possible.includes(id)) return `generated id ${id} at position ${next}, not ${possible.join(' or ')}`;
  }
  return undefined;
}
