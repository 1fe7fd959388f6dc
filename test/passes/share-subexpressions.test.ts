import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isOp, type Graph } from '../../src/ir/graph.js';
import { formatGraph } from '../../src/ir/text.js';
import { shareSubexpressions } from '../../src/passes/share-subexpressions.js';
import { entryOf, graphOf } from '../support/graphs.js';

const embedded = (): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [6, 4]));
const square = (name: string): dsl.Tensor => dsl.weight(name, [4, 4]);

const shared = (body: () => dsl.Tensor): Graph =>
  entryOf(graphOf(body), 'score', [shareSubexpressions]).graph;
const unshared = (body: () => dsl.Tensor): Graph => entryOf(graphOf(body), 'score', []).graph;
const count = ({ nodes }: Graph, op: dsl.Tensor['op']): number =>
  nodes.filter((node) => node.op === op).length;

describe('share-subexpressions', () => {
  it('norms and turns once what a model norms for q, k and v apart, and turns for both', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      const normed = (): dsl.Tensor => dsl.rmsNorm(x, dsl.weight('norm', [4]), { eps: 1e-5 });
      const turned = (): dsl.Tensor => dsl.rope(dsl.splitHeads(normed(), 2), { theta: 10 });
      const v = dsl.splitHeads(dsl.linear(normed(), square('v')), 2);
      return dsl.mergeHeads(dsl.attention(turned(), turned(), v, { causal: true }));
    };
    expect(formatGraph(shared(body))).toMatchInlineSnapshot(`
      "graph small (T = 8, C = 64) {
        %tokens = input : i32[T]
        %position = input : i32[]
        %k_cache.0 = state : f32[C, 2, 2]
        %v_cache.0 = state : f32[C, 2, 2]
        %rope_table = rope_table { theta: 10, dims: 2 } : f32[C, 2]
        @table : f32[6, 4]
        @norm : f32[4]
        @v : f32[4, 4]
        %embed = embed %tokens, @table : f32[T, 4]
        %rms_norm = rms_norm %embed, @norm { eps: 0.00001 } : f32[T, 4]
        %reshape = reshape %rms_norm { shape: ["T",2,2] } : f32[T, 2, 2]
        %rope = rope %reshape, %rope_table, %position : f32[T, 2, 2]
        %cache_append = cache_append %k_cache.0, %rope, %position : f32[C, 2, 2]
        %linear = linear %rms_norm, @v : f32[T, 4]
        %reshape.1 = reshape %linear { shape: ["T",2,2] } : f32[T, 2, 2]
        %cache_append.1 = cache_append %v_cache.0, %reshape.1, %position : f32[C, 2, 2]
        %attention = attention %rope, %cache_append, %cache_append.1, %position { causal: true } : f32[T, 2, 2]
        %reshape.2 = reshape %attention { shape: ["T",4] } : f32[T, 4]
        update %k_cache.0 = %cache_append
        update %v_cache.0 = %cache_append.1
        return logits = %reshape.2
      }
      "
    `);
  });

  it('shares what follows from shared values', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      const chain = (): dsl.Tensor => dsl.silu(dsl.scale(dsl.linear(x, square('w')), { by: 3 }));
      return dsl.add(dsl.mul(chain(), x), chain());
    };
    expect(count(unshared(body), 'linear')).toBe(2);
    const once = (['linear', 'scale', 'silu'] as const).map((op) => count(shared(body), op));
    expect(once).toEqual([1, 1, 1]);
  });

  it('keeps the first, with its layer', () => {
    const graph = shared(() => {
      const x = embedded();
      return dsl.layers(2, 'layers', x, (h) => dsl.add(h, dsl.silu(x)));
    });
    expect(graph.nodes.filter((node) => isOp(node, 'silu')).map(({ origin }) => origin.layer)).toEqual([0]);
  });

  it.each<[string, (x: dsl.Tensor) => readonly [dsl.Tensor, dsl.Tensor]]>([
    ['attributes', (x) => [dsl.scale(x, { by: 2 }), dsl.scale(x, { by: 3 })]],
    ['an input', (x) => [dsl.silu(x), dsl.silu(dsl.silu(x))]],
    ['the order of inputs', (x) => [dsl.mul(x, dsl.silu(x)), dsl.mul(dsl.silu(x), x)]],
    ['the op', (x) => [dsl.silu(x), dsl.gelu(x)]],
    ['a weight', (x) => [dsl.linear(x, square('a')), dsl.linear(x, square('b'))]],
    ['a bias', (x) => [dsl.linear(x, square('a')), dsl.linear(x, square('a'), dsl.weight('b', [4]))]],
    ['the part of a split', (x) => dsl.split(dsl.linear(x, dsl.weight('ab', [8, 4])), [4, 4])],
  ])('keeps apart what differs in %s', (_, pair) => {
    const [a, b] = shared(() => dsl.add(...pair(embedded()))).outputs.get('logits')?.inputs ?? [];
    expect([a?.type.shape, b?.type.shape]).toEqual([
      ['T', 4],
      ['T', 4],
    ]);
    expect(a).not.toBe(b);
  });

  it('keeps caches apart, whatever is appended', () => {
    const graph = shared(() => {
      const heads = dsl.splitHeads(embedded(), 1);
      return dsl.mergeHeads(dsl.attention(heads, heads, heads, { causal: true }));
    });
    expect(count(graph, 'cache_append')).toBe(2);
    expect(new Set(graph.updates.values()).size).toBe(2);
  });
});
