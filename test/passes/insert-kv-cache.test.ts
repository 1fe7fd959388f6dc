import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isOp, type Graph } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import { formatGraph } from '../../src/ir/text.js';
import { verifyGraph } from '../../src/ir/verify.js';
import { insertKvCache } from '../../src/passes/insert-kv-cache.js';
import { graphOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';

/** Two layers of attention, keys turned, over one head of width 4. */
const graph = (options: { readonly causal: boolean; readonly window?: number } = { causal: true }): Graph =>
  graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 4]));
    const y = dsl.layers(2, 'layers', x, (h) => {
      const heads = dsl.splitHeads(h, 1);
      return dsl.mergeHeads(dsl.attention(heads, dsl.rope(heads, { theta: 10 }), heads, options));
    });
    return dsl.linear(y, dsl.weight('head', [10, 4]));
  });

const program = insertKvCache(graph(), { context: 32, chunk: 8 });
const entry = (name: string): Graph => {
  const found = program.entries.get(name);
  if (!found) throw new Error(`no entry ${name}`);
  return found;
};

describe('insert-kv-cache', () => {
  it('makes the three entry points, each sound', () => {
    expect([...program.entries.keys()]).toEqual(['decode', 'prefill', 'score']);
    for (const made of program.entries.values()) verifyGraph(made, 'insert-kv-cache');
  });

  it('decodes one token with its greedy successor', () => {
    expect(formatGraph(entry('decode'))).toMatchInlineSnapshot(`
      "graph small (T = 1, C = 32) {
        %tokens = input : i32[T]
        %position = input : i32[]
        %sampling = input : f32[4]
        %seed = input : i32[]
        %k_cache.0 = state : f32[C, 1, 4]
        %v_cache.0 = state : f32[C, 1, 4]
        %k_cache.1 = state : f32[C, 1, 4]
        %v_cache.1 = state : f32[C, 1, 4]
        %rope_table = rope_table { theta: 10, dims: 4 } : f32[C, 4]
        @table : f32[10, 4]
        @head : f32[10, 4]
        %embed = embed %tokens, @table : f32[T, 4]
        %reshape = reshape %embed { shape: ["T",1,4] } : f32[T, 1, 4] in layers.0
        %rope = rope %reshape, %rope_table, %position : f32[T, 1, 4] in layers.0
        %cache_append = cache_append %k_cache.0, %rope, %position : f32[C, 1, 4] in layers.0
        %cache_append.1 = cache_append %v_cache.0, %reshape, %position : f32[C, 1, 4] in layers.0
        %attention = attention %reshape, %cache_append, %cache_append.1, %position { causal: true } : f32[T, 1, 4] in layers.0
        %reshape.1 = reshape %attention { shape: ["T",4] } : f32[T, 4] in layers.0
        %reshape.2 = reshape %reshape.1 { shape: ["T",1,4] } : f32[T, 1, 4] in layers.1
        %rope.1 = rope %reshape.2, %rope_table, %position : f32[T, 1, 4] in layers.1
        %cache_append.2 = cache_append %k_cache.1, %rope.1, %position : f32[C, 1, 4] in layers.1
        %cache_append.3 = cache_append %v_cache.1, %reshape.2, %position : f32[C, 1, 4] in layers.1
        %attention.1 = attention %reshape.2, %cache_append.2, %cache_append.3, %position { causal: true } : f32[T, 1, 4] in layers.1
        %reshape.3 = reshape %attention.1 { shape: ["T",4] } : f32[T, 4] in layers.1
        %linear = linear %reshape.3, @head : f32[T, 10]
        %sample = sample %linear, %tokens, %position, %sampling, %seed : i32[1]
        update %k_cache.0 = %cache_append
        update %v_cache.0 = %cache_append.1
        update %k_cache.1 = %cache_append.2
        update %v_cache.1 = %cache_append.3
        return logits = %linear, next = %sample
      }
      "
    `);
  });

  it('prefills a chunk for its last logits', () => {
    expect(entry('prefill').dims).toEqual({ T: 8, C: 32 });
    const next = entry('prefill').outputs.get('next');
    expect([next?.op, next?.inputs[0]?.op, next?.inputs[0]?.inputs[0]?.op]).toEqual([
      'sample',
      'last',
      'linear',
    ]);
    expect([...entry('prefill').outputs].map(([name, node]) => [name, node.op])).toEqual([
      ['logits', 'last'],
      ['next', 'sample'],
    ]);
  });

  it('scores every token of a chunk', () => {
    expect(entry('score').dims).toEqual({ T: 8, C: 32 });
    expect([...entry('score').outputs].map(([name, node]) => [name, node.op])).toEqual([
      ['logits', 'linear'],
    ]);
  });

  it('shares states and their updates among the entries', () => {
    const states = (made: Graph): string[] => [...made.updates.keys()].map((state) => state.attrs.name);
    expect(states(entry('decode'))).toEqual(['k_cache.0', 'v_cache.0', 'k_cache.1', 'v_cache.1']);
    for (const name of ['prefill', 'score']) expect(entry(name).updates).toBe(entry('decode').updates);
  });

  it('attends to what the step appended, from the position on', () => {
    for (const made of program.entries.values()) {
      const attentions = made.nodes.filter((node) => isOp(node, 'attention'));
      expect(attentions).toHaveLength(2);
      for (const { inputs } of attentions)
        expect(inputs.map((input) => input.op)).toEqual(['reshape', 'cache_append', 'cache_append', 'input']);
    }
  });

  describe('of attention with a window', () => {
    const windowed = (window: number, chunk: number, context = 40): ReadonlyMap<string, Graph> =>
      insertKvCache(graph({ causal: true, window }), { context, chunk }).entries;
    const rows = (entries: ReadonlyMap<string, Graph>): unknown[] =>
      [...(entries.get('decode')?.updates.keys() ?? [])].map((state) => state.type.shape[0]);

    it('keeps the window and a chunk, and never more than the context', () => {
      expect(rows(windowed(5, 8))).toEqual([13, 13, 13, 13]);
      expect(rows(windowed(31, 8))).toEqual([39, 39, 39, 39]);
      expect(rows(windowed(32, 8))).toEqual(['C', 'C', 'C', 'C']);
      expect(rows(windowed(1000, 8))).toEqual(['C', 'C', 'C', 'C']);
      for (const made of windowed(5, 8).values()) verifyGraph(made, 'insert-kv-cache');
    });

    const weights = (name: string): Float64Array =>
      Float64Array.from({ length: 40 }, (_, i) => Math.sin(name.length + 1.7 * i));
    const text = Array.from({ length: 40 }, (_, i) => (7 * i * i + 3 * i) % 10);

    it.each([
      [1, 1],
      [1, 4],
      [3, 1],
      [5, 4],
      [2, 9],
    ])('finds every key in a ring, window %i, chunk %i, also after going back', (window, chunk) => {
      const model = graph({ causal: true, window });
      const meant = interpret(
        { ...model, dims: { C: 40 } },
        { inputs: new Map([['tokens', text]]), weights },
      );
      const score = windowed(window, chunk).get('score');
      expect(score && rows(new Map([['decode', score]]))[0]).toBe(window + chunk);
      if (!score) return;
      let states: ReadonlyMap<string, Float64Array> = new Map(
        [...score.updates.keys()].map(({ attrs }) => [
          attrs.name,
          // Nobody may read what was not appended.
          new Float64Array((window + chunk) * 4).fill(Number.NaN),
        ]),
      );
      let position = 0;
      let steps = 0;
      while (position < text.length) {
        const tokens = text.slice(position, position + chunk);
        const inputs = new Map([
          ['tokens', tokens],
          ['position', [position]],
        ]);
        const result = interpret(score, { inputs, weights, states });
        const logits = [...(result.outputs.get('logits')?.data ?? [])];
        const expected = meant.outputs
          .get('logits')
          ?.data.slice(position * 10, (position + tokens.length) * 10);
        expect(logits).toEqual([...(expected ?? [])]);
        states = result.states;
        // Every third step goes back by a chunk, as far as it may, and does what it did again.
        position += ++steps % 3 === 0 ? 0 : tokens.length;
      }
      expect(steps).toBeGreaterThan(text.length / chunk);
    });
  });

  it('refuses a model that asks for the last token', () => {
    const last = graphOf(() => {
      const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 4]));
      const heads = dsl.splitHeads(x, 1);
      const mixed = dsl.attention(heads, dsl.last(heads), dsl.last(heads), { causal: true });
      return dsl.linear(dsl.mergeHeads(mixed), dsl.weight('head', [10, 4]));
    });
    expect(renderedError(() => insertKvCache(last, { context: 32, chunk: 8 }), '/')).toMatchInlineSnapshot(`
      "unsupported: last: which token is the last depends on the step, so a model cannot ask for it
       note: return the logits of every token: generation takes the last row by itself"
    `);
  });

  it('refuses attention that sees later tokens', () => {
    const open = graph({ causal: false });
    expect(renderedError(() => insertKvCache(open, { context: 32, chunk: 8 }), import.meta.dirname))
      .toMatchInlineSnapshot(`
      "unsupported: attention that is not causal cannot be generated from token by token
       note: pass { causal: true }"
    `);
  });
});
