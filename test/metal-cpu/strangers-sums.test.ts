import { describe, expect, it } from 'vitest';
import { expError, gamma, tiny, u } from '../support/rounding.js';
import {
  at,
  bfloat,
  bitsOf,
  expectWithin,
  floats,
  half,
  integers,
  open,
  roundoff,
  runEveryWay,
  sumError,
  uniform,
  valueOf,
} from './support.js';

/**
 * Kernels as others write them, which sum floats: against float64, within what their roundings allow in any order
 * (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., ch. 3 and 4).
 */

/** A simdgroup's lanes, and threads of a threadgroup for a kernel that is written for any number of them. */
const widths = [
  { simdWidth: 32, threads: 96 },
  { simdWidth: 1, threads: 1 },
] as const;

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const sum = (terms: readonly number[]): number => terms.reduce((total, term) => total + term, 0);

describe.each(widths)('with simdgroups of $simdWidth, $threads threads', ({ simdWidth, threads }) => {
  describe('reduction', () => {
    const library = open('reduction', { simdWidth });
    /** The terms that each threadgroup of the grid reduces. */
    const shares = <T>(terms: readonly T[], grid: number): T[][] =>
      range(Math.ceil(grid / threads)).map((group) =>
        terms.filter((_, i) => Math.floor((i % grid) / threads) === group),
      );

    it.each([1, 97, 4099])('sums %i floats, then its partial sums', async (count) => {
      const values = floats(count);
      // Ragged: the last threadgroup has fewer threads, and its last simdgroup fewer lanes.
      const grid = threads === 1 ? 3 : 250;
      const { partial_results: partial } = await runEveryWay(
        await library,
        'sum_float',
        () => ({ partial_results: new Float32Array(3) }),
        { grid, threads, buffers: { values, count } },
      );
      const terms = shares([...values], grid);
      expectWithin(partial, terms.map(sum), (i) => sumError(terms[i] ?? []));

      const { partial_results: total } = await runEveryWay(
        await library,
        'sum_float',
        () => ({ partial_results: new Float32Array(1) }),
        { grid: threads, threads, buffers: { values: partial, count: 3 } },
      );
      expectWithin(total, [sum([...partial])], () => sumError([...partial]));
    });

    it('finds sums of integers and maxima exactly', async () => {
      for (const count of [1, 2000]) {
        const grid = 3 * threads;
        for (const [kernel, values, reduce] of [
          ['sum_int', Int32Array.from(integers(count, -1000, 1000)), (terms) => sum([...terms])],
          ['max_int', Int32Array.from(integers(count, -9e8, -1)), (terms) => Math.max(-(2 ** 31), ...terms)],
          // The least of its kind where a threadgroup has no terms.
          ['max_float', floats(count), (terms) => Math.max(-(2 - 2 ** -23) * 2 ** 127, ...terms)],
        ] as const satisfies readonly (readonly [string, unknown, (terms: readonly number[]) => number])[]) {
          const { 1: found } = await runEveryWay(
            await library,
            kernel,
            () => ({ 1: kernel === 'max_float' ? new Float32Array(3) : new Int32Array(3) }),
            { grid, threads, buffers: { 0: values, 2: count } },
          );
          expect([...found]).toEqual(shares([...values], grid).map(reduce));
        }
      }
    });

    it.each([4, 516])('folds dot products of %i elements with shuffles', async (width) => {
      const rows = 5;
      const [a, b] = [floats(rows * width, 2), floats(rows * width, 3)];
      const lanes = simdWidth;
      const { out } = await runEveryWay(await library, 'dot_rows', () => ({ out: new Float32Array(rows) }), {
        grid: rows * lanes,
        threads: lanes,
        buffers: { a, b, width },
      });
      const terms = range(rows).map((row) =>
        range(width).map((i) => at(a, row * width + i) * at(b, row * width + i)),
      );
      // One more rounding than a sum has: each product's.
      expectWithin(out, terms.map(sum), (row) => sumError([0, ...(terms[row] ?? [])]));
    });
  });

  it.each([
    [1, 1],
    [95, 3],
    [1000, 2],
  ])('scans rows of %i floats', async (width, rows) => {
    const library = await open('scan', { simdWidth, constants: { reverse: false } });
    const input = floats(width * rows, 4);
    const { out } = await runEveryWay(
      library,
      'inclusive_float',
      () => ({ out: new Float32Array(input.length) }),
      { grid: threads * rows, threads, buffers: { in: input, width }, threadgroup: { totals: 32 } },
    );
    const terms = (index: number): number[] => [...input.subarray(index - (index % width), index + 1)];
    expectWithin(
      out,
      range(width * rows).map((index) => sum(terms(index))),
      (index) => sumError(terms(index)),
    );
  });

  describe('softmax', () => {
    const types = {
      softmax_float32: undefined,
      softmax_float16: half,
      softmax_bfloat16: bfloat,
    };
    const cases = [
      { name: 'softmax_float32', width: 1, scale: 1, causal: false },
      { name: 'softmax_float32', width: 301, scale: 4, causal: false },
      { name: 'softmax_float16', width: 385, scale: -0.5, causal: false },
      { name: 'softmax_bfloat16', width: 100, scale: undefined, causal: false },
      { name: 'softmax_float16', width: 7, scale: 30, causal: true },
    ] as const;
    it.each(cases)('$name of rows of $width, scale $scale, causal $causal', async (one) => {
      const { name, width, scale = 1, causal } = one;
      const rows = 5;
      const constants = { causal, ...(one.scale === undefined ? {} : { scale_value: scale }) };
      const library = await open('softmax', { simdWidth, constants });
      const type = types[name];
      const raw = floats(rows * width, 5);
      const input = type ? Uint16Array.from(raw, (x) => bitsOf(x, type)) : raw;
      const values = type ? Array.from(input, (bits) => valueOf(bits, type)) : [...raw];
      const { out } = await runEveryWay(
        library,
        name,
        () => ({ out: type ? new Uint16Array(rows * width) : new Float32Array(rows * width) }),
        { grid: rows * threads, threads, buffers: { in: input, axis_size: width } },
      );
      const found = type ? Array.from(out, (bits) => valueOf(bits, type)) : [...out];

      const expected: number[] = [];
      const errors: number[] = [];
      for (const row of range(rows)) {
        const seen = causal ? Math.min(row + 1, width) : width;
        const scaled = values.slice(row * width, row * width + seen).map((x) => scale * x);
        const top = Math.max(...scaled);
        const total = sum(scaled.map((x) => Math.exp(x - top)));
        const span = top - Math.min(...scaled);
        const largest = Math.max(...scaled.map(Math.abs));
        // Of any e^(x - top): the scaled value rounded, both in itself and in the greatest one; differences that add up to
        // at most the span; and an exp with a product each time the maximum is looked at: by every element of a thread, by
        // its simdgroup, by the threadgroup.
        const looks = 4 * Math.ceil(seen / (4 * threads)) + 2;
        const power = 2 * largest * u + span * u + looks * (expError + u);
        // The sum of those and the weight, the additions of all elements, the quotient and the last product.
        const relative = 2 * power + gamma(seen + 1) + 2 * u;
        // Its products with itself and the last rounding are small beside 1 but not nothing.
        const bound = relative / (1 - relative);
        for (const i of range(width)) {
          const exact = i < seen ? Math.exp(at(scaled, i) - top) / total : 0;
          const store = type
            ? roundoff(type) * exact * (1 + bound) + 2 ** (type.least - type.mantissa - 1)
            : tiny;
          expected.push(exact);
          errors.push(exact * bound + store);
        }
      }
      expectWithin(found, expected, (i) => at(errors, i));
    });
  });

  describe('layer norm', () => {
    it.each([
      { type: 'f32', width: 1 },
      { type: 'f32', width: 257 },
      { type: 'bf16', width: 1 },
      { type: 'bf16', width: 300 },
    ] as const)('of rows of $width in $type', async ({ type, width }) => {
      const [rows, rowStride, eps] = [3, width + 5, Math.fround(1e-3)];
      const small = type === 'bf16';
      // The mean is large beside the deviation.
      const raw = Float32Array.from(uniform(rows * rowStride, 6), (x) => 3 + x);
      const x = small ? Uint16Array.from(raw, (value) => bitsOf(value, bfloat)) : raw;
      const values = small ? Array.from(x, (bits) => valueOf(bits, bfloat)) : [...raw];
      const affine = floats(3 * width, 7);
      const tint = [1, 0.5, 2];
      const params = new DataView(new ArrayBuffer(24));
      params.setUint32(0, width, true);
      params.setUint32(4, rowStride, true);
      [eps, ...tint].forEach((value, i) => params.setFloat32(8 + 4 * i, value, true));
      const { y } = await runEveryWay(
        await open('layer_norm', { simdWidth }),
        `layer_norm_${type}`,
        () => ({ y: small ? new Uint16Array(x.length) : new Float32Array(x.length) }),
        { grid: [rows * threads], threads: [threads], buffers: { x, affine, params } },
      );
      const found = small ? Array.from(y, (bits) => valueOf(bits, bfloat)) : [...y];

      const expected: number[] = [];
      const errors: number[] = [];
      for (const row of range(rows)) {
        const own = values.slice(row * rowStride, row * rowStride + width);
        const mean = sum(own) / width;
        const variance = sum(own.map((value) => (value - mean) ** 2)) / width;
        // The sum, and its division.
        const meanError = gamma(width + 1) * (sum(own.map(Math.abs)) / width);
        const distances = own.map((value) => Math.abs(value - mean));
        const distanceErrors = distances.map((d) => meanError + u * (d + meanError));
        const squareErrors = distances.map(
          (d, i) => 2 * d * at(distanceErrors, i) + at(distanceErrors, i) ** 2,
        );
        const squares = sum(distances.map((d, i) => d * d + at(squareErrors, i)));
        const varianceError = (sum(squareErrors) + gamma(width + 1) * squares) / width;
        // A relative change of δ under the root changes its inverse by less than δ / 2 / (1 - δ); then the addition of eps,
        // the root and its inverse round.
        const change = varianceError / (variance + eps);
        const factor = 1 / Math.sqrt(variance + eps);
        const factorError = factor * (change / 2 / (1 - change)) * (1 + gamma(3)) + factor * gamma(3);
        for (const i of range(rowStride)) {
          if (i >= width) {
            expected.push(0);
            errors.push(0);
            continue;
          }
          const [weight, bias, gate] = [at(affine, 3 * i), at(affine, 3 * i + 1), at(affine, 3 * i + 2)];
          const outer = gate * at(tint, i % 3);
          const [d, e] = [at(distances, i), at(distanceErrors, i)];
          const normedError = (d + e) * (factor + factorError) * (1 + u) - d * factor;
          const exact = ((at(own, i) - mean) * factor * weight + bias) * outer;
          const size = (Math.abs(weight) * (d * factor + normedError) + Math.abs(bias)) * Math.abs(outer);
          // Then a multiplication with an addition, as one rounding or two, and two multiplications.
          const error = Math.abs(weight * outer) * normedError + gamma(4) * size + tiny;
          expected.push(exact);
          errors.push(error + (small ? roundoff(bfloat) * (Math.abs(exact) + error) : 0));
        }
      }
      expectWithin(found, expected, (i) => at(errors, i));
    });
  });
});

describe('matmul', () => {
  const halves = (count: number, seed: number): Uint16Array =>
    Uint16Array.from(uniform(count, seed), (x) => bitsOf(4 * x - 2, half));

  /** Products of halves are exact in f32, so only the additions round. */
  function expectProduct(c: Float32Array, a: Uint16Array, b: Uint16Array, k: number, n: number): void {
    const terms = (index: number): number[] =>
      range(k).map(
        (i) =>
          valueOf(at(a, Math.floor(index / n) * k + i), half) * valueOf(at(b, (index % n) * k + i), half),
      );
    expectWithin(
      c,
      range(c.length).map((index) => sum(terms(index))),
      (index) => sumError(terms(index)),
    );
  }

  it.each([
    { simdWidth: 32, m: 8, n: 8, k: 8 },
    { simdWidth: 32, m: 24, n: 40, k: 64 },
    { simdWidth: 1, m: 8, n: 8, k: 8 },
    { simdWidth: 1, m: 24, n: 40, k: 64 },
  ] as const)(
    'by tiles of 8 x 8: $m x $n x $k with simdgroups of $simdWidth',
    async ({ simdWidth, m, n, k }) => {
      const [a, b] = [halves(m * k, 8), halves(n * k, 9)];
      const { c } = await runEveryWay(
        await open('matmul', { simdWidth }),
        'matmul_8x8',
        () => ({ c: new Float32Array(m * n) }),
        {
          grid: [(n / 8) * simdWidth, m / 8],
          threads: simdWidth,
          buffers: { a, b, sizes: Uint32Array.of(m, n, k) },
        },
      );
      expectProduct(c, a, b, k, n);
    },
  );

  it.each([
    [1, 1, 1],
    [32, 32, 16],
    [33, 70, 50],
    [17, 100, 131],
  ])('through threadgroup memory: %i x %i x %i', async (m, n, k) => {
    const [a, b] = [halves(m * k, 10), halves(n * k, 11)];
    const { c } = await runEveryWay(
      await open('matmul'),
      'matmul_tiled',
      () => ({ c: new Float32Array(m * n) }),
      {
        grid: [128 * Math.ceil(n / 32), Math.ceil(m / 32)],
        threads: 128,
        buffers: { a, b, sizes: Uint32Array.of(m, n, k) },
      },
    );
    expectProduct(c, a, b, k, n);
  });
});
