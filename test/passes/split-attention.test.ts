import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isOp, type Node } from '../../src/ir/graph.js';
import { splitAttention } from '../../src/passes/split-attention.js';
import { targets } from '../../src/passes/target.js';
import { entryOf, graphOf } from '../support/graphs.js';

const target = targets.metal;

/** The nodes of an entry of one attention of `heads` heads of 64, over a long context. */
function nodesOf(
  name: 'decode' | 'prefill' | 'score',
  { heads = 8, context = 4096, window }: { heads?: number; context?: number; window?: number } = {},
): readonly Node[] {
  const graph = graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, heads * 64]));
    const q = dsl.splitHeads(x, heads);
    const sight = { causal: true, scale: 0.3, ...(window === undefined ? {} : { window }) };
    return dsl.mergeHeads(dsl.attention(q, q, q, sight));
  });
  return entryOf(graph, name, [splitAttention], { context, chunk: 8, target }).graph.nodes;
}

const cutsOf = (nodes: readonly Node[]): readonly number[] =>
  nodes.flatMap((node) => (isOp(node, 'attention_parts') ? [node.attrs.parts] : []));

describe('split-attention', () => {
  it('cuts the attention of a single token and combines its parts', () => {
    const nodes = nodesOf('decode');
    const [combine] = nodes.filter((node) => isOp(node, 'attention_combine'));
    const [cut] = combine?.inputs ?? [];
    expect(nodes.some((node) => isOp(node, 'attention'))).toBe(false);
    expect(cut?.type.shape).toEqual([1, 8, ...cutsOf(nodes), 66].map((n, i) => (i === 0 ? 'T' : n)));
    expect(cutsOf(nodes)[0]).toBeGreaterThan(1);
  });

  it('keeps what attention says of its rows', () => {
    const cut = nodesOf('decode', { window: 1024 }).find((node) => isOp(node, 'attention_parts'));
    expect(cut?.attrs).toMatchObject({ causal: true, scale: 0.3, window: 1024 });
  });

  it('makes more parts of longer contexts, none shorter than a block half-way, at most 32', () => {
    const parts = (context: number): number => cutsOf(nodesOf('decode', { context }))[0] ?? 1;
    const lengths = [64, 256, 1024, 4096, 16384, 131072];
    const counts = lengths.map(parts);
    expect(counts).toEqual(counts.toSorted((a, b) => a - b));
    counts.forEach((count, i) => {
      if (count > 1) expect((lengths[i] ?? 0) / 2 / count).toBeGreaterThanOrEqual(32);
    });
    expect(counts[0]).toBe(1);
    expect(counts.at(-1)).toBeLessThanOrEqual(32);
  });

  it('counts the rows of a window, not of the context', () => {
    const windowed = cutsOf(nodesOf('decode', { context: 131072, window: 1024 }));
    expect(windowed).toEqual(cutsOf(nodesOf('decode', { context: 1024 })));
  });

  it('leaves steps of more tokens, and machines that are busy with the heads alone', () => {
    expect(cutsOf(nodesOf('prefill'))).toEqual([]);
    expect(cutsOf(nodesOf('score'))).toEqual([]);
    const graph = graphOf(() => {
      const q = dsl.splitHeads(dsl.embed(dsl.tokens(), dsl.weight('table', [10, 64])), 4);
      return dsl.mergeHeads(dsl.attention(q, q, q, { causal: true }));
    });
    const { nodes } = entryOf(graph, 'decode', [splitAttention], {
      context: 4096,
      chunk: 8,
      target: targets.cpu,
    }).graph;
    expect(cutsOf(nodes)).toEqual([]);
  });
});
