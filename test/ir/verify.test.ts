import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { isOp, makeGraph, makeNode, type Graph, type Node } from '../../src/ir/graph.js';
import { f32, i32 } from '../../src/ir/type.js';
import { verifyGraph } from '../../src/ir/verify.js';
import { graphOf, inputOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';

/** input tokens, weight table, embed, weight w, linear, add. */
const sound = graphOf(() => {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 4]));
  return dsl.add(x, dsl.linear(x, dsl.weight('w', [4, 4])));
});

function nodeOf(op: Node['op']): Node {
  const node = sound.nodes.find((candidate) => candidate.op === op);
  if (!node) throw new Error(`no ${op}`);
  return node;
}

/** A node whose fields are not checked by the builder. */
function forged(node: Node, fields: Partial<Pick<Node, 'inputs' | 'type'>> & { attrs?: unknown }): Node {
  return { ...node, ...fields } as Node;
}

/** The sound graph with `node` as its output, in the order in which a builder would list it. */
function returning(node: Node): Graph {
  return makeGraph({ ...sound, outputs: new Map([['logits', node]]) });
}

const broken = (graph: Graph): string =>
  renderedError(() => verifyGraph(graph, 'a-pass'), import.meta.dirname);

describe('verifyGraph', () => {
  it('accepts a sound graph', () => {
    expect(() => verifyGraph(sound, 'a-pass')).not.toThrow();
  });

  it('1: a node that is listed twice', () => {
    expect(broken({ ...sound, nodes: [...sound.nodes, nodeOf('embed')] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: a node is listed twice
       note: %embed.1 = embed %tokens, @table : f32[T, 4]"
    `);
  });

  it('1: a node before its inputs', () => {
    expect(broken({ ...sound, nodes: [...sound.nodes].reverse() })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: a node comes before one of its inputs
       note: %add = add %embed, %linear : f32[T, 4]"
    `);
  });

  it('1: a node whose input is missing', () => {
    const nodes = sound.nodes.filter((node) => node.op !== 'embed');
    expect(broken({ ...sound, nodes })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: a node comes before one of its inputs
       note: %linear = linear ?, @w : f32[T, 4]"
    `);
  });

  it('2: too few and too many inputs', () => {
    const embed = nodeOf('embed');
    const [tokens = embed, table = embed] = embed.inputs;
    expect([
      broken(returning(forged(embed, { inputs: [tokens] }))),
      broken(returning(forged(embed, { inputs: [tokens, table, table] }))),
    ]).toMatchInlineSnapshot(`
      [
        "bug in upgc: after a-pass, graph small: embed takes ids, table, not 1 inputs
       note: %embed = embed %tokens : f32[T, 4]",
        "bug in upgc: after a-pass, graph small: embed takes ids, table, not 3 inputs
       note: %embed = embed %tokens, @table, @table : f32[T, 4]",
      ]
    `);
  });

  it('3: attributes that do not satisfy the schema', () => {
    const scaled = makeNode('scale', [nodeOf('embed')], { by: 2 });
    expect(broken(returning(forged(scaled, { attrs: { by: 'two' } })))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: attributes do not satisfy the schema
       note: %scale = scale %embed { by: "two" } : f32[T, 4]"
    `);
  });

  it('4: a type that is not what the op infers', () => {
    expect(broken(returning(forged(nodeOf('embed'), { type: f32('T', 5) })))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: the type should be f32[T, 4]
       note: %embed = embed %tokens, @table : f32[T, 5]"
    `);
  });

  it('4: inputs that the op refuses', () => {
    const linear = nodeOf('linear');
    const [x = linear] = linear.inputs;
    const wrong = inputOf('wrong', f32(4, 5));
    expect(broken(returning(forged(linear, { inputs: [x, wrong] })))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: the op refuses its inputs: the last axis of weight f32[4, 5] must match the last axis of x f32[T, 4]
       note: %linear = linear %embed, %wrong : f32[T, 4]"
    `);
  });

  it('5: no output', () => {
    expect(broken({ ...sound, outputs: new Map() })).toMatchInlineSnapshot(
      `"bug in upgc: after a-pass, graph small has no output"`,
    );
  });

  it('5: an output that is not in the graph', () => {
    const outside = makeNode('silu', [nodeOf('embed')], {});
    expect(broken({ ...sound, outputs: new Map([['logits', outside]]) })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: an output is not in the graph
       note: ? = silu %embed : f32[T, 4]"
    `);
  });

  const cache = makeNode('state', [], { name: 'k', dtype: 'f32', shape: ['C', 4] });
  const append = makeNode('cache_append', [cache, nodeOf('embed'), inputOf('start', i32())], {});

  it('5: an update that is not in the graph', () => {
    if (!isOp(cache, 'state')) throw new Error('not a state');
    expect(broken({ ...sound, updates: new Map([[cache, append]]) })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: an update is not in the graph
       note: ? = cache_append ?, %embed, ? : f32[C, 4]"
    `);
  });

  it('6: an update of another type than its state', () => {
    if (!isOp(cache, 'state')) throw new Error('not a state');
    const graph = makeGraph({ ...sound, updates: new Map([[cache, nodeOf('embed')]]) });
    expect(broken(graph)).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: an update of f32[C, 4] has another type
       note: %embed = embed %tokens, @table : f32[T, 4]"
    `);
    expect(() =>
      verifyGraph(makeGraph({ ...sound, updates: new Map([[cache, append]]) }), 'a-pass'),
    ).not.toThrow();
  });

  it('7: two leaves of one name', () => {
    const twin = makeNode('weight', [], { name: 'w', dtype: 'f32', shape: [4] });
    expect(broken(returning(makeNode('add', [nodeOf('add'), twin], {})))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: two leaves are called weight w
       note: @w : f32[4]"
    `);
    const tables = [1, 2].map(() => makeNode('rope_table', [], { theta: 10, dims: 4 }));
    const heads = makeNode('reshape', [nodeOf('embed')], { shape: ['T', 1, 4] });
    const turned = tables.reduce((x, table) => makeNode('rope', [x, table], {}), heads);
    expect(broken(returning(turned))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: two leaves are called rope_table theta 10 dims 4
       note: %rope_table.1 = rope_table { theta: 10, dims: 4 } : f32[C, 4]"
    `);
  });

  it('8: a dim of another name', () => {
    expect(broken(returning(inputOf('x', f32('S', 4))))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: dim S is not known
       note: %x = input : f32[S, 4]"
    `);
  });

  it('9: a node that nothing needs', () => {
    const dead = makeNode('silu', [nodeOf('embed')], {});
    expect(broken({ ...sound, nodes: [...sound.nodes, dead] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, graph small: no output or update needs a node
       note: %silu = silu %embed : f32[T, 4]"
    `);
  });
});
