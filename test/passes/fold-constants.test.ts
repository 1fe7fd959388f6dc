import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { makeGraph, makeNode, type Graph } from '../../src/ir/graph.js';
import { formatGraph } from '../../src/ir/text.js';
import { foldConstants } from '../../src/passes/fold-constants.js';
import { targets } from '../../src/passes/target.js';
import { entryOf, graphOf } from '../support/graphs.js';

const context = { target: targets.cpu };

const embedded = (): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [6, 4]));

const scoreOf = (graph: Graph): Graph => entryOf(graph, 'score', [foldConstants]).graph;
const folded = (body: () => dsl.Tensor): string => formatGraph(scoreOf(graphOf(body)));
/** The ops that are left, and the factors of scales. */
const left = (body: () => dsl.Tensor): string[] =>
  scoreOf(graphOf(body))
    .nodes.filter(({ op }) => op !== 'input' && op !== 'weight')
    .map((node) => (node.op === 'scale' ? `scale ${node.attrs.by}` : node.op));

const scales = (...factors: readonly number[]): dsl.Tensor =>
  factors.reduce((x, by) => dsl.scale(x, { by }), embedded());

describe('fold-constants', () => {
  it('multiplies the factors of a chain of scales, at the place of the last', () => {
    expect(folded(() => scales(2, 3, 0.25))).toMatchInlineSnapshot(`
      "graph small (T = 8, C = 64) {
        %tokens = input : i32[T]
        @table : f32[6, 4]
        %embed = embed %tokens, @table : f32[T, 4]
        %scale = scale %embed { by: 1.5 } : f32[T, 4]
        return logits = %scale
      }
      "
    `);
  });

  it('reads past a scale that others read too', () => {
    expect(
      folded(() => {
        const half = dsl.scale(embedded(), { by: 0.5 });
        return dsl.add(half, dsl.scale(half, { by: -1 }));
      }),
    ).toMatchInlineSnapshot(`
      "graph small (T = 8, C = 64) {
        %tokens = input : i32[T]
        @table : f32[6, 4]
        %embed = embed %tokens, @table : f32[T, 4]
        %scale = scale %embed { by: 0.5 } : f32[T, 4]
        %scale.1 = scale %embed { by: -0.5 } : f32[T, 4]
        %add = add %scale, %scale.1 : f32[T, 4]
        return logits = %add
      }
      "
    `);
  });

  it('takes out scales by 1, and those that come to it', () => {
    expect(left(() => scales(1))).toEqual(['embed']);
    expect(left(() => scales(4, 1, 0.25))).toEqual(['embed']);
  });

  it('keeps a scale by 1 that makes a weight f32', () => {
    const body = (): dsl.Tensor => dsl.add(embedded(), dsl.scale(dsl.weight('bias', [4]), { by: 1 }));
    expect(formatGraph(scoreOf(graphOf(body, 'bf16')))).toContain('scale @bias { by: 1 } : f32[4]');
    expect(formatGraph(scoreOf(graphOf(body, 'f32')))).not.toContain('scale');
  });

  it('keeps factors apart whose product f32 does not hold in full', () => {
    expect(left(() => scales(1e30, 1e30))).toEqual(['embed', 'scale 1e+30', 'scale 1e+30']);
    expect(left(() => scales(1e-20, 1e-20))).toEqual(['embed', 'scale 1e-20', 'scale 1e-20']);
    expect(left(() => scales(0, 5))).toEqual(['embed', 'scale 0']);
  });

  it('reshapes once, and not to the shape there is', () => {
    expect(
      folded(() => {
        const pairs = dsl.reshape(dsl.reshape(embedded(), { shape: ['T', 4, 1] }), { shape: ['T', 2, 2] });
        return dsl.mergeHeads(dsl.silu(dsl.reshape(pairs, { shape: ['T', 2, 2] })));
      }),
    ).toMatchInlineSnapshot(`
      "graph small (T = 8, C = 64) {
        %tokens = input : i32[T]
        @table : f32[6, 4]
        %embed = embed %tokens, @table : f32[T, 4]
        %reshape = reshape %embed { shape: ["T",2,2] } : f32[T, 2, 2]
        %silu = silu %reshape : f32[T, 2, 2]
        %reshape.1 = reshape %silu { shape: ["T",4] } : f32[T, 4]
        return logits = %reshape.1
      }
      "
    `);
    expect(left(() => dsl.mergeHeads(dsl.splitHeads(embedded(), 2)))).toEqual(['embed']);
  });

  it('takes out a split into one part and no other', () => {
    expect(left(() => dsl.split(embedded(), [4])[0])).toEqual(['embed']);
    expect(left(() => dsl.split(embedded(), [1, 3])[1])).toEqual(['embed', 'split']);
  });

  it('takes the last row of one row for the row', () => {
    const entry = entryOf(graphOf(embedded), 'prefill', []);
    const [first = makeNode('input', [], { name: 'x', dtype: 'f32', shape: [] })] =
      entry.graph.outputs.values();
    const graph = makeGraph({
      ...entry.graph,
      outputs: new Map([['logits', makeNode('last', [first], {})]]),
    });
    const [logits] = foldConstants.run({ ...entry, graph }, context).graph.outputs.values();
    expect(logits).toBe(first);
  });

  it('leaves what computes something', () => {
    const body = (): dsl.Tensor => {
      const x = dsl.rmsNorm(embedded(), dsl.weight('norm', [4]), { eps: 1e-5 });
      const [gate, up] = dsl.split(dsl.linear(x, dsl.weight('up', [16, 4])), [8, 8]);
      return dsl.linear(dsl.scale(dsl.mul(dsl.silu(gate), up), { by: 2 }), dsl.weight('down', [4, 8]));
    };
    const before = entryOf(graphOf(body), 'score', []).graph;
    expect(scoreOf(graphOf(body)).nodes.map(({ op }) => op)).toEqual(before.nodes.map(({ op }) => op));
  });
});
