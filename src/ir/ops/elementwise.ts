import { z } from 'zod';
import { defineOp, reject, singlePrecision, type Cost, type NdArray } from '../define.js';
import { elementCount, formatType, isReal, sameShape, type TensorType } from '../type.js';

const none = z.object({});

/** Real inputs give f32: activations are computed and stored in single precision. */
function realResult(x: TensorType, name = 'x'): TensorType {
  if (!isReal(x)) reject(`${name} must be real numbers, not ${formatType(x)}`);
  return { dtype: 'f32', shape: x.shape };
}

/** `b` may lack leading axes of `a`: it is then repeated along them. */
function broadcastResult(a: TensorType, b: TensorType): TensorType {
  if (!sameShape(a.shape.slice(a.shape.length - b.shape.length), b.shape)) {
    reject(`b ${formatType(b)} must have the shape of a ${formatType(a)}, or of its last axes`);
  }
  if (!isReal(b)) reject(`b must be real numbers, not ${formatType(b)}`);
  return realResult(a, 'a');
}

function mapUnary(x: NdArray, f: (x: number) => number): Float64Array {
  return x.data.map(f);
}

function mapBinary(a: NdArray, b: NdArray, f: (a: number, b: number) => number): Float64Array {
  return a.data.map((value, i) => f(value, b.data[i % b.data.length] ?? Number.NaN));
}

const elementCost = (flops: number, shape: readonly number[]): Cost => ({
  flops: flops * elementCount(shape),
  reduction: 1,
});

export const add = defineOp({
  name: 'add',
  doc: 'a + b. b may lack leading axes of a (a bias).',
  class: 'elementwise',
  inputs: ['a', 'b'],
  attrs: none,
  tokenwise: true,
  infer: ({ a, b }) => broadcastResult(a, b),
  evaluate: ({ a, b }) => mapBinary(a, b, (x, y) => x + y),
  cost: (_, __, shape) => elementCost(1, shape),
});

export const mul = defineOp({
  name: 'mul',
  doc: 'a · b, element by element. b may lack leading axes of a.',
  class: 'elementwise',
  inputs: ['a', 'b'],
  attrs: none,
  tokenwise: true,
  infer: ({ a, b }) => broadcastResult(a, b),
  evaluate: ({ a, b }) => mapBinary(a, b, (x, y) => x * y),
  cost: (_, __, shape) => elementCost(1, shape),
});

export const scale = defineOp({
  name: 'scale',
  doc: 'x · by, for a number known at compile time.',
  class: 'elementwise',
  inputs: ['x'],
  attrs: z.object({ by: singlePrecision }),
  tokenwise: true,
  infer: ({ x }) => realResult(x),
  evaluate: ({ x }, { by }) => mapUnary(x, (value) => value * by),
  cost: (_, __, shape) => elementCost(1, shape),
});

export const silu = defineOp({
  name: 'silu',
  doc: 'x · σ(x) = x / (1 + e^-x) (Elfwing et al. 2017).',
  class: 'elementwise',
  inputs: ['x'],
  attrs: none,
  tokenwise: true,
  infer: ({ x }) => realResult(x),
  evaluate: ({ x }) => mapUnary(x, (value) => value / (1 + Math.exp(-value))),
  cost: (_, __, shape) => elementCost(4, shape),
});

export const gelu = defineOp({
  name: 'gelu',
  doc: 'The tanh form of GELU (Hendrycks & Gimpel 2016): x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))).',
  class: 'elementwise',
  inputs: ['x'],
  attrs: none,
  tokenwise: true,
  infer: ({ x }) => realResult(x),
  evaluate: ({ x }) =>
    mapUnary(
      x,
      (value) => 0.5 * value * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (value + 0.044715 * value ** 3))),
    ),
  cost: (_, __, shape) => elementCost(9, shape),
});

export const tanh = defineOp({
  name: 'tanh',
  doc: 'The hyperbolic tangent of x.',
  class: 'elementwise',
  inputs: ['x'],
  attrs: none,
  tokenwise: true,
  infer: ({ x }) => realResult(x),
  evaluate: ({ x }) => mapUnary(x, (value) => Math.tanh(value)),
  cost: (_, __, shape) => elementCost(4, shape),
});
