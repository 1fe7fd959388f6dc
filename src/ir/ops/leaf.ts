import { z } from 'zod';
import { defineOp, reject, singlePrecision } from '../define.js';
import { isPackedName, packedFormats, rowMultiple } from '../packed.js';
import { dtypes, elementCount, storedAs, type StoredAs } from '../type.js';

const shape = z.array(z.union([z.int().nonnegative(), z.string()]));
const free = () => ({ flops: 0, reduction: 1 });

function unbound(what: string): never {
  throw new RangeError(`${what} has no value of its own: the caller provides it`);
}

/** A value that the caller provides at every step: token ids, the position of the first one. */
export const input = defineOp({
  name: 'input',
  doc: 'A value that the caller provides at every step.',
  class: 'leaf',
  inputs: [],
  attrs: z.object({ name: z.string(), dtype: z.enum(dtypes), shape }),
  tokenwise: true,
  infer: (_, { dtype, shape }) => ({ dtype, shape }),
  evaluate: (_, { name }) => unbound(`input ${name}`),
  cost: free,
});

/**
 * A part of what pruning keeps of a matrix [N, K] of the checkpoint: in every `block[0]` rows, the blocks of `block[1]`
 * columns whose squares add up to most, as many as the shape says. See sparse_linear.
 */
const pruned = z.object({
  of: z.tuple([z.int().positive(), z.int().positive()]),
  block: z.tuple([z.int().positive(), z.int().positive()]),
  part: z.enum(['values', 'columns']),
});
export type Pruned = z.output<typeof pruned>;

export const weight = defineOp({
  name: 'weight',
  doc: 'A tensor of the checkpoint, by its name there; of two axes, the other way round there if `transposed`; or a part of what is left of it when it is `pruned`.',
  class: 'leaf',
  inputs: [],
  attrs: z.object({
    name: z.string().min(1),
    dtype: z.enum(storedAs),
    shape: z.array(z.int().positive()),
    transposed: z.literal(true).optional(),
    pruned: pruned.optional(),
  }),
  tokenwise: false,
  infer: (_, { dtype, shape, transposed, pruned }) => {
    if (transposed && shape.length !== 2)
      reject(`only a matrix can be transposed, not [${shape.join(', ')}]`);
    if (pruned) checkPruned(pruned, dtype, shape);
    if (isPackedName(dtype)) {
      const multiple = rowMultiple(packedFormats[dtype]);
      const [, columns = 1, ...others] = shape;
      if (shape.length < 2 || others.length > 0 || columns % multiple !== 0)
        reject(
          `${dtype} is for matrices whose rows are a multiple of ${multiple}, not [${shape.join(', ')}]`,
        );
    }
    return { dtype, shape };
  },
  evaluate: (_, { name }) => unbound(`weight ${name}`),
  cost: free,
});

function checkPruned({ of, block: [r, c], part }: Pruned, dtype: StoredAs, shape: readonly number[]): void {
  const [rows, columns] = part === 'values' ? [1, 1] : [r, c];
  const [n = 0, kept = 0] = shape;
  if (
    shape.length !== 2 ||
    n * rows !== of[0] ||
    kept * columns > of[1] ||
    of[0] % r !== 0 ||
    of[1] % c !== 0
  )
    reject(`[${shape.join(', ')}] are no ${part} of [${of.join(', ')}] in blocks of ${r} x ${c}`);
  if ((dtype === 'u16') !== (part === 'columns')) reject(`${part} of a pruned matrix cannot be ${dtype}`);
}

export const state = defineOp({
  name: 'state',
  doc: 'A tensor that lives from step to step, zero at first. Inserted by passes; models have none.',
  class: 'leaf',
  inputs: [],
  attrs: z.object({ name: z.string(), dtype: z.enum(dtypes), shape }),
  tokenwise: false,
  infer: (_, { dtype, shape }) => ({ dtype, shape }),
  evaluate: (_, { name }) => unbound(`state ${name}`),
  cost: free,
});

const factors = z.array(z.number().positive());

/**
 * Rotary angles as in RoFormer (Su et al. 2021, eq. 15): row p holds cos(p·f_i), then sin(p·f_i), f_i = θ^(-2i/dims).
 * Ways to stretch a context (Llama 3.1, LongRoPE) divide f_i by a factor of its own, and multiply all of the row.
 */
export const ropeTable = defineOp({
  name: 'rope_table',
  doc:
    'Cosines and sines of the rotary angles of every position: f32[C, dims]; the first half of a row is cosines. ' +
    '`factors` divide the frequencies; where the context is longer than `long.past`, `long.factors` do. `scale` multiplies all.',
  class: 'leaf',
  inputs: [],
  attrs: z.object({
    theta: z.number().positive(),
    dims: z.int().positive().multipleOf(2),
    factors: factors.optional(),
    long: z.object({ past: z.int().positive(), factors }).optional(),
    scale: singlePrecision.positive().optional(),
  }),
  tokenwise: false,
  infer: (_, { dims, factors, long }) => {
    for (const [name, list] of Object.entries({ factors, 'long.factors': long?.factors }))
      if (list && list.length !== dims / 2)
        reject(`${name} must be ${dims / 2} numbers, one for each pair of ${dims} dims, not ${list.length}`);
    return { dtype: 'f32', shape: ['C', dims] };
  },
  evaluate: (_, { theta, dims, factors, long, scale = 1 }, shape) => {
    const [context = 0] = shape;
    const divisors = long && context > long.past ? long.factors : factors;
    const table = new Float64Array(elementCount(shape));
    const half = dims / 2;
    for (let position = 0; position < context; position++) {
      for (let i = 0; i < half; i++) {
        const angle = (position * theta ** ((-2 * i) / dims)) / (divisors?.[i] ?? 1);
        table[position * dims + i] = scale * Math.cos(angle);
        table[position * dims + half + i] = scale * Math.sin(angle);
      }
    }
    return table;
  },
  cost: free,
});
