import fc from 'fast-check';
import { describe, it } from 'vitest';
import { isLeaf, isOp, makeNode, noOrigin, rewrite, type Graph } from '../../src/ir/graph.js';
import { targets } from '../../src/passes/target.js';
import { buildRecipe, contextOf, recipes } from '../support/random-graph.js';
import { expectRoundTrips } from '../support/round-trip.js';

/** The text of every stage of random models, whose values, scopes and weights are called what is hard to write down. */

const cases = 300;
const seed = 11;

/** Names with punctuation and numbers of their own, names of ops and leaves, names that need escapes, no name. */
const names = [
  'h',
  'x$',
  'größe',
  'linear',
  'add',
  'silu.1',
  'tokens',
  'k_cache.0',
  'rope_table',
  'rope_table.1',
  '1',
  '.5',
  '-',
  '',
  'a b',
  'a, b : f32[T]',
  '"quoted"',
  '\\',
  '@w',
  'line\nbreak\t\u007f\u2028',
  undefined,
] as const;

const scopes = ['', 'model', 'model.layers.3', 'layers.0.experts.2', '4', 'my scope.1', 'in', '}'] as const;
const layers = [undefined, 0, 3] as const;

const origins = fc.array(
  fc.record({
    name: fc.constantFrom(...names),
    scope: fc.constantFrom(...scopes),
    layer: fc.constantFrom(...layers),
  }),
  { minLength: 1, maxLength: 12 },
);

/** The graph with the given origins in turn, and weights that are called like them, too. */
function renamed(
  graph: Graph,
  given: readonly { name: string | undefined; scope: string; layer: number | undefined }[],
): Graph {
  let i = 0;
  return rewrite(graph, (node) => {
    const origin = { ...noOrigin, ...given[i++ % given.length] };
    // A text does not say which variable a leaf was given to.
    if (isOp(node, 'weight'))
      return makeNode('weight', [], { ...node.attrs, name: `${node.attrs.name}${origin.name ?? ''}` });
    return makeNode(node.op, node.inputs, node.attrs, isLeaf(node) ? noOrigin : origin);
  });
}

describe(`text of every stage (${cases} cases, seed ${seed})`, () => {
  it('is read back to what prints the same and compiles to the same build', () => {
    fc.assert(
      fc.property(recipes, origins, (recipe, given) => {
        const graph = renamed(buildRecipe(recipe), given);
        expectRoundTrips(graph, {
          target: targets[recipe.target],
          context: contextOf(recipe),
          chunk: Math.min(recipe.chunk, contextOf(recipe)),
        });
      }),
      { seed, numRuns: cases },
    );
  }, 300_000);
});
