import { z } from 'zod';
import { defineOp, reject } from '../define.js';
import { elementCount, f32, formatType, isReal, sameShape, type TensorType } from '../type.js';

const none = z.object({});

/** A matrix is the same for every token, whatever their number. */
const hasTokens = ({ shape }: TensorType): boolean => shape.some((dim) => typeof dim === 'string');

export const embed = defineOp({
  name: 'embed',
  doc: 'Row ids[t] of the table, for every token: ids i32[T], table [V, D] → f32[T, D].',
  class: 'kernel',
  inputs: ['ids', 'table'],
  attrs: none,
  packed: 'table',
  tokenwise: true,
  infer: ({ ids, table }) => {
    if (ids.dtype !== 'i32' || ids.shape.length !== 1) reject(`ids must be i32[T], not ${formatType(ids)}`);
    if (!isReal(table) || table.shape.length !== 2 || hasTokens(table))
      reject(`table must be [V, D], not ${formatType(table)}`);
    return f32(...ids.shape, ...table.shape.slice(1));
  },
  evaluate: ({ ids, table }, _, shape) => {
    const [rows = 0, width = 0] = shape;
    const result = new Float64Array(rows * width);
    for (let t = 0; t < rows; t++) {
      const start = (ids.data[t] ?? 0) * width;
      result.set(table.data.subarray(start, start + width), t * width);
    }
    return result;
  },
  cost: () => ({ flops: 0, reduction: 1 }),
});

export const linear = defineOp({
  name: 'linear',
  doc: 'x · weightᵀ + bias: x [T, K], weight [N, K], bias [N] → f32[T, N].',
  class: 'kernel',
  inputs: ['x', 'weight', 'bias?'],
  attrs: none,
  packed: 'weight',
  tokenwise: true,
  infer: ({ x, weight, bias }) => {
    if (x.dtype !== 'f32' || x.shape.length !== 2) reject(`x must be f32[T, K], not ${formatType(x)}`);
    if (!isReal(weight) || weight.shape.length !== 2 || hasTokens(weight)) {
      reject(`weight must be [N, K], not ${formatType(weight)}`);
    }
    if (weight.shape[1] !== x.shape[1]) {
      reject(`the last axis of weight ${formatType(weight)} must match the last axis of x ${formatType(x)}`);
    }
    if (bias && (!isReal(bias) || !sameShape(bias.shape, weight.shape.slice(0, 1)))) {
      reject(`bias ${formatType(bias)} must match the first axis of weight ${formatType(weight)}`);
    }
    return f32(...x.shape.slice(0, 1), ...weight.shape.slice(0, 1));
  },
  evaluate: ({ x, weight, bias }, _, shape) => {
    const [rows = 0, n = 0] = shape;
    const k = weight.shape[1] ?? 0;
    const result = new Float64Array(rows * n);
    for (let t = 0; t < rows; t++) {
      for (let row = 0; row < n; row++) {
        let sum = bias?.data[row] ?? 0;
        for (let i = 0; i < k; i++) sum += (x.data[t * k + i] ?? 0) * (weight.data[row * k + i] ?? 0);
        result[t * n + row] = sum;
      }
    }
    return result;
  },
  cost: ({ weight: [, k = 0] }, _, shape) => ({ flops: 2 * k * elementCount(shape), reduction: k }),
});
