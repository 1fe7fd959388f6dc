import { z } from 'zod';
import { defineOp, reject, singlePrecision } from '../define.js';
import { elementCount, formatType, i32, isReal, lastDim, sameShape, type TensorType } from '../type.js';

const none = z.object({});

/** Spreading a row into Math.max would put a vocabulary on the stack. */
const greatest = (row: Float64Array): number => row.reduce((a, b) => Math.max(a, b), -Infinity);

function checkRows(x: TensorType): void {
  if (x.dtype !== 'f32' || typeof lastDim(x.shape) !== 'number' || x.shape.length < 1) {
    reject(`x must be f32[.., N] with a known N, not ${formatType(x)}`);
  }
}

/** A norm's weight or bias. */
function checkVector(name: string, vector: TensorType, x: TensorType): void {
  if (isReal(vector) && sameShape(vector.shape, [lastDim(x.shape)])) return;
  reject(`${name} ${formatType(vector)} must match the last axis of x ${formatType(x)}`);
}

export const rmsNorm = defineOp({
  name: 'rms_norm',
  doc:
    'x / √(mean(x²) + eps) · (weight + offset) over the last axis (Zhang & Sennrich 2019): x [.., N], weight [N]. ' +
    'offset defaults to 0; checkpoints that store weights less 1 have 1.',
  class: 'kernel',
  inputs: ['x', 'weight'],
  attrs: z.object({ eps: singlePrecision.positive(), offset: singlePrecision.optional() }),
  tokenwise: true,
  infer: ({ x, weight }) => {
    checkRows(x);
    checkVector('weight', weight, x);
    return x;
  },
  evaluate: ({ x, weight }, { eps, offset = 0 }) => {
    const n = weight.data.length;
    const result = new Float64Array(x.data.length);
    for (let start = 0; start < x.data.length; start += n) {
      const row = x.data.subarray(start, start + n);
      const meanSquare = row.reduce((sum, value) => sum + value * value, 0) / n;
      const factor = 1 / Math.sqrt(meanSquare + eps);
      row.forEach((value, i) => (result[start + i] = value * factor * ((weight.data[i] ?? 0) + offset)));
    }
    return result;
  },
  cost: ({ weight: [n = 0] }, _, shape) => ({ flops: 4 * elementCount(shape), reduction: n }),
});

export const layerNorm = defineOp({
  name: 'layer_norm',
  doc:
    '(x - mean(x)) / √(variance(x) + eps) · weight + bias over the last axis (Ba et al. 2016): x [.., N], weight and ' +
    'bias [N].',
  class: 'kernel',
  inputs: ['x', 'weight', 'bias?'],
  attrs: z.object({ eps: singlePrecision.positive() }),
  tokenwise: true,
  infer: ({ x, weight, bias }) => {
    checkRows(x);
    checkVector('weight', weight, x);
    if (bias) checkVector('bias', bias, x);
    return x;
  },
  evaluate: ({ x, weight, bias }, { eps }) => {
    const n = weight.data.length;
    const result = new Float64Array(x.data.length);
    for (let start = 0; start < x.data.length; start += n) {
      const row = x.data.subarray(start, start + n);
      const mean = row.reduce((sum, value) => sum + value, 0) / n;
      const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / n;
      const factor = 1 / Math.sqrt(variance + eps);
      row.forEach((value, i) => {
        result[start + i] = (value - mean) * factor * (weight.data[i] ?? 0) + (bias?.data[i] ?? 0);
      });
    }
    return result;
  },
  cost: ({ weight: [n = 0] }, _, shape) => ({ flops: 8 * elementCount(shape), reduction: n }),
});

export const softmax = defineOp({
  name: 'softmax',
  doc: 'e^x / Σ e^x over the last axis.',
  class: 'kernel',
  inputs: ['x'],
  attrs: none,
  tokenwise: true,
  infer: ({ x }) => {
    checkRows(x);
    return x;
  },
  evaluate: ({ x }, _, shape) => {
    const n = shape[shape.length - 1] ?? 0;
    const result = new Float64Array(x.data.length);
    for (let start = 0; start < x.data.length; start += n) {
      const row = x.data.subarray(start, start + n);
      const max = greatest(row);
      const sum = row.reduce((total, value) => total + Math.exp(value - max), 0);
      row.forEach((value, i) => (result[start + i] = Math.exp(value - max) / sum));
    }
    return result;
  },
  cost: (_, __, shape) => ({ flops: 4 * elementCount(shape), reduction: shape[shape.length - 1] ?? 1 }),
});

export const argmax = defineOp({
  name: 'argmax',
  doc: 'Index of the greatest element of every row, the lowest of equals: f32[R, N] → i32[R].',
  class: 'kernel',
  inputs: ['x'],
  attrs: none,
  tokenwise: true,
  infer: ({ x }) => {
    if (x.dtype !== 'f32' || x.shape.length !== 2) reject(`x must be f32[R, N], not ${formatType(x)}`);
    return i32(...x.shape.slice(0, 1));
  },
  evaluate: ({ x }, _, shape) => {
    const [rows = 0] = shape;
    const n = x.data.length / rows;
    return Float64Array.from({ length: rows }, (_, t) => {
      const row = x.data.subarray(t * n, (t + 1) * n);
      return row.indexOf(greatest(row));
    });
  },
  cost: ({ x }) => ({ flops: elementCount(x), reduction: 1 }),
});

export const last = defineOp({
  name: 'last',
  doc: 'The row of the last token of the step: [T, ..] → [1, ..].',
  class: 'view',
  inputs: ['x'],
  attrs: none,
  tokenwise: false,
  infer: ({ x }) => {
    if (x.shape.length < 1) reject(`x must have a token axis, ${formatType(x)} has none`);
    return { dtype: x.dtype, shape: [1, ...x.shape.slice(1)] };
  },
  evaluate: ({ x }, _, shape) => x.data.slice(x.data.length - elementCount(shape)),
  cost: () => ({ flops: 0, reduction: 1 }),
});
