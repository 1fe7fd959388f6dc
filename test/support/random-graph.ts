import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import * as dsl from '../../src/ir/dsl.js';
import type { Model, Tensor } from '../../src/ir/dsl.js';
import { isLeaf, isOp, makeNode, type Graph, type Node } from '../../src/ir/graph.js';
import { isPackedName, packedFormats, packedNames, rowMultiple } from '../../src/ir/packed.js';
import type { Policy } from '../../src/ir/policy.js';
import { elementCount, type Dim, type DType } from '../../src/ir/type.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { quantise } from '../../src/weights/quantise.js';
import { writeSafetensors, type StoredTensor } from './safetensors.js';

/**
 * Random models. A recipe is plain data that fast-check can shrink and print: a list of steps, each with four numbers
 * that choose operands among the values there are (0: the latest), sizes and variants. Every recipe is a valid model:
 * a step that finds no fitting operand adds nothing.
 */
export interface Recipe {
  readonly target: TargetName;
  /** Tokens of the text. */
  readonly tokens: number;
  readonly chunk: number;
  /** Tokens of the context past the text. */
  readonly spare: number;
  /** Rows of the embedding table; the logits are of so many ids or fewer. */
  readonly vocabulary: number;
  readonly width: number;
  readonly steps: readonly Step[];
  readonly result: ResultStep;
}

interface Numbers {
  readonly a: number;
  readonly b: number;
  readonly c: number;
  readonly d: number;
}

export interface Step extends Numbers {
  readonly op: StepName;
}

export interface ResultStep extends Numbers {
  readonly kind: ResultName;
}

const weightDtypes = ['f32', 'f16', 'bf16'] as const;
const factors = [0.5, -1, 0.1, 3, 1 / 3, 1.25, 1] as const;

const pick = <T>(list: readonly [T, ...T[]], index: number): T => list[index % list.length] ?? list[0];

const rank = (x: Tensor): number => x.type.shape.length;
/** Elements of a token. */
const perToken = (x: Tensor): number => elementCount(x.type.shape.slice(1).map(Number));
const widthOf = (x: Tensor): number => (rank(x) > 1 ? Number(x.type.shape.at(-1)) : 1);
const sameShape = (x: Tensor, y: Tensor): boolean => x.type.shape.join() === y.type.shape.join();

function divisors(n: number): [number, ...number[]] {
  return [1, ...Array.from({ length: n - 1 }, (_, i) => i + 2).filter((d) => n % d === 0)];
}

/** `q4g32.` for half of the matrices that can be packed: the format stands in the weight's name. */
function packedName(kind: WeightKind, [, columns = 1]: readonly number[], variant: number): string {
  if ((kind !== 'matrix' && kind !== 'table') || variant % 2 === 0) return '';
  const fitting = packedNames.filter((name) => columns % rowMultiple(packedFormats[name]) === 0);
  const [first, ...others] = fitting;
  return first === undefined ? '' : `${pick([first, ...others], variant >> 1)}.`;
}

/** What packs the weights of random models as their names say. */
export const packedPolicy: Policy = packedNames.map((format) => ({ match: `*.${format}.*`, format }));

/** A model while its steps are taken. */
class Building {
  readonly values: Tensor[] = [];
  readonly matrices: Tensor[] = [];
  /** How many factors of order 1 a value is a product of, so that no power overflows. */
  private readonly degrees = new Map<Tensor, number>();
  private count = 0;

  push(x: Tensor, degree: number): void {
    this.values.push(x);
    this.degrees.set(x, degree);
  }

  degree(...values: readonly Tensor[]): number {
    return Math.max(...values.map((x) => this.degrees.get(x) ?? 1));
  }

  /** One of the values that fit, counted from the latest. */
  value(index: number, fits: (x: Tensor) => boolean = () => true): Tensor | undefined {
    const fitting = this.values.filter(fits).reverse();
    return fitting[index % Math.max(1, fitting.length)];
  }

  weight(kind: WeightKind, shape: readonly number[], dtype: number, transposed = false): Tensor {
    const packed = packedName(kind, shape, Math.floor(dtype / weightDtypes.length));
    return dsl.weight(`w${this.count++}.${pick(weightDtypes, dtype)}.${packed}${kind}`, shape, {
      transposed,
    });
  }

  linear(x: Tensor, n: number, { dtype, bias }: { dtype: number; bias: boolean }): Tensor {
    const matrix = this.weight('matrix', [n, widthOf(x)], dtype, dtype % 4 === 3);
    this.matrices.push(matrix);
    return bias
      ? dsl.linear(x, matrix, this.weight('vector', [n], Math.floor(dtype / 3)))
      : dsl.linear(x, matrix);
  }

  norm(x: Tensor, dtype: number): Tensor {
    const gain = this.factors([widthOf(x)], 0, dtype);
    return dtype % 5 === 4 ? this.layerNorm(x, gain, dtype) : dsl.rmsNorm(x, gain, { eps: 1e-5 });
  }

  layerNorm(x: Tensor, gain: Tensor, variant: number): Tensor {
    const bias = variant % 2 === 1 ? this.weight('vector', [widthOf(x)], variant) : undefined;
    return dsl.layerNorm(x, gain, { bias, eps: 1e-5 });
  }

  /** A vector of factors around 1: a weight, or computed from weights. */
  factors(shape: readonly number[], variant: number, dtype: number): Tensor {
    const plain = this.weight('factor', shape, dtype);
    if (variant % 4 === 1) return dsl.add(plain, this.weight('vector', shape, dtype + 1));
    if (variant % 4 === 2) return dsl.scale(dsl.silu(plain), { by: 1.25 });
    if (variant % 4 === 3) return dsl.scale(plain, { by: 1 });
    return plain;
  }
}

const rows = (x: Tensor): boolean => rank(x) === 2;
const heads = (x: Tensor): boolean => rank(x) === 3;
const hasAxis = (x: Tensor): boolean => rank(x) >= 2;

/** Sometimes a window, shorter or longer than the text, and sometimes a softcap of the scores. */
const sight = (n: number): { causal: true; window?: number; softcap?: number } => ({
  causal: true,
  ...(n % 2 === 1 ? { window: 1 + (Math.floor(n / 2) % 7) } : {}),
  ...(Math.floor(n / 14) % 4 === 3 ? { softcap: 1.5 } : {}),
});

/** Rotations for some dims: of one wavelength each, or of stretched ones. */
function turnOf(theta: number, dims: number, variant: number): dsl.RopeOptions {
  const factors = (by: number): number[] => Array.from({ length: dims / 2 }, (_, i) => by + i / 7);
  return {
    theta,
    dims,
    ...(variant % 3 > 0 ? { factors: factors(1) } : {}),
    ...(variant % 3 === 2 ? { long: { past: 8, factors: factors(1.5) }, scale: 1.1 } : {}),
  };
}

/** Attention of x to itself and the product of that; queries, keys and values by one matrix or three, turned or not. */
function selfAttention(m: Building, x: Tensor, { b, c, d }: Numbers): Tensor {
  const groups = 1 + (b % 3);
  const queries = groups * (1 + (c % 3));
  const size = 2 + (d % 19);
  const options = { dtype: d, bias: Math.floor(b / 3) % 2 === 1 };
  const sizes = [queries * size, groups * size, groups * size] as const;
  const part = (n: number): Tensor => m.linear(x, n, options);
  const [q, k, v] =
    Math.floor(c / 3) % 2 === 0
      ? dsl.split(part((queries + 2 * groups) * size), sizes)
      : ([part(sizes[0]), part(sizes[1]), part(sizes[2])] as const);
  const variant = Math.floor(d / 19) % 3;
  const dims = variant === 0 ? 2 * Math.floor(size / 2) : 2 * (1 + (b % Math.floor(size / 2)));
  const turned = (y: Tensor): Tensor => (variant === 2 ? y : dsl.rope(y, turnOf(10000, dims, c)));
  const mixed = dsl.attention(
    turned(dsl.splitHeads(q, queries)),
    turned(dsl.splitHeads(k, groups)),
    dsl.splitHeads(v, groups),
    sight(Math.floor(c / 6)),
  );
  return m.linear(dsl.mergeHeads(mixed), widthOf(x), options);
}

function gatedMlp(m: Building, x: Tensor, { b, c, d }: Numbers): Tensor {
  const n = 1 + (b % 70);
  const options = { dtype: d, bias: Math.floor(b / 70) % 3 === 1 };
  const activation = c % 2 === 0 ? dsl.silu : dsl.gelu;
  const form = Math.floor(c / 2) % 4;
  const [first, second] =
    form < 2
      ? dsl.split(m.linear(x, 2 * n, options), [n, n])
      : [m.linear(x, n, options), m.linear(x, n, options)];
  const hidden = form % 2 === 0 ? dsl.mul(activation(first), second) : dsl.mul(first, activation(second));
  return m.linear(hidden, widthOf(x), options);
}

/** The sum of x and of blocks that read it, or that all read one norm of it. */
function residualBlocks(
  m: Building,
  x: Tensor,
  normed: boolean,
  dtype: number,
  ...blocks: readonly ((y: Tensor) => Tensor)[]
): Tensor {
  const y = normed ? m.norm(x, dtype) : x;
  return blocks.map((block) => block(y)).reduce((sum, block) => dsl.add(sum, block), x);
}

function reshaped(x: Tensor, { b, c, d }: Numbers): Tensor {
  const n = perToken(x);
  const outer = pick(divisors(n), c);
  const middle = pick(divisors(n / outer), d);
  const forms: readonly [Dim[], ...Dim[][]] = [
    ['T', outer, n / outer],
    ['T', n],
    ['T', outer, middle, n / outer / middle],
    n === 1 ? ['T'] : ['T', n / outer, outer],
  ];
  const shape = pick(forms, b);
  if (rows(x) && shape.length === 3) return dsl.splitHeads(x, Number(shape[1]));
  return shape.length === 2 && d % 2 === 0 ? dsl.mergeHeads(x) : dsl.reshape(x, { shape });
}

/** x written once more, and so are the values it was made of, `depth` steps back. */
function again(x: Tensor, depth: number): Tensor {
  if (isLeaf(x) || depth === 0) return x;
  return makeNode(
    x.op,
    x.inputs.map((input) => again(input, depth - 1)),
    x.attrs,
    x.origin,
  );
}

/** What each step adds to a model. The first ones are what failures shrink towards. */
const steps = {
  linear: (m: Building, { a, b, c, d }: Numbers) => {
    const x = m.value(a, rows);
    if (!x) return;
    const tied = m.matrices.find((matrix) => matrix.type.shape[1] === widthOf(x));
    const y =
      tied && d % 5 === 4 ? dsl.linear(x, tied) : m.linear(x, 1 + (b % 70), { dtype: d, bias: c % 2 === 1 });
    m.push(y, m.degree(x));
  },
  add: (m: Building, { a, b }: Numbers) => {
    const x = m.value(a);
    const y = x && m.value(b, (other) => sameShape(x, other));
    if (x && y) m.push(dsl.add(x, y), m.degree(x, y));
  },
  silu: (m: Building, { a }: Numbers) => {
    const x = m.value(a);
    if (x) m.push(dsl.silu(x), m.degree(x));
  },
  gelu: (m: Building, { a }: Numbers) => {
    const x = m.value(a);
    if (x) m.push(dsl.gelu(x), m.degree(x));
  },
  scale: (m: Building, { a, b, c, d }: Numbers) => {
    const x = m.value(a);
    if (!x) return;
    const chain = [pick(factors, b), pick([1, -1, 1 / 3], c), pick([0.1, 1], d)].slice(0, 1 + (c % 3));
    m.push(
      chain.reduce((y, by) => dsl.scale(y, { by }), x),
      m.degree(x),
    );
  },
  mul: (m: Building, { a, b }: Numbers) => {
    const x = m.value(a);
    const y = x && m.value(b, (other) => sameShape(x, other) && m.degree(x) + m.degree(other) <= 4);
    if (x && y) m.push(dsl.mul(x, y), m.degree(x) + m.degree(y));
  },
  broadcast: (m: Building, { a, b, c, d }: Numbers) => {
    const x = m.value(a, hasAxis);
    if (!x) return;
    const shape = x.type.shape.slice(1 + (b % (rank(x) - 1))).map(Number);
    const y = m.factors(shape, Math.floor(c / 2), d);
    m.push(c % 2 === 0 ? dsl.add(x, y) : dsl.mul(x, y), m.degree(x));
  },
  rms_norm: (m: Building, { a, b, c, d }: Numbers) => {
    const x = m.value(a, hasAxis);
    if (!x) return;
    const offset = Math.floor(c / 2) % 4 === 3 ? { offset: 0.5 } : {};
    const eps = c % 2 === 0 ? 1e-5 : 1e-6;
    m.push(dsl.rmsNorm(x, m.factors([widthOf(x)], b, d), { eps, ...offset }), 1);
  },
  layer_norm: (m: Building, { a, b, c, d }: Numbers) => {
    const x = m.value(a, hasAxis);
    if (x) m.push(m.layerNorm(x, m.factors([widthOf(x)], b, d), c), 1);
  },
  tanh: (m: Building, { a, b }: Numbers) => {
    const x = m.value(a);
    if (!x) return;
    const cap = pick([1, 2, 0.5], b);
    m.push(dsl.scale(dsl.tanh(dsl.scale(x, { by: 1 / cap })), { by: cap }), m.degree(x));
  },
  positions: (m: Building, { a, b, d }: Numbers) => {
    const x = m.value(a, rows);
    if (!x) return;
    // More rows than any text here has tokens.
    const table = m.weight('table', [300 + (b % 3), widthOf(x)], d);
    m.push(dsl.add(x, dsl.positions(b % 4 === 3 ? dsl.scale(table, { by: 0.5 }) : table)), m.degree(x));
  },
  softmax: (m: Building, { a }: Numbers) => {
    const x = m.value(a, hasAxis);
    if (x) m.push(dsl.softmax(x), 1);
  },
  split: (m: Building, { a, b, c, d }: Numbers) => {
    const x = m.value(a, (value) => widthOf(value) > 1);
    if (!x) return;
    const n = widthOf(x);
    const equal = pick(divisors(n).slice(1) as [number, ...number[]], b);
    const first = 1 + (c % (n - 1));
    const second = 1 + (d % Math.max(1, n - first - 1));
    const unequal = [first, second, n - first - second].filter((size) => size > 0);
    const sizes = c % 2 === 0 && equal <= 4 ? new Array<number>(equal).fill(n / equal) : unequal;
    const total = sizes.reduce((sum, size) => sum + size, 0);
    for (const part of dsl.split(x, total === n ? sizes : [first, n - first])) m.push(part, m.degree(x));
  },
  reshape: (m: Building, numbers: Numbers) => {
    const x = m.value(numbers.a);
    if (!x) return;
    const { b, c, d } = numbers;
    const once = reshaped(x, numbers);
    m.push(c % 2 === 0 ? once : reshaped(once, { ...numbers, b: c, c: d, d: b }), m.degree(x));
  },
  repeat: (m: Building, { a, b }: Numbers) => {
    const x = m.value(a);
    if (x) m.push(dsl.add(x, again(x, 1 + (b % 3))), m.degree(x));
  },
  rope: (m: Building, { a, b, c }: Numbers) => {
    const x = m.value(a, (value) => heads(value) && widthOf(value) > 1);
    if (!x) return;
    const dims = 2 * (1 + (b % Math.floor(widthOf(x) / 2)));
    m.push(dsl.rope(x, turnOf(pick([10000, 500, 250000], c), dims, Math.floor(c / 3))), m.degree(x));
  },
  attention: (m: Building, { a, b, c, d }: Numbers) => {
    const q = m.value(a, heads);
    const k = q && m.value(b, (x) => heads(x) && attends(q, x));
    const v = k && m.value(c, (x) => sameShape(k, x));
    if (!v) return;
    const scale = d % 3 === 2 ? { scale: 0.3 } : {};
    m.push(dsl.attention(q, k, v, { ...sight(Math.floor(d / 3)), ...scale }), m.degree(v));
  },
  self_attention: (m: Building, numbers: Numbers) => {
    const x = m.value(numbers.a, rows);
    if (!x) return;
    const count = 1 + (Math.floor(numbers.d / 57) % 2);
    const body = (h: Tensor): Tensor =>
      residualBlocks(m, h, Math.floor(numbers.b / 6) % 2 === 1, numbers.d, (y) =>
        selfAttention(m, y, numbers),
      );
    m.push(dsl.layers(count, 'attention', x, body), m.degree(x));
  },
  gated_mlp: (m: Building, numbers: Numbers) => {
    const x = m.value(numbers.a, (value) => rows(value) && m.degree(value) <= 2);
    if (x)
      m.push(
        dsl.scope('mlp', () =>
          residualBlocks(m, x, Math.floor(numbers.b / 210) % 2 === 1, numbers.d, (y) =>
            gatedMlp(m, y, numbers),
          ),
        ),
        2 * m.degree(x),
      );
  },
  parallel_blocks: (m: Building, numbers: Numbers) => {
    const x = m.value(numbers.a, (value) => rows(value) && m.degree(value) <= 2);
    if (!x) return;
    const attention = (y: Tensor): Tensor => selfAttention(m, y, numbers);
    const mlp = (y: Tensor): Tensor => gatedMlp(m, y, numbers);
    m.push(residualBlocks(m, x, true, numbers.d, attention, mlp), 2 * m.degree(x));
  },
  residual: (m: Building, { a, c, d }: Numbers) => {
    const x = m.value(a, rows);
    if (!x) return;
    m.push(dsl.add(x, m.linear(m.norm(x, c), widthOf(x), { dtype: d, bias: c % 2 === 1 })), m.degree(x));
  },
  lookup: (m: Building, { a, b, d }: Numbers) => {
    const x = m.value(a, rows);
    if (x) m.push(dsl.embed(dsl.argmax(x), m.weight('table', [widthOf(x), 1 + (b % 40)], d)), 1);
  },
} as const;

type StepName = keyof typeof steps;
export const stepNames = Object.keys(steps) as [StepName, ...StepName[]];

function attends(q: Tensor, k: Tensor): boolean {
  return widthOf(q) === widthOf(k) && Number(q.type.shape[1]) % Number(k.type.shape[1]) === 0;
}

/** How the logits are made of x f32[T, N]. */
const results = {
  linear: (m: Building, x: Tensor, table: Tensor, { c, d }: Numbers) =>
    m.linear(x, Number(table.type.shape[0]), { dtype: d, bias: c % 2 === 1 }),
  tied: (m: Building, x: Tensor, table: Tensor, { d }: Numbers) => {
    const width = Number(table.type.shape[1]);
    return dsl.linear(widthOf(x) === width ? x : m.linear(x, width, { dtype: d, bias: false }), table);
  },
  probabilities: (m: Building, x: Tensor, table: Tensor, { d }: Numbers) =>
    dsl.softmax(m.linear(x, Number(table.type.shape[0]), { dtype: d, bias: true })),
  value: (_m: Building, x: Tensor, table: Tensor, { d }: Numbers) => {
    const most = Number(table.type.shape[0]);
    const n = widthOf(x);
    if (n <= most) return x;
    const [first, second] = dsl.split(x, [most, n - most]);
    return d % 2 === 1 && n - most <= most ? second : first;
  },
} as const;

type ResultName = keyof typeof results;
const resultNames = Object.keys(results) as [ResultName, ...ResultName[]];

/** The logits of a recipe; to be called while a model is built. */
function build(recipe: Recipe): Tensor {
  const m = new Building();
  const { a, b, d, kind } = recipe.result;
  // Rows that can be packed, in a third of the models.
  const width = a % 3 === 2 ? 32 * Math.ceil(recipe.width / 32) : recipe.width;
  const table = m.weight('table', [recipe.vocabulary, width], a);
  m.matrices.push(table);
  const ids =
    b % 4 === 3
      ? dsl.reshape(dsl.reshape(dsl.tokens(), { shape: ['T', 1] }), { shape: ['T'] })
      : dsl.tokens();
  m.push(dsl.embed(ids, table), 1);
  for (const step of recipe.steps) steps[step.op](m, step);
  const flat = (x: Tensor): Tensor => (rows(x) ? x : dsl.mergeHeads(x));
  const latest = m.value(0);
  if (!latest) throw new Error('a model begins with an embedding');
  // Other values join, so that few steps are for nothing.
  let x = flat(latest);
  for (let i = 0; i < b % 3; i++) {
    const other = m.value(1 + i * (1 + (d % 3)));
    if (other && other !== latest)
      x = dsl.add(x, m.linear(flat(other), widthOf(x), { dtype: i, bias: false }));
  }
  return results[kind](m, x, table, recipe.result);
}

export const recipeModel = (recipe: Recipe): Model =>
  dsl.model({ name: 'random', config: dsl.z.looseObject({}), context: () => contextOf(recipe) }, () =>
    build(recipe),
  );

export const contextOf = (recipe: Recipe): number => recipe.tokens + recipe.spare;

export function buildRecipe(recipe: Recipe): Graph {
  const graph = dsl.buildGraph('random', { dtype: 'f32', dtypeOf }, () => build(recipe));
  return quantise(graph, packedPolicy, undefined).graph;
}

/** Steps that are twice as likely: there is most for passes to do. */
const worthwhile = ['self_attention', 'repeat'] as const satisfies readonly StepName[];

const numbers = { a: fc.nat(4095), b: fc.nat(4095), c: fc.nat(4095), d: fc.nat(4095) };

/** Lengths that are and are not multiples of 4 and 32, and those beside them. */
const size = fc.oneof(
  { arbitrary: fc.integer({ min: 1, max: 70 }), weight: 3 },
  { arbitrary: fc.constantFrom(1, 2, 3, 4, 5, 31, 32, 33, 63, 64, 65), weight: 1 },
);

export const recipes: fc.Arbitrary<Recipe> = fc.record({
  target: fc.constantFrom(...(Object.keys(targets) as TargetName[])),
  // Past 32 tokens attention goes from block to block.
  tokens: fc.oneof(
    { arbitrary: fc.integer({ min: 1, max: 9 }), weight: 7 },
    { arbitrary: fc.integer({ min: 31, max: 70 }), weight: 1 },
  ),
  chunk: fc.integer({ min: 1, max: 12 }),
  spare: fc.nat(3),
  vocabulary: size,
  width: size,
  steps: fc.array(fc.record({ op: fc.constantFrom(...stepNames, ...worthwhile), ...numbers }), {
    maxLength: 8,
    size: 'max',
  }),
  result: fc.record({ kind: fc.constantFrom(...resultNames), ...numbers }),
});

type WeightKind = 'table' | 'matrix' | 'vector' | 'factor';

const spread: { readonly [K in WeightKind]: (shape: readonly number[]) => { middle: number; size: number } } =
  {
    table: () => ({ middle: 0, size: Math.sqrt(3) }),
    matrix: ([, k = 1]) => ({ middle: 0, size: Math.sqrt(3 / k) }),
    vector: () => ({ middle: 0, size: 0.5 }),
    factor: () => ({ middle: 1, size: 0.5 }),
  };

/** The element type in a weight's name. */
export const dtypeOf = (name: string): DType | undefined =>
  weightDtypes.find((dtype) => name.includes(`.${dtype}.`));

/** What the checkpoint of a model stores a weight as. */
const checkpointType = ({ attrs: { name, dtype } }: Node<'weight'>): DType =>
  isPackedName(dtype) ? (dtypeOf(name) ?? 'f32') : dtype;

/** Numbers in [0, 1) that depend on the text alone (FNV-1a, then mulberry32). */
function* uniform(text: string): Generator<number, never> {
  let state = 0x811c9dc5;
  for (const character of text) state = Math.imul(state ^ (character.codePointAt(0) ?? 0), 0x01000193);
  for (;;) {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    yield ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
}

const significandBits: { readonly [D in DType]: number } = { f32: 24, f16: 11, bf16: 8, i32: 32, u16: 16 };
const leastExponent: { readonly [D in DType]: number } = { f32: -126, f16: -14, bf16: -126, i32: 0, u16: 0 };

/** The nearest number of an element type. */
function rounded(value: number, dtype: DType): number {
  const exponent = Math.max(Math.floor(Math.log2(Math.abs(value))), leastExponent[dtype]);
  const quantum = 2 ** (exponent - significandBits[dtype] + 1);
  return Math.round(value / quantum) * quantum;
}

/** The values of every weight of a graph, each a number of the weight's element type. */
export function weightValues(graph: Graph): Map<string, Float64Array> {
  const values = new Map<string, Float64Array>();
  for (const node of graph.nodes) {
    if (!isOp(node, 'weight')) continue;
    const { name, shape } = node.attrs;
    const dtype = checkpointType(node);
    const { middle, size } = spread[name.split('.').at(-1) as WeightKind](shape);
    const random = uniform(name);
    const data = Float64Array.from({ length: elementCount(shape) }, () =>
      rounded(middle + size * (2 * random.next().value - 1), dtype),
    );
    values.set(name, data);
  }
  return values;
}

/** The text's token ids. */
export function tokensOf(recipe: Recipe, graph: Graph): number[] {
  const vocabulary = Number(graph.outputs.get('logits')?.type.shape[1]);
  const random = uniform(`tokens ${recipe.tokens}`);
  return Array.from({ length: recipe.tokens }, () => Math.floor(random.next().value * vocabulary));
}

/** How the id after the tokens before `position` is drawn: temperature, top-k, top-p and min-p. */
export const samplingAt = (position: number): Float32Array =>
  Float32Array.from(
    pick(
      [
        [0, 0, 1, 0],
        [1, 0, 1, 0],
        [0.7, 5, 1, 0],
        [1.5, 0, 0.8, 0],
        [1, 0, 1, 0.1],
        [3, 20, 0.9, 0.02],
      ],
      position,
    ),
  );

/** Of the draws of a text. */
export const samplingSeed = 0x9e3779b9;

function bitsOf16(value: number, dtype: 'f16' | 'bf16'): number {
  const fraction = significandBits[dtype] - 1;
  const least = leastExponent[dtype];
  const size = Math.abs(value);
  const sign = value < 0 ? 0x8000 : 0;
  const exponent = Math.floor(Math.log2(size));
  if (exponent < least) return sign | (size / 2 ** (least - fraction));
  return sign | (((exponent - least + 1) << fraction) + (size / 2 ** (exponent - fraction) - 2 ** fraction));
}

function stored(shape: readonly number[], dtype: DType, data: Float64Array): StoredTensor {
  const elements =
    dtype === 'f16' || dtype === 'bf16'
      ? Uint16Array.from(data, (value) => bitsOf16(value, dtype))
      : Float32Array.from(data);
  return { dtype: dtype.toUpperCase(), shape, data: new Uint8Array(elements.buffer) };
}

/** The elements of a matrix column by column. */
function turned(data: Float64Array, columns: number): Float64Array {
  const rows = data.length / columns;
  return data.map((_, i) => data[(i % rows) * columns + Math.floor(i / rows)] ?? Number.NaN);
}

/** Writes a checkpoint folder that holds the weights of a graph. */
export function writeCheckpoint(dir: string, graph: Graph, values: ReadonlyMap<string, Float64Array>): void {
  const tensors: Record<string, StoredTensor> = {};
  for (const node of graph.nodes) {
    if (!isOp(node, 'weight')) continue;
    const { name, shape, transposed } = node.attrs;
    const dtype = checkpointType(node);
    const data = values.get(name) ?? new Float64Array();
    tensors[name] = transposed
      ? stored(shape.toReversed(), dtype, turned(data, Number(shape[1])))
      : stored(shape, dtype, data);
  }
  mkdirSync(dir, { recursive: true });
  writeFileSync(path.join(dir, 'config.json'), '{}\n');
  writeSafetensors(path.join(dir, 'model.safetensors'), tensors);
}
