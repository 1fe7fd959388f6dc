import { nameInputs, type Named, type NdArray } from '../../src/ir/define.js';
import { isOp, type Graph, type Node } from '../../src/ir/graph.js';
import { isPackedName } from '../../src/ir/packed.js';
import { visibleRows } from '../../src/ir/ops/attention.js';
import { blockOf } from '../../src/ir/ops/sparse.js';
import { ops, type AttrsOf, type OpName, type OpOf } from '../../src/ir/ops/index.js';
import { rounded, type DType } from '../../src/ir/type.js';
import { isHalved, isTiled } from '../../src/passes/matmul.js';
import { expError, gamma, halfTiny, halfUnit, tanhError, tiny, u } from './rounding.js';
import { possibleIds } from './sample-bound.js';
import { dense } from './sparse.js';

/**
 * How far a single-precision device may be from the interpreter: a running error analysis (Higham, Accuracy and
 * Stability of Numerical Algorithms, 2nd ed., ch. 3). For every element of every value there is a bound on
 * |computed − exact|, from the bounds of its operands and the roundings of the op itself. Products of errors are kept,
 * so nothing is left out to first order and no safety factor is needed; sums are bounded for every order of summation,
 * so the bounds hold for any number of lanes, partial sums or fused multiply-adds.
 */

/**
 * Attention rescales what it has summed at most once per this many positions; then the sums of lanes, of simdgroups and
 * of parts of the context as they are added up.
 */
const attentionBlock = 8;
const attentionLevels = 3;

/** A value of the device: what it should be, and how far each element may be from that. */
export interface Approximate extends NdArray {
  readonly error: Float64Array;
  /**
   * Of a packed matrix: for each element s·(q − zero) + b, which no device need work out, |s·(q − zero)| + |b|.
   */
  readonly terms?: Float64Array | undefined;
}

/** What an op should compute, and what its elements are stored as. */
interface Result extends NdArray {
  readonly dtype: DType;
  /** Whether attention rounds its queries and the powers of its scores to halves. */
  readonly halves: boolean;
}

type Bound<N extends OpName> = (
  inputs: Named<OpOf<N>['inputs'], Approximate>,
  attrs: AttrsOf<N>,
  result: Result,
) => Float64Array;

const at = (values: Float64Array, index: number): number => values[index] ?? Number.NaN;
const magnitude = (x: Approximate, index: number): number =>
  (x.terms ? at(x.terms, index) : Math.abs(at(x.data, index))) + at(x.error, index);

/** The error of k roundings on a result, or on terms, of the given magnitude. */
const rounding = (k: number, size: number): number => gamma(k) * size + k * tiny;

/** |âb̂ − ab| for operands that are off by ea and eb. */
const productError = (a: number, ea: number, b: number, eb: number): number =>
  Math.abs(a) * eb + Math.abs(b) * ea + ea * eb;

/** How far a number in the kernel's text is from the one meant. */
const literalError = (value: number): number => Math.abs(Math.fround(value) - value);

const exact = (_inputs: unknown, _attrs: unknown, { data }: NdArray): Float64Array =>
  new Float64Array(data.length);

const errorsOf = ({ shape, error }: Approximate): NdArray => ({ shape, data: error });

/** Error of each element of a result from its index. */
const eachElement = ({ data }: NdArray, error: (index: number, value: number) => number): Float64Array =>
  data.map((value, index) => error(index, value));

/** Rounded to halves. */
const inHalves = (x: Approximate): Approximate => ({
  ...x,
  error: x.error.map((error, i) => error + halfUnit * magnitude(x, i) + halfTiny),
});

/** A sum of `width` products x[xAt + i] · y[yAt + i], in any order. */
function dot(
  x: Approximate,
  xAt: number,
  y: Approximate,
  yAt: number,
  width: number,
): { value: number; error: number; size: number } {
  let value = 0;
  let error = 0;
  let size = 0;
  for (let i = 0; i < width; i++) {
    const [a, b] = [at(x.data, xAt + i), at(y.data, yAt + i)];
    value += a * b;
    error += productError(a, at(x.error, xAt + i), b, at(y.error, yAt + i));
    size += magnitude(x, xAt + i) * magnitude(y, yAt + i);
  }
  return { value, error, size };
}

/**
 * e^score over their sum, and a relative error of each e^score that leaves out a factor common to all of them: that
 * of the score, of subtracting the greatest score (in steps whose sizes add up to the distance), and of exp and the
 * multiplication in each of `rescalings`.
 */
function softmaxWeights(
  scores: readonly number[],
  errors: readonly number[],
  rescalings: number,
): { weights: number[]; relative: number[]; drift: number } {
  const greatest = Math.max(...scores);
  const worst = Math.max(...errors);
  const powers = scores.map((score) => Math.exp(score - greatest));
  const sum = powers.reduce((a, b) => a + b, 0);
  const weights = powers.map((power) => power / sum);
  const relative = scores.map((score, j) =>
    Math.expm1(
      (errors[j] ?? 0) +
        u * (greatest - score + 2 * worst) +
        (1 + rescalings) * Math.log1p(expError) +
        rescalings * Math.log1p(u),
    ),
  );
  const drift = weights.reduce((total, weight, j) => total + weight * (relative[j] ?? 0), 0);
  return { weights, relative, drift };
}

/** Greatest |f''| of silu, at 0, and of gelu, at 0 (√(2/π)), and of tanh (4/(3√3)). */
const siluCurvature = 0.5;
const geluCurvature = Math.sqrt(2 / Math.PI);
const tanhCurvature = 4 / (3 * Math.sqrt(3));

function siluBound(x: number, error: number, value: number): number {
  const sigmoid = 1 / (1 + Math.exp(-x));
  const slope = Math.abs(sigmoid * (1 + x * (1 - sigmoid)));
  const moved = slope * error + (siluCurvature / 2) * error ** 2;
  // exp, then 1 + e, then the division
  const relative = (1 + u) / ((1 - expError) * (1 - u)) - 1;
  return moved + relative * (Math.abs(value) + moved) + tiny;
}

function geluBound(x: number, error: number, value: number): number {
  const inner = (z: number): number => geluCurvature * (z + 0.044715 * z ** 3);
  const flatness = (z: number): number => 1 - Math.tanh(z) ** 2;
  const slope = Math.abs(
    0.5 * (1 + Math.tanh(inner(x))) +
      0.5 * x * flatness(inner(x)) * geluCurvature * (1 + 3 * 0.044715 * x ** 2),
  );
  const moved = slope * error + (geluCurvature / 2) * error ** 2;
  // The argument of tanh: two literals and five operations on terms of one sign.
  const far = Math.abs(x) + error;
  const near = Math.max(0, Math.abs(x) - error);
  const argument = gamma(7) * inner(far);
  const tanh = tanhError + flatness(inner(near)) * argument + (tanhCurvature / 2) * argument ** 2;
  // 1 + tanh, and the product with x / 2
  return moved + 0.5 * far * tanh * (1 + gamma(2)) + rounding(2, Math.abs(value) + moved);
}

/** (c, b) → b + c for a number c in the kernel's text. */
function shifted(x: Approximate, by: number): Approximate {
  if (by === 0) return x;
  const data = x.data.map((value) => value + by);
  const error = data.map((value, i) => {
    const moved = at(x.error, i) + literalError(by);
    return moved + rounding(1, Math.abs(value) + moved);
  });
  return { shape: x.shape, data, error };
}

/** x less the mean of its row of n. */
function deviations(x: Approximate, n: number): Approximate {
  const data = Float64Array.from(x.data);
  const error = Float64Array.from(x.error);
  for (let start = 0; start < data.length; start += n) {
    let [mean, moved, size] = [0, 0, 0];
    for (let i = start; i < start + n; i++) {
      mean += at(x.data, i) / n;
      moved += at(x.error, i) / n;
      size += magnitude(x, i) / n;
    }
    // n - 1 sums and the division.
    const meanError = moved + rounding(n, size);
    for (let i = start; i < start + n; i++) {
      data[i] = at(x.data, i) - mean;
      const off = at(x.error, i) + meanError;
      error[i] = off + rounding(1, Math.abs(at(data, i)) + off);
    }
  }
  return { shape: x.shape, data, error };
}

/** x / √(mean(x²) + eps) · weight, by rows. */
function normBound(x: Approximate, weight: Approximate, eps: number, result: NdArray): Float64Array {
  const n = weight.data.length;
  const error = new Float64Array(result.data.length);
  // The mean square: n products and sums, the division, eps and its rounding. Then the root, its reciprocal, and
  // the products with x and the weight.
  const meanSquare = gamma(n + 3);
  const relative = ((1 - meanSquare) ** -0.5 * (1 + u) ** 2 - 1) * (1 + u) ** 2 + gamma(2);
  for (let start = 0; start < error.length; start += n) {
    const row = x.data.subarray(start, start + n);
    const rowError = x.error.subarray(start, start + n);
    const norm = Math.sqrt(row.reduce((sum, value) => sum + value ** 2, 0) / n + eps);
    // The root is a norm of (x / √n, √eps), so it moves by no more than that of the errors.
    const moved = Math.sqrt(rowError.reduce((sum, value) => sum + value ** 2, 0) / n);
    for (let i = 0; i < n; i++) {
      const unit = at(row, i) / norm;
      const unitError = moved < norm ? (at(rowError, i) + Math.abs(unit) * moved) / (norm - moved) : Infinity;
      const size = (Math.abs(unit) + unitError) * magnitude(weight, i);
      error[start + i] =
        productError(unit, unitError, at(weight.data, i), at(weight.error, i)) + relative * size + 4 * tiny;
    }
  }
  return error;
}

/** tanh, whose slope is at most 1 and at x its flatness there. */
function tanhBound(x: number, error: number): number {
  const flatness = 1 - Math.tanh(x) ** 2;
  const moved = Math.min(error, flatness * error + (tanhCurvature / 2) * error ** 2);
  return moved + tanhError * (Math.abs(Math.tanh(x)) + moved) + tiny;
}

/** Models have none of these ops, and bounds are of models. */
function madeByPasses(): never {
  throw new Error('a model has an op that only passes make');
}

/** Every op states how far its result may be off; a new op must. */
const bounds: { readonly [N in OpName]: Bound<N> } = {
  input: exact,
  weight: exact,
  state: exact,
  // Computed in float64, stored in f32.
  rope_table: (_inputs, _attrs, result) => eachElement(result, (_, value) => rounding(1, Math.abs(value))),
  embed: ({ ids, table }, attrs, { data, shape }) => {
    if (ids.error.some((error) => error > 0)) return data.map(() => Infinity);
    // s·(q − zero) has at most 24 bits: only the sum with b rounds.
    const error = table.terms ? table.terms.map((size) => rounding(1, size)) : table.error;
    return ops.embed.evaluate({ ids, table: { shape: table.shape, data: error } }, attrs, shape);
  },
  linear: ({ x, weight, bias }, _attrs, result) => {
    const k = weight.shape[1] ?? 0;
    const n = result.shape[1] ?? 0;
    return eachElement(result, (index) => {
      const row = index % n;
      const { error: moved, size } = dot(x, Math.floor(index / n) * k, weight, row * k, k);
      // Of a packed row, Σ s·(q − zero)·x + Σ b·x in any order: q is exact, s is a product of few bits and at most 2^16,
      // so beside those of 2k products and sums there is one rounding more, and what underflows may be multiplied by s.
      const error = weight.terms ? moved + gamma(2 * k + 1) * size + 2 * k * 2 ** 16 * tiny : moved;
      if (!bias) return error + rounding(k, size);
      return error + at(bias.error, row) + rounding(k + 1, size + magnitude(bias, row));
    });
  },
  sparse_linear: ({ x, values, columns, bias }, attrs, result) => {
    const size = [values.shape[0] ?? 0, x.shape[1] ?? 0] as const;
    const { rows, columns: width } = blockOf(values.shape, columns.shape);
    // Products with zeros add no rounding.
    const whole = (of: Float64Array): Float64Array => dense(of, columns.data, size, [rows, width]);
    const matrix = {
      shape: size,
      data: whole(values.data),
      error: whole(values.error),
      terms: values.terms && whole(values.terms),
    };
    return bounds.linear({ x, weight: matrix, ...(bias && { bias }) }, attrs, result);
  },
  rms_norm: ({ x, weight }, { eps, offset = 0 }, result) =>
    normBound(x, shifted(weight, offset), eps, result),
  layer_norm: ({ x, weight, bias }, { eps }, result) => {
    const n = weight.data.length;
    const error = normBound(deviations(x, n), weight, eps, result);
    if (!bias) return error;
    return error.map((off, i) => {
      const moved = off + at(bias.error, i % n);
      return moved + rounding(1, Math.abs(at(result.data, i)) + moved);
    });
  },
  rope: ({ x, table, start }, _attrs, result) => {
    const [, heads = 0, width = 0] = result.shape;
    const dims = table.shape[1] ?? 0;
    const half = dims / 2;
    const first = start?.data[0] ?? 0;
    return eachElement(result, (index) => {
      const i = index % width;
      if (i >= dims) return at(x.error, index);
      const angle = (first + Math.floor(index / (heads * width))) * dims + (i % half);
      const partner = i < half ? index + half : index - half;
      const terms = [
        [index, angle],
        [partner, angle + half],
      ] as const;
      return terms.reduce(
        (sum, [a, b]) =>
          sum +
          productError(at(x.data, a), at(x.error, a), at(table.data, b), at(table.error, b)) +
          rounding(2, magnitude(x, a) * magnitude(table, b)),
        0,
      );
    });
  },
  cache_append: ({ cache, x, start }, attrs, { shape, dtype }) => {
    const error = ops.cache_append.evaluate({ cache: errorsOf(cache), x: errorsOf(x), start }, attrs, shape);
    // Rounding keeps the order: what lies between two numbers is rounded to between what they are rounded to.
    const exact = ops.cache_append.evaluate({ cache, x, start }, attrs, shape);
    return error.map((off, i) => {
      const value = at(exact, i);
      const [low, middle, high] = [value - off, value, value + off].map((edge) => rounded(edge, dtype));
      return Math.max((high ?? NaN) - (middle ?? NaN), (middle ?? NaN) - (low ?? NaN));
    });
  },
  attention: ({ q: exactQuery, k, v, start }, { scale, softcap, ...sight }, result) => {
    const q = result.halves ? inHalves(exactQuery) : exactQuery;
    const [tokens = 0, heads = 0, width = 0] = result.shape;
    const [keys = 0, groups = 1] = k.shape;
    // With a softcap the product is multiplied by scale / softcap, and tanh of that by the softcap.
    const factor = (scale ?? 1 / Math.sqrt(width)) / (softcap ?? 1);
    const factorError = literalError(factor);
    const capped = ({ score, error }: { score: number; error: number }): { score: number; error: number } => {
      if (softcap === undefined) return { score, error };
      const value = Math.tanh(score);
      const moved = productError(value, tanhBound(score, error), softcap, literalError(softcap));
      return { score: softcap * value, error: moved + rounding(1, softcap * Math.abs(value) + moved) };
    };
    const first = start?.data[0] ?? 0;
    const error = new Float64Array(result.data.length);
    for (let t = 0; t < tokens; t++) {
      const rows = visibleRows(first + t, keys, sight);
      const seen = rows.length;
      for (let h = 0; h < heads; h++) {
        const group = Math.floor(h / (heads / groups));
        const query = (t * heads + h) * width;
        const keyAt = rows.map((row) => (row * groups + group) * width);
        const scores = keyAt.map((key) => {
          const product = dot(q, query, k, key, width);
          const productOff = product.error + rounding(width, product.size);
          return capped({
            score: product.value * factor,
            error:
              productError(product.value, productOff, factor, factorError) +
              rounding(1, (Math.abs(product.value) + productOff) * (factor + factorError)),
          });
        });
        const { weights, relative, drift } = softmaxWeights(
          scores.map(({ score }) => score),
          scores.map(({ error }) => error),
          Math.ceil(seen / attentionBlock) + attentionLevels,
        );
        // Powers as halves, the greatest of which is 1: how far each weight is off by that.
        const halved = weights.map((weight, j) =>
          result.halves ? halfUnit * weight * (1 + (relative[j] ?? 0)) + halfTiny * Math.max(...weights) : 0,
        );
        const moving = drift + halved.reduce((total, off) => total + off, 0);
        // The weighted sum: one product and seen − 1 sums; the total: seen − 1 sums; then their quotient.
        const sums = ((1 + gamma(seen)) * (1 + u)) / (1 - gamma(seen)) - 1;
        for (let i = 0; i < width; i++) {
          const mixed = at(result.data, query + i);
          let moved = 0;
          let size = 0;
          weights.forEach((weight, j) => {
            const index = (keyAt[j] ?? 0) + i;
            const off = relative[j] ?? 0;
            // Σ pⱼ(1 + ρⱼ)vⱼ / Σ pⱼ(1 + ρⱼ) − o = Σ pⱼρⱼ(vⱼ − o) / Σ pⱼ(1 + ρⱼ)
            const weightOff = weight * off + (halved[j] ?? 0);
            moved +=
              weightOff * Math.abs(at(v.data, index) - mixed) + (weight + weightOff) * at(v.error, index);
            size += (weight + weightOff + tiny) * magnitude(v, index);
          });
          error[query + i] =
            moving < 1 ? (moved + sums * size) / (1 - moving) + 2 * seen * tiny * (1 + size) : Infinity;
        }
      }
    }
    return error;
  },
  silu: ({ x }, _attrs, result) =>
    eachElement(result, (i, value) => siluBound(at(x.data, i), at(x.error, i), value)),
  gelu: ({ x }, _attrs, result) =>
    eachElement(result, (i, value) => geluBound(at(x.data, i), at(x.error, i), value)),
  tanh: ({ x }, _attrs, result) => eachElement(result, (i) => tanhBound(at(x.data, i), at(x.error, i))),
  mul: ({ a, b }, _attrs, result) =>
    eachElement(result, (i) => {
      const j = i % b.data.length;
      const moved = productError(at(a.data, i), at(a.error, i), at(b.data, j), at(b.error, j));
      return moved + rounding(1, magnitude(a, i) * magnitude(b, j));
    }),
  add: ({ a, b }, _attrs, result) =>
    eachElement(result, (i, value) => {
      const moved = at(a.error, i) + at(b.error, i % b.data.length);
      return moved + rounding(1, Math.abs(value) + moved);
    }),
  scale: ({ x }, { by }, result) =>
    eachElement(result, (i, value) => {
      const moved = productError(at(x.data, i), at(x.error, i), by, literalError(by));
      return moved + rounding(1, Math.abs(value) + moved);
    }),
  split: ({ x }, attrs, { shape }) => ops.split.evaluate({ x: errorsOf(x) }, attrs, shape),
  reshape: ({ x }, attrs, { shape }) => ops.reshape.evaluate({ x: errorsOf(x) }, attrs, shape),
  positions: ({ table, start }, attrs, { shape }) =>
    ops.positions.evaluate({ table: errorsOf(table), ...(start && { start }) }, attrs, shape),
  softmax: ({ x }, _attrs, result) => {
    const n = result.shape.at(-1) ?? 1;
    const error = new Float64Array(result.data.length);
    for (let start = 0; start < error.length; start += n) {
      const { weights, relative, drift } = softmaxWeights(
        [...x.data.subarray(start, start + n)],
        [...x.error.subarray(start, start + n)],
        0,
      );
      weights.forEach((weight, i) => {
        // The quotient of a power and the sum of n of them.
        const off = ((1 + (relative[i] ?? 0)) * (1 + u)) / ((1 - drift) * (1 - gamma(n - 1))) - 1;
        error[start + i] = drift < 1 ? weight * off + 2 * tiny : Infinity;
      });
    }
    return error;
  },
  last: ({ x }, attrs, { shape }) => ops.last.evaluate({ x: errorsOf(x) }, attrs, shape),
  // The index is certain, or anything.
  argmax: ({ x }, _attrs, result) => {
    const n = x.data.length / result.data.length;
    return eachElement(result, (row, winner) => {
      const least = at(x.data, row * n + winner) - at(x.error, row * n + winner);
      for (let j = 0; j < n; j++) {
        const rival = at(x.data, row * n + j) + at(x.error, row * n + j);
        // Equal and exact: the lowest index wins on both sides.
        const tied = rival === least && at(x.error, row * n + j) === 0 && j > winner;
        if (j !== winner && !(rival < least) && !tied) return Infinity;
      }
      return 0;
    });
  },
  attention_parts: madeByPasses,
  attention_combine: madeByPasses,
  sample_parts: madeByPasses,
  // As of argmax.
  sample: ({ logits, tokens, position, sampling, seed }) => {
    const start = logits.data.length - (logits.shape[1] ?? 0);
    const row = { data: logits.data.subarray(start), error: logits.error.subarray(start) };
    const next = at(position.data, 0) + tokens.data.length;
    const possible = possibleIds(row, sampling.data, at(seed.data, 0), next);
    return Float64Array.of(possible.length === 1 ? 0 : Infinity);
  },
};

/**
 * An operand of a product rounded to half: by 2^-11 of itself, or half the distance of the smallest halves. What devices
 * work out of a packed matrix first takes two products and a sum in floats. Tensor cores cut off where others round, which
 * is twice the error in each of the `length` sums.
 */
function halved(x: Approximate, length: number): Approximate {
  const error = x.data.map((value, i) => {
    const before = at(x.error, i) + (x.terms ? rounding(3, at(x.terms, i)) : 0);
    return before + (Math.abs(value) + before) * (2 ** -11 + (length / 2) * u) + 2 ** -25;
  });
  return { ...x, error };
}

/** The operands of a product as tiles of `simdgroup_half8x8` multiply them. */
function tileOperands(node: Node, operands: readonly Approximate[]): readonly Approximate[] {
  const [x, weight, ...bias] = operands;
  const [dtype, length = 0] = [node.inputs[1]?.type.dtype ?? 'f32', weight?.shape[1]];
  const halves = weight?.terms !== undefined || isHalved(dtype);
  if (!x || !weight || !halves || !isTiled(dtype, length)) return operands;
  return [halved(x, length), halved(weight, length), ...bias];
}

/**
 * How far each element of each value of a graph may be from `values`, which the interpreter computed; `packed` by
 * weight; `halves` where attention works with halves, `tiled` where some of a build's entries multiply in tiles.
 */
export function errorBounds(
  graph: Graph,
  values: ReadonlyMap<Node, NdArray>,
  packed: ReadonlyMap<string, { readonly terms: Float64Array | undefined }> = new Map(),
  { halves = false, tiled = false }: { readonly halves?: boolean; readonly tiled?: boolean } = {},
): Map<Node, Approximate> {
  const found = new Map<Node, Approximate>();
  for (const node of graph.nodes) {
    const value = values.get(node);
    if (!value) throw new Error(`${node.op} has no value`);
    const inputs = node.inputs.map((input) => {
      const known = found.get(input);
      if (!known) throw new Error(`${input.op} is used before it is computed`);
      return known;
    });
    // ∞ · 0 is NaN; what follows from an unbounded error is unbounded.
    const operands = tiled && isOp(node, 'linear') ? tileOperands(node, inputs) : inputs;
    const error = boundOf(node.op, node.attrs, operands, {
      ...value,
      dtype: isPackedName(node.type.dtype) ? 'f32' : node.type.dtype,
      halves,
    }).map((e) => (Number.isNaN(e) ? Infinity : e));
    const terms = isOp(node, 'weight') ? packed.get(node.attrs.name)?.terms : undefined;
    found.set(node, { ...value, error, terms });
  }
  return found;
}

function boundOf<N extends OpName>(
  op: N,
  attrs: AttrsOf<N>,
  inputs: readonly Approximate[],
  result: Result,
): Float64Array {
  // The compiler cannot see that the members of the table and of the registry agree on N.
  const bound = bounds[op] as (
    inputs: Record<string, Approximate>,
    attrs: AttrsOf<N>,
    result: Result,
  ) => Float64Array;
  return bound(nameInputs(ops[op].inputs, inputs), attrs, result);
}

export interface Comparison {
  /** The first element that is off by more than its bound, or is not a number. */
  readonly wrong: { readonly index: number; readonly text: string } | undefined;
  /** The greatest error in units of its bound; of elements that have one. */
  readonly ratio: number;
}

/** Compares what a device computed with what it should have. */
export function compare(actual: ArrayLike<number>, expected: Approximate): Comparison {
  if (actual.length !== expected.data.length)
    throw new Error(`${actual.length} elements instead of ${expected.data.length}`);
  let wrong: Comparison['wrong'];
  let ratio = 0;
  expected.data.forEach((value, index) => {
    const bound = at(expected.error, index);
    const computed = actual[index] ?? Number.NaN;
    const off = Math.abs(computed - value);
    if (Number.isFinite(bound) && bound > 0 && off > 0) ratio = Math.max(ratio, off / bound);
    if (!(off <= bound)) {
      wrong ??= {
        index,
        text: `is ${computed}, should be ${value} ± ${bound}: off by ${(off / bound).toFixed(2)} bounds`,
      };
    }
  });
  return { wrong, ratio };
}
