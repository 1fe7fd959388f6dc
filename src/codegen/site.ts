import { CompilerBug, Unsupported } from '../diagnostic.js';
import { isOp, type Node } from '../ir/graph.js';
import type { OpName } from '../ir/ops/index.js';
import type { Layout } from '../passes/access.js';
import type { Entry, Kernel } from '../passes/entry.js';
import type { Target } from '../passes/target.js';
import { kernelName } from '../passes/text.js';
import type { ArgumentList } from './arguments.js';
import { writeEpilogue } from './epilogue.js';
import { cacheRow, conversion, elementType, rowStart, sum, times, type Iteration } from './expression.js';

/** A kernel being written, and what the writer of its kind may look at. */
export interface Site {
  readonly kernel: Kernel;
  readonly entry: Entry;
  readonly layout: Layout;
  readonly target: Target;
  readonly list: ArgumentList;
  /** Loops over the result's elements. */
  readonly iteration: Iteration;
}

export interface Written {
  /** The name without the suffixes that any kernel's name can have. */
  readonly name: string;
  /** What the template computes, in words; what is fused follows. */
  readonly doc: string;
  readonly context: Readonly<Record<string, unknown>>;
  readonly threads: number;
  /** Threadgroups along y; x counts tokens. */
  readonly tiles: number;
}

export const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

export function operand(node: Node, index: number): Node {
  const input = node.inputs[index];
  if (!input) throw new CompilerBug(`${node.op} has no input ${index}`);
  return input;
}

/** The node that a kernel of one part computes. */
export function anchorOf<N extends OpName>(kernel: Kernel, op: N): Extract<Node, { readonly op: N }> {
  const [first] = kernel.anchors;
  if (!first || !isOp(first, op)) throw new CompilerBug(`a ${kernel.kind} kernel has no ${op}`);
  return first;
}

/** A matrix or vector that the template reads by itself: its buffer, where it starts there, how its elements are read. */
export function parameter({ layout, list, iteration }: Site, name: string, node: Node) {
  const access = layout.of(node);
  const { dtype } = access.source.type;
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

/** `linear_silu_mul_cache` less its first word. */
export function fusedSteps(kernel: Kernel): string {
  return kernelName(kernel).slice(kernel.kind === 'elementwise' ? 0 : kernel.kind.length + 1);
}

/** `; then silu, mul; into the cache`. */
export function fusedWords({ epilogue, append }: Kernel): string {
  const steps = epilogue.map((node) => node.op).join(', ');
  return `${steps === '' ? '' : `; then ${steps}`}${append ? '; into the cache' : ''}`;
}

export function nameOf(...parts: readonly (string | number)[]): string {
  return parts.filter((part) => part !== '').join('_');
}

/** Arguments and text of the store; comes after the template's own inputs. Adds `step` when the kernel needs it. */
export function writeStore(site: Site, needsStep = false): Record<string, unknown> {
  const { kernel, iteration, layout, list } = site;
  const epilogue = writeEpilogue(kernel, iteration, layout, list);
  const name = list.write(kernel.append ? 'cache' : 'y', kernel.result, kernel.result.type.dtype);
  const token = iteration.rows > 1 ? 't' : '';
  const row = kernel.append ? cacheRow(sum('step.position', token), kernel.append.type.shape[0]) : token;
  if (needsStep || kernel.append || iteration.rows > 1 || readsLast(site)) list.step();
  return { ...epilogue, output: `${name}[${sum(times(row, iteration.width), 'n')}]` };
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
