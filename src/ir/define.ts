import { z } from 'zod';
import { UserError } from '../diagnostic.js';
import { formatType, i32, sameType, type TensorType } from './type.js';

/** A tensor of the interpreter: float64 whatever the dtype, row-major. */
export interface NdArray {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

export interface Cost {
  /** Floating-point operations, a fused multiply-add counted as two. */
  readonly flops: number;
  /** Terms summed into one element of the result; 1 where nothing is summed. Tolerances derive from it. */
  readonly reduction: number;
}

/** `{ x: V, bias?: V }` from `['x', 'bias?']`. */
export type Named<I extends readonly string[], V> = {
  readonly [K in I[number] as K extends `${string}?` ? never : K]: V;
} & { readonly [K in I[number] as K extends `${infer Name}?` ? Name : never]?: V };

/**
 * How an op may be computed:
 * `leaf` has no inputs; `view` renames elements of its input; `elementwise` maps element i of its inputs to
 * element i of its result; `kernel` needs a template of its own.
 */
export type OpClass = 'leaf' | 'view' | 'elementwise' | 'kernel';

/** One op, whole: everything the DSL, the verifier, the interpreter and the passes know about it. */
export interface Op<N extends string, I extends readonly string[], S extends z.ZodType> {
  readonly name: N;
  readonly doc: string;
  readonly class: OpClass;
  /** Names of the inputs in order; a trailing `?` marks one that may be left out (only at the end). */
  readonly inputs: I;
  readonly attrs: S;
  /** The input that may be a packed matrix (src/ir/packed.ts); every other has elements stored one by one. */
  readonly packed?: I[number];
  /** Whether row t of the result depends on row t of the inputs alone. */
  readonly tokenwise: boolean;
  /** The result's type; calls `reject` when the inputs do not fit. */
  infer: (inputs: Named<I, TensorType>, attrs: z.output<S>) => TensorType;
  /** The meaning, in float64 and plain loops; `shape` is the result's. */
  evaluate: (inputs: Named<I, NdArray>, attrs: z.output<S>, shape: readonly number[]) => Float64Array;
  cost: (inputs: Named<I, readonly number[]>, attrs: z.output<S>, shape: readonly number[]) => Cost;
}

export function defineOp<const N extends string, const I extends readonly string[], S extends z.ZodType>(
  op: Op<N, I, S>,
): Op<N, I, S> {
  return op;
}

/** A number that f32 can hold: neither infinite nor rounded to zero there. */
export const singlePrecision = z.number().refine((value) => {
  const rounded = Math.fround(value);
  return Number.isFinite(rounded) && (rounded !== 0 || value === 0);
}, 'must be within the range of f32');

/** Refuses the inputs of an op; the builder adds the op's name and place. */
export function reject(message: string): never {
  throw new UserError(message);
}

/** The position of a step's first token, where an op takes it. */
export function checkStart(start: TensorType | undefined): void {
  if (start && !sameType(start, i32())) reject(`start must be i32[], not ${formatType(start)}`);
}

/** Pairs positional values with the input names of an op. */
export function nameInputs<V>(names: readonly string[], values: readonly V[]): Record<string, V> {
  return Object.fromEntries(values.map((value, i) => [(names[i] ?? '').replace(/\?$/, ''), value]));
}
