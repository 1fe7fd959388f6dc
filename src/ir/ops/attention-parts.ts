import { z } from 'zod';
import { defineOp, reject } from '../define.js';
import { elementCount, f32, formatType } from '../type.js';
import { attentionAttrs, checkAttention, visibleRows, weighRows } from './attention.js';

/** Parts begin at multiples of this many of the rows that a query sees. */
export const partBlock = 32;

/** Rows in each part but the last ones, which may have fewer or none. */
export function rowsOfPart(rows: number, parts: number): number {
  return partBlock * Math.ceil(rows / (partBlock * parts));
}

export const attentionParts = defineOp({
  name: 'attention_parts',
  doc:
    'attention over the rows that each query sees in `parts` equal parts, by themselves, as in Flash-Decoding (Dao et al. ' +
    '2023): of every part Σ e^(score - m) · v, then the greatest score m (-∞ without rows), then Σ e^(score - m). ' +
    'Operands as of attention → f32[T, H, parts, D + 2].',
  class: 'kernel',
  inputs: ['q', 'k', 'v', 'start?'],
  attrs: attentionAttrs.extend({ parts: z.int().positive() }),
  tokenwise: false,
  infer: (inputs, { parts, ...attrs }) => {
    checkAttention(inputs, attrs);
    const [tokens = 1, heads = 1, width] = inputs.q.shape;
    return f32(tokens, heads, parts, Number(width) + 2);
  },
  evaluate: ({ start, ...operands }, { parts, ...attrs }, shape) => {
    const [tokens = 0, heads = 0, , stride = 0] = shape;
    const width = stride - 2;
    const [keys = 0, groups = 1] = operands.k.shape;
    const first = start?.data[0] ?? 0;
    const result = new Float64Array(elementCount(shape));
    for (let t = 0; t < tokens; t++) {
      const seen = visibleRows(first + t, keys, attrs);
      const count = rowsOfPart(seen.length, parts);
      for (let h = 0; h < heads; h++) {
        const head = t * heads + h;
        for (let part = 0; part < parts; part++) {
          const rows = seen.slice(part * count, (part + 1) * count);
          const group = Math.floor(h / (heads / groups));
          const { most, total, mixed } = weighRows(operands, head * width, group, rows, attrs);
          result.set([...mixed, most, total], (head * parts + part) * stride);
        }
      }
    }
    return result;
  },
  cost: ({ k: [keys = 0] }, { window = keys }, [tokens = 1, heads = 1, , stride = 0]) => ({
    flops: 4 * Math.min(keys, window) * tokens * heads * stride,
    reduction: Math.min(keys, window) + stride,
  }),
});

export const attentionCombine = defineOp({
  name: 'attention_combine',
  doc: 'What attention_parts left of each head as one: parts f32[T, H, P, D + 2] → f32[T, H, D].',
  class: 'kernel',
  inputs: ['parts'],
  attrs: z.object({}),
  tokenwise: true,
  infer: ({ parts }) => {
    const [tokens = 1, heads = 1, , stride] = parts.shape;
    if (parts.dtype !== 'f32' || parts.shape.length !== 4 || typeof stride !== 'number' || stride < 3)
      reject(`parts must be f32[T, H, P, D + 2], not ${formatType(parts)}`);
    return f32(tokens, heads, stride - 2);
  },
  evaluate: ({ parts }, _, shape) => {
    const [, , count = 1, stride = 0] = parts.shape;
    const width = stride - 2;
    const result = new Float64Array(elementCount(shape));
    for (let head = 0; head * width < result.length; head++) {
      const rows = Array.from({ length: count }, (_, part) =>
        parts.data.subarray((head * count + part) * stride, (head * count + part + 1) * stride),
      );
      const most = rows.reduce((greatest, row) => Math.max(greatest, row[width] ?? -Infinity), -Infinity);
      const weights = rows.map((row) => Math.exp((row[width] ?? -Infinity) - most));
      const total = rows.reduce((sum, row, i) => sum + (weights[i] ?? 0) * (row[width + 1] ?? 0), 0);
      for (let i = 0; i < width; i++) {
        const mixed = rows.reduce((sum, row, j) => sum + (weights[j] ?? 0) * (row[i] ?? 0), 0);
        result[head * width + i] = mixed / total;
      }
    }
    return result;
  },
  cost: ({ parts: [, , count = 1] }, _, shape) => ({
    flops: 2 * count * elementCount(shape),
    reduction: count,
  }),
});
