import { CompilerBug } from '../diagnostic.js';
import { isPackedName, packedNames, type PackedName } from './packed.js';

/** Element types of tensors. `i32` holds token ids and positions, `u16` columns of sparse rows; the rest are real numbers. */
export const dtypes = ['f32', 'f16', 'bf16', 'i32', 'u16'] as const;
export type DType = (typeof dtypes)[number];

/** What a tensor is stored as: elements one by one or, of matrices, small integers in groups. */
export type StoredAs = DType | PackedName;
export const storedAs = [...dtypes, ...packedNames] as const satisfies readonly StoredAs[];

export const bytesPerElement: { readonly [D in DType]: number } = { f32: 4, f16: 2, bf16: 2, i32: 4, u16: 2 };

/**
 * The number that an element of a dtype can hold nearest to `value`, of two the even one. The interpreter computes in
 * float64 and rounds only what is stored in 16 bits.
 */
export function rounded(value: number, dtype: DType): number {
  if (dtype !== 'f16' || !Number.isFinite(value) || value === 0) return value;
  // Ten bits follow the first; below 2^-14 steps are all alike.
  const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(value)))) - 10);
  const steps = Math.abs(value) / step;
  const below = Math.floor(steps);
  const up = steps - below > 0.5 || (steps - below === 0.5 && below % 2 === 1);
  const nearest = (below + (up ? 1 : 0)) * step;
  return Math.sign(value) * (nearest > 65504 ? Infinity : nearest);
}

/**
 * An axis length: a number, or the name of a length that is bound later.
 * `T` counts the tokens of a step, `C` the context the build is made for.
 */
export type Dim = number | string;

export interface TensorType {
  readonly dtype: StoredAs;
  readonly shape: readonly Dim[];
}

/** Whether elements are real numbers, which can be computed with; others are indices. */
export const isReal = ({ dtype }: TensorType): boolean => dtype !== 'i32' && dtype !== 'u16';

/** The type of elements that are stored one by one. */
export function elementTypeOf(type: TensorType): DType {
  if (isPackedName(type.dtype))
    throw new CompilerBug(`${formatType(type)} has no elements to be read one by one`);
  return type.dtype;
}

/** Lengths of the named dims. */
export type DimBindings = Readonly<Record<string, number>>;

export const f32 = (...shape: readonly Dim[]): TensorType => ({ dtype: 'f32', shape });
export const i32 = (...shape: readonly Dim[]): TensorType => ({ dtype: 'i32', shape });

/** `f32[T, 5120]` */
export function formatType(type: TensorType): string {
  return `${type.dtype}[${type.shape.join(', ')}]`;
}

export function sameShape(a: readonly Dim[], b: readonly Dim[]): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis]);
}

export function sameType(a: TensorType, b: TensorType): boolean {
  return a.dtype === b.dtype && sameShape(a.shape, b.shape);
}

/** The shape with every named dim replaced by its length; throws when one is not bound. */
export function bindShape(shape: readonly Dim[], bindings: DimBindings): number[] {
  return shape.map((dim) => {
    const length = typeof dim === 'number' ? dim : bindings[dim];
    if (length === undefined) throw new RangeError(`dim ${dim} is not bound`);
    return length;
  });
}

export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

/** The last axis of a shape; 1 for a scalar. */
export function lastDim(shape: readonly Dim[]): Dim {
  return shape[shape.length - 1] ?? 1;
}
