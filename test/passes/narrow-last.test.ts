import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isOp, type Graph } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import { formatGraph } from '../../src/ir/text.js';
import { narrowLast } from '../../src/passes/narrow-last.js';
import { entryOf, graphOf } from '../support/graphs.js';

const embedded = (): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [6, 4]));
const matrix = (name: string, n: number, k: number): dsl.Tensor => dsl.weight(name, [n, k]);

function narrowed(body: () => dsl.Tensor, name: 'decode' | 'prefill' | 'score' = 'prefill'): Graph {
  return entryOf(graphOf(body), name, [narrowLast]).graph;
}

/** Values that differ from weight to weight and from element to element. */
const feed = {
  inputs: new Map([
    ['tokens', [3, 1, 4, 1, 5]],
    ['position', [2]],
    ['sampling', [0, 0, 1, 0]],
    ['seed', [0]],
  ]),
  weights: (name: string): Float64Array => {
    const sizes: { readonly [name: string]: number } = {
      table: 24,
      head: 24,
      up: 64,
      down: 32,
      norm: 4,
      w: 16,
    };
    return Float64Array.from({ length: sizes[name] ?? 0 }, (_, i) => Math.sin(name.length + 1.7 * i));
  },
};

/** The pass must not change any output. */
function expectSameOutputs(body: () => dsl.Tensor): void {
  const before = interpret(entryOf(graphOf(body), 'prefill', []).graph, feed).outputs;
  const after = interpret(narrowed(body), feed).outputs;
  expect(after).toEqual(before);
}

/** norm → gate and up from one matrix → down, with the residual. */
const gatedMlp = (): dsl.Tensor => {
  const x = embedded();
  const normed = dsl.rmsNorm(x, dsl.weight('norm', [4]), { eps: 1e-5 });
  const [gate, up] = dsl.split(dsl.linear(normed, matrix('up', 16, 4)), [8, 8]);
  const h = dsl.add(x, dsl.linear(dsl.mul(dsl.silu(gate), up), matrix('down', 4, 8)));
  return dsl.linear(h, matrix('head', 6, 4));
};

describe('narrow-last', () => {
  it('moves past the vocabulary, the MLP, its split and the norm, and through values used twice', () => {
    expect(formatGraph(narrowed(gatedMlp))).toMatchInlineSnapshot(`
      "graph small (T = 8, C = 64) {
        %tokens = input : i32[T]
        %position = input : i32[]
        %sampling = input : f32[4]
        %seed = input : i32[]
        @table : f32[6, 4]
        @norm : f32[4]
        @up : f32[16, 4]
        @down : f32[4, 8]
        @head : f32[6, 4]
        %last = last %tokens : i32[1]
        %embed = embed %last, @table : f32[1, 4]
        %rms_norm = rms_norm %embed, @norm { eps: 0.00001 } : f32[1, 4]
        %linear = linear %rms_norm, @up : f32[1, 16]
        %split = split %linear { sizes: [8,8], part: 0 } : f32[1, 8]
        %silu = silu %split : f32[1, 8]
        %split.1 = split %linear { sizes: [8,8], part: 1 } : f32[1, 8]
        %mul = mul %silu, %split.1 : f32[1, 8]
        %linear.1 = linear %mul, @down : f32[1, 4]
        %add = add %embed, %linear.1 : f32[1, 4]
        %linear.2 = linear %add, @head : f32[1, 6]
        %sample = sample %linear.2, %tokens, %position, %sampling, %seed : i32[1]
        return logits = %linear.2, next = %sample
      }
      "
    `);
    expectSameOutputs(gatedMlp);
  });

  it('stops at attention, whose keys need every token', () => {
    const body = (): dsl.Tensor => {
      const heads = dsl.splitHeads(embedded(), 2);
      const mixed = dsl.attention(heads, heads, heads, { causal: true });
      return dsl.linear(dsl.mergeHeads(mixed), matrix('head', 6, 4));
    };
    const graph = narrowed(body);
    const attention = graph.nodes.find((node) => isOp(node, 'attention'));
    expect(attention?.type.shape).toEqual(['T', 2, 2]);
    const after = graph.nodes.slice(graph.nodes.findIndex((node) => node === attention) + 1);
    expect(
      after.filter((node) => node.op !== 'input').map((node) => `${node.op} [${node.type.shape.join(', ')}]`),
    ).toEqual(['last [1, 2, 2]', 'reshape [1, 4]', 'weight [6, 4]', 'linear [1, 6]', 'sample [1]']);
    expectSameOutputs(body);
  });

  it('narrows the part of a value that only the last row is wanted of', () => {
    const body = (): dsl.Tensor => {
      const x = dsl.linear(embedded(), matrix('w', 4, 4));
      const heads = dsl.splitHeads(x, 2);
      const mixed = dsl.mergeHeads(dsl.attention(heads, heads, heads, { causal: true }));
      return dsl.linear(dsl.add(x, mixed), matrix('head', 6, 4));
    };
    const graph = narrowed(body);
    const linears = graph.nodes.filter((node) => isOp(node, 'linear')).map((node) => node.type.shape);
    expect(linears, 'attention needs x for every token, the head does not').toEqual([
      ['T', 4],
      [1, 6],
    ]);
    expect(
      graph.nodes
        .filter((node) => isOp(node, 'last'))
        .map((node) => node.inputs[0]?.op)
        .sort(),
    ).toEqual(['attention', 'linear']);
    expectSameOutputs(body);
  });

  it('leaves a bias without a token axis as it is', () => {
    const body = (): dsl.Tensor =>
      dsl.linear(dsl.add(embedded(), dsl.weight('norm', [4])), matrix('head', 6, 4));
    const add = narrowed(body).nodes.find((node) => isOp(node, 'add'));
    expect(add?.inputs.map((input) => input.op)).toEqual(['embed', 'weight']);
    expect(add?.type.shape).toEqual([1, 4]);
    expectSameOutputs(body);
  });

  it.each(['decode', 'score'] as const)('does nothing to %s, which has no last', (name) => {
    const before = entryOf(graphOf(gatedMlp), name, []).graph;
    expect(formatGraph(narrowed(gatedMlp, name))).toBe(formatGraph(before));
  });
});
