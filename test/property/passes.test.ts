import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compileGraph, type Compiled } from '../../src/compiler.js';
import type { NdArray } from '../../src/ir/define.js';
import { interpret, type StepResult } from '../../src/ir/interpret.js';
import { isLeaf, type Graph, type Node } from '../../src/ir/graph.js';
import { ops } from '../../src/ir/ops/index.js';
import { sample } from '../../src/ir/ops/sample.js';
import { formatGraph } from '../../src/ir/text.js';
import { layoutOf } from '../../src/passes/access.js';
import { resultsOf, type Entry, type Kernel } from '../../src/passes/entry.js';
import { levelsOf } from '../../src/passes/levels.js';
import { targets } from '../../src/passes/target.js';
import {
  bindingAlignment,
  type EntryName,
  type Plan,
  type PlanEntry,
  type Region,
} from '../../src/runtime/plan.js';
import { checkEntry } from '../support/plan-check.js';
import {
  buildRecipe,
  contextOf,
  recipes,
  samplingAt,
  samplingSeed,
  tokensOf,
  weightValues,
  type Recipe,
} from '../support/random-graph.js';

/** What the passes promise, on random models: the entry points compute what the model means, from a sound plan. */

const cases = 500;
const seed = 7;
const entryNames = ['decode', 'prefill', 'score'] as const satisfies readonly EntryName[];

function compiledRecipe(recipe: Recipe, graph = buildRecipe(recipe)): Compiled {
  const context = contextOf(recipe);
  const compiled = compileGraph(graph, { target: targets[recipe.target], context, chunk: recipe.chunk });
  if (!compiled) throw new Error('nothing was compiled');
  return compiled;
}

/** Runs `body`; what it throws is given the graph it was about. */
function about(graph: Graph, body: () => void): void {
  try {
    body();
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`${message}\n${formatGraph(graph)}`, { cause: error });
  }
}

/** Float64 rounds at 1.1e-16; the entries compute every element in the model's order, so little of that is seen. */
const tolerance = 1e-9;

/** Throws when values differ by more than the tolerance, relative to the greatest of them. */
function expectEqual(what: string, actual: Float64Array, expected: Float64Array): void {
  expect(actual.length, what).toBe(expected.length);
  const greatest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  expected.forEach((value, i) => {
    const off = Math.abs((actual[i] ?? Number.NaN) - value);
    if (!(off <= tolerance * greatest))
      throw new Error(`${what}: element ${i} is ${actual[i] ?? ''}, not ${value}`);
  });
}

/** Rows of a cache that is a ring. */
const rowsOf = (state: Node<'state'>): number =>
  Number(state.type.shape[0] === 'C' ? Infinity : state.type.shape[0]);

/** The id that follows `end` tokens whose last has these logits. */
function idAfter(end: number, logits: Float64Array): Float64Array {
  const vector = (data: Iterable<number>): NdArray => {
    const values = Float64Array.from(data);
    return { shape: [values.length], data: values };
  };
  return sample.evaluate(
    {
      logits: { shape: [1, logits.length], data: logits },
      tokens: vector([]),
      position: vector([end]),
      sampling: vector(samplingAt(end)),
      seed: vector([samplingSeed]),
    },
    {},
    [1],
  );
}

/** Runs an entry over a text, each step on the states the last one left. */
function* stepsOf(
  graph: Graph,
  tokens: readonly number[],
  weights: ReadonlyMap<string, Float64Array>,
): Generator<{ outputs: StepResult['outputs']; start: number; end: number }> {
  const chunk = graph.dims['T'] ?? 1;
  let states: ReadonlyMap<string, Float64Array> = new Map();
  for (let start = 0; start < tokens.length; start += chunk) {
    const part = tokens.slice(start, start + chunk);
    const result = interpret(graph, {
      inputs: new Map([
        ['tokens', part],
        ['position', [start]],
        ['sampling', [...samplingAt(start + part.length)]],
        ['seed', [samplingSeed]],
      ]),
      weights: (name) => weights.get(name) ?? new Float64Array(),
      states,
    });
    states = result.states;
    yield { outputs: result.outputs, start, end: start + part.length };
  }
}

describe(`the entry points compute what the model means (${cases} cases, seed ${seed})`, () => {
  it('score chunk by chunk, decode token by token, prefill to its last token', () => {
    let wrapped = 0;
    fc.assert(
      fc.property(recipes, (recipe) => {
        const graph = buildRecipe(recipe);
        const weights = weightValues(graph);
        const tokens = tokensOf(recipe, graph);
        about(graph, () => {
          const model = { ...graph, dims: { C: contextOf(recipe) } };
          const { outputs } = interpret(model, {
            inputs: new Map([['tokens', tokens]]),
            weights: (name) => weights.get(name) ?? new Float64Array(),
          });
          const expected = outputs.get('logits')?.data ?? new Float64Array();
          const width = expected.length / tokens.length;
          expect(expected.every(Number.isFinite)).toBe(true);
          const entries = compiledRecipe(recipe, graph).entries;
          expect(entries.map(({ name }) => name)).toEqual(entryNames);
          const rows = entries.flatMap(({ graph: { updates } }) => [...updates.keys()].map(rowsOf));
          if (Math.min(...rows) < recipe.tokens) wrapped++;
          for (const entry of entries) {
            for (const step of stepsOf(entry.graph, tokens, weights)) {
              const what = `${entry.name} of tokens ${step.start} to ${step.end}`;
              const first = entry.name === 'score' ? step.start : step.end - 1;
              const rows = expected.subarray(first * width, step.end * width);
              const logits = step.outputs.get('logits')?.data ?? new Float64Array();
              expectEqual(what, logits, rows);
              if (entry.name !== 'score')
                expect(step.outputs.get('next')?.data, what).toEqual(idAfter(step.end, logits));
            }
          }
        });
      }),
      { seed, numRuns: cases },
    );
    expect(wrapped, 'models whose caches go round').toBeGreaterThanOrEqual(cases / 50);
  });
});

/** The epoch after which an element of `node` can be read: that of what makes it, views looked through; -1 for leaves. */
function madeIn(node: Node, results: ReadonlyMap<Node, number>): number {
  const epoch = isLeaf(node) ? -1 : results.get(node);
  if (epoch !== undefined) return epoch;
  const [input] = node.inputs;
  if (ops[node.op].class !== 'view' || !input) throw new Error(`nothing makes ${node.op}`);
  return madeIn(input, results);
}

/** One kernel for each node that is computed. */
function unfused({ graph }: Entry): Kernel[] {
  const { copied } = layoutOf({ graph, kernels: [] });
  return graph.nodes
    .filter((node) => copied.has(node) || (!isLeaf(node) && ops[node.op].class !== 'view'))
    .map((node) => ({
      kind: 'elementwise',
      prologue: undefined,
      outputs: [{ anchors: [node], epilogue: [], append: undefined, result: node, border: '' }],
      nodes: new Set([node]),
    }));
}

const epochsOf = (levels: ReadonlyMap<Kernel, number>): number => 1 + Math.max(...levels.values());

describe(`kernels (${cases} cases, seed ${seed})`, () => {
  it('read what earlier epochs made, compute every node once, and need no more epochs than single nodes', () => {
    const seen = { fewer: 0, prologue: 0, results: 0, pairs: 0, plainParts: 0 };
    fc.assert(
      fc.property(recipes, (recipe) => {
        const graph = buildRecipe(recipe);
        about(graph, () => {
          for (const entry of compiledRecipe(recipe, graph).entries) {
            const { kernels, epochs } = entry;
            const results = new Map(
              kernels.flatMap((kernel) => resultsOf(kernel).map((node) => [node, epochs.get(kernel) ?? 0])),
            );
            for (const { nodes, outputs } of kernels) {
              const epoch = results.get(outputs[0].result) ?? 0;
              for (const input of [...nodes].flatMap((node) => node.inputs))
                if (!nodes.has(input)) expect(madeIn(input, results)).toBeLessThan(epoch);
            }
            const single = unfused(entry);
            for (const { outputs } of single)
              expect(kernels.filter(({ nodes }) => nodes.has(outputs[0].result))).toHaveLength(1);
            const before = epochsOf(levelsOf(single, layoutOf({ graph: entry.graph, kernels: single })));
            expect(epochsOf(epochs)).toBeLessThanOrEqual(before);
            for (const { outputs } of kernels)
              for (const { border } of outputs) expect(border).toMatch(/^\S.*\S$/);
            const some = (holds: (kernel: Kernel) => boolean): number => (kernels.some(holds) ? 1 : 0);
            seen.fewer += epochsOf(epochs) < before ? 1 : 0;
            seen.prologue += some(({ prologue }) => prologue !== undefined);
            seen.results += some(({ outputs }) => outputs.length > 1);
            seen.pairs += some(
              ({ kind, outputs }) =>
                kind === 'linear' && outputs.some(({ epilogue }) => epilogue[0]?.op === 'rope'),
            );
            seen.plainParts += some(
              ({ kind, outputs }) => kind === 'linear' && outputs.some(({ result }) => result.op === 'split'),
            );
          }
        });
      }),
      { seed, numRuns: cases },
    );
    // Every new shape in at least a twentieth of the entries, of which there are three a case.
    for (const [what, times] of Object.entries(seen))
      expect(times, what).toBeGreaterThanOrEqual((entryNames.length * cases) / 20);
  });
});

/** The plan with the dispatches of an entry changed. */
function withDispatches(
  plan: Plan,
  name: EntryName,
  change: (dispatches: PlanEntry['dispatches']) => PlanEntry['dispatches'],
): Plan {
  const entry = plan.entries[name];
  return {
    ...plan,
    entries: { ...plan.entries, [name]: { ...entry, dispatches: change(entry.dispatches) } },
  };
}

const recipeAndNumber = [recipes, fc.constantFrom(...entryNames), fc.nat(1000)] as const;

describe(`a plan's memory, derived from the plan alone (${cases} cases, seed ${seed})`, () => {
  it('holds every value from its writing to its last reading', () => {
    let smaller = 0;
    fc.assert(
      fc.property(recipes, (recipe) => {
        const graph = buildRecipe(recipe);
        const { plan } = compiledRecipe(recipe, graph);
        about(graph, () => {
          for (const name of entryNames) {
            const { faults, mostAlive } = checkEntry(plan, name, targets[recipe.target].alignment);
            expect(faults).toEqual([]);
            const { pool, dispatches } = plan.entries[name];
            expect(pool.lowerBound).toBe(mostAlive);
            expect(pool.bytes).toBeGreaterThanOrEqual(pool.lowerBound);
            expect(plan.arenas.pool.bytes).toBeGreaterThanOrEqual(pool.bytes);
            if (pool.bytes < totalBytes(dispatches)) smaller++;
          }
        });
      }),
      { seed, numRuns: cases },
    );
    // Memory is used again: otherwise the checks above would say little.
    expect(smaller).toBeGreaterThan(cases);
  });

  it('needs every barrier: without any one of them a read is too early', () => {
    let tried = 0;
    fc.assert(
      fc.property(...recipeAndNumber, (recipe, name, choice) => {
        const { plan } = compiledRecipe(recipe);
        const barriers = plan.entries[name].dispatches.flatMap(({ barrier }, i) => (barrier ? [i] : []));
        const removed = barriers[choice % Math.max(1, barriers.length)];
        if (removed === undefined) return;
        tried++;
        const broken = withDispatches(plan, name, (dispatches) =>
          dispatches.map((dispatch, i) => (i === removed ? { ...dispatch, barrier: false } : dispatch)),
        );
        expect(checkEntry(broken, name).faults).not.toEqual([]);
      }),
      { seed, numRuns: cases },
    );
    expect(tried).toBeGreaterThan(cases / 2);
  });

  it('cannot have a binding moved', () => {
    let tried = 0;
    fc.assert(
      fc.property(...recipeAndNumber, (recipe, name, choice) => {
        const { plan } = compiledRecipe(recipe);
        const places = plan.entries[name].dispatches.flatMap(({ bindings }, i) =>
          bindings.flatMap(({ arena }, j) => (arena === 'pool' ? [{ i, j }] : [])),
        );
        const place = places[choice % Math.max(1, places.length)];
        if (!place) return;
        tried++;
        // Less than the distance between buffers: further on there may be another one to read.
        const moved = (region: Region): Region => ({
          ...region,
          offset:
            region.offset + (region.offset > 0 && choice % 2 === 0 ? -bindingAlignment : bindingAlignment),
        });
        const broken = withDispatches(plan, name, (dispatches) =>
          dispatches.map((dispatch, i) => ({
            ...dispatch,
            bindings: dispatch.bindings.map((region, j) =>
              i === place.i && j === place.j ? moved(region) : region,
            ),
          })),
        );
        expect(checkEntry(broken, name).faults).not.toEqual([]);
      }),
      { seed, numRuns: cases },
    );
    expect(tried).toBeGreaterThan(cases / 2);
  });

  it('cannot have a result moved, with all that read it, onto an operand of the kernel that writes it', () => {
    let tried = 0;
    fc.assert(
      fc.property(...recipeAndNumber, (recipe, name, choice) => {
        const { plan } = compiledRecipe(recipe);
        const pairs = plan.entries[name].dispatches.flatMap((dispatch) => {
          const buffers =
            plan.kernels[dispatch.kernel]?.arguments.filter(({ kind }) => kind === 'buffer') ?? [];
          // Not onto one that it reads element by element: there it may be able to lie.
          const bound = (wanted: 'read' | 'write'): Region | undefined =>
            dispatch.bindings.find((region, i) => {
              const buffer = buffers[i];
              return region.arena === 'pool' && buffer?.kind === 'buffer' && buffer.access === wanted;
            });
          const [result, operand] = [bound('write'), bound('read')];
          return result && operand ? [{ result, operand }] : [];
        });
        const pair = pairs[choice % Math.max(1, pairs.length)];
        if (!pair) return;
        tried++;
        const move = (region: Region): Region =>
          region.offset === pair.result.offset ? { ...region, offset: pair.operand.offset } : region;
        const broken = withDispatches(plan, name, (dispatches) =>
          dispatches.map((dispatch) => ({
            ...dispatch,
            bindings: dispatch.bindings.map((region) => (region.arena === 'pool' ? move(region) : region)),
          })),
        );
        expect(checkEntry(broken, name).faults).not.toEqual([]);
      }),
      { seed, numRuns: cases },
    );
    expect(tried).toBeGreaterThan(cases / 2);
  });
});

describe('the end of a step', () => {
  const recipe: Recipe = {
    target: 'metal',
    tokens: 3,
    chunk: 2,
    spare: 0,
    vocabulary: 5,
    width: 4,
    steps: [{ op: 'silu', a: 0, b: 0, c: 0, d: 0 }],
    result: { kind: 'linear', a: 0, b: 0, c: 0, d: 0 },
  };
  const { plan } = compiledRecipe(recipe);

  it.each(['decode', 'prefill'] as const)('is a dispatch that no other runs beside, in %s', (name) => {
    const [first] = plan.entries[name].dispatches;
    const beside = withDispatches(plan, name, (list) =>
      first ? [...list, { ...first, barrier: false }] : [],
    );
    expect(checkEntry(beside, name).faults.join('\n')).toMatch(
      /sample_5 writes io .* beside or before others/,
    );
    const after = withDispatches(plan, name, (list) => (first ? [...list, { ...first, barrier: true }] : []));
    expect(checkEntry(after, name).faults.join('\n')).toMatch(
      /sample_5 writes io .* beside or before others/,
    );
  });

  it.each(['decode', 'prefill'] as const)('is in %s', (name) => {
    const without = withDispatches(plan, name, (list) => list.slice(0, -1));
    expect(checkEntry(without, name).faults).toEqual(['the step ends with 0 writes, not 2']);
  });

  it('is not in score', () => {
    const [ending] = plan.entries.prefill.dispatches.slice(-1);
    const ended = withDispatches(plan, 'score', (list) => (ending ? [...list, ending] : []));
    expect(checkEntry(ended, 'score').faults).toContain('the step ends with 2 writes, not 0');
  });
});

/** Bytes of the pool if every value had bytes of its own. */
function totalBytes(dispatches: PlanEntry['dispatches']): number {
  const results = dispatches.flatMap(({ bindings }) => {
    const regions = bindings.filter(({ arena }) => arena === 'pool');
    return regions.slice(-1);
  });
  return results.reduce((sum, { bytes }) => sum + bytes, 0);
}
