import { describe, expect, it } from 'vitest';
import { array, evaluate, type Operand } from '../support/graphs.js';

/** Attention over parts of the rows, against the formula of each part written out, and against attention itself. */

const position = (value: number): Operand => ({ ...array([], [value]), dtype: 'i32' });

/** Numbers without a pattern that a mistake could hide in, between -1 and 1. */
const numbers = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => Math.sin(seed + 12.9898 * (i + 1)));

const [heads, groups, width] = [4, 2, 3];

/** Queries of `tokens` tokens over `keys` rows; scores are spread enough for the greatest of each part to matter. */
const operands = (tokens: number, keys: number, start: number): Operand[] => [
  array(
    [tokens, heads, width],
    numbers(tokens * heads * width, 1).map((x) => 9 * x),
  ),
  array([keys, groups, width], numbers(keys * groups * width, 2)),
  array([keys, groups, width], numbers(keys * groups * width, 3)),
  position(start),
];

describe('attention_parts', () => {
  it('weighs each part of the visible rows by itself: sums, greatest score, total', () => {
    const [tokens, keys, start, parts] = [1, 80, 69, 2];
    const given = operands(tokens, keys, start);
    const [q = [], k = [], v = []] = given.map(({ data }) => [...data]);
    const { shape, values } = evaluate('attention_parts', given, { causal: true, scale: 0.5, parts });
    expect(shape).toEqual([tokens, heads, parts, width + 2]);
    // 70 rows in 2 parts, which begin at multiples of 32: 64 rows and 6.
    const ranges = [
      [0, 64],
      [64, 70],
    ] as const;
    for (let h = 0; h < heads; h++) {
      ranges.forEach(([from, to], part) => {
        const row = (data: readonly number[], j: number): readonly number[] => {
          const at = (j * groups + Math.floor(h / 2)) * width;
          return data.slice(at, at + width);
        };
        const query = q.slice(h * width, (h + 1) * width);
        const rows = Array.from({ length: to - from }, (_, i) => from + i);
        const scores = rows.map((j) =>
          row(k, j).reduce((sum, key, i) => sum + 0.5 * key * (query[i] ?? 0), 0),
        );
        const most = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - most));
        const mixed = [0, 1, 2].map((i) =>
          rows.reduce((sum, j, n) => sum + (weights[n] ?? 0) * (row(v, j)[i] ?? 0), 0),
        );
        const total = weights.reduce((a, b) => a + b, 0);
        const at = (h * parts + part) * (width + 2);
        [...mixed, most, total].forEach((value, i) => expect(values[at + i]).toBeCloseTo(value, 12));
      });
    }
  });

  it('leaves parts without rows empty', () => {
    const { values } = evaluate('attention_parts', operands(1, 64, 9), { causal: true, parts: 2 });
    expect(values.slice(width + 2, 2 * (width + 2))).toEqual([0, 0, 0, -Infinity, 0]);
  });
});

describe('attention_combine', () => {
  it.each([
    ['one part', { tokens: 1, keys: 40, start: 39, parts: 1 }],
    ['parts of 64, 64 and 6 rows', { tokens: 1, keys: 140, start: 133, parts: 3 }],
    ['parts without rows', { tokens: 1, keys: 128, start: 2, parts: 4 }],
    ['a window', { tokens: 1, keys: 120, start: 118, parts: 2, window: 50 }],
    ['a ring', { tokens: 1, keys: 60, start: 133, parts: 2, window: 50 }],
    ['tokens that see different parts', { tokens: 5, keys: 70, start: 30, parts: 2 }],
  ])('of attention_parts is attention: %s', (_, { tokens, keys, start, parts, ...sight }) => {
    const given = operands(tokens, keys, start);
    const attrs = { causal: true, scale: 0.7, ...sight };
    const cut = evaluate('attention_parts', given, { ...attrs, parts });
    const { shape, values } = evaluate('attention_combine', [array(cut.shape, cut.values)], {});
    const whole = evaluate('attention', given, attrs);
    expect(shape).toEqual(whole.shape);
    whole.values.forEach((value, i) => expect(values[i]).toBeCloseTo(value, 12));
  });
});
