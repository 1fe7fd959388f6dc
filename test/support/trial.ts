import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { compile } from '../../src/compiler.js';
import type { Model } from '../../src/ir/dsl.js';
import type { Graph } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import type { TargetName } from '../../src/passes/target.js';
import { loadAddon } from '../../src/runtime/addon.js';
import type { NativeProgram } from '../../src/runtime/native.js';
import { arenaNames, readPlan, type EntryName, type Plan } from '../../src/runtime/plan.js';
import { programSpec, Session } from '../../src/runtime/session.js';
import { compare, errorBounds, type Approximate, type Comparison } from './error-bound.js';
import { weightValues, writeCheckpoint } from './random-graph.js';

/** A model, and the text that every entry point of its build computes on the CPU device. */
export interface Trial {
  readonly model: Model;
  /** Of the model, its weights named as those of random graphs. */
  readonly graph: Graph;
  readonly target: TargetName;
  readonly tokens: readonly number[];
  readonly chunk: number;
  readonly context: number;
}

/** What the logits of a text should be, and how far from that the device's may be. */
export function reference({ graph, context }: Trial, tokens: readonly number[]): Approximate {
  const values = weightValues(graph);
  const bound = { ...graph, dims: { C: context + 1 } };
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

  async run(entry: EntryName, position: number, tokens: readonly number[]): Promise<Float32Array> {
    const { inputs, entries, model } = this.plan;
    this.fill('pool');
    this.fill('io');
    const write = (region: typeof inputs.step, data: Uint8Array): void =>
      this.program.write(arenaNames.indexOf(region.arena), region.offset, data);
    write(inputs.tokens, new Uint8Array(Int32Array.from(tokens).buffer));
    write(inputs.step, new Uint8Array(Uint32Array.of(position, tokens.length).buffer));
    await this.program.submit((['decode', 'prefill', 'score'] as const).indexOf(entry));
    const { logits } = entries[entry].outputs;
    const result = new Float32Array((entry === 'score' ? tokens.length : 1) * model.vocabulary);
    this.program.read(arenaNames.indexOf(logits.arena), logits.offset, new Uint8Array(result.buffer));
    return result;
  }

  /** A whole text in steps of at most `chunk` tokens; what each left as logits, with the rows they are of. */
  async *text(
    entry: EntryName,
    tokens: readonly number[],
    chunk = this.plan.entries[entry].tokens,
  ): AsyncGenerator<{ logits: Float32Array; start: number; end: number }> {
    for (let start = 0; start < tokens.length; start += chunk) {
      const part = tokens.slice(start, start + chunk);
      const logits = await this.run(entry, start, part);
      const end = start + part.length;
      yield { logits, start: entry === 'score' ? start : end - 1, end };
    }
  }

  close(): void {
    this.program.close();
  }

  /** Every byte 0xff: NaN, and an id that is in no vocabulary. */
  private fill(arena: (typeof arenaNames)[number]): void {
    const { bytes } = this.plan.arenas[arena];
    if (bytes > 0) this.program.write(arenaNames.indexOf(arena), 0, new Uint8Array(bytes).fill(0xff));
  }
}

/** A folder with a checkpoint for a model, and its build in `build`; removed after `body`. */
export async function compiled<R>(trial: Trial, body: (build: string) => Promise<R>): Promise<R> {
  const { model, graph, target, chunk, context } = trial;
  const dir = mkdtempSync(path.join(realpathSync(tmpdir()), 'upgc-random-'));
  const [weights, build] = [path.join(dir, 'checkpoint'), path.join(dir, 'build')];
  try {
    writeCheckpoint(weights, graph, weightValues(graph));
    await compile({ model, weights, out: build, target, chunk, context });
    return await body(build);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

/** The first difference in what the session and the entry points compute; the greatest ratio otherwise. */
export async function difference(
  build: string,
  trial: Trial,
): Promise<{ wrong: string | undefined; ratio: number; expected: Approximate }> {
  const { tokens, chunk } = trial;
  const expected = reference(trial, tokens);
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
    const ids: number[] = [];
    for await (const { id } of session.generate(prompt, { greedy: true, maxTokens: 4 })) ids.push(id);
    const wrong =
      differs('session.score', 0, compare(await session.score(tokens), expected)) ??
      unlikely(reference(trial, [...prompt, ...ids.slice(0, -1)]), prompt.length - 1, ids);
    if (wrong !== undefined) return { wrong, ratio, expected };
  } finally {
    session.close();
  }
  const steps = await Steps.open(build);
  try {
    for (const entry of ['prefill', 'decode', 'score'] as const) {
      for await (const { logits, start, end } of steps.text(entry, tokens)) {
        const wrong = differs(`entry ${entry}`, start, compare(logits, rowsOf(expected, start, end)));
        if (wrong !== undefined) return { wrong, ratio, expected };
      }
    }
    // A prefill may be of fewer tokens than it could.
    for await (const { logits, start, end } of steps.text('prefill', tokens, Math.ceil(chunk / 2))) {
      const wrong = differs('a short prefill', start, compare(logits, rowsOf(expected, start, end)));
      if (wrong !== undefined) return { wrong, ratio, expected };
    }
  } finally {
    steps.close();
  }
  return { wrong: undefined, ratio, expected };
}

/** The first generated id that cannot be the greatest logit, whatever the errors within their bounds. */
function unlikely(expected: Approximate, first: number, ids: readonly number[]): string | undefined {
  for (const [i, id] of ids.entries()) {
    const { data, error } = rowsOf(expected, first + i, first + i + 1);
    const most = (data[id] ?? Number.NaN) + (error[id] ?? Number.NaN);
    const rival = data.findIndex((value, j) => !(value - (error[j] ?? 0) <= most));
    if (rival >= 0)
      return `generated id ${id} has the logit ${data[id] ?? ''}, less than that of id ${rival}, ${data[rival] ?? ''}`;
  }
  return undefined;
}
