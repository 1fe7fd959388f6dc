import { z } from 'zod';
import { checkStart, defineOp, reject, singlePrecision, type Named, type NdArray } from '../define.js';
import { elementCount, formatType, sameShape, sameType, type TensorType } from '../type.js';

export const rope = defineOp({
  name: 'rope',
  doc:
    'Rotary position embedding in the half-split form: pairs (x[i], x[i + dims/2]) of each head turn by the angle of ' +
    'position start + t; elements past `dims` stay. x f32[T, H, D], table f32[C, dims], start i32[] (0 when absent).',
  class: 'kernel',
  inputs: ['x', 'table', 'start?'],
  attrs: z.object({}),
  tokenwise: false,
  infer: ({ x, table, start }) => {
    if (x.dtype !== 'f32' || x.shape.length !== 3) reject(`x must be f32[T, H, D], not ${formatType(x)}`);
    const [, , width = 0] = x.shape;
    const [, dims = 0] = table.shape;
    if (typeof width !== 'number' || typeof dims !== 'number' || dims > width) {
      reject(`dims ${dims} must not exceed the head size of x ${formatType(x)}`);
    }
    checkStart(start);
    return x;
  },
  evaluate: ({ x, table, start }, _, shape) => {
    const [tokens = 0, heads = 0, width = 0] = shape;
    const dims = table.shape[1] ?? 0;
    const half = dims / 2;
    const first = start?.data[0] ?? 0;
    const result = Float64Array.from(x.data);
    for (let t = 0; t < tokens; t++) {
      for (let h = 0; h < heads; h++) {
        const base = (t * heads + h) * width;
        for (let i = 0; i < half; i++) {
          const cos = table.data[(first + t) * dims + i] ?? Number.NaN;
          const sin = table.data[(first + t) * dims + half + i] ?? Number.NaN;
          const a = x.data[base + i] ?? 0;
          const b = x.data[base + half + i] ?? 0;
          result[base + i] = a * cos - b * sin;
          result[base + half + i] = b * cos + a * sin;
        }
      }
    }
    return result;
  },
  cost: (_, __, shape) => ({ flops: 3 * elementCount(shape), reduction: 2 }),
});

export const cacheAppend = defineOp({
  name: 'cache_append',
  doc:
    'cache with the rows of positions start .. start+T replaced by x: cache f32[R, H, D], x f32[T, H, D], start i32[]. ' +
    'Position p has row p mod R: a cache of fewer rows than positions is a ring that keeps the latest. A cache f16 takes ' +
    'x f32, each element rounded to the nearest, ties to even.',
  class: 'kernel',
  inputs: ['cache', 'x', 'start'],
  attrs: z.object({}),
  tokenwise: false,
  infer: ({ cache, x, start }) => {
    const holds = cache.dtype === x.dtype || (cache.dtype === 'f16' && x.dtype === 'f32');
    if (!sameShape(cache.shape.slice(1), x.shape.slice(1)) || !holds) {
      reject(`x ${formatType(x)} must match cache ${formatType(cache)} but for the first axis`);
    }
    checkStart(start);
    return cache;
  },
  evaluate: ({ cache, x, start }, _, shape) => {
    const [rows = 0] = shape;
    const rowSize = elementCount(shape.slice(1));
    const result = Float64Array.from(cache.data);
    for (let t = 0; t * rowSize < x.data.length; t++) {
      const row = ((start.data[0] ?? 0) + t) % rows;
      result.set(x.data.subarray(t * rowSize, (t + 1) * rowSize), row * rowSize);
    }
    return result;
  },
  cost: () => ({ flops: 0, reduction: 1 }),
});

/**
 * The rows of k and v that the query at a position sees. Causal: those of the latest `window` positions up to its own,
 * of all that the rows hold without a window. Position p has row p mod `rows`, as in cache_append.
 */
export function visibleRows(
  position: number,
  rows: number,
  { causal, window = rows }: { readonly causal: boolean; readonly window?: number | undefined },
): number[] {
  if (!causal) return Array.from({ length: rows }, (_, row) => row);
  const count = Math.min(position + 1, window, rows);
  return Array.from({ length: count }, (_, i) => (position + 1 - count + i) % rows);
}

/** What one query makes of some rows of k and v: softmax sums before they are divided. */
export interface Weighed {
  /** The greatest score; -Infinity without rows. */
  readonly most: number;
  /** Σ e^(score - most). */
  readonly total: number;
  /** Σ e^(score - most) · v, by element. */
  readonly mixed: Float64Array;
}

/** The rows of head `group` of k and v, weighed by the query q[query .. query + width). */
export function weighRows(
  { q, k, v }: { readonly q: NdArray; readonly k: NdArray; readonly v: NdArray },
  query: number,
  group: number,
  rows: readonly number[],
  { scale, softcap }: { readonly scale?: number | undefined; readonly softcap?: number | undefined },
): Weighed {
  const [, groups = 1, width = 0] = k.shape;
  const factor = scale ?? 1 / Math.sqrt(width);
  const starts = rows.map((row) => (row * groups + group) * width);
  const scores = starts.map((key) => {
    let dot = 0;
    for (let i = 0; i < width; i++) dot += (q.data[query + i] ?? 0) * (k.data[key + i] ?? 0);
    return softcap === undefined ? dot * factor : softcap * Math.tanh((dot * factor) / softcap);
  });
  const most = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = scores.map((score) => Math.exp(score - most));
  const mixed = Float64Array.from({ length: width }, (_, i) =>
    weights.reduce((sum, weight, j) => sum + weight * (v.data[(starts[j] ?? 0) + i] ?? 0), 0),
  );
  return { most, total: weights.reduce((a, b) => a + b, 0), mixed };
}

export const attentionAttrs = z.object({
  causal: z.boolean(),
  scale: singlePrecision.positive().optional(),
  window: z.int().positive().optional(),
  softcap: singlePrecision.positive().optional(),
});

type AttentionTypes = Named<readonly ['q', 'k', 'v', 'start?'], TensorType>;

/** Refuses operands that do not fit each other. */
export function checkAttention(
  { q, k, v, start }: AttentionTypes,
  { causal, window }: z.output<typeof attentionAttrs>,
): void {
  if (window !== undefined && !causal) reject('a window looks back from each token: it needs causal: true');
  for (const [name, type] of Object.entries({ q, k, v })) {
    const cached = name !== 'q' && type.dtype === 'f16';
    if ((type.dtype !== 'f32' && !cached) || type.shape.length !== 3)
      reject(`${name} must be f32[T, H, D], not ${formatType(type)}`);
  }
  if (!sameType(k, v)) reject(`k ${formatType(k)} and v ${formatType(v)} must have one type`);
  const [, heads, width] = q.shape;
  const [, groups, keyWidth] = k.shape;
  if (width !== keyWidth) reject(`the head size of q ${formatType(q)} must match that of k ${formatType(k)}`);
  if (typeof heads !== 'number' || typeof groups !== 'number' || heads % groups !== 0) {
    reject(`the heads of q ${formatType(q)} must be a multiple of the heads of k ${formatType(k)}`);
  }
  checkStart(start);
}

export const attention = defineOp({
  name: 'attention',
  doc:
    'softmax(q · kᵀ · scale) · v per head (Vaswani et al. 2017); grouped-query when k and v have fewer heads (Ainslie et ' +
    'al. 2023). Causal: the query at position start + t sees the keys at positions up to its own; with a window, at the ' +
    'latest `window` of them, its own included (Beltagy et al. 2020). With a softcap c, a score s is c · tanh(s / c) ' +
    '(Gemma 2). The key of position p is row p mod S. ' +
    'q f32[T, H, D], k and v f32 or f16 [S, G, D] with H a multiple of G → f32[T, H, D]. scale defaults to 1/√D, start to 0.',
  class: 'kernel',
  inputs: ['q', 'k', 'v', 'start?'],
  attrs: attentionAttrs,
  tokenwise: false,
  infer: (inputs, attrs) => {
    checkAttention(inputs, attrs);
    return inputs.q;
  },
  evaluate: ({ start, ...operands }, attrs, shape) => {
    const [tokens = 0, heads = 0, width = 0] = shape;
    const [keys = 0, groups = 1] = operands.k.shape;
    const first = start?.data[0] ?? 0;
    const result = new Float64Array(elementCount(shape));
    for (let t = 0; t < tokens; t++) {
      const seen = visibleRows(first + t, keys, attrs);
      for (let h = 0; h < heads; h++) {
        const query = (t * heads + h) * width;
        const { total, mixed } = weighRows(operands, query, Math.floor(h / (heads / groups)), seen, attrs);
        result.set(
          mixed.map((sum) => sum / total),
          query,
        );
      }
    }
    return result;
  },
  cost: ({ k: [keys = 0] }, { window = keys }, shape) => ({
    flops: 4 * Math.min(keys, window) * elementCount(shape),
    reduction: Math.min(keys, window) + (shape[2] ?? 0),
  }),
});
