import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { makeGraph, makeNode } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import { f32, i32 } from '../../src/ir/type.js';
import { graphOf, inputOf } from '../support/graphs.js';

const table = [1, 2, 3, 4, 5, 6];
const matrix = [1, -1, 0.5, 2];
const weights = (name: string): Float64Array => Float64Array.from(name === 'table' ? table : matrix);

/** linear(silu(embed)) over a vocabulary of 3 and a width of 2. */
const graph = graphOf(() => {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table', [3, 2]));
  return dsl.linear(dsl.silu(x), dsl.weight('w', [2, 2]));
});

describe('interpret', () => {
  it('computes what the formula says', () => {
    const { outputs } = interpret(graph, { inputs: new Map([['tokens', [2, 0]]]), weights });
    const silu = (x: number): number => x / (1 + Math.exp(-x));
    const row = (a: number, b: number): number[] => [silu(a) - silu(b), 0.5 * silu(a) + 2 * silu(b)];
    expect(outputs.get('logits')?.shape).toEqual([2, 2]);
    expect([...(outputs.get('logits')?.data ?? [])]).toEqual([...row(5, 6), ...row(1, 2)]);
  });

  it('keeps every value on the way', () => {
    const { values } = interpret(graph, { inputs: new Map([['tokens', [1]]]), weights });
    expect(graph.nodes.map((node) => [node.op, values.get(node)?.shape])).toEqual([
      ['input', [1]],
      ['weight', [3, 2]],
      ['embed', [1, 2]],
      ['silu', [1, 2]],
      ['weight', [2, 2]],
      ['linear', [1, 2]],
    ]);
  });

  it('returns the new states, which start as zeros', () => {
    const cache = makeNode('state', [], { name: 'k', dtype: 'f32', shape: ['C', 1] });
    const x = inputOf('x', f32(1, 1));
    const start = inputOf('start', i32());
    const append = makeNode('cache_append', [cache, x, start], {});
    if (cache.op !== 'state') throw new Error('not a state');
    const stateful = makeGraph({
      name: 'stateful',
      outputs: new Map([['y', append]]),
      updates: new Map([[cache, append]]),
      dims: { C: 3 },
    });
    const step = (value: number, at: number, states?: ReadonlyMap<string, Float64Array>) =>
      interpret(stateful, {
        inputs: new Map([
          ['x', [value]],
          ['start', [at]],
        ]),
        weights,
        ...(states ? { states } : {}),
      }).states;
    const first = step(7, 1);
    expect(first).toEqual(new Map([['k', Float64Array.of(0, 7, 0)]]));
    expect(step(8, 2, first)).toEqual(new Map([['k', Float64Array.of(0, 7, 8)]]));
  });

  it('refuses values of another size', () => {
    const inputs = new Map([['tokens', [0]]]);
    expect(() => interpret(graph, { inputs, weights: () => new Float64Array(5) })).toThrow(
      'weight table has 5 elements, its shape [3, 2] needs 6',
    );
    expect(() => interpret(graph, { inputs: new Map(), weights })).toThrow('dim T is not bound');
  });
});
