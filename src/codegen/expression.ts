import type { Access } from '../passes/access.js';
import { contiguousStrides } from '../passes/access.js';
import type { DType, Dim, DimBindings, TensorType } from '../ir/type.js';

/** Metal text for where elements lie and how they are read. Inside a kernel, `t` is the token and `n` the element of its row. */

export const elementType: { readonly [D in DType]: string } = {
  f32: 'float',
  f16: 'half',
  bf16: 'ushort',
  i32: 'int',
  u16: 'ushort',
};

/** What wraps a stored element to make it a float. bf16 travels as its bits, which every Metal version can read. */
export const conversion: { readonly [D in DType]: { readonly open: string; readonly close: string } } = {
  f32: { open: '', close: '' },
  f16: { open: 'float(', close: ')' },
  bf16: { open: 'bf16(', close: ')' },
  i32: { open: 'float(', close: ')' },
  u16: { open: 'float(', close: ')' },
};

/** The loops a kernel makes over its result: tokens, then the elements of a token's row. */
export interface Iteration {
  /** Most tokens of a step; 1 where the result has no token axis. */
  readonly rows: number;
  /** Axes within a row. */
  readonly axes: readonly number[];
  /** Elements of a row. */
  readonly width: number;
}

export function iterationOf(type: TensorType, dims: DimBindings): Iteration {
  const axes = rowAxes(type.shape);
  const rows = type.shape[0] === 'T' ? (dims['T'] ?? Number.NaN) : 1;
  return { rows, axes, width: axes.reduce((n, axis) => n * axis, 1) };
}

/** The axes of a shape within a token's row. */
export function rowAxes(shape: readonly Dim[]): number[] {
  return shape.slice(shape[0] === 'T' ? 1 : 0).map(Number);
}

/** `a + b`, without terms that are zero. */
export function sum(...terms: readonly string[]): string {
  const shown = terms.filter((term) => term !== '' && term !== '0');
  return shown.length > 0 ? shown.join(' + ') : '0';
}

/** The text as one factor. */
export function inParentheses(text: string): string {
  return text.includes(' ') ? `(${text})` : text;
}

export function times(factor: string, by: number): string {
  return by === 1 ? factor : by === 0 || factor === '' ? '' : `${factor} * ${by}`;
}

/** The row of a position in a cache of `rows` rows; one that holds the whole context, `C`, never wraps. */
export function cacheRow(position: string, rows: Dim | undefined): string {
  const row = inParentheses(position);
  return typeof rows === 'number' ? `(${row} % ${rows})` : row;
}

/** Whether the access moves with the token of the kernel. */
function followsToken(access: Access, iteration: Iteration): boolean {
  return access.shape[0] === 'T' && iteration.rows > 1;
}

/** Where the token's row starts, in elements from the start of the buffer. */
export function rowStart(access: Access, iteration: Iteration): string {
  const stride = access.strides[0] ?? 1;
  const row = access.fromLast
    ? times('(step.tokens - 1)', stride)
    : followsToken(access, iteration)
      ? times('t', stride)
      : '';
  return sum(access.fromPosition ? times('step.position', stride) : '', row, String(access.offset));
}

/** `x + t * 64`: a pointer to the token's row. */
export function rowPointer(name: string, access: Access, iteration: Iteration): string {
  return sum(name, rowStart(access, iteration));
}

/** Axes and strides of an access within a row of the kernel; leading axes it lacks are repeated (stride 0). */
export function rowStrides(access: Access, iteration: Iteration): readonly number[] {
  const own = access.shape[0] === 'T' ? access.strides.slice(1) : access.strides;
  const missing = iteration.axes.length - own.length;
  return [...new Array<number>(Math.max(0, missing)).fill(0), ...own.slice(Math.max(0, -missing))];
}

/** The element of `access` that belongs to element `n` of token `t`. */
export function elementIndex(access: Access, iteration: Iteration): string {
  return sum(rowStart(access, iteration), innerIndex(rowStrides(access, iteration), iteration.axes));
}

function innerIndex(strides: readonly number[], axes: readonly number[]): string {
  const groups: { length: number; stride: number }[] = [];
  axes.forEach((length, axis) => {
    const stride = strides[axis] ?? 0;
    const outer = groups.at(-1);
    if (length === 1) return;
    if (outer?.stride === stride * length) [outer.length, outer.stride] = [outer.length * length, stride];
    else groups.push({ length, stride });
  });
  let inside = 1;
  const terms = [...groups].reverse().map(({ length, stride }, i) => {
    const divided = inside === 1 ? 'n' : `n / ${inside}`;
    const wrapped = i === groups.length - 1 ? divided : `${divided} % ${length}`;
    inside *= length;
    return times(stride === 1 ? wrapped : inParentheses(wrapped), stride);
  });
  return sum(...terms.reverse());
}

/** Whether the access is the plain row-major layout of its shape, so that a kernel can treat it as one block. */
export function isPacked(access: Access): boolean {
  const packed = contiguousStrides(access.shape);
  return (
    access.offset === 0 &&
    !access.fromLast &&
    !access.fromPosition &&
    access.strides.every((stride, axis) => stride === packed[axis])
  );
}

/** The shortest literal that Metal reads back as the f32 nearest to `value`. */
export function floatLiteral(value: number): string {
  const rounded = Math.fround(value);
  let digits = 1;
  while (digits < 9 && Math.fround(Number(rounded.toPrecision(digits))) !== rounded) digits++;
  const text = String(Number(rounded.toPrecision(digits)));
  return `${/[.e]/.test(text) ? text : `${text}.0`}f`;
}
