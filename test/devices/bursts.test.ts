import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { attention, embed, linear, mergeHeads, splitHeads, tokens, weight, type Tensor } from 'upgc';
import { compile, type TargetName } from 'upgc/compiler';
import { Session, type GenerateOptions } from 'upgc/runtime';
import { loadAddon } from '../../src/runtime/addon.js';
import type { NativeProgram } from '../../src/runtime/native.js';
import { arenaNames, entryNames, readPlan, type Region } from '../../src/runtime/plan.js';
import { programSpec } from '../../src/runtime/session.js';
import { readGolden } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';
import { tiny, writeCheckpoint } from '../support/tiny.js';

/**
 * Decode steps that follow each other on the device: a text does not depend on how many of them one submission takes,
 * nor on where a caller stops and goes on.
 */

const bos = 1;
const context = 128;
const drawn = { temperature: 0.9, topK: 40, topP: 0.95, minP: 0.01, seed: 2024 } as const;

async function build(
  target: TargetName,
  options: { chunk?: number; context?: number } = {},
): Promise<string> {
  const { chunk = 64 } = options;
  const out = path.join(sharedFolder(), `${target}-${chunk}-${options.context ?? context}`);
  await compile({
    model: 'models/llama.graph.ts',
    weights: 'examples/stories260k',
    target,
    chunk,
    context: options.context ?? context,
    out,
  });
  return out;
}

afterEach(() => {
  vi.restoreAllMocks();
});

/** The clock that sessions measure steps with: `fast` lets bursts grow to their most, `slow` keeps them at one step. */
function clock(speed: 'fast' | 'slow'): void {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (now += speed === 'fast' ? 0 : 1000));
}

async function generate(
  session: Session,
  tokens: readonly number[],
  options: GenerateOptions,
): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of session.generate(tokens, options)) ids.push(id);
  return ids;
}

/** A new text from `tokens`, one step a submission. */
async function stepByStep(
  session: Session,
  tokens: readonly number[],
  options: GenerateOptions,
): Promise<number[]> {
  clock('slow');
  session.reset();
  const before = session.stats.submissions;
  const ids = await generate(session, tokens, options);
  expect(session.stats.submissions - before, 'submissions').toBeGreaterThanOrEqual(ids.length);
  clock('fast');
  session.reset();
  return ids;
}

describe.each(['cpu', 'metal'] as const)('bursts, target %s', (target) => {
  let session: Session;

  beforeAll(async () => {
    session = await Session.open(await build(target), { device: 'cpu' });
  });

  afterAll(() => session.close());

  it.each<[string, GenerateOptions]>([
    ['greedy', { greedy: true }],
    ['drawn', drawn],
  ])('generate what single steps do, in far fewer submissions (%s)', async (_, options) => {
    const given = { ...options, maxTokens: 100, ignoreEos: true };
    const ids = await stepByStep(session, [bos], given);
    const before = session.stats.submissions;
    expect(await generate(session, [bos], given)).toEqual(ids);
    expect(ids).toHaveLength(100);
    // 1 + 2 + 4 + 8 + 16 + 32 + 32 + 5 steps.
    expect(session.stats.submissions - before).toBe(8);
    expect(session.stats.deviceAllocations).toBe(0);
  });

  it('have the length that is asked for', async () => {
    const given = { ...drawn, maxTokens: 100, ignoreEos: true };
    const ids = await stepByStep(session, [bos], given);
    for (const [burst, submissions] of [
      [1, 100],
      [30, 4],
      // No more than a chunk.
      [1000, 2],
    ] as const) {
      session.reset();
      const before = session.stats.submissions;
      expect(await generate(session, [bos], { ...given, burst })).toEqual(ids);
      expect(session.stats.submissions - before).toBe(submissions);
    }
    for (const burst of [0, 1.5, NaN])
      await expect(generate(session, [bos], { burst })).rejects.toThrow('burst must be a whole number');
  });

  it('shrink when steps become slow', async () => {
    // How long each submission takes by the clock that the session reads before and after it, in ms.
    const durations = [0, 0, 0, 130, 130, 130];
    let reads = 0;
    vi.spyOn(performance, 'now').mockImplementation(() =>
      durations.slice(0, Math.ceil(reads++ / 2)).reduce((sum, ms) => sum + ms, 0),
    );
    session.reset();
    const before = session.stats.submissions;
    // Eight steps in 130 ms: two in 33 ms; two steps in 130 ms: not even one in 33 ms.
    await generate(session, [bos], { ...drawn, maxTokens: 1 + 2 + 4 + 8 + 2 + 1, ignoreEos: true });
    expect(session.stats.submissions - before).toBe(durations.length);
  });

  it('can be left anywhere, and the text goes on', async () => {
    const all = await stepByStep(session, [bos], { ...drawn, maxTokens: 60, ignoreEos: true });
    for (const taken of [1, 2, 3, 5, 7, 8, 20, 31, 32, 33]) {
      session.reset();
      const ids: number[] = [];
      for await (const { id } of session.generate([bos], { ...drawn, ignoreEos: true }))
        if (ids.push(id) === taken) break;
      ids.push(...(await generate(session, [], { ...drawn, maxTokens: 10, ignoreEos: true })));
      ids.push(...(await generate(session, [], { ...drawn, maxTokens: 17, ignoreEos: true })));
      expect(ids, `left after ${taken}`).toEqual(all.slice(0, taken + 27));
    }
  });

  it('leave no trace when other tokens follow', async () => {
    const question = [403, 407, 261];
    const given = { ...drawn, ignoreEos: true };
    const first = await stepByStep(session, [bos], { ...given, maxTokens: 20 });
    const second = await stepByStep(session, [bos, ...first, ...question], { ...given, maxTokens: 20 });
    const ids: number[] = [];
    for await (const { id } of session.generate([bos], given)) if (ids.push(id) === 20) break;
    expect(ids).toEqual(first);
    expect(await generate(session, question, { ...given, maxTokens: 20 })).toEqual(second);
  });

  it('end with the context', async () => {
    const given = { ...drawn, ignoreEos: true };
    const ids = await stepByStep(session, [bos], given);
    expect(ids).toHaveLength(context);
    expect(await generate(session, [bos], given)).toEqual(ids);
    await expect(generate(session, [5], given)).rejects.toThrow('do not fit the context');
    expect(await generate(session, [], given).catch(String)).toContain('do not fit the context');
  });

  it('give the same text whatever the chunks that its beginning is read in', async () => {
    const [, ...prompt] = readGolden('stories260k').inputIds.slice(0, 40);
    const given = { ...drawn, maxTokens: 40, ignoreEos: true };
    const ids = await stepByStep(session, [bos, ...prompt], given);
    expect(await generate(session, [bos, ...prompt], given)).toEqual(ids);
    for (const cut of [1, 7, 39]) {
      session.reset();
      await generate(session, [bos, ...prompt.slice(0, cut)], { maxTokens: 0 });
      expect(await generate(session, prompt.slice(cut), given), `after ${cut}`).toEqual(ids);
    }
    const small = await Session.open(await build(target, { chunk: 5 }), { device: 'cpu' });
    expect(await generate(small, [bos, ...prompt], given)).toEqual(ids);
    small.close();
  });

  it('draw by the seed', async () => {
    const given = { ...drawn, maxTokens: 30, ignoreEos: true };
    const texts = new Set<string>();
    for (const seed of [0, 1, 2, 2 ** 32 - 1]) {
      session.reset();
      const ids = await generate(session, [bos], { ...given, seed });
      session.reset();
      expect(await generate(session, [bos], { ...given, seed })).toEqual(ids);
      texts.add(ids.join());
    }
    expect(texts.size).toBe(4);
  });

  it('draw as the options of each call say', async () => {
    const all = await stepByStep(session, [bos], { ...drawn, maxTokens: 30, ignoreEos: true });
    const greedy = await stepByStep(session, [bos, ...all.slice(0, 10)], {
      greedy: true,
      maxTokens: 20,
      ignoreEos: true,
    });
    expect(greedy).not.toEqual(all.slice(10));
    await generate(session, [bos], { ...drawn, maxTokens: 10, ignoreEos: true });
    expect(await generate(session, [], { greedy: true, maxTokens: 20, ignoreEos: true })).toEqual(greedy);
    for (const options of [{ temperature: 0 }, { topK: 1 }, { topP: 1e-6 }, { minP: 1 }]) {
      session.reset();
      const given = { ...options, maxTokens: 20, ignoreEos: true };
      expect(await generate(session, [bos, ...all.slice(0, 10)], given)).toEqual(greedy);
    }
  });

  it('end at an end of sequence, and go on after it', async () => {
    const given = { ...drawn, maxTokens: 60 };
    const all = await stepByStep(session, [bos], { ...given, ignoreEos: true });
    // An id that comes first in the middle of a burst: those before it are 1, 2, 4, 8 and 16 steps long.
    const at = all.findIndex((id, i) => i > 35 && i < 60 && all.indexOf(id) === i);
    const eos = all[at];
    expect(at).toBeGreaterThan(35);
    const dir = await build(target, { context: context - 1 });
    const file = path.join(dir, 'plan.json');
    const plan = JSON.parse(readFileSync(file, 'utf8')) as { model: { eosTokens: unknown } };
    plan.model.eosTokens = [eos];
    writeFileSync(file, JSON.stringify(plan));
    const ending = await Session.open(dir, { device: 'cpu' });
    expect(await generate(ending, [bos], given)).toEqual(all.slice(0, at));
    expect(await generate(ending, [], { ...given, maxTokens: 59 - at, ignoreEos: true })).toEqual(
      all.slice(at + 1),
    );
    ending.close();
  });
});

describe.each(['cpu', 'metal'] as const)('a submission of several steps, target %s', (target) => {
  it('leaves what as many submissions do', async () => {
    const dir = await build(target);
    const plan = readPlan(dir);
    const spec = programSpec(dir, plan);
    const [together, apart] = [
      await loadAddon().createProgram('cpu', spec),
      await loadAddon().createProgram('cpu', spec),
    ];
    const decode = entryNames.indexOf('decode');
    const steps = 50;
    const bytesOf = (data: Int32Array | Uint32Array | Float32Array): Uint8Array =>
      new Uint8Array(data.buffer);
    const begin = (program: NativeProgram): void => {
      const write = ({ arena, offset }: Region, data: Int32Array | Uint32Array | Float32Array): void =>
        program.write(arenaNames.indexOf(arena), offset, bytesOf(data));
      write(plan.inputs.tokens, Int32Array.of(bos));
      write(plan.inputs.step, Uint32Array.of(0, 1));
      write(plan.inputs.sampling, Float32Array.of(drawn.temperature, drawn.topK, drawn.topP, drawn.minP));
      write(plan.inputs.seed, Uint32Array.of(drawn.seed));
    };
    begin(together);
    begin(apart);
    await together.submit(decode, steps);
    for (let i = 0; i < steps; i++) await apart.submit(decode);
    expect([together, apart].map((program) => program.stats().submissions)).toEqual([1, steps]);
    for (const name of ['io', 'state'] as const) {
      const [a, b] = [together, apart].map((program) => {
        const bytes = new Uint8Array(plan.arenas[name].bytes);
        program.read(arenaNames.indexOf(name), 0, bytes);
        return Buffer.from(bytes);
      });
      expect(a?.equals(b ?? Buffer.alloc(0)), name).toBe(true);
      expect(a?.some((byte) => byte !== 0)).toBe(true);
    }
    const step = new Uint32Array(2);
    together.read(arenaNames.indexOf(plan.inputs.step.arena), plan.inputs.step.offset, bytesOf(step));
    expect([...step]).toEqual([steps, 1]);
    together.close();
    apart.close();
  });
});

describe('bursts over caches that are rings', () => {
  /** Nothing but attention to the last six tokens. */
  const windowed = tiny(() => {
    const x = embed(tokens(), weight('table', [24, 16]));
    const part = (name: string): Tensor => splitHeads(linear(x, weight(name, [16, 16])), 2);
    const mixed = attention(part('q'), part('k'), part('v'), { causal: true, window: 6 });
    return linear(mergeHeads(mixed), weight('head', [24, 16]));
  });

  it.each([1, 2, 5, 16])('can be left anywhere, chunk %i', async (chunk) => {
    const dir = sharedFolder();
    const out = path.join(dir, `ring-${chunk}`);
    writeCheckpoint(dir, windowed);
    await compile({ model: windowed, weights: dir, target: 'cpu', context: 120, chunk, out });
    const session = await Session.open(out, { device: 'cpu' });
    expect(session.plan.state.map(({ shape }) => shape[0])).toEqual([6 + chunk, 6 + chunk]);
    const given = { temperature: 0.5, seed: 5 };
    const all = await stepByStep(session, [3], { ...given, maxTokens: 110 });
    expect(new Set(all).size).toBeGreaterThan(5);
    // Leaves after every few ids, most of them in bursts that have run ahead.
    const ids: number[] = [];
    for (let next = [3]; ids.length < 100; next = []) {
      const until = Math.min(100, ids.length + 19);
      for await (const { id } of session.generate(next, given)) if (ids.push(id) === until) break;
    }
    expect(ids).toEqual(all.slice(0, 100));
    session.close();
  });
});
