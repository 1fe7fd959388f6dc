import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NdArray } from '../../src/ir/define.js';
import { isOp, makeNode, rewrite, type Graph, type Node } from '../../src/ir/graph.js';
import { interpret, type Feed, type StepResult } from '../../src/ir/interpret.js';
import { formatGraph } from '../../src/ir/text.js';
import { verifyGraph } from '../../src/ir/verify.js';
import type { EntryPass } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { insertKvCache } from '../../src/passes/insert-kv-cache.js';
import { entryPasses } from '../../src/passes/pipeline.js';
import { targets } from '../../src/passes/target.js';
import { errorBounds } from '../support/error-bound.js';
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
import { u } from '../support/rounding.js';

/**
 * Translation validation (Pnueli, Siegel and Singerman 1998): not the passes are proved right but each result of one.
 * On random models the interpreter computes the same before and after every pass that rewrites a graph.
 */

const cases = 1000;
const seed = 11;

/** Tokens of a text; entries take them in several steps. */
const mostTokens = 6;

/** Cuts draws from the small vocabularies of random models into parts, too. */
const target = { ...targets.metal, block: 2 };

/** The passes that rewrite an entry's graph; the rest draw borders and place what is there. */
const rewriting = entryPasses.slice(0, entryPasses.indexOf(fuseLayers));

interface Passes {
  readonly insert: typeof insertKvCache;
  readonly entry: readonly EntryPass[];
}

const right: Passes = { insert: insertKvCache, entry: rewriting };

const reordering: ReadonlySet<string> = new Set(['fold-constants', 'split-attention']);

/** Unit roundoff of float64 in that of f32: error bounds are linear in it, but for terms that are smaller still. */
const doubleRoundoff = 2 ** -53 / u;

/** Throws unless `after` is `before`, up to `bound`. */
function expectEqual(
  what: string,
  before: NdArray['data'],
  after: NdArray['data'],
  bound?: Float64Array,
): void {
  if (after.length !== before.length)
    throw new Error(`${what}: ${after.length} elements, not ${before.length}`);
  const wrong = before.findIndex((value, i) => {
    const allowed = bound === undefined ? 0 : 2 * doubleRoundoff * (bound[i] ?? 0);
    return !(Math.abs((after[i] ?? Number.NaN) - value) <= allowed);
  });
  if (wrong >= 0)
    throw new Error(`${what}: element ${wrong} is ${after[wrong] ?? ''}, not ${before[wrong] ?? ''}`);
}

/** Outputs and states after a step agree. Some passes compute in another order, which rounds otherwise. */
function expectSame(pass: string, before: Step, after: Step): void {
  const bounds = reordering.has(pass)
    ? errorBounds(before.graph, before.result.values)
    : new Map<Node, { error: Float64Array }>();
  for (const [name, node] of before.graph.outputs) {
    const data = after.result.outputs.get(name)?.data ?? new Float64Array();
    expectEqual(
      `output ${name}`,
      before.result.outputs.get(name)?.data ?? data,
      data,
      bounds.get(node)?.error,
    );
  }
  for (const [state, node] of before.graph.updates) {
    const { name } = state.attrs;
    const data = after.result.states.get(name) ?? new Float64Array();
    expectEqual(`state ${name}`, before.result.states.get(name) ?? data, data, bounds.get(node)?.error);
  }
  expect([...after.result.outputs.keys()]).toEqual([...before.result.outputs.keys()]);
  expect([...after.result.states.keys()]).toEqual([...before.result.states.keys()]);
}

interface Step {
  readonly graph: Graph;
  readonly result: StepResult;
}

const isSame = (a: Graph, b: Graph): boolean =>
  a.nodes.length === b.nodes.length && a.nodes.every((node, i) => node === b.nodes[i]);

/** Validates every pass on one model; the names of those that changed something. */
function validate(recipe: Recipe, { insert, entry: passes }: Passes): ReadonlySet<string> {
  const model = buildRecipe(recipe);
  const values = weightValues(model);
  const tokens = tokensOf(recipe, model).slice(0, mostTokens);
  // Long enough that split-attention cuts it.
  const options = { context: contextOf(recipe) + 128, chunk: Math.min(recipe.chunk, contextOf(recipe)) };
  const changed = new Set<string>();
  const weights: Feed['weights'] = (name) => values.get(name) ?? new Float64Array();
  const meant = interpret(
    { ...model, dims: { C: options.context } },
    { inputs: new Map([['tokens', tokens]]), weights },
  ).outputs.get('logits') ?? { shape: [], data: new Float64Array() };
  expect(meant.data.every(Number.isFinite)).toBe(true);
  const width = meant.shape[1] ?? 0;

  for (const [name, inserted] of insert(model, options).entries) {
    if (inserted.nodes.some((node) => isOp(node, 'rope', 'cache_append'))) changed.add('insert-kv-cache');
    const graphs: { pass: string; graph: Graph }[] = [{ pass: 'insert-kv-cache', graph: inserted }];
    let entry = { name, graph: inserted, kernels: [], epochs: new Map<never, number>(), pool: undefined };
    for (const pass of passes) {
      const { graph } = pass.run(entry, { target });
      verifyGraph(graph, pass.name);
      if (!isSame(entry.graph, graph)) graphs.push({ pass: pass.name, graph });
      entry = { ...entry, graph };
    }
    for (const { pass } of graphs.slice(1)) changed.add(pass);

    const chunk = inserted.dims['T'] ?? 1;
    let states: ReadonlyMap<string, Float64Array> = new Map();
    for (let start = 0; start < tokens.length; start += chunk) {
      const part = tokens.slice(start, start + chunk);
      const inputs = new Map([
        ['tokens', part],
        ['position', [start]],
        ['sampling', [...samplingAt(start + part.length)]],
        ['seed', [samplingSeed]],
      ]);
      let before: Step | undefined;
      let next = states;
      for (const { pass, graph } of graphs) {
        const step: Step = { graph, result: interpret(graph, { inputs, weights, states }) };
        try {
          if (before) expectSame(pass, before, step);
          else {
            const end = start + part.length;
            const rows = meant.data.subarray((name === 'score' ? start : end - 1) * width, end * width);
            expectEqual('logits', rows, step.result.outputs.get('logits')?.data ?? new Float64Array());
          }
        } catch (error) {
          const message = error instanceof Error ? error.message : String(error);
          const texts = [before?.graph ?? model, graph].map(formatGraph).join('\n');
          throw new Error(`${pass}, entry ${name}, position ${start}: ${message}\n${texts}`, {
            cause: error,
          });
        }
        if (pass === 'insert-kv-cache') next = step.result.states;
        before = step;
      }
      states = next;
    }
  }
  return changed;
}

describe(`every pass that rewrites a graph keeps its meaning (${cases} cases, seed ${seed})`, () => {
  it('outputs and states are the same before and after, at every step of every entry', () => {
    const counts = new Map(
      ['insert-kv-cache', ...rewriting.map(({ name }) => name)].map((name) => [name, 0]),
    );
    fc.assert(
      fc.property(recipes, (recipe) => {
        for (const name of validate(recipe, right)) counts.set(name, (counts.get(name) ?? 0) + 1);
      }),
      { seed, numRuns: cases },
    );
    expect(counts.size).toBe(6);
    for (const [name, count] of counts)
      expect(count, `models that ${name} changed`).toBeGreaterThanOrEqual(cases / 10);
  }, 300_000);
});

/** A pass that replaces nodes one by one. */
const replacing = (name: string, replace: () => (node: Node, original: Node) => Node): EntryPass => ({
  name,
  doc: 'a mistake',
  run: (entry) => ({ ...entry, graph: rewrite(entry.graph, replace()) }),
});

describe(`a pass that changes the meaning is found (seed ${seed})`, () => {
  const mistakes: Readonly<Record<string, Passes>> = {
    'appending without attending from there': {
      ...right,
      insert: (model, options) => {
        const program = insertKvCache(model, options);
        const blind = (graph: Graph): Graph =>
          rewrite(graph, (node) =>
            isOp(node, 'attention') ? makeNode(node.op, node.inputs.slice(0, 3), node.attrs) : node,
          );
        return {
          ...program,
          entries: new Map([...program.entries].map(([name, graph]) => [name, blind(graph)])),
        };
      },
    },
    'folding that forgets a factor': {
      ...right,
      entry: [
        replacing('fold-constants', () => (node) => {
          const [x] = node.inputs;
          return isOp(node, 'scale') && x && isOp(x, 'scale')
            ? makeNode('scale', x.inputs, node.attrs)
            : node;
        }),
      ],
    },
    'folding that rounds the factor to f32': {
      ...right,
      entry: [
        replacing('fold-constants', () => (node) => {
          const [x] = node.inputs;
          if (!isOp(node, 'scale') || !x || !isOp(x, 'scale')) return node;
          return makeNode('scale', x.inputs, { by: Math.fround(node.attrs.by * x.attrs.by) });
        }),
      ],
    },
    'sharing that does not look at attributes': {
      ...right,
      entry: [
        replacing('share-subexpressions', () => {
          const firsts: Node[] = [];
          return (node) => {
            const alike = (other: Node): boolean =>
              other.op === node.op &&
              other.type.shape.join() === node.type.shape.join() &&
              other.inputs.every((input, i) => input === node.inputs[i]);
            const first = node.inputs.length > 0 ? firsts.find(alike) : undefined;
            if (!first) firsts.push(node);
            return first ?? node;
          };
        }),
      ],
    },
    'narrowing past what needs every token': {
      ...right,
      entry: [
        ...rewriting,
        replacing('narrow-further', () => (node) => {
          const [x] = node.inputs;
          if (!isOp(node, 'last') || !x || !isOp(x, 'rope') || x.type.shape[0] !== 'T') return node;
          return makeNode(
            'rope',
            [makeNode('last', x.inputs.slice(0, 1), {}), ...x.inputs.slice(1)],
            x.attrs,
          );
        }),
      ],
    },
  };

  it.each(Object.entries(mistakes))('%s', (_, passes) => {
    const property = fc.property(recipes, (recipe) => void validate(recipe, passes));
    const { failed, errorInstance } = fc.check(property, { seed, numRuns: cases });
    expect(failed).toBe(true);
    expect(String(errorInstance)).toMatch(/element \d+ is/);
  });
});
