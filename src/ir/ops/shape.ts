import { z } from 'zod';
import { checkStart, defineOp, reject } from '../define.js';
import { elementCount, formatType, isReal, lastDim, type Dim } from '../type.js';

const free = () => ({ flops: 0, reduction: 1 });

export const split = defineOp({
  name: 'split',
  doc: 'One part of the last axis cut into `sizes`: [.., Σ sizes] → [.., sizes[part]].',
  class: 'view',
  inputs: ['x'],
  attrs: z.object({ sizes: z.array(z.int().positive()).min(1), part: z.int().nonnegative() }),
  tokenwise: true,
  infer: ({ x }, { sizes, part }) => {
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const size = sizes[part];
    if (lastDim(x.shape) !== total) {
      reject(`sizes ${sizes.join(' + ')} = ${total} must add up to the last axis of x ${formatType(x)}`);
    }
    if (size === undefined) reject(`part ${part} must be one of the ${sizes.length} sizes`);
    return { dtype: x.dtype, shape: [...x.shape.slice(0, -1), size] };
  },
  evaluate: ({ x }, { sizes, part }) => {
    const total = sizes.reduce((sum, size) => sum + size, 0);
    const start = sizes.slice(0, part).reduce((sum, size) => sum + size, 0);
    const size = sizes[part] ?? 0;
    const rows = x.data.length / total;
    const result = new Float64Array(rows * size);
    for (let row = 0; row < rows; row++) {
      result.set(x.data.subarray(row * total + start, row * total + start + size), row * size);
    }
    return result;
  },
  cost: free,
});

/** Product of the numeric axes, and the named ones in order: two shapes hold the same elements when these agree. */
function extent(shape: readonly Dim[]): string {
  const numbers = shape.filter((dim) => typeof dim === 'number');
  const names = shape.filter((dim) => typeof dim === 'string');
  return [numbers.reduce((product, length) => product * length, 1), ...names].join(' · ');
}

export const reshape = defineOp({
  name: 'reshape',
  doc: 'The same elements in the same order under another shape. The token axis stays first.',
  class: 'view',
  inputs: ['x'],
  attrs: z.object({ shape: z.array(z.union([z.int().positive(), z.string()])).min(1) }),
  tokenwise: true,
  infer: ({ x }, { shape }) => {
    if (extent(shape) !== extent(x.shape)) {
      reject(
        `shape [${shape.join(', ')}] (${extent(shape)}) must hold the elements of x ${formatType(x)} (${extent(x.shape)})`,
      );
    }
    if (shape[0] !== x.shape[0])
      reject(`the first axis of x ${formatType(x)} must stay first, not [${shape.join(', ')}]`);
    return { dtype: x.dtype, shape };
  },
  evaluate: ({ x }) => x.data,
  cost: free,
});

export const positions = defineOp({
  name: 'positions',
  doc: 'Row start + t of the table, for every token t of the step: table [P, D], start i32[] (0 when absent) → [T, D].',
  class: 'view',
  inputs: ['table', 'start?'],
  attrs: z.object({}),
  tokenwise: false,
  infer: ({ table, start }) => {
    if (!isReal(table) || table.shape.length !== 2 || table.shape.some((dim) => typeof dim === 'string'))
      reject(`table must be [P, D], not ${formatType(table)}`);
    checkStart(start);
    return { dtype: table.dtype, shape: ['T', ...table.shape.slice(1)] };
  },
  evaluate: ({ table, start }, _, shape) => {
    const [, width = 0] = shape;
    const begin = (start?.data[0] ?? 0) * width;
    return table.data.slice(begin, begin + elementCount(shape));
  },
  cost: free,
});
