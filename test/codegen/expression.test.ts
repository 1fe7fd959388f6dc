import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { makeNode, makeGraph, type Node } from '../../src/ir/graph.js';
import { f32, type DimBindings } from '../../src/ir/type.js';
import {
  cacheRow,
  elementIndex,
  floatLiteral,
  isPacked,
  iterationOf,
  rowPointer,
  rowStart,
  sum,
  times,
} from '../../src/codegen/expression.js';
import { emit } from '../../src/codegen/emit.js';
import { layoutOf } from '../../src/passes/access.js';
import { runPasses } from '../../src/passes/pipeline.js';
import { targets } from '../../src/passes/target.js';
import { graphOf, inputOf } from '../support/graphs.js';

const dims: DimBindings = { T: 8, C: 64 };

/** Metal text of the index at which `value` is read for element n of `as`, or of itself. */
function index(value: Node, as: Node = value, bound = dims): string {
  // A sum over the value keeps it from being an output, whose views are copied.
  const graph = makeGraph({
    name: 'g',
    outputs: new Map([['y', makeNode('silu', [value], {})]]),
    updates: new Map(),
    dims: bound,
  });
  return elementIndex(layoutOf({ graph, kernels: [] }).of(value), iterationOf(as.type, bound));
}

const x = inputOf('x', f32('T', 12));
const split = (value: Node, sizes: number[], part: number): Node =>
  makeNode('split', [value], { sizes, part });
const reshape = (value: Node, ...shape: (number | string)[]): Node => makeNode('reshape', [value], { shape });
const last = (value: Node): Node => makeNode('last', [value], {});

describe('cacheRow', () => {
  it('is the position where the cache holds the context, and wraps where it does not', () => {
    expect(['p', 'p + t'].map((position) => cacheRow(position, 'C'))).toEqual(['p', '(p + t)']);
    expect(['p', 'p + t'].map((position) => cacheRow(position, 40))).toEqual(['(p % 40)', '((p + t) % 40)']);
  });
});

describe('elementIndex', () => {
  it('of a whole row', () => {
    expect(index(x)).toBe('t * 12 + n');
    expect(index(x, x, { T: 1 })).toBe('n');
  });

  it('of a value that is repeated', () => {
    expect(index(inputOf('bias', f32(12)), x)).toBe('n');
    const heads = inputOf('heads', f32('T', 3, 4));
    expect(index(inputOf('bias', f32(4)), heads)).toBe('n % 4');
    expect(index(inputOf('bias', f32(3, 4)), heads)).toBe('n');
    expect(index(inputOf('one', f32()), x)).toBe('0');
  });

  it('of a part of a row', () => {
    expect(index(split(x, [5, 7], 0))).toBe('t * 12 + n');
    expect(index(split(x, [5, 7], 1))).toBe('t * 12 + 5 + n');
    expect(index(split(split(x, [4, 8], 1), [2, 6], 1))).toBe('t * 12 + 6 + n');
  });

  it('of heads inside a part', () => {
    expect(index(reshape(split(x, [4, 8], 1), 'T', 2, 4))).toBe('t * 12 + 4 + n');
  });

  it('of a part of every head', () => {
    const part = split(reshape(x, 'T', 3, 4), [1, 3], 1);
    expect(index(part)).toBe('t * 12 + 1 + (n / 3) * 4 + n % 3');
    expect(index(split(reshape(x, 'T', 3, 4), [3, 1], 1)), 'one of each').toBe('t * 12 + 3 + n * 4');
  });

  it('of axes of length 1', () => {
    expect(index(reshape(x, 'T', 1, 3, 1, 4))).toBe('t * 12 + n');
  });

  it('of the last token', () => {
    expect(index(last(x))).toBe('(step.tokens - 1) * 12 + n');
    expect(index(last(split(x, [5, 7], 1)))).toBe('(step.tokens - 1) * 12 + 5 + n');
    expect(index(last(x), last(x), { T: 1 }), 'there is but one').toBe('n');
    expect(index(last(inputOf('y', f32(3, 4))))).toBe('8 + n');
  });

  it('finds the element that the interpreter finds', () => {
    const views: readonly Node[] = [
      split(x, [5, 7], 1),
      split(reshape(x, 'T', 3, 4), [1, 3], 1),
      split(split(reshape(x, 'T', 2, 6), [2, 4], 1), [3, 1], 0),
      last(split(reshape(x, 'T', 3, 4), [1, 3], 1)),
    ];
    for (const view of views) {
      const tokens = 5;
      const width = view.type.shape.slice(1).reduce<number>((n, dim) => n * Number(dim), 1);
      const rows = view.type.shape[0] === 'T' ? tokens : 1;
      const data = Array.from({ length: tokens * 12 }, (_, i) => i);
      // The text is JavaScript too, but for integer division.
      const text = index(view).replaceAll(/n \/ (\d+)/g, 'Math.floor(n / $1)');
      const found = Array.from({ length: rows * width }, (_, i): unknown =>
        runInNewContext(text, { t: Math.floor(i / width), n: i % width, step: { tokens } }),
      );
      expect(found, text).toEqual(interpreted(view, data));
    }
  });
});

/** What a view of x is when element i of x is i. */
function interpreted(view: Node, data: number[]): number[] {
  if (view === x) return data;
  const [input = x] = view.inputs;
  const inner = interpreted(input, data);
  const inputWidth = input.type.shape.slice(1).reduce<number>((n, dim) => n * Number(dim), 1);
  if (view.op === 'last') return inner.slice(-inputWidth);
  if (view.op !== 'split') return inner;
  const axis = Number(input.type.shape.at(-1));
  const from = view.attrs.sizes.slice(0, view.attrs.part).reduce((a, b) => a + b, 0);
  const to = from + (view.attrs.sizes[view.attrs.part] ?? 0);
  return inner.filter((_, i) => i % axis >= from && i % axis < to);
}

describe('pointers', () => {
  it('leave out what is zero', () => {
    const graph = makeGraph({ name: 'g', outputs: new Map([['y', x]]), updates: new Map(), dims });
    const layout = layoutOf({ graph, kernels: [] });
    expect(rowStart(layout.of(x), iterationOf(x.type, { T: 1 }))).toBe('0');
    expect(rowPointer('x', layout.of(x), iterationOf(x.type, { T: 1 }))).toBe('x');
    expect(rowPointer('x', layout.of(x), iterationOf(x.type, dims))).toBe('x + t * 12');
    expect([sum('', '0'), sum('a', '0', 'b'), times('a', 1), times('a', 0), times('a', 3)]).toEqual([
      '0',
      'a + b',
      'a',
      '',
      'a * 3',
    ]);
  });
});

describe('isPacked', () => {
  it('tells whole values from strided ones', () => {
    const of = (value: Node): boolean => {
      const y = makeNode('silu', [value], {});
      const graph = makeGraph({ name: 'g', outputs: new Map([['y', y]]), updates: new Map(), dims });
      return isPacked(layoutOf({ graph, kernels: [] }).of(value));
    };
    expect([of(x), of(reshape(x, 'T', 3, 4))]).toEqual([true, true]);
    expect([of(split(x, [5, 7], 0)), of(split(x, [5, 7], 1)), of(last(x))]).toEqual([false, false, false]);
  });
});

describe('floatLiteral', () => {
  it('reads back as the same float', () => {
    for (const value of [0, 1, -2, 0.5, 1e-5, 1 / 3, Math.PI, 1e-30, 3e38, 16777217, 1 / Math.sqrt(128)]) {
      const text = floatLiteral(value);
      expect(text).toMatch(/^-?\d+(\.\d+)?(e[+-]?\d+)?f$/);
      expect(text).toMatch(/[.e]/);
      expect(Math.fround(Number(text.slice(0, -1)))).toBe(Math.fround(value));
    }
  });
});

describe('epilogues', () => {
  /** The statement of the kernel of this name that computes v1. */
  function statement(body: () => dsl.Tensor, name: string): string | undefined {
    const entries = runPasses(graphOf(body), { target: targets.cpu, context: 16, chunk: 4 }) ?? [];
    const kernel = emit('small', entries, targets.cpu)
      .text.split('kernel void ')
      .find((text) => text.startsWith(`${name}(`));
    return kernel
      ?.split('\n')
      .find((line) => line.includes('const float v1 = '))
      ?.trim();
  }

  const embedded = (): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8]));

  it('repeat a bias over heads', () => {
    const body = (): dsl.Tensor => {
      const turned = dsl.rope(dsl.splitHeads(embedded(), 2), { theta: 10 });
      return dsl.mergeHeads(dsl.add(turned, dsl.weight('b', [4])));
    };
    expect(statement(body, 'rope_add_2x4_tokens')).toBe('const float v1 = v0 + r2[n % 4];');
  });

  it('repeat a bias over heads that a product turns', () => {
    const body = (): dsl.Tensor => {
      const heads = dsl.splitHeads(dsl.linear(embedded(), dsl.weight('w', [8, 8])), 2);
      return dsl.mergeHeads(dsl.add(dsl.rope(heads, { theta: 10 }), dsl.weight('b', [4])));
    };
    expect(statement(body, 'matmul_f32_rope_add_8x8_tokens')).toBe('const float v1 = v0 + r4[n % 4];');
  });

  it('index by the axes of the value, not by those of the cache it is stored to', () => {
    const body = (): dsl.Tensor => {
      const k = dsl.linear(embedded(), dsl.weight('k', [8, 8]));
      const biased = dsl.splitHeads(dsl.add(k, dsl.weight('b', [8])), 2);
      const q = dsl.splitHeads(embedded(), 2);
      return dsl.mergeHeads(dsl.attention(q, biased, q, { causal: true }));
    };
    expect(statement(body, 'matmul_f32_add_cache_8x8_tokens')).toBe('const float v1 = v0 + r2[n];');
  });
});
