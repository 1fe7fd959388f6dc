import { describe, expect, it } from 'vitest';
import { makeNode } from '../../src/ir/graph.js';
import { evaluateNode } from '../../src/ir/interpret.js';
import { ops } from '../../src/ir/ops/index.js';
import { array, evaluate, type Operand } from '../support/graphs.js';

const ids = (...values: number[]): Operand => ({ ...array([values.length], values), dtype: 'i32' });
const position = (value: number): Operand => ({ ...array([], [value]), dtype: 'i32' });

/** Numbers without a pattern that a mistake could hide in, between -1 and 1. */
const numbers = (count: number, seed: number): number[] =>
  Array.from({ length: count }, (_, i) => Math.sin(seed + 12.9898 * (i + 1)));

function expectClose(actual: readonly number[], expected: readonly number[]): void {
  expect(actual).toHaveLength(expected.length);
  expected.forEach((value, i) => expect(actual[i], `element ${i}`).toBeCloseTo(value, 12));
}

describe('leaves', () => {
  it.each(['input', 'weight', 'state'] as const)('%s has no value of its own', (op) => {
    const node = makeNode(op, [], { name: 'w', dtype: 'f32', shape: [2] });
    expect(() => evaluateNode(node, [], {})).toThrow(`${op} w has no value of its own`);
  });

  it('rope_table holds cosines, then sines, of position · theta^(-2i/dims)', () => {
    const { shape, values } = evaluate('rope_table', [], { theta: 100, dims: 4 }, { C: 3 });
    expect(shape).toEqual([3, 4]);
    const row = (p: number): number[] => [Math.cos(p), Math.cos(p / 10), Math.sin(p), Math.sin(p / 10)];
    expectClose(values, [...row(0), ...row(1), ...row(2)]);
  });

  it('rope_table divides frequencies by factors, others past a length, and scales the whole', () => {
    const attrs = {
      theta: 100,
      dims: 4,
      factors: [2, 5],
      long: { past: 2, factors: [4, 1] },
      scale: 3,
    };
    const row = (...angles: number[]): number[] => [
      ...angles.map((angle) => 3 * Math.cos(angle)),
      ...angles.map((angle) => 3 * Math.sin(angle)),
    ];
    const short = evaluate('rope_table', [], attrs, { C: 2 });
    expectClose(short.values, [...row(0, 0), ...row(1 / 2, 1 / 50)]);
    const long = evaluate('rope_table', [], attrs, { C: 3 });
    expectClose(long.values, [...row(0, 0), ...row(1 / 4, 1 / 10), ...row(2 / 4, 2 / 10)]);
  });
});

describe('embed', () => {
  it('takes rows in the order of the ids, repeated ones too', () => {
    const table = array([3, 2], [1, 2, 3, 4, 5, 6]);
    expect(evaluate('embed', [ids(2, 0, 2), table], {})).toEqual({
      shape: [3, 2],
      values: [5, 6, 1, 2, 5, 6],
    });
  });
});

describe('linear', () => {
  const x = array([2, 3], [1, 2, 3, -1, 0, 1]);
  const weight = array([2, 3], [1, 0, -1, 2, 2, 2]);

  it('multiplies by the transposed weight', () => {
    expect(evaluate('linear', [x, weight], {})).toEqual({ shape: [2, 2], values: [-2, 12, -2, 0] });
  });

  it('adds the bias to every row', () => {
    const bias = array([2], [10, 20]);
    expect(evaluate('linear', [x, weight, bias], {}).values).toEqual([8, 32, 8, 20]);
  });
});

describe('rms_norm', () => {
  it('divides each row by its own root mean square and multiplies by the weight', () => {
    const x = array([2, 2], [3, 4, 6, 8]);
    const { values } = evaluate('rms_norm', [x, array([2], [1, 10])], { eps: 0.5 });
    const small = Math.sqrt(12.5 + 0.5);
    const large = Math.sqrt(50 + 0.5);
    expectClose(values, [3 / small, 40 / small, 6 / large, 80 / large]);
  });

  it('norms each head of a [T, H, D] tensor by itself', () => {
    const x = array([1, 2, 2], [3, 4, 0, 5]);
    const { values } = evaluate('rms_norm', [x, array([2], [1, 1])], { eps: 1e-30 });
    expectClose(values, [3 / Math.sqrt(12.5), 4 / Math.sqrt(12.5), 0, Math.SQRT2]);
  });
});

describe('norms', () => {
  it('rms_norm adds an offset to the weight', () => {
    const x = array([1, 2], [3, 4]);
    const { values } = evaluate('rms_norm', [x, array([2], [0, 1])], { eps: 1e-30, offset: 1 });
    expectClose(values, [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5)]);
  });

  it('layer_norm takes each row less its mean over its standard deviation', () => {
    const x = array([2, 4], [1, 3, 5, 7, -10, -10, 10, 10]);
    const weight = array([4], [1, 2, 3, 4]);
    const one = Math.sqrt(5 + 1);
    const two = Math.sqrt(100 + 1);
    const expected = [-3 / one, -2 / one, 3 / one, 12 / one, -10 / two, -20 / two, 30 / two, 40 / two];
    expectClose(evaluate('layer_norm', [x, weight], { eps: 1 }).values, expected);
    const bias = [0.5, 0, -1, 2];
    const { values } = evaluate('layer_norm', [x, weight, array([4], bias)], { eps: 1 });
    expectClose(
      values,
      expected.map((value, i) => value + (bias[i % 4] ?? NaN)),
    );
  });
});

describe('rope', () => {
  const theta = 10000;

  /** Every pair (x[i], x[i + dims/2]) as a complex number, multiplied by e^(i · angle). */
  function turned(x: readonly number[], heads: number, width: number, dims: number, start: number): number[] {
    const result = [...x];
    for (let base = 0; base < x.length; base += width) {
      const token = start + Math.floor(base / (heads * width));
      for (let i = 0; i < dims / 2; i++) {
        const angle = token * theta ** ((-2 * i) / dims);
        const [re = 0, im = 0] = [x[base + i], x[base + i + dims / 2]];
        const [length, phase] = [Math.hypot(re, im), Math.atan2(im, re)];
        result[base + i] = length * Math.cos(phase + angle);
        result[base + i + dims / 2] = length * Math.sin(phase + angle);
      }
    }
    return result;
  }

  const table = (dims: number): Operand => {
    const { shape, values } = evaluate('rope_table', [], { theta, dims }, { C: 16 });
    return array(shape, values);
  };

  it('is a rotation of complex numbers by the position', () => {
    const x = numbers(3 * 2 * 4, 1);
    const { shape, values } = evaluate('rope', [array([3, 2, 4], x), table(4)], {});
    expect(shape).toEqual([3, 2, 4]);
    expectClose(values, turned(x, 2, 4, 4, 0));
  });

  it('starts at `start`', () => {
    const x = numbers(2 * 1 * 4, 2);
    expectClose(
      evaluate('rope', [array([2, 1, 4], x), table(4), position(7)], {}).values,
      turned(x, 1, 4, 4, 7),
    );
  });

  it('leaves the elements past `dims` as they are', () => {
    const x = numbers(2 * 2 * 6, 3);
    const { values } = evaluate('rope', [array([2, 2, 6], x), table(4), position(3)], {});
    expectClose(values, turned(x, 2, 6, 4, 3));
    expect(values.slice(4, 6)).toEqual(x.slice(4, 6));
  });
});

describe('cache_append', () => {
  const cache = array([4, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8]);

  it('replaces the rows from start on and nothing else', () => {
    const x = array([2, 1, 2], [-1, -2, -3, -4]);
    expect(evaluate('cache_append', [cache, x, position(1)], {}).values).toEqual([
      1, 2, -1, -2, -3, -4, 7, 8,
    ]);
    expect([...cache.data], 'the old cache is not touched').toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it('goes on at the first row after the last', () => {
    const x = array([3, 1, 2], [-1, -2, -3, -4, -5, -6]);
    expect(evaluate('cache_append', [cache, x, position(7)], {}).values, 'positions 7, 8 and 9').toEqual([
      -3, -4, -5, -6, 5, 6, -1, -2,
    ]);
  });
});

describe('attention', () => {
  interface Case {
    readonly tokens: number;
    readonly keys: number;
    readonly heads: number;
    readonly groups: number;
    readonly width: number;
    readonly start: number;
    readonly causal: boolean;
    readonly scale: number;
    readonly window?: number;
    readonly softcap?: number;
  }

  /** The formula, over whole score rows: softmax without the shift, hidden keys weighted 0. */
  function direct(q: readonly number[], k: readonly number[], v: readonly number[], c: Case): number[] {
    const result: number[] = [];
    // tanh(x) = 1 - 2 / (e^2x + 1)
    const capped = (s: number): number =>
      c.softcap === undefined ? s : c.softcap * (1 - 2 / (Math.exp((2 * s) / c.softcap) + 1));
    for (let t = 0; t < c.tokens; t++) {
      for (let h = 0; h < c.heads; h++) {
        const group = Math.floor((h * c.groups) / c.heads);
        const row = (data: readonly number[], j: number): readonly number[] =>
          data.slice((j * c.groups + group) * c.width, (j * c.groups + group + 1) * c.width);
        const query = q.slice((t * c.heads + h) * c.width, (t * c.heads + h + 1) * c.width);
        const weights = Array.from({ length: c.keys }, (_, j) =>
          c.causal && (j > c.start + t || j <= c.start + t - (c.window ?? Infinity))
            ? 0
            : Math.exp(capped(c.scale * row(k, j).reduce((sum, key, i) => sum + key * (query[i] ?? 0), 0))),
        );
        const total = weights.reduce((a, b) => a + b, 0);
        for (let i = 0; i < c.width; i++)
          result.push(weights.reduce((sum, weight, j) => sum + weight * (row(v, j)[i] ?? 0), 0) / total);
      }
    }
    return result;
  }

  const base: Case = {
    tokens: 3,
    keys: 3,
    heads: 2,
    groups: 2,
    width: 4,
    start: 0,
    causal: true,
    scale: 1 / 2,
  };

  it.each<[string, Case]>([
    ['causal', base],
    ['not causal', { ...base, causal: false }],
    ['another scale', { ...base, scale: 0.3 }],
    ['grouped heads', { ...base, heads: 6 }],
    ['one key-value head', { ...base, heads: 4, groups: 1 }],
    ['a start offset over a longer cache', { ...base, keys: 8, start: 4 }],
    ['grouped heads with a start offset', { ...base, heads: 4, keys: 9, start: 2 }],
    ['a window of one: each token sees itself', { ...base, window: 1 }],
    ['a window of two', { ...base, window: 2 }],
    ['a window longer than the text', { ...base, window: 7 }],
    ['a window with a start offset', { ...base, heads: 4, keys: 9, start: 4, window: 3 }],
    ['a softcap', { ...base, softcap: 0.2 }],
    ['a softcap, another scale and a window', { ...base, scale: 2, window: 2, softcap: 1.5 }],
  ])('%s', (_, c) => {
    const q = numbers(c.tokens * c.heads * c.width, 1);
    const k = numbers(c.keys * c.groups * c.width, 2);
    const v = numbers(c.keys * c.groups * c.width, 3);
    const operands = [
      array([c.tokens, c.heads, c.width], q),
      array([c.keys, c.groups, c.width], k),
      array([c.keys, c.groups, c.width], v),
      ...(c.start > 0 ? [position(c.start)] : []),
    ];
    const attrs = {
      causal: c.causal,
      ...(c.scale === 1 / 2 ? {} : { scale: c.scale }),
      ...(c.window === undefined ? {} : { window: c.window }),
      ...(c.softcap === undefined ? {} : { softcap: c.softcap }),
    };
    const { shape, values } = evaluate('attention', operands, attrs);
    expect(shape).toEqual([c.tokens, c.heads, c.width]);
    expectClose(values, direct(q, k, v, c));
  });

  it('finds the key of a position in a ring at the row of the position modulo its rows', () => {
    const [tokens, window, start, keys] = [3, 4, 11, 14];
    const q = array([tokens, 1, 2], numbers(tokens * 2, 1));
    const k = numbers(keys * 2, 2);
    const v = numbers(keys * 2, 3);
    const attrs = { causal: true, window };
    const whole = [q, array([keys, 1, 2], k), array([keys, 1, 2], v), position(start)];
    const expected = evaluate('attention', whole, attrs).values;
    // What the window of the first token and the step itself take, and more.
    for (const rows of [window + tokens - 1, window + tokens, 10]) {
      const ring = (all: readonly number[]): number[] => {
        const kept = new Array<number>(rows * 2).fill(Number.NaN);
        for (let p = keys - rows; p < keys; p++)
          kept.splice((p % rows) * 2, 2, ...all.slice(p * 2, p * 2 + 2));
        return kept;
      };
      const rings = [q, array([rows, 1, 2], ring(k)), array([rows, 1, 2], ring(v)), position(start)];
      expect(evaluate('attention', rings, attrs).values).toEqual(expected);
    }
  });

  it('does not overflow on great scores', () => {
    const big = array([2, 1, 1], [1000, 1000]);
    expect(evaluate('attention', [big, big, array([2, 1, 1], [1, 3])], { causal: false }).values).toEqual([
      2, 2,
    ]);
  });
});

describe('elementwise', () => {
  const x = array([2, 2], [-2, -0.5, 0, 3]);

  it('add', () => {
    expect(evaluate('add', [x, array([2, 2], [1, 2, 3, 4])], {}).values).toEqual([-1, 1.5, 3, 7]);
    expect(evaluate('add', [x, array([2], [10, 20])], {}).values, 'a bias').toEqual([8, 19.5, 10, 23]);
  });

  it('mul', () => {
    expect(evaluate('mul', [x, array([2, 2], [1, 2, 3, 4])], {}).values).toEqual([-2, -1, 0, 12]);
    expect(evaluate('mul', [x, array([2], [10, 20])], {}).values, 'repeated').toEqual([-20, -10, 0, 60]);
  });

  it('scale', () => {
    expect(evaluate('scale', [x], { by: -4 }).values).toEqual([8, 2, -0, -12]);
  });

  it('silu', () => {
    // σ(x) = (1 + tanh(x/2)) / 2
    const byTanh = (v: number): number => (v / 2) * (1 + Math.tanh(v / 2));
    expectClose(evaluate('silu', [x], {}).values, [byTanh(-2), byTanh(-0.5), 0, byTanh(3)]);
    expect(evaluate('silu', [array([1], [1])], {}).values[0]).toBeCloseTo(0.731058578630005, 12);
  });

  it('gelu', () => {
    const tanhForm = (v: number): number =>
      (v / 2) * (1 + Math.tanh(0.7978845608028654 * v * (1 + 0.044715 * v * v)));
    expectClose(evaluate('gelu', [x], {}).values, [tanhForm(-2), tanhForm(-0.5), 0, tanhForm(3)]);
    expect(evaluate('gelu', [array([1], [1])], {}).values[0]).toBeCloseTo(0.841191990608276, 9);
  });

  it('tanh', () => {
    expectClose(
      evaluate('tanh', [x], {}).values,
      [-2, -0.5, 0, 3].map((v) => 1 - 2 / (Math.exp(2 * v) + 1)),
    );
  });

  it('softmax', () => {
    const { values } = evaluate(
      'softmax',
      [array([2, 3], [0, Math.log(2), Math.log(5), 1000, 1000, 1000])],
      {},
    );
    expectClose(values, [1 / 8, 2 / 8, 5 / 8, 1 / 3, 1 / 3, 1 / 3]);
  });
});

describe('views', () => {
  const x = array([2, 5], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);

  it('split takes its part of the last axis of every row', () => {
    const sizes = [1, 3, 1];
    expect(evaluate('split', [x], { sizes, part: 0 })).toEqual({ shape: [2, 1], values: [0, 5] });
    expect(evaluate('split', [x], { sizes, part: 1 })).toEqual({ shape: [2, 3], values: [1, 2, 3, 6, 7, 8] });
    expect(evaluate('split', [x], { sizes, part: 2 })).toEqual({ shape: [2, 1], values: [4, 9] });
  });

  it('reshape keeps the order', () => {
    const y = array([2, 4], [0, 1, 2, 3, 4, 5, 6, 7]);
    expect(evaluate('reshape', [y], { shape: [2, 2, 2] })).toEqual({
      shape: [2, 2, 2],
      values: [0, 1, 2, 3, 4, 5, 6, 7],
    });
  });

  it('positions takes the rows of the tokens of a step', () => {
    expect(evaluate('positions', [x], {}, { T: 1 })).toEqual({ shape: [1, 5], values: [0, 1, 2, 3, 4] });
    const table = array([4, 2], [0, 1, 2, 3, 4, 5, 6, 7]);
    expect(evaluate('positions', [table, position(1)], {}, { T: 2 })).toEqual({
      shape: [2, 2],
      values: [2, 3, 4, 5],
    });
  });

  it('last takes the last row', () => {
    expect(evaluate('last', [x], {})).toEqual({ shape: [1, 5], values: [5, 6, 7, 8, 9] });
  });
});

describe('argmax', () => {
  it('takes the lowest index of equals, row by row', () => {
    const x = array([3, 4], [1, 7, 7, 0, -5, -9, -5, -5, -Infinity, -Infinity, -2, -2]);
    expect(evaluate('argmax', [x], {})).toEqual({ shape: [3], values: [1, 0, 2] });
  });

  it('takes a row longer than an argument list', () => {
    const n = 300_000;
    const row = Array.from({ length: n }, (_, i) => (i === n - 1 ? 1 : 0));
    expect(evaluate('argmax', [array([1, n], row)], {}).values).toEqual([n - 1]);
  });
});

describe('every op', () => {
  it('is described in a sentence and named as its key', () => {
    for (const [name, op] of Object.entries(ops)) {
      expect(op.name).toBe(name);
      expect(op.doc.endsWith('.'), `${name}: ${op.doc}`).toBe(true);
    }
  });

  it('marks only inputs at the end as optional', () => {
    for (const { inputs } of Object.values(ops)) {
      const optional = inputs.map((name) => (name as string).endsWith('?'));
      expect([...optional].sort()).toEqual(optional);
    }
  });
});
