import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/diagnostic.js';
import { inferType } from '../../src/ir/graph.js';
import { ops } from '../../src/ir/ops/index.js';
import { parseGraph } from '../../src/ir/parse.js';
import { sparsityOf } from '../../src/ir/sparsity.js';
import { formatGraph } from '../../src/ir/text.js';
import { f32, formatType, type Dim, type TensorType } from '../../src/ir/type.js';
import { renderedError } from '../support/snapshot.js';
import { dense } from '../support/sparse.js';

const u16 = (...shape: readonly Dim[]): TensorType => ({ dtype: 'u16', shape });
const packed = (...shape: readonly Dim[]): TensorType => ({ dtype: 'q4g32', shape });

function inferred(...types: readonly TensorType[]): string {
  try {
    return formatType(inferType('sparse_linear', types, {}));
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return `refused: ${error.message}`;
  }
}

describe('sparse_linear', () => {
  it('infers rows and blocks from the shapes', () => {
    expect(inferred(f32('T', 64), f32(6, 32), u16(6, 32))).toBe('f32[T, 6]');
    expect(inferred(f32('T', 64), packed(8, 32), u16(2, 4), f32(8))).toBe('f32[T, 8]');
    expect(inferred(f32(1, 64), f32(16, 64), u16(1, 64))).toBe('f32[1, 16]');
  });

  it('refuses what does not fit', () => {
    expect([
      inferred(f32('T'), f32(6, 32), u16(6, 32)),
      inferred(f32('T', 64), f32(32), u16(6, 32)),
      inferred(f32('T', 64), u16(6, 32), u16(6, 32)),
      inferred(f32('T', 64), f32(6, 33), u16(6, 33)),
      inferred(f32('T', 64), f32(6, 32), f32(6, 32)),
      inferred(f32('T', 64), f32(6, 32), u16(4, 32)),
      inferred(f32('T', 64), f32(6, 32), u16(6, 5)),
      inferred(f32('T', 192), f32(6, 96), u16(6, 2)),
      inferred(f32('T', 60), f32(6, 32), u16(6, 4)),
      inferred(f32('T', 2 ** 16 + 1), f32(6, 32), u16(6, 32)),
      inferred(f32('T', 64), f32(6, 32), u16(6, 32), f32(7)),
      inferred(packed(6, 32), f32(6, 32), u16(6, 32)),
    ]).toMatchInlineSnapshot(`
      [
        "refused: x must be f32[T, K], not f32[T]",
        "refused: values must be [N, M], not f32[32]",
        "refused: values must be [N, M], not u16[6, 32]",
        "refused: values f32[6, 33] must have rows of a multiple of 32; more may be zero",
        "refused: columns must be u16[N / r, M / c] for blocks of r x c in values f32[6, 32], not f32[6, 32]",
        "refused: columns must be u16[N / r, M / c] for blocks of r x c in values f32[6, 32], not u16[4, 32]",
        "refused: columns must be u16[N / r, M / c] for blocks of r x c in values f32[6, 32], not u16[6, 5]",
        "refused: blocks of 48 columns must divide 32: columns u16[6, 2] of values f32[6, 96]",
        "refused: the last axis of x f32[T, 60] must be a multiple of the 8 columns of a block",
        "refused: u16 columns reach 65536 elements, not all of x f32[T, 65537]",
        "refused: bias f32[7] must match the first axis of values f32[6, 32]",
        "refused: x q4g32[6, 32] is packed; only the matrix of a product and the table of an embed can be",
      ]
    `);
  });

  it('is the product with the dense matrix, whatever is kept', () => {
    const cases = fc.record({
      block: fc.constantFrom([1, 1], [16, 1], [4, 8], [2, 32]),
      bands: fc.integer({ min: 1, max: 3 }),
      kept: fc.integer({ min: 1, max: 3 }).map((runs) => runs * 32),
      spare: fc.nat(2),
      rows: fc.integer({ min: 1, max: 3 }),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(cases, ({ block: [r = 1, c = 1], bands, kept, spare, rows, seed }) => {
        const [n, k] = [bands * r, kept + spare * c];
        const random = fc.sample(fc.double({ min: -1, max: 1, noNaN: true }), {
          seed,
          numRuns: n * kept + rows * k + n,
        });
        const take = (count: number): Float64Array => Float64Array.from(random.splice(0, count));
        const values = { shape: [n, kept], data: take(n * kept) };
        // Empty rows are rows of zeros; full ones have every column.
        if (seed % 3 === 0) values.data.fill(0, 0, kept);
        const columns = {
          shape: [bands, kept / c],
          data: Float64Array.from({ length: (bands * kept) / c }, (_, i) => (i * 7 + seed) % (k / c)),
        };
        const x = { shape: [rows, k], data: take(rows * k) };
        const bias = { shape: [n], data: take(n) };
        const weight = { shape: [n, k], data: dense(values.data, columns.data, [n, k], [r, c]) };
        const actual = ops.sparse_linear.evaluate({ x, values, columns, bias }, {}, [rows, n]);
        const expected = ops.linear.evaluate({ x, weight, bias }, {}, [rows, n]);
        // Sums of at most 96 + 1 terms of at most 1 in another order, equal indices added up first.
        actual.forEach((value, i) => {
          expect(Math.abs(value - (expected[i] ?? NaN))).toBeLessThan(2 * 97 * 97 * 2 ** -53);
        });
      }),
      { numRuns: 60 },
    );
  });

  it('takes an index past the last block for the last', () => {
    const evaluate = (index: number): Float64Array =>
      ops.sparse_linear.evaluate(
        {
          x: { shape: [1, 64], data: Float64Array.from({ length: 64 }, (_, i) => i) },
          values: { shape: [1, 32], data: new Float64Array(32).fill(1) },
          columns: { shape: [1, 4], data: Float64Array.of(0, 1, 2, index) },
        },
        {},
        [1, 1],
      );
    expect(evaluate(65535)).toEqual(evaluate(7));
    expect(evaluate(6)).not.toEqual(evaluate(7));
  });

  it('has pruned weights as text that reads back', () => {
    const text = `graph tiny {
  %tokens = input : i32[T]
  @table : f32[8, 64]
  @w : bf16[8, 32] pruned { of: [8,64], block: [4,8], part: "values" }
  @w.columns : u16[2, 4] pruned { of: [8,64], block: [4,8], part: "columns" }
  %embed = embed %tokens, @table : f32[T, 64]
  %y = sparse_linear %embed, @w, @w.columns : f32[T, 8]
  return logits = %y
}
`;
    expect(formatGraph(parseGraph(text, 'tiny.ir'))).toBe(text);
    const wrong = (part: string): string =>
      renderedError(
        () =>
          parseGraph(
            text.replace('u16[2, 4] pruned { of: [8,64], block: [4,8], part: "columns" }', part),
            'tiny.ir',
          ),
        process.cwd(),
      );
    expect(wrong('u16[2, 5] pruned { of: [8,64], block: [4,8], part: "columns" }')).toContain('block');
    expect(wrong('u16[3, 4] pruned { of: [8,64], block: [4,8], part: "columns" }')).toContain(
      '[3, 4] are no columns of [8, 64] in blocks of 4 x 8',
    );
    expect(wrong('f32[2, 4] pruned { of: [8,64], block: [4,8], part: "columns" }')).toContain(
      'columns of a pruned matrix cannot be f32',
    );
  });
});

describe('what to sparsify', () => {
  it('is said in short', () => {
    expect(sparsityOf('magnitude:0.5')).toEqual([
      { match: '*', method: 'magnitude', density: 0.5, block: '1x1' },
    ]);
    expect(sparsityOf('lm_head=none, *.mlp.*=magnitude:.25:4x8,x=magnitude:1:16x1')).toEqual([
      { role: 'lm_head', method: 'none' },
      { match: '*.mlp.*', method: 'magnitude', density: 0.25, block: '4x8' },
      { match: 'x', method: 'magnitude', density: 1, block: '16x1' },
    ]);
    expect(sparsityOf([{ role: 'qkv', method: 'magnitude', density: 0.1 }])).toEqual([
      { role: 'qkv', method: 'magnitude', density: 0.1, block: '1x1' },
    ]);
  });

  it.each([
    'magnitude',
    'magnitude:0',
    'magnitude:1.5',
    'magnitude:50%',
    'magnitude:-0.5',
    'magnitude:0.5:8x8',
    'magnitude:0.5:4x8:1',
    'random:0.5',
    '=magnitude:0.5',
    '*.mlp.*=',
    '',
  ])('is refused as %j', (text) => {
    expect(renderedError(() => sparsityOf(text), process.cwd())).toMatchSnapshot();
  });

  it('is refused as rules that are none', () => {
    const of = (rule: object): string => renderedError(() => sparsityOf([rule as never]), process.cwd());
    expect([
      of({ method: 'magnitude', density: 0.5 }),
      of({ match: '*', method: 'magnitude', density: 2 }),
      of({ match: '*', method: 'magnitude' }),
    ]).toMatchSnapshot();
  });
});
