import { expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { formatGraph, valueNames } from '../../src/ir/text.js';
import { insertKvCache } from '../../src/passes/insert-kv-cache.js';
import { graphOf } from '../support/graphs.js';

const graph = graphOf(() =>
  dsl.scope('model', () => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8]));
    const [a, b] = dsl.split(x, [4, 4]);
    const q = dsl.rope(dsl.splitHeads(a, 2), { theta: 100 });
    const kv = dsl.splitHeads(b, 1);
    const narrow = dsl.reshape(kv, { shape: ['T', 2, 2] });
    const y = dsl.attention(q, narrow, narrow, { causal: true, scale: 0.25 });
    return dsl.linear(dsl.scale(dsl.mergeHeads(y), { by: 2 }), dsl.weight('head', [10, 4]));
  }),
);

it('prints a graph one node a line, weights where they are used', () => {
  expect(formatGraph(graph)).toMatchInlineSnapshot(`
    "graph small {
      %tokens = input : i32[T]
      %rope_table = rope_table { theta: 100, dims: 2 } : f32[C, 2]
      @model.table : f32[10, 8]
      @model.head : f32[10, 4]
      %embed = embed %tokens, @model.table : f32[T, 8] in model
      %split = split %embed { sizes: [4,4], part: 0 } : f32[T, 4] in model
      %reshape = reshape %split { shape: ["T",2,2] } : f32[T, 2, 2] in model
      %rope = rope %reshape, %rope_table : f32[T, 2, 2] in model
      %split.1 = split %embed { sizes: [4,4], part: 1 } : f32[T, 4] in model
      %reshape.1 = reshape %split.1 { shape: ["T",1,4] } : f32[T, 1, 4] in model
      %reshape.2 = reshape %reshape.1 { shape: ["T",2,2] } : f32[T, 2, 2] in model
      %attention = attention %rope, %reshape.2, %reshape.2 { causal: true, scale: 0.25 } : f32[T, 2, 2] in model
      %reshape.3 = reshape %attention { shape: ["T",4] } : f32[T, 4] in model
      %scale = scale %reshape.3 { by: 2 } : f32[T, 4] in model
      %linear = linear %scale, @model.head : f32[T, 10] in model
      return logits = %linear
    }
    "
  `);
});

it('prints states, dims and updates', () => {
  const decode = insertKvCache(graph, { context: 32, chunk: 8 }).entries.get('decode');
  expect(decode && formatGraph(decode)).toMatchInlineSnapshot(`
    "graph small (T = 1, C = 32) {
      %tokens = input : i32[T]
      %position = input : i32[]
      %sampling = input : f32[4]
      %seed = input : i32[]
      %k_cache.0 = state : f32[C, 2, 2]
      %v_cache.0 = state : f32[C, 2, 2]
      %rope_table = rope_table { theta: 100, dims: 2 } : f32[C, 2]
      @model.table : f32[10, 8]
      @model.head : f32[10, 4]
      %embed = embed %tokens, @model.table : f32[T, 8] in model
      %split = split %embed { sizes: [4,4], part: 0 } : f32[T, 4] in model
      %reshape = reshape %split { shape: ["T",2,2] } : f32[T, 2, 2] in model
      %rope = rope %reshape, %rope_table, %position : f32[T, 2, 2] in model
      %split.1 = split %embed { sizes: [4,4], part: 1 } : f32[T, 4] in model
      %reshape.1 = reshape %split.1 { shape: ["T",1,4] } : f32[T, 1, 4] in model
      %reshape.2 = reshape %reshape.1 { shape: ["T",2,2] } : f32[T, 2, 2] in model
      %cache_append = cache_append %k_cache.0, %reshape.2, %position : f32[C, 2, 2] in model
      %cache_append.1 = cache_append %v_cache.0, %reshape.2, %position : f32[C, 2, 2] in model
      %attention = attention %rope, %cache_append, %cache_append.1, %position { causal: true, scale: 0.25 } : f32[T, 2, 2] in model
      %reshape.3 = reshape %attention { shape: ["T",4] } : f32[T, 4] in model
      %scale = scale %reshape.3 { by: 2 } : f32[T, 4] in model
      %linear = linear %scale, @model.head : f32[T, 10] in model
      %sample = sample %linear, %tokens, %position, %sampling, %seed : i32[1]
      update %k_cache.0 = %cache_append
      update %v_cache.0 = %cache_append.1
      return logits = %linear, next = %sample
    }
    "
  `);
});

it('names every value, no two alike', () => {
  const names = [...valueNames(graph.nodes).values()];
  expect(names).toHaveLength(graph.nodes.length);
  expect(new Set(names).size).toBe(names.length);
});

it('keeps the names apart when a variable is called like a numbered op', () => {
  const made = graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8]));
    const site = { span: { file: 'm.ts', line: 1, column: 1, length: 1 }, name: 'silu.1' };
    return dsl.silu(dsl.silu(dsl.at(site, dsl.silu)(x)));
  });
  const names = [...valueNames(made.nodes).values()];
  expect(new Set(names).size).toBe(names.length);
});
