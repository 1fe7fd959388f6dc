import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/diagnostic.js';
import * as dsl from '../../src/ir/dsl.js';
import { add, buildGraph, linear, model, tokens, weight, z } from '../../src/ir/dsl.js';
import { isOp } from '../../src/ir/graph.js';
import { formatType } from '../../src/ir/type.js';
import { graphOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';

const embedded = (): dsl.Tensor => dsl.embed(tokens(), weight('table', [10, 4]));
const refused = (body: () => dsl.Tensor): string => renderedError(() => graphOf(body), import.meta.dirname);

describe('scopes and layers', () => {
  it('name weights by the scopes around them', () => {
    const names: string[] = [];
    const graph = graphOf(() =>
      dsl.scope('model', () =>
        dsl.layers(2, 'layers', embedded(), (x, i) => {
          names.push(String(i));
          return dsl.scope('mlp', () => linear(x, weight('w', [4, 4])));
        }),
      ),
    );
    expect(names).toEqual(['0', '1']);
    const weights = graph.nodes.filter((node) => isOp(node, 'weight')).map((node) => node.attrs.name);
    expect(weights).toEqual(['model.table', 'model.layers.0.mlp.w', 'model.layers.1.mlp.w']);
  });

  it('mark nodes with their layer and scope, and nothing outside of them', () => {
    const graph = graphOf(() =>
      add(
        dsl.layers(2, 'h', embedded(), (x) => dsl.silu(x)),
        embedded(),
      ),
    );
    const marks = graph.nodes
      .filter((node) => isOp(node, 'embed', 'silu', 'add'))
      .map((node) => [node.op, node.origin.layer, node.origin.scope]);
    expect(marks).toEqual([
      ['embed', undefined, ''],
      ['silu', 0, 'h.0'],
      ['silu', 1, 'h.1'],
      ['embed', undefined, ''],
      ['add', undefined, ''],
    ]);
  });

  it('end when the body throws', () => {
    const graph = graphOf(() => {
      expect(() =>
        dsl.scope('inner', () => {
          throw new Error('on purpose');
        }),
      ).toThrow('on purpose');
      return embedded();
    });
    expect(graph.nodes.filter((node) => isOp(node, 'weight')).map((node) => node.attrs.name)).toEqual([
      'table',
    ]);
  });
});

describe('leaves', () => {
  it('are made once', () => {
    const graph = graphOf(() => {
      expect(tokens()).toBe(tokens());
      expect(weight('table', [10, 4])).toBe(weight('table', [10, 4]));
      const x = dsl.splitHeads(embedded(), 2);
      const turned = dsl.rope(dsl.rope(x, { theta: 100 }), { theta: 100, dims: 2 });
      return dsl.mergeHeads(dsl.rope(turned, { theta: 200 }));
    });
    const tables = graph.nodes.filter((node) => isOp(node, 'rope_table')).map((node) => node.attrs);
    expect(tables).toEqual([
      { theta: 100, dims: 2 },
      { theta: 200, dims: 2 },
    ]);
  });

  it('have one shape', () => {
    expect(
      refused(() => add(linear(embedded(), weight('w', [4, 4])), weight('w', [4]))),
    ).toMatchInlineSnapshot(`"error: weight 'w' was f32[4, 4] before, now [4]"`);
    expect(
      refused(() =>
        linear(linear(embedded(), weight('w', [4, 4])), weight('w', [4, 4], { transposed: true })),
      ),
    ).toMatchInlineSnapshot(`"error: weight 'w' was f32[4, 4] before, now [4, 4] transposed"`);
  });

  it('take their element type from the checkpoint, else from the model', () => {
    const graph = buildGraph(
      'm',
      { dtype: 'bf16', dtypeOf: (name) => (name === 'w' ? 'f16' : undefined) },
      () => linear(embedded(), weight('w', [4, 4])),
    );
    const types = graph.nodes.filter((node) => isOp(node, 'weight')).map((node) => formatType(node.type));
    expect(types).toEqual(['bf16[10, 4]', 'f16[4, 4]']);
  });
});

describe('refusals', () => {
  it('of attributes that do not satisfy the op', () => {
    expect(refused(() => dsl.rmsNorm(embedded(), weight('n', [4]), { eps: 0 }))).toMatchInlineSnapshot(
      `"error: rms_norm: eps: Too small: expected number to be >0"`,
    );
  });

  it('of tensors that are missing', () => {
    const loose = dsl.linear as (...args: unknown[]) => dsl.Tensor;
    expect(refused(() => loose(embedded()))).toMatchInlineSnapshot(
      `"error: linear: expected 2 tensors (x, weight, bias?), got 1"`,
    );
  });

  it('of splitHeads that does not divide', () => {
    expect(refused(() => dsl.splitHeads(embedded(), 3))).toMatchInlineSnapshot(
      `"error: splitHeads: the last axis of x f32[T, 4] must be a multiple of 3 heads"`,
    );
  });

  it('of rope with an odd number of dims', () => {
    expect(
      refused(() => dsl.rope(dsl.splitHeads(embedded(), 1), { theta: 1, dims: 3 })),
    ).toMatchInlineSnapshot(`"error: rope_table: dims: Invalid number: must be a multiple of 2"`);
  });

  it('name the scope and the weight in it', () => {
    try {
      graphOf(() => dsl.scope('model.norm', () => dsl.rmsNorm(embedded(), weight('w', [5]), { eps: 1 })));
      expect.unreachable();
    } catch (error) {
      expect(error).toBeInstanceOf(UserError);
      expect((error as UserError).detail.within).toBe('model.norm › w');
    }
  });

  it('of logits that are none', () => {
    expect([
      refused(() => dsl.last(embedded())),
      refused(() => dsl.argmax(embedded())),
      refused(() => dsl.splitHeads(embedded(), 2)),
      refused(() => 'text' as unknown as dsl.Tensor),
    ]).toMatchInlineSnapshot(`
      [
        "error: model small must return logits f32[T, V], not f32[1, 4]",
        "error: model small must return logits f32[T, V], not i32[T]",
        "error: model small must return logits f32[T, V], not f32[T, 2, 2]",
        "error: model small: the graph must return a tensor, the logits f32[T, V]",
      ]
    `);
  });

  it('of ops outside a model', () => {
    expect(renderedError(() => tokens(), import.meta.dirname)).toMatchInlineSnapshot(
      `"error: tokens can only be called while a model is built"`,
    );
  });

  it('of nothing else: a failed build leaves no model open', () => {
    expect(() => graphOf(() => dsl.splitHeads(embedded(), 3))).toThrow(UserError);
    expect(() => tokens()).toThrow('can only be called while a model is built');
  });
});

describe('model', () => {
  const small = model(
    {
      name: 'small',
      config: z.object({ size: z.int().default(4), limit: z.int().default(32) }),
      dtype: 'f16',
      context: (c) => c.limit,
    },
    (c) => dsl.embed(tokens(), weight('table', [10, c.size])),
  );

  it('builds from the defaults', () => {
    const { graph, context } = small.build({});
    expect(graph.name).toBe('small');
    expect(formatType(graph.outputs.get('logits')?.type ?? { dtype: 'f32', shape: [] })).toBe('f32[T, 4]');
    expect(graph.nodes.filter((node) => isOp(node, 'weight')).map((node) => node.type.dtype)).toEqual([
      'f16',
    ]);
    expect(context).toBe(32);
  });

  it('builds from a config, and ignores what it does not know', () => {
    const { graph, context } = small.build({ size: 6, limit: 8, other: true });
    expect(graph.outputs.get('logits')?.type.shape).toEqual(['T', 6]);
    expect(context).toBe(8);
  });

  it('refuses a config of another form', () => {
    expect(() => small.build({ size: 'big' })).toThrow(z.ZodError);
  });
});
