import { z } from 'zod';
import { defineOp, reject } from '../define.js';
import { elementCount, f32, formatType, isReal, sameShape, type TensorType } from '../type.js';

/** Rows have a multiple of this many values: what a lane takes at a time, and a group of most packed formats. */
export const sparseRun = 32;

/** The rows and columns of the blocks that values come in: `matrix rows x values` against those of their columns. */
export interface Block {
  readonly rows: number;
  readonly columns: number;
}

/** The blocks of a matrix in which `values` are kept; every `columns` index is the first of a block's, counted in blocks. */
export function blockOf(values: readonly unknown[], columns: readonly unknown[]): Block {
  const ratio = (axis: number): number => Number(values[axis]) / Number(columns[axis]);
  return { rows: ratio(0), columns: ratio(1) };
}

/** How far indices reach: blocks of so many columns that 16 bits can count. */
export const mostBlocks = 2 ** 16;

function checkValues(values: TensorType, columns: TensorType): void {
  const [rows, kept, ...others] = values.shape;
  if (!isReal(values) || typeof rows !== 'number' || typeof kept !== 'number' || others.length > 0)
    reject(`values must be [N, M], not ${formatType(values)}`);
  if (kept % sparseRun !== 0)
    reject(`values ${formatType(values)} must have rows of a multiple of ${sparseRun}; more may be zero`);
  const of = blockOf(values.shape, columns.shape);
  const whole = [of.rows, of.columns].every((size) => Number.isInteger(size) && size > 0);
  if (columns.dtype !== 'u16' || columns.shape.length !== 2 || !whole)
    reject(
      `columns must be u16[N / r, M / c] for blocks of r x c in values ${formatType(values)}, not ${formatType(columns)}`,
    );
  if (sparseRun % of.columns !== 0)
    reject(
      `blocks of ${of.columns} columns must divide ${sparseRun}: columns ${formatType(columns)} of values ${formatType(values)}`,
    );
}

/**
 * Every row keeps as many values as every other, so that sizes are known when a model is compiled and no thread has more
 * to do than another; rows with fewer are filled up with zeros. Blocks of 1 x 1 are rows of CSR without their pointers.
 */
export const sparseLinear = defineOp({
  name: 'sparse_linear',
  doc:
    'Products of x with rows of which M values are kept, blocks of r x c at a time: x [T, K], values [N, M], ' +
    'columns u16[N / r, M / c], bias [N] → f32[T, N]. Value i of row n is in column columns[n / r, i / c] · c + i % c; ' +
    'an index past the last block means the last.',
  class: 'kernel',
  inputs: ['x', 'values', 'columns', 'bias?'],
  attrs: z.object({}),
  packed: 'values',
  tokenwise: true,
  infer: ({ x, values, columns, bias }) => {
    if (x.dtype !== 'f32' || x.shape.length !== 2) reject(`x must be f32[T, K], not ${formatType(x)}`);
    checkValues(values, columns);
    const { columns: width } = blockOf(values.shape, columns.shape);
    const length = Number(x.shape[1]);
    if (length % width !== 0)
      reject(`the last axis of x ${formatType(x)} must be a multiple of the ${width} columns of a block`);
    if (length / width > mostBlocks)
      reject(`u16 columns reach ${mostBlocks * width} elements, not all of x ${formatType(x)}`);
    if (bias && (!isReal(bias) || !sameShape(bias.shape, values.shape.slice(0, 1))))
      reject(`bias ${formatType(bias)} must match the first axis of values ${formatType(values)}`);
    return f32(...x.shape.slice(0, 1), ...values.shape.slice(0, 1));
  },
  evaluate: ({ x, values, columns, bias }, _, shape) => {
    const [rows = 0, n = 0] = shape;
    const k = x.shape[1] ?? 0;
    const [, kept = 0] = values.shape;
    const [, indices = 0] = columns.shape;
    const block = blockOf(values.shape, columns.shape);
    const result = new Float64Array(rows * n);
    for (let t = 0; t < rows; t++) {
      for (let row = 0; row < n; row++) {
        let sum = bias?.data[row] ?? 0;
        for (let i = 0; i < kept; i++) {
          const index =
            columns.data[Math.floor(row / block.rows) * indices + Math.floor(i / block.columns)] ?? 0;
          const column = Math.min(index, k / block.columns - 1) * block.columns + (i % block.columns);
          sum += (values.data[row * kept + i] ?? 0) * (x.data[t * k + column] ?? 0);
        }
        result[t * n + row] = sum;
      }
    }
    return result;
  },
  cost: ({ values: [, kept = 0] }, _, shape) => ({ flops: 2 * kept * elementCount(shape), reduction: kept }),
});
