import { z } from 'zod';
import { formatSpan, UserError, type Span } from '../diagnostic.js';
import { checkLogits } from './check-model.js';
import { isOp, makeGraph, makeNode, ropeKey, type Graph, type Node, type Origin } from './graph.js';
import { ops, type AttrsOf, type OpName, type OpOf } from './ops/index.js';
import type { Quantize } from './policy.js';
import { formatType, type DType } from './type.js';

/**
 * The language models are written in. Every function here adds one op to the model being built and returns its
 * result; `src/ir/load.ts` gives each call its place in the user's file.
 */

/** A value of the model: a shape, an element type, and how it is computed. */
export type Tensor = Node;

/** What the loader knows about a call in the user's file before it runs. */
export interface Site {
  readonly span: Span;
  readonly name: string | undefined;
}

interface Building {
  readonly leaves: Map<string, Node>;
  readonly dtype: DType;
  readonly dtypeOf: (weight: string) => DType | undefined;
  scope: string;
  layer: number | undefined;
}

let building: Building | undefined;
let currentSite: Site | undefined;

/** Calls `f` as written at `site`. The loader wraps DSL calls in this. */
export function at<F extends (...args: never[]) => unknown>(site: Site, f: F): F {
  const located = (...args: Parameters<F>): unknown => {
    const outer = currentSite;
    currentSite = site;
    try {
      return f(...args);
    } finally {
      currentSite = outer;
    }
  };
  return located as F;
}

function inModel(what: string): Building {
  if (!building)
    throw new UserError(`${what} can only be called while a model is built`, { span: currentSite?.span });
  return building;
}

function origin(): Origin {
  return {
    span: currentSite?.span,
    name: currentSite?.name,
    scope: building?.scope ?? '',
    layer: building?.layer,
  };
}

function apply(op: OpName, inputs: readonly Node[], attrs: unknown): Tensor {
  const { scope } = inModel(op);
  const span = currentSite?.span;
  const detail = { span, within: placeOf(scope, inputs) };
  const parsed = ops[op].attrs.safeParse(attrs);
  if (!parsed.success) {
    const wrong = parsed.error.issues.map(({ path, message }) => [...path.map(String), message].join(': '));
    throw new UserError(`${op}: ${wrong.join('; ')}`, detail);
  }
  try {
    return makeNode(op, inputs, parsed.data as AttrsOf<OpName>, origin());
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    const notes = inputs.flatMap((input, i) =>
      originNote((ops[op].inputs as readonly string[])[i] ?? '', input),
    );
    throw new UserError(`${op}: ${error.message}`, { ...detail, notes });
  }
}

/** `model.layers.0 › input_layernorm`: the scope, and the weight that the op applies. */
function placeOf(scope: string, inputs: readonly Node[]): string | undefined {
  const applied = inputs.find((input) => input.op === 'weight');
  const prefix = scope === '' ? '' : `${scope}.`;
  const own = applied?.op === 'weight' && applied.attrs.name.startsWith(prefix);
  const name = own ? applied.attrs.name.slice(prefix.length).replace(/\.weight$/, '') : '';
  const parts = [scope, name].filter((part) => part !== '');
  return parts.length > 0 ? parts.join(' › ') : undefined;
}

function originNote(name: string, node: Node): string[] {
  const { span } = node.origin;
  if (!span) return [];
  const what = node.op === 'weight' ? `weight '${node.attrs.name}'` : `the result of ${node.op}`;
  return [`${name.replace('?', '')} ${formatType(node.type)} is ${what} at ${formatSpan(span)}`];
}

type TensorsFor<I extends readonly string[], Optional> = I extends readonly [
  infer Head extends string,
  ...infer Rest extends string[],
]
  ? Head extends `${string}?`
    ? Optional
    : [Tensor, ...TensorsFor<Rest, Optional>]
  : [];

/**
 * The arguments of a DSL function: the op's inputs in order, then its attributes if it has any. An input that may be
 * left out is a last argument, or where attributes follow none at all: such inputs are for passes to add.
 */
type ArgumentsOf<N extends OpName> = string extends keyof AttrsOf<N>
  ? TensorsFor<OpOf<N>['inputs'], [Tensor?]>
  : [...TensorsFor<OpOf<N>['inputs'], []>, z.input<OpOf<N>['attrs']>];

function isTensor(value: unknown): value is Tensor {
  return typeof value === 'object' && value !== null && 'op' in value && 'type' in value;
}

/** The DSL function of an op, its signature read off the op's record. */
function operation<N extends OpName>(op: N): (...args: ArgumentsOf<N>) => Tensor {
  return (...args) => {
    const given: readonly unknown[] = args;
    const required = ops[op].inputs.filter((name) => !(name as string).endsWith('?')).length;
    const inputs = given.filter(isTensor);
    if (inputs.length < required) {
      throw new UserError(
        `${op}: expected ${required} tensors (${ops[op].inputs.join(', ')}), got ${inputs.length}`,
        {
          span: currentSite?.span,
        },
      );
    }
    return apply(op, inputs, given.find((value) => value !== undefined && !isTensor(value)) ?? {});
  };
}

export const embed = operation('embed');
export const linear = operation('linear');
export const sparseLinear = operation('sparse_linear');
export const rmsNorm = operation('rms_norm');
export const attention = operation('attention');
export const silu = operation('silu');
export const gelu = operation('gelu');
export const tanh = operation('tanh');
export const mul = operation('mul');
export const add = operation('add');
export const scale = operation('scale');
export const softmax = operation('softmax');
export const reshape = operation('reshape');
export const last = operation('last');
export const argmax = operation('argmax');

/** Layer normalisation over the last axis. */
export function layerNorm(
  x: Tensor,
  weight: Tensor,
  { bias, eps }: { readonly bias?: Tensor | undefined; readonly eps: number },
): Tensor {
  return apply('layer_norm', bias ? [x, weight, bias] : [x, weight], { eps });
}

/** The row of each token's position in a table [P, D]: learned position embeddings. */
export function positions(table: Tensor): Tensor {
  return apply('positions', [table], {});
}

/** A leaf is made once: asking again for the same weight gives the same value. */
function leaf(key: string, make: () => Node): Node {
  const { leaves } = inModel(key);
  const known = leaves.get(key) ?? make();
  leaves.set(key, known);
  return known;
}

/** The ids of the step's tokens: i32[T]. */
export function tokens(): Tensor {
  return leaf('tokens', () => apply('input', [], { name: 'tokens', dtype: 'i32', shape: ['T'] }));
}

/**
 * A tensor of the checkpoint. Its name is relative to the enclosing `scope`; its element type is the checkpoint's,
 * or when there is no checkpoint `dtype`, by default the model's. A matrix that the checkpoint stores as [in, out] is `transposed`
 * when the build is packed; its shape here is [out, in].
 */
export function weight(
  name: string,
  shape: readonly number[],
  { transposed = false, dtype: own }: { readonly transposed?: boolean; readonly dtype?: DType } = {},
): Tensor {
  const { scope, dtype, dtypeOf } = inModel('weight');
  const full = scope === '' ? name : `${scope}.${name}`;
  const turned = transposed ? ({ transposed } as const) : {};
  const tensor = leaf(`weight ${full}`, () =>
    apply('weight', [], { name: full, dtype: dtypeOf(full) ?? own ?? dtype, shape: [...shape], ...turned }),
  );
  const before = isOp(tensor, 'weight') && tensor.attrs.transposed === true;
  if (tensor.type.shape.join() !== shape.join() || before !== transposed) {
    const [was, is] = [before, transposed].map((turned) => (turned ? ' transposed' : ''));
    throw new UserError(
      `weight '${full}' was ${formatType(tensor.type)}${was} before, now [${shape.join(', ')}]${is}`,
      {
        span: currentSite?.span,
        notes: originNote('the first', tensor),
      },
    );
  }
  return tensor;
}

export interface RopeOptions {
  readonly theta: number;
  /** How many elements of each head turn; all of them by default. */
  readonly dims?: number | undefined;
  /** Divisors of the frequencies, one for each pair. */
  readonly factors?: readonly number[] | undefined;
  /** Other divisors, for builds whose context is longer than `past` tokens. */
  readonly long?: { readonly past: number; readonly factors: readonly number[] } | undefined;
  /** What cosines and sines are multiplied by. */
  readonly scale?: number | undefined;
}

/** Rotary position embedding of x f32[T, H, D]. */
export function rope(x: Tensor, { theta, dims, factors, long, scale }: RopeOptions): Tensor {
  inModel('rope');
  const width = x.type.shape[2];
  const attrs = {
    theta,
    dims: dims ?? (typeof width === 'number' ? width : 0),
    ...(factors && { factors: [...factors] }),
    ...(long && { long: { past: long.past, factors: [...long.factors] } }),
    ...(scale !== undefined && { scale }),
  };
  return apply('rope', [x, leaf(ropeKey(attrs), () => apply('rope_table', [], attrs))], {});
}

/** Cuts the last axis into parts of the given sizes. */
export function split<const S extends readonly number[]>(x: Tensor, sizes: S): { [K in keyof S]: Tensor } {
  const parts = sizes.map((_, part) => apply('split', [x], { sizes: [...sizes], part }));
  return parts as unknown as { [K in keyof S]: Tensor };
}

/** [T, heads · D] as [T, heads, D]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [rows = 1, width] = x.type.shape;
  if (typeof width !== 'number' || width % heads !== 0) {
    throw new UserError(
      `splitHeads: the last axis of x ${formatType(x.type)} must be a multiple of ${heads} heads`,
      {
        span: currentSite?.span,
      },
    );
  }
  return apply('reshape', [x], { shape: [rows, heads, width / heads] });
}

/** [T, heads, D] as [T, heads · D]. */
export function mergeHeads(x: Tensor): Tensor {
  const [rows = 1, ...rest] = x.type.shape;
  return apply('reshape', [x], { shape: [rows, rest.reduce<number>((n, dim) => n * Number(dim), 1)] });
}

/** Builds `body` with weight names relative to `name`. */
export function scope<R>(name: string, body: () => R): R {
  const model = inModel('scope');
  const outer = model.scope;
  model.scope = outer === '' ? name : `${outer}.${name}`;
  try {
    return body();
  } finally {
    model.scope = outer;
  }
}

/** Applies `layer` `count` times to x, layer i in scope `name.i`. */
export function layers(
  count: number,
  name: string,
  x: Tensor,
  layer: (x: Tensor, index: number) => Tensor,
): Tensor {
  const model = inModel('layers');
  const outer = model.layer;
  let result = x;
  for (let i = 0; i < count; i++) {
    model.layer = i;
    result = scope(`${name}.${i}`, () => layer(result, i));
  }
  model.layer = outer;
  return result;
}

export interface ModelOptions<S extends z.ZodType> {
  readonly name: string;
  /**
   * Hyper-parameters under the names of the checkpoint's config.json. Its defaults describe the model when it is
   * compiled without a checkpoint. State what the graph assumes as literals, so that a checkpoint that differs is refused.
   */
  readonly config: S;
  /** Element type of the weights when there is no checkpoint to say. */
  readonly dtype?: DType;
  /** The longest context the model was made for, in tokens. */
  readonly context: (config: z.output<S>) => number;
  /** The first part of weight names that checkpoints of the model without its head leave out, such as `transformer`. */
  readonly prefix?: string;
  /** How matrices are stored where `--quantize` does not say. */
  readonly quantize?: Quantize;
}

/** What a model file exports by default. */
export interface Model {
  readonly name: string;
  readonly prefix?: string | undefined;
  readonly quantize?: Quantize | undefined;
  /** Builds the graph for a config.json; throws a ZodError when the model cannot take it. */
  readonly build: (config: unknown, dtypeOf?: (weight: string) => DType | undefined) => BuiltModel;
}

export interface BuiltModel {
  readonly graph: Graph;
  /** The longest context the model was made for, in tokens. */
  readonly context: number;
}

/** Declares a model: `graph` returns the logits f32[T, vocabulary] of the tokens. */
export function model<S extends z.ZodType>(
  options: ModelOptions<S>,
  graph: (config: z.output<S>) => Tensor,
): Model {
  // The name becomes a folder and stands in comments of the kernels.
  if (!/^[A-Za-z0-9][\w.-]*$/.test(options.name)) {
    throw new UserError(`a model's name must be letters, digits, '.', '_' and '-', not '${options.name}'`, {
      span: currentSite?.span,
    });
  }
  return {
    name: options.name,
    prefix: options.prefix,
    quantize: options.quantize,
    build: (config, dtypeOf = () => undefined) => {
      const parsed = options.config.parse(config);
      return {
        graph: buildGraph(options.name, { dtype: options.dtype ?? 'f32', dtypeOf }, () => graph(parsed)),
        context: options.context(parsed),
      };
    },
  };
}

/** Runs DSL code and collects the graph that computes its result, as output `logits`. */
export function buildGraph(
  name: string,
  weights: { readonly dtype: DType; readonly dtypeOf: (weight: string) => DType | undefined },
  body: () => Tensor,
): Graph {
  const outer = building;
  building = { ...weights, leaves: new Map(), scope: '', layer: undefined };
  try {
    const logits = body();
    if (!isTensor(logits))
      throw new UserError(`model ${name}: the graph must return a tensor, the logits f32[T, V]`);
    checkLogits(name, logits);
    return makeGraph({ name, outputs: new Map([['logits', logits]]), updates: new Map(), dims: {} });
  } finally {
    building = outer;
  }
}

/**
 * What hyper-parameters of config.json may be: sizes, and numbers of layers. Both bounds are far above any model there is,
 * and keep a damaged config.json from making a graph that fills the memory.
 */
export const size = z
  .int()
  .positive()
  .max(2 ** 24);
export const depth = z.int().positive().max(1024);

export { z };
