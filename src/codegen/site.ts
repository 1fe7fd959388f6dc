import { CompilerBug, Unsupported } from '../diagnostic.js';
import { isOp, type Node } from '../ir/graph.js';
import type { OpName } from '../ir/ops/index.js';
import { isPackedName } from '../ir/packed.js';
import { elementTypeOf } from '../ir/type.js';
import type { Layout } from '../passes/access.js';
import type { Entry, Kernel, Output } from '../passes/entry.js';
import type { Target } from '../passes/target.js';
import { prologueName } from '../passes/text.js';
import type { ArgumentList } from './arguments.js';
import {
  conversion,
  elementType,
  inParentheses,
  iterationOf,
  rowStart,
  sum,
  times,
  type Iteration,
} from './expression.js';

/** A kernel being written, and what the writer of its kind may look at. */
export interface Site {
  readonly kernel: Kernel;
  readonly entry: Entry;
  readonly layout: Layout;
  /** Of values that lie in memory in the order of lanes: how many lanes. */
  readonly laneOrders: ReadonlyMap<Node, number>;
  readonly target: Target;
  readonly list: ArgumentList;
  /** The result being written. */
  readonly output: Output;
  /** Loops over its elements. */
  readonly iteration: Iteration;
}

/** The site of one result of a kernel: the axes of its value as it is computed; an append may store it under others. */
export function siteOf(site: Omit<Site, 'output' | 'iteration'>, output: Output): Site {
  const { epilogue, anchors, append, result } = output;
  const computed = epilogue.at(-1) ?? anchors[0] ?? append?.inputs[1] ?? result;
  return { ...site, output, iteration: iterationOf(computed.type, site.entry.graph.dims) };
}

export interface Written {
  /** The name without the suffixes that any kernel's name can have. */
  readonly name: string;
  /** What the template computes, in words; what is fused follows. */
  readonly doc: string;
  /** That of the kernel's kind by default. */
  readonly template?: string;
  readonly context: Readonly<Record<string, unknown>>;
  readonly threads: number;
  /** Threadgroups along y. */
  readonly tiles: number;
  /** Tokens of a threadgroup, of which the text knows the first; 1 by default, called `t`. */
  readonly tokens?: number;
}

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

export function operand(node: Node, index: number): Node {
  const input = node.inputs[index];
  if (!input) throw new CompilerBug(`${node.op} has no input ${index}`);
  return input;
}

/** The node that a kernel of one part computes. */
export function anchorOf<N extends OpName>(kernel: Kernel, op: N): Extract<Node, { readonly op: N }> {
  const [first] = kernel.outputs[0].anchors;
  if (!first || !isOp(first, op)) throw new CompilerBug(`a ${kernel.kind} kernel has no ${op}`);
  return first;
}

/** A matrix or vector that the template reads by itself: its buffer, where it starts there, how its elements are read. */
export function parameter({ layout, list, iteration }: Site, name: string, node: Node) {
  const access = layout.of(node);
  const dtype = elementTypeOf(access.source.type);
  return {
    buffer: list.read(name, access.source, dtype),
    start: rowStart(access, iteration),
    /** Elements from one row to the next. */
    stride: access.strides[0] ?? 1,
    dtype,
    type: elementType[dtype],
    ...conversion[dtype],
  };
}

/** A matrix whose rows the template reads: how they are declared, found and read. */
export function matrixRows(site: Site, name: string, node: Node) {
  const { dtype, shape } = node.type;
  if (isPackedName(dtype)) {
    const buffers = site.list.readPlanes(name, node, dtype);
    const planes = buffers.join(', ');
    return {
      dtype,
      buffers,
      declared: dtype as string,
      multiply: 'multiply_packed',
      row: (n: string): string => `${dtype}_row<${shape[1]}>(${planes}, ${n})`,
      element: (row: string, n: string): string => `element(${row}, ${n} / 32, ${n} % 32)`,
    };
  }
  const { buffer, start, stride, type, open, close } = parameter(site, name, node);
  const factor = (n: string): string => (n.endsWith(')') ? n : inParentheses(n));
  return {
    dtype,
    buffers: [buffer],
    declared: `device const ${type}*`,
    multiply: 'multiply_rows',
    row: (n: string): string => sum(buffer, start, times(factor(n), stride)),
    element: (row: string, n: string): string => `${open}${row}[${n}]${close}`,
  };
}

/** The templates of these ops make the rows of a step's tokens, or one row. */
export function requireTokenRows(node: Node): void {
  const [rows] = node.type.shape;
  if (rows === 'T' || rows === 1) return;
  throw new Unsupported(`${node.op} with ${rows} rows: only the rows of the step's tokens can be computed`, {
    span: node.origin.span,
  });
}

export function readsLast({ kernel, layout }: Site): boolean {
  return [...kernel.nodes].some((node) => node.inputs.some((input) => layout.of(input).fromLast));
}

/** Whether where the kernel reads depends on the step: on its last token, or on its position. */
export function readsStep({ kernel, layout }: Site): boolean {
  const reads = [...kernel.nodes].flatMap(({ inputs }) => inputs.map((input) => layout.of(input)));
  return reads.some(({ fromLast, fromPosition }) => fromLast || fromPosition);
}

/** What is fused: `; x first: norm; then silu, mul; into the cache.`, or a line for each of several results. */
export function fusedWords({ prologue, outputs }: Kernel): string {
  const first = prologue ? `; x first: ${prologueName[prologue.op] ?? prologue.op}` : '';
  const words = outputs.map(({ epilogue, append }) => [
    ...(epilogue.length > 0 ? [`then ${epilogue.map(({ op }) => op).join(', ')}`] : []),
    ...(append ? ['into the cache'] : []),
  ]);
  if (outputs.length === 1) return `${[first, ...words.flat()].join('; ')}.`;
  const lines = words.flatMap((own, i) => (own.length > 0 ? [`/// Result ${i}: ${own.join('; ')}.`] : []));
  return [`${first}.`, ...lines].join('\n');
}

export function nameOf(...parts: readonly (string | number)[]): string {
  return parts.filter((part) => part !== '').join('_');
}

/** A loop in which each of `lanes` takes `vector` contiguous elements at a time, and what is left, one at a time. */
export function strip(length: number, lanes: number, vector: number) {
  const stride = lanes * vector;
  const main = Math.floor(length / stride) * stride;
  return {
    main,
    stride,
    whole: main > 0 ? [{}] : [],
    tail: main < length ? [{}] : [],
    tailSteps: ceilDiv(length - main, lanes),
    tailStart: sum(String(main), times('j', lanes)),
  };
}
