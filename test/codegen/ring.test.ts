import { describe, expect, it } from 'vitest';
import { compileGraph, type Compiled } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { targets } from '../../src/passes/target.js';
import { planSchema } from '../../src/runtime/plan.js';
import { graphOf } from '../support/graphs.js';

/** One attention of two heads of 4 over one of keys; its context is 40 tokens, its chunk 8. */
function compiled(window?: number): Compiled {
  const graph = graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8]));
    const heads = (name: string, n: number): dsl.Tensor =>
      dsl.splitHeads(dsl.linear(x, dsl.weight(name, [n * 4, 8])), n);
    const sight = { causal: true, ...(window === undefined ? {} : { window }) };
    return dsl.mergeHeads(dsl.attention(heads('q', 2), heads('k', 1), heads('v', 1), sight));
  });
  const made = compileGraph(graph, { target: targets.metal, context: 40, chunk: 8 });
  if (!made) throw new Error('nothing was compiled');
  return made;
}

/** The lines that say where keys and values lie. */
const places = ({ kernels }: Compiled): string[] => [
  ...new Set(
    kernels
      .split('\n')
      .map((line) => line.trim())
      .filter((line) => /^(cache\d*|key|value)\[|const uint (start|first) = |for \(uint begin/.test(line)),
  ),
];

describe('the cache of attention with a window', () => {
  it('is read and written by the position modulo its rows, from the first visible key on', () => {
    expect(places(compiled(12))).toMatchInlineSnapshot(`
      [
        "const uint first = (block * 2 + simdgroup) * 4;",
        "const uint first = ((block - 1) * 2 + simdgroup) * 4;",
        "cache1[(step.position % 20) * 4 + n] = v0;",
        "const uint first = ((block - 2) * 2 + simdgroup) * 4;",
        "cache2[(step.position % 20) * 4 + n] = v0;",
        "const uint start = keys - metal::min(keys, 12u);",
        "key[r][c] = *(device const float4*)(head_keys + (position % 20) * 4);",
        "value[r][c] = *(device const float4*)(head_values + (position % 20) * 4);",
        "for (uint begin = start; begin < end;) {",
        "for (uint begin = thread_index; begin < 8; begin += 8 * 32) {",
        "cache1[((step.position + t) % 20) * 4 + n] = v0;",
        "cache2[((step.position + t) % 20) * 4 + n] = v0;",
      ]
    `);
  });

  it('never wraps where the window and a chunk fill the context', () => {
    expect(places(compiled(32))).toMatchInlineSnapshot(`
      [
        "const uint first = (block * 2 + simdgroup) * 4;",
        "const uint first = ((block - 1) * 2 + simdgroup) * 4;",
        "cache1[step.position * 4 + n] = v0;",
        "const uint first = ((block - 2) * 2 + simdgroup) * 4;",
        "cache2[step.position * 4 + n] = v0;",
        "const uint start = keys - metal::min(keys, 32u);",
        "key[r][c] = *(device const float4*)(head_keys + position * 4);",
        "value[r][c] = *(device const float4*)(head_values + position * 4);",
        "for (uint begin = start; begin < end;) {",
        "for (uint begin = thread_index; begin < 8; begin += 8 * 32) {",
        "cache1[(step.position + t) * 4 + n] = v0;",
        "cache2[(step.position + t) * 4 + n] = v0;",
      ]
    `);
  });

  it('is that of plain attention where the window hides nothing', () => {
    for (const window of [40, 41, 2 ** 40]) expect(compiled(window).kernels).toBe(compiled().kernels);
    expect(places(compiled())).toMatchInlineSnapshot(`
      [
        "const uint first = (block * 2 + simdgroup) * 4;",
        "const uint first = ((block - 1) * 2 + simdgroup) * 4;",
        "cache1[step.position * 4 + n] = v0;",
        "const uint first = ((block - 2) * 2 + simdgroup) * 4;",
        "cache2[step.position * 4 + n] = v0;",
        "const uint start = 0;",
        "key[r][c] = *(device const float4*)(head_keys + position * 4);",
        "value[r][c] = *(device const float4*)(head_values + position * 4);",
        "for (uint begin = start; begin < end;) {",
        "for (uint begin = thread_index; begin < 8; begin += 8 * 32) {",
        "cache1[(step.position + t) * 4 + n] = v0;",
        "cache2[(step.position + t) * 4 + n] = v0;",
      ]
    `);
  });

  it('takes the memory of its rows', () => {
    const states = (window?: number): unknown[] =>
      compiled(window).plan.state.map(({ shape, bytes, ring }) => [shape.join('x'), bytes, ring]);
    expect(states(12)[0]).toEqual(['20x1x4', 320, true]);
    expect(states(32)[0]).toEqual(['40x1x4', 640, false]);
    expect(states()[0]).toEqual(['40x1x4', 640, false]);
  });

  it('is refused in a plan when a ring is as long as the context, or another cache shorter', () => {
    const { plan } = compiled(12);
    const refused = (change: Partial<(typeof plan.state)[number]>): string | undefined => {
      const state = plan.state.map((tensor) => ({ ...tensor, ...change }));
      return planSchema.safeParse({ ...plan, state }).error?.issues[0]?.message;
    };
    expect(refused({})).toBeUndefined();
    expect(refused({ shape: [40, 1, 4] })).toBe('must hold less than the context of 40 tokens');
    expect(refused({ shape: [0, 1, 4] })).toBe('must hold less than the context of 40 tokens');
    expect(refused({ ring: false })).toBe('must hold the context of 40 tokens');
  });
});
