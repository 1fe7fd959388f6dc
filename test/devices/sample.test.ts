import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { philox, sample } from '../../src/ir/ops/sample.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { cacheFolder } from '../../src/runtime/addon.js';
import type { NativeProgram, ProgramSpec } from '../../src/runtime/native.js';
import { addon, emptySpec } from '../native/support.js';
import { runs, type Run } from '../support/devices.js';
import { graphOf } from '../support/graphs.js';
import { possibleIds } from '../support/sample-bound.js';

/**
 * The kernel that draws the next id, as it is emitted, over rows of logits: every id is one that roundings within their
 * bounds can lead to (test/support/sample-bound.ts), and nearly always the interpreter's.
 */

const context = 40;
const seed = 3;

interface Draw {
  readonly logits: Float32Array;
  /** Temperature, top-k, top-p and min-p. */
  readonly sampling: Float32Array;
  readonly seed: number;
  readonly position: number;
  readonly tokens: number;
}

interface Drawn {
  /** What is wrong with it, if anything. */
  readonly wrong: string | undefined;
  readonly id: number;
  /** How many ids it could have been. */
  readonly possible: number;
}

interface Variant {
  readonly change?: (text: string) => string;
  readonly shuffle?: number;
}

type Buffer = 'x' | 'sampling' | 'seed' | 'ids' | 'step' | 'winners';

/** What the parts' winners are called where they are written. */
const bufferOf = (name: string): Buffer => (name === 'y' ? 'winners' : name) as Buffer;

/** The kernels that draw from a vocabulary, one arena for each of their buffers. */
async function load(width: number, { target, device }: Run, { change, shuffle }: Variant = {}) {
  const graph = graphOf(() => dsl.embed(dsl.tokens(), dsl.weight('table', [width, width])));
  const compiled = compileGraph(graph, { target: targets[target], context });
  if (!compiled) throw new Error('there is nothing to test');
  const { plan } = compiled;
  const dispatches = plan.entries.decode.dispatches.filter(({ kernel }) =>
    plan.kernels[kernel]?.name.startsWith('sample'),
  );
  expect(dispatches).toHaveLength(width < 4096 || target === 'cpu' ? 1 : 2);
  const source = change ? change(compiled.kernels) : compiled.kernels;
  if (change) expect(source, 'the mistake').not.toBe(compiled.kernels);
  const bytes: Record<Buffer, number> = {
    x: width * 4,
    sampling: 16,
    seed: 4,
    ids: (context + 1) * 4,
    step: 8,
    winners: Math.ceil(width / 1024) * 8,
  };
  const names = Object.keys(bytes) as Buffer[];
  const kernels = dispatches.flatMap(({ kernel }) => plan.kernels[kernel] ?? []);
  const spec: ProgramSpec = {
    ...emptySpec(cacheFolder(), { source, simdWidth: targets[target].simdWidth }),
    kernels: kernels.map((kernel) => ({
      name: kernel.name,
      threads: [kernel.threads, 1, 1] as const,
      arguments: kernel.arguments.map((argument) => ({ index: 0, bytes: 0, ...argument })),
    })),
    arenas: names.map((name) => ({ name, bytes: bytes[name] })),
    entries: [
      {
        name: 'draw',
        dispatches: dispatches.map(({ grid }, i) => ({
          kernel: i,
          grid,
          bindings: (kernels[i]?.arguments ?? []).flatMap(({ kind, name }) =>
            kind === 'buffer'
              ? [{ arena: names.indexOf(bufferOf(name)), offset: 0, bytes: bytes[bufferOf(name)] }]
              : [],
          ),
          barrier: true,
        })),
      },
    ],
  };
  const program = await addon.createProgram(device, shuffle === undefined ? spec : { ...spec, shuffle });
  const arenaOf = (name: Buffer): number => names.indexOf(name);
  return { program, draw: (draw: Draw) => drawWith(program, arenaOf, draw) };
}

async function drawWith(
  program: NativeProgram,
  arenaOf: (name: Buffer) => number,
  { logits, sampling, seed, position, tokens }: Draw,
): Promise<Drawn> {
  const bytesOf = (data: Float32Array | Int32Array | Uint32Array): Uint8Array => new Uint8Array(data.buffer);
  program.write(arenaOf('x'), 0, bytesOf(logits.slice()));
  program.write(arenaOf('sampling'), 0, bytesOf(sampling.slice()));
  program.write(arenaOf('seed'), 0, bytesOf(Uint32Array.of(seed)));
  program.write(arenaOf('ids'), 0, bytesOf(new Int32Array(context + 1).fill(-7)));
  program.write(arenaOf('step'), 0, bytesOf(Uint32Array.of(position, tokens)));
  await program.submit(0);
  const ids = new Int32Array(context + 1);
  const step = new Uint32Array(2);
  program.read(arenaOf('ids'), 0, bytesOf(ids));
  program.read(arenaOf('step'), 0, bytesOf(step));
  const next = position + tokens;
  const id = ids[next] ?? -1;
  const row = { data: Float64Array.from(logits), error: new Float64Array(logits.length) };
  const possible = possibleIds(row, sampling, seed, next);
  const wrong = !possible.includes(id)
    ? `drew ${id}, not ${possible.slice(0, 5).join(' or ')}`
    : ids.some((other, i) => i !== next && other !== -7)
      ? 'wrote another id'
      : step[0] !== next || step[1] !== tokens
        ? `left the step at ${step[0] ?? ''} of ${step[1] ?? ''} tokens, not at ${next} of ${tokens}`
        : undefined;
  return { wrong, id, possible: possible.length };
}

function interpreted({ logits, sampling, seed, position, tokens }: Draw): number {
  const vector = (data: ArrayLike<number>) => ({ shape: [data.length], data: Float64Array.from(data) });
  const inputs = {
    logits: { shape: [1, logits.length], data: Float64Array.from(logits) },
    tokens: vector(new Array<number>(tokens).fill(0)),
    position: vector([position]),
    sampling: vector(sampling),
    seed: vector([seed]),
  };
  return sample.evaluate(inputs, {}, [1])[0] ?? -1;
}

/** Logits from numbers that are nearly normal, with a standard deviation of 1. */
const rows = {
  spread: (x: number): number => 3 * x,
  flat: (x: number): number => 0.1 * x,
  'far apart': (x: number): number => 40 * x,
  tied: (x: number): number => Math.round(2 * x),
  equal: (): number => -1.25,
  masked: (x: number): number => (x < 0.5 ? -Infinity : x),
  'around zero': (x: number): number => (x < -0.5 ? -1 : x < 0.3 ? -0 : 0),
  negative: (x: number): number => x - 50,
} as const;

function rowOf(kind: keyof typeof rows, width: number, key: number): Float32Array {
  const uniform = (i: number, j: number): number => philox(i, j, key)[1] / 2 ** 32;
  const normal = (i: number): number =>
    [0, 1, 2, 3].reduce((sum, j) => sum + uniform(i, j) - 0.5, 0) * Math.sqrt(3);
  const row = Float32Array.from({ length: width }, (_, i) => rows[kind](normal(i)));
  // Something can be drawn.
  if (row.every((x) => x === -Infinity)) row[width >> 1] = 0;
  return row;
}

const fraction = (min: number, max: number): fc.Arbitrary<number> => fc.double({ min, max, noNaN: true });

const draws = (width: number): fc.Arbitrary<Draw> =>
  fc
    .record({
      kind: fc.constantFrom(...(Object.keys(rows) as (keyof typeof rows)[])),
      key: fc.nat(),
      temperature: fc.oneof(fc.constantFrom(0, 1, 1, 1e-30, 1e37), {
        arbitrary: fraction(0.05, 5),
        weight: 2,
      }),
      topK: fc.oneof(fc.constantFrom(0, 0, 1, width - 1, width, width + 1), fc.nat(width)),
      topP: fc.oneof(fc.constantFrom(1, 1, 1e-6, 0.5, 0.999), fraction(0.01, 1)),
      minP: fc.oneof(fc.constantFrom(0, 0, 0, 1), fraction(0.001, 1)),
      seed: fc.nat(2 ** 32 - 1),
      position: fc.nat(20),
      tokens: fc.integer({ min: 1, max: 20 }),
    })
    .map(({ kind, key, temperature, topK, topP, minP, ...rest }) => ({
      logits: rowOf(kind, width, key),
      sampling: Float32Array.of(temperature, topK, topP, minP),
      ...rest,
    }));

const widths = [
  [1, 30],
  [31, 100],
  [32, 100],
  [33, 100],
  [512, 100],
  [5000, 20],
] as const;

describe.each(runs())(`the sample kernel for $target on $device (seed ${seed})`, (run) => {
  const seen = { draws: 0, certain: 0, asInterpreted: 0 };

  it.each(widths)('draws of %i ids what can be drawn (%i draws)', async (width, numRuns) => {
    const { program, draw } = await load(width, run);
    await fc.assert(
      fc.asyncProperty(draws(width), async (given) => {
        const { wrong, id, possible } = await draw(given);
        expect(wrong).toBeUndefined();
        seen.draws++;
        if (possible === 1) seen.certain++;
        if (id === interpreted(given)) seen.asInterpreted++;
      }),
      { seed, numRuns },
    );
    program.close();
  });

  it('is nearly always certain, and the interpreter agrees', () => {
    expect(seen.draws).toBe(widths.reduce((sum, [, runs]) => sum + runs, 0));
    expect(seen.certain / seen.draws).toBeGreaterThanOrEqual(0.97);
    expect(seen.asInterpreted / seen.draws).toBeGreaterThanOrEqual(0.99);
  });

  it.runIf(run.device === 'cpu')('draws the same in any order of threads', async () => {
    const inOrder = await load(512, run);
    const shuffled = await load(512, run, { shuffle: 5 });
    await fc.assert(
      fc.asyncProperty(draws(512), async (given) => {
        // Sums of floats in another order: only what is certain must be the same.
        const [a, b] = [await inOrder.draw(given), await shuffled.draw(given)];
        expect(b.wrong).toBeUndefined();
        if (a.possible === 1) expect(b.id).toBe(a.id);
      }),
      { seed, numRuns: 30 },
    );
    inOrder.program.close();
    shuffled.program.close();
  });

  it('takes 0 and -0 for equal', async () => {
    const { program, draw } = await load(31, run);
    const logits = new Float32Array(31).fill(-5);
    logits.set([-0, 0], 7);
    const drawn = new Set<number>();
    for (let position = 0; position < 20; position++) {
      const { id, wrong } = await draw({
        logits,
        sampling: Float32Array.of(1, 1, 0.001, 1),
        seed,
        position,
        tokens: 1,
      });
      expect(wrong).toBeUndefined();
      drawn.add(id);
    }
    expect([...drawn].sort()).toEqual([7, 8]);
    program.close();
  });
});

describe('a wrong kernel is found', () => {
  /** Changes to kernels.metal, each a mistake that someone could make. */
  const mistakes: Readonly<Record<string, readonly [RegExp, string]>> = {
    'noise at every temperature alike': [/temperature \* gumbel/, 'gumbel'],
    'weights at every temperature alike': [/ - greatest\) \/ temperature\)/g, ' - greatest))'],
    'min-p at every temperature alike': [
      /temperature \* metal::precise::log\(min_p\)/,
      'metal::precise::log(min_p)',
    ],
    'no min-p': [/if \(min_p > 0\.0f\)/, 'if (false)'],
    'one less than top-k': [/>= top_k\) least/, '> top_k) least'],
    'top-p that counts the id itself': [/> middle\) own \+=/, '>= middle) own +='],
    'top-p of the whole row': [/>= least\) own \+=/, '>= 0) own +='],
    'top-p off by one key': [/least = middle \+ 1;/, 'least = middle + 2;'],
    'the last of equals': [/noise > best/, 'noise >= best'],
    'the highest of the equals of several threads': [
      /-float\(index\) : -(\d+)\.0f/,
      'float(index) - $1.0f : -$1.0f',
    ],
    'negative logits above positive ones': [/: bits \| 0x80000000u/, ': bits'],
    'nine rounds': [/round < 10/, 'round < 9'],
    'one key for every round': [/key \+= 0x9e3779b9u;/, ''],
    'the other word': [/return low;/, 'return high;'],
    'noise that does not follow the position': [/gumbel\(i, next,/, 'gumbel(i, 0,'],
    'noise that does not follow the seed': [/uint\(seed\[0\]\)/, '1u'],
    'noise of the position before': [/gumbel\(i, next,/, 'gumbel(i, next - 1,'],
    'a position that stays': [/step\.position = next;/, ';'],
    'a position that moves by one': [/step\.position = next;/, 'step.position += 1;'],
    'an id in place of the last': [/ids\[next\]/, 'ids[next - 1]'],
  };
  const cases = (Object.keys(targets) as TargetName[]).flatMap((target) =>
    Object.entries(mistakes).map(([mistake, change]) => ({
      title: `${mistake} (${target})`,
      // Some threads must see two of the ids for this one.
      width: mistake === 'the last of equals' ? targets[target].scanThreads + 300 : 300,
      target,
      change,
    })),
  );

  it.concurrent.each(cases)('$title', async ({ target, width, change: [pattern, replacement] }) => {
    const { program, draw } = await load(
      width,
      { target, device: 'cpu' },
      {
        change: (text) => text.replace(pattern, replacement),
      },
    );
    const property = fc.asyncProperty(draws(width), async (given) => (await draw(given)).wrong === undefined);
    const { failed } = await fc.check(property, { seed, numRuns: 200, endOnFailure: true });
    program.close();
    expect(failed).toBe(true);
  });
});
