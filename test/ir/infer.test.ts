import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/diagnostic.js';
import { makeNode } from '../../src/ir/graph.js';
import type { AttrsOf, OpName } from '../../src/ir/ops/index.js';
import { f32, formatType, i32, type Dim, type TensorType } from '../../src/ir/type.js';
import { inputOf } from '../support/graphs.js';

const bf16 = (...shape: readonly Dim[]): TensorType => ({ dtype: 'bf16', shape });

/** The type that an op infers, or why it refuses. */
function inferred<N extends OpName>(op: N, types: readonly TensorType[], attrs: AttrsOf<N>): string {
  try {
    return formatType(
      makeNode(
        op,
        types.map((type, i) => inputOf(`x${i}`, type)),
        attrs,
      ).type,
    );
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return `refused: ${error.message}`;
  }
}

describe('infer', () => {
  it('embed', () => {
    expect(inferred('embed', [i32('T'), bf16(10, 4)], {})).toBe('f32[T, 4]');
    expect([
      inferred('embed', [f32('T'), f32(10, 4)], {}),
      inferred('embed', [i32('T', 1), f32(10, 4)], {}),
      inferred('embed', [i32('T'), i32(10, 4)], {}),
      inferred('embed', [i32('T'), f32(10)], {}),
    ]).toMatchInlineSnapshot(`
      [
        "refused: ids must be i32[T], not f32[T]",
        "refused: ids must be i32[T], not i32[T, 1]",
        "refused: table must be [V, D], not i32[10, 4]",
        "refused: table must be [V, D], not f32[10]",
      ]
    `);
  });

  it('linear', () => {
    expect(inferred('linear', [f32('T', 4), bf16(8, 4), bf16(8)], {})).toBe('f32[T, 8]');
    expect([
      inferred('linear', [bf16('T', 4), f32(8, 4)], {}),
      inferred('linear', [f32('T', 2, 4), f32(8, 4)], {}),
      inferred('linear', [f32('T', 4), i32(8, 4)], {}),
      inferred('linear', [f32('T', 4), f32(4)], {}),
      inferred('linear', [f32('T', 4), f32('T', 4)], {}),
      inferred('linear', [f32('T', 4), f32(4, 8)], {}),
      inferred('linear', [f32('T', 4), f32(8, 4), f32(4)], {}),
      inferred('linear', [f32('T', 4), f32(8, 4), i32(8)], {}),
    ]).toMatchInlineSnapshot(`
      [
        "refused: x must be f32[T, K], not bf16[T, 4]",
        "refused: x must be f32[T, K], not f32[T, 2, 4]",
        "refused: weight must be [N, K], not i32[8, 4]",
        "refused: weight must be [N, K], not f32[4]",
        "refused: weight must be [N, K], not f32[T, 4]",
        "refused: the last axis of weight f32[4, 8] must match the last axis of x f32[T, 4]",
        "refused: bias f32[4] must match the first axis of weight f32[8, 4]",
        "refused: bias i32[8] must match the first axis of weight f32[8, 4]",
      ]
    `);
  });

  it('rms_norm', () => {
    expect(inferred('rms_norm', [f32('T', 2, 4), bf16(4)], { eps: 1 })).toBe('f32[T, 2, 4]');
    expect([
      inferred('rms_norm', [bf16('T', 4), f32(4)], { eps: 1 }),
      inferred('rms_norm', [f32(), f32(1)], { eps: 1 }),
      inferred('rms_norm', [f32('T'), f32('T')], { eps: 1 }),
      inferred('rms_norm', [f32('T', 4), f32(5)], { eps: 1 }),
      inferred('rms_norm', [f32('T', 4), f32(1, 4)], { eps: 1 }),
      inferred('rms_norm', [f32('T', 4), i32(4)], { eps: 1 }),
    ]).toMatchInlineSnapshot(`
      [
        "refused: x must be f32[.., N] with a known N, not bf16[T, 4]",
        "refused: x must be f32[.., N] with a known N, not f32[]",
        "refused: x must be f32[.., N] with a known N, not f32[T]",
        "refused: weight f32[5] must match the last axis of x f32[T, 4]",
        "refused: weight f32[1, 4] must match the last axis of x f32[T, 4]",
        "refused: weight i32[4] must match the last axis of x f32[T, 4]",
      ]
    `);
  });

  it('leaves', () => {
    const weight: AttrsOf<'weight'> = { name: 'w', dtype: 'f32', shape: [2, 3], transposed: true };
    expect(inferred('weight', [], weight)).toBe('f32[2, 3]');
    const table = { theta: 10, dims: 4, factors: [1, 2] };
    expect(inferred('rope_table', [], table)).toBe('f32[C, 4]');
    expect([
      inferred('weight', [], { ...weight, shape: [2, 3, 4] }),
      inferred('rope_table', [], { ...table, factors: [1, 2, 3] }),
      inferred('rope_table', [], { ...table, long: { past: 8, factors: [1] } }),
    ]).toMatchInlineSnapshot(`
      [
        "refused: only a matrix can be transposed, not [2, 3, 4]",
        "refused: factors must be 2 numbers, one for each pair of 4 dims, not 3",
        "refused: long.factors must be 2 numbers, one for each pair of 4 dims, not 1",
      ]
    `);
  });

  it('layer_norm', () => {
    expect(inferred('layer_norm', [f32('T', 4), bf16(4), f32(4)], { eps: 1 })).toBe('f32[T, 4]');
    expect([
      inferred('layer_norm', [bf16('T', 4), f32(4)], { eps: 1 }),
      inferred('layer_norm', [f32('T', 4), f32(5)], { eps: 1 }),
      inferred('layer_norm', [f32('T', 4), f32(4), f32(3)], { eps: 1 }),
    ]).toMatchInlineSnapshot(`
      [
        "refused: x must be f32[.., N] with a known N, not bf16[T, 4]",
        "refused: weight f32[5] must match the last axis of x f32[T, 4]",
        "refused: bias f32[3] must match the last axis of x f32[T, 4]",
      ]
    `);
  });

  it('positions', () => {
    expect(inferred('positions', [bf16(16, 4), i32()], {})).toBe('bf16[T, 4]');
    expect([
      inferred('positions', [i32(16, 4)], {}),
      inferred('positions', [f32('T', 4)], {}),
      inferred('positions', [f32(16)], {}),
      inferred('positions', [f32(16, 4), i32(1)], {}),
      inferred('tanh', [i32('T')], {}),
    ]).toMatchInlineSnapshot(`
      [
        "refused: table must be [P, D], not i32[16, 4]",
        "refused: table must be [P, D], not f32[T, 4]",
        "refused: table must be [P, D], not f32[16]",
        "refused: start must be i32[], not i32[1]",
        "refused: x must be real numbers, not i32[T]",
      ]
    `);
  });

  it('rope', () => {
    expect(inferred('rope', [f32('T', 2, 8), f32('C', 4), i32()], {})).toBe('f32[T, 2, 8]');
    expect([
      inferred('rope', [f32('T', 16), f32('C', 8)], {}),
      inferred('rope', [bf16('T', 2, 8), f32('C', 8)], {}),
      inferred('rope', [f32('T', 2, 8), f32('C', 16)], {}),
      inferred('rope', [f32('T', 2, 8), f32('C', 8), i32(1)], {}),
    ]).toMatchInlineSnapshot(`
      [
        "refused: x must be f32[T, H, D], not f32[T, 16]",
        "refused: x must be f32[T, H, D], not bf16[T, 2, 8]",
        "refused: dims 16 must not exceed the head size of x f32[T, 2, 8]",
        "refused: start must be i32[], not i32[1]",
      ]
    `);
  });

  it('cache_append', () => {
    expect(inferred('cache_append', [f32('C', 2, 4), f32('T', 2, 4), i32()], {})).toBe('f32[C, 2, 4]');
    expect([
      inferred('cache_append', [f32('C', 2, 4), f32('T', 8), i32()], {}),
      inferred('cache_append', [f32('C', 2, 4), bf16('T', 2, 4), i32()], {}),
      inferred('cache_append', [f32('C', 2, 4), f32('T', 2, 4), f32()], {}),
    ]).toMatchInlineSnapshot(`
      [
        "refused: x f32[T, 8] must match cache f32[C, 2, 4] but for the first axis",
        "refused: x bf16[T, 2, 4] must match cache f32[C, 2, 4] but for the first axis",
        "refused: start must be i32[], not f32[]",
      ]
    `);
  });

  it('attention', () => {
    const causal = { causal: true };
    const kv = f32('S', 2, 8);
    expect(inferred('attention', [f32('T', 4, 8), kv, kv, i32()], causal)).toBe('f32[T, 4, 8]');
    expect([
      inferred('attention', [f32('T', 32), kv, kv], causal),
      inferred('attention', [f32('T', 4, 8), bf16('S', 2, 8), kv], causal),
      inferred('attention', [f32('T', 4, 8), kv, f32('S', 16)], causal),
      inferred('attention', [f32('T', 4, 8), kv, f32('S', 4, 8)], causal),
      inferred('attention', [f32('T', 4, 16), kv, kv], causal),
      inferred('attention', [f32('T', 5, 8), kv, kv], causal),
      inferred('attention', [f32('T', 4, 8), kv, kv, i32('T')], causal),
      inferred('attention', [f32('T', 4, 8), kv, kv], { causal: false, window: 4 }),
    ]).toMatchInlineSnapshot(`
      [
        "refused: q must be f32[T, H, D], not f32[T, 32]",
        "refused: k must be f32[T, H, D], not bf16[S, 2, 8]",
        "refused: v must be f32[T, H, D], not f32[S, 16]",
        "refused: k f32[S, 2, 8] and v f32[S, 4, 8] must have one type",
        "refused: the head size of q f32[T, 4, 16] must match that of k f32[S, 2, 8]",
        "refused: the heads of q f32[T, 5, 8] must be a multiple of the heads of k f32[S, 2, 8]",
        "refused: start must be i32[], not i32[T]",
        "refused: a window looks back from each token: it needs causal: true",
      ]
    `);
  });

  it.each(['add', 'mul'] as const)('%s', (op) => {
    expect(inferred(op, [f32('T', 4), bf16('T', 4)], {})).toBe('f32[T, 4]');
    expect(inferred(op, [bf16('T', 2, 4), f32(2, 4)], {})).toBe('f32[T, 2, 4]');
    expect(inferred(op, [f32('T', 4), f32()], {})).toBe('f32[T, 4]');
    expect(inferred(op, [f32('T', 4), f32('T', 5)], {})).toBe(
      'refused: b f32[T, 5] must have the shape of a f32[T, 4], or of its last axes',
    );
    expect(inferred(op, [f32(4), f32('T', 4)], {}), 'b is the one that is repeated').toMatch(
      /^refused: b f32\[T, 4\]/,
    );
    expect(inferred(op, [f32('T', 4), f32('T')], {}), 'leading axes do not count').toMatch(
      /^refused: b f32\[T\]/,
    );
    expect(inferred(op, [i32('T'), f32('T')], {})).toBe('refused: a must be real numbers, not i32[T]');
    expect(inferred(op, [f32('T'), i32('T')], {})).toBe('refused: b must be real numbers, not i32[T]');
  });

  it.each(['silu', 'gelu'] as const)('%s', (op) => {
    expect(inferred(op, [bf16('T', 4)], {})).toBe('f32[T, 4]');
    expect(inferred(op, [i32('T')], {})).toBe('refused: x must be real numbers, not i32[T]');
  });

  it('scale', () => {
    expect(inferred('scale', [bf16('T', 4)], { by: 2 })).toBe('f32[T, 4]');
    expect(inferred('scale', [i32('T')], { by: 2 })).toBe('refused: x must be real numbers, not i32[T]');
  });

  it('softmax', () => {
    expect(inferred('softmax', [f32('T', 2, 4)], {})).toBe('f32[T, 2, 4]');
    expect([inferred('softmax', [bf16('T', 4)], {}), inferred('softmax', [f32()], {})])
      .toMatchInlineSnapshot(`
        [
          "refused: x must be f32[.., N] with a known N, not bf16[T, 4]",
          "refused: x must be f32[.., N] with a known N, not f32[]",
        ]
      `);
  });

  it('argmax', () => {
    expect(inferred('argmax', [f32('T', 4)], {})).toBe('i32[T]');
    expect([inferred('argmax', [i32('T', 4)], {}), inferred('argmax', [f32('T')], {})])
      .toMatchInlineSnapshot(`
      [
        "refused: x must be f32[R, N], not i32[T, 4]",
        "refused: x must be f32[R, N], not f32[T]",
      ]
    `);
  });

  it('sample', () => {
    const sound = [f32(2, 9), i32('T'), i32(), f32(4), i32()];
    const withInput = (index: number, type: TensorType): string =>
      inferred('sample', sound.with(index, type), {});
    expect(inferred('sample', sound, {})).toBe('i32[1]');
    expect([
      withInput(0, bf16(2, 9)),
      withInput(0, f32(9)),
      withInput(1, f32('T')),
      withInput(1, i32('T', 1)),
      withInput(2, i32(1)),
      withInput(3, f32(3)),
      withInput(4, f32()),
    ]).toMatchInlineSnapshot(`
      [
        "refused: logits must be f32[R, V], not bf16[2, 9]",
        "refused: logits must be f32[R, V], not f32[9]",
        "refused: tokens must be i32[T], not f32[T]",
        "refused: tokens must be i32[T], not i32[T, 1]",
        "refused: position must be i32[], not i32[1]",
        "refused: sampling must be f32[4], not f32[3]",
        "refused: seed must be i32[], not f32[]",
      ]
    `);
  });

  it('last', () => {
    expect(inferred('last', [f32('T', 2, 4)], {})).toBe('f32[1, 2, 4]');
    expect(inferred('last', [f32()], {})).toBe('refused: x must have a token axis, f32[] has none');
  });

  it('split', () => {
    expect(inferred('split', [bf16('T', 2, 7)], { sizes: [3, 4], part: 1 })).toBe('bf16[T, 2, 4]');
    expect([
      inferred('split', [f32('T', 8)], { sizes: [3, 4], part: 0 }),
      inferred('split', [f32('T')], { sizes: [3, 4], part: 0 }),
      inferred('split', [f32('T', 7)], { sizes: [3, 4], part: 2 }),
    ]).toMatchInlineSnapshot(`
      [
        "refused: sizes 3 + 4 = 7 must add up to the last axis of x f32[T, 8]",
        "refused: sizes 3 + 4 = 7 must add up to the last axis of x f32[T]",
        "refused: part 2 must be one of the 2 sizes",
      ]
    `);
  });

  it('reshape', () => {
    expect(inferred('reshape', [f32('T', 8)], { shape: ['T', 2, 4] })).toBe('f32[T, 2, 4]');
    expect([
      inferred('reshape', [f32('T', 8)], { shape: ['T', 2, 5] }),
      inferred('reshape', [f32('T', 8)], { shape: [8] }),
      inferred('reshape', [f32('T', 8)], { shape: ['C', 8] }),
      inferred('reshape', [f32('T', 8)], { shape: [8, 'T'] }),
    ]).toMatchInlineSnapshot(`
      [
        "refused: shape [T, 2, 5] (10 · T) must hold the elements of x f32[T, 8] (8 · T)",
        "refused: shape [8] (8) must hold the elements of x f32[T, 8] (8 · T)",
        "refused: shape [C, 8] (8 · C) must hold the elements of x f32[T, 8] (8 · T)",
        "refused: the first axis of x f32[T, 8] must stay first, not [8, T]",
      ]
    `);
  });
});
