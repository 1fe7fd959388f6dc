import type { Entry } from './entry.js';
import { ops } from '../ir/ops/index.js';
import { isOp, type Graph, type Node } from '../ir/graph.js';
import type { Dim } from '../ir/type.js';

/**
 * How the elements of a value are found in memory without moving them. Element (t, i, j) of the value lies at
 * offset + row · strides[0] + i · strides[1] + …, where row is t, or the step's last row when `fromLast`; counted from
 * the step's position when `fromPosition`.
 */
export interface Access {
  /** The value in memory: a kernel's result or a leaf. */
  readonly source: Node;
  readonly shape: readonly Dim[];
  /** In elements; that of the last axis is always 1. */
  readonly strides: readonly number[];
  readonly offset: number;
  readonly fromLast: boolean;
  readonly fromPosition: boolean;
}

const number = (dim: Dim | undefined): number => (typeof dim === 'number' ? dim : Number.NaN);

/** Row-major strides; a named dim may only be the first axis, which no stride counts. */
export function contiguousStrides(shape: readonly Dim[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let axis = shape.length - 2; axis >= 0; axis--)
    strides[axis] = (strides[axis + 1] ?? 1) * number(shape[axis + 1]);
  return strides;
}

function whole(source: Node): Access {
  const { shape } = source.type;
  // The ids of all tokens lie in one buffer, those of the step at its position.
  const fromPosition = isOp(source, 'input') && source.attrs.name === 'tokens';
  return { source, shape, strides: contiguousStrides(shape), offset: 0, fromLast: false, fromPosition };
}

/** The access of a view in terms of its input's, or undefined when the elements would have to be moved. */
function viewAccess(view: Node, input: Access, graph: Graph): Access | undefined {
  if (isOp(view, 'split')) {
    const { sizes, part } = view.attrs;
    const start = sizes.slice(0, part).reduce((sum, size) => sum + size, 0);
    return { ...input, shape: view.type.shape, offset: input.offset + start };
  }
  if (isOp(view, 'reshape')) {
    const packed = contiguousStrides(input.shape);
    if (!input.strides.every((stride, axis) => axis === 0 || stride === packed[axis])) return undefined;
    const strides = contiguousStrides(view.type.shape);
    return { ...input, shape: view.type.shape, strides: [input.strides[0] ?? 1, ...strides.slice(1)] };
  }
  if (isOp(view, 'positions')) return { ...input, shape: view.type.shape, fromPosition: true };
  if (isOp(view, 'last')) {
    const [rows] = input.shape;
    const shape = view.type.shape;
    if (rows !== 'T')
      return { ...input, shape, offset: input.offset + (number(rows) - 1) * (input.strides[0] ?? 1) };
    return { ...input, shape, fromLast: graph.dims['T'] !== 1 };
  }
  return undefined;
}

/** Where each value of a graph lies, views resolved to what they look at. */
class Layout {
  /** Views whose elements must be moved, with where a copy kernel finds them, in row-major order of the access's shape. */
  readonly copied: ReadonlyMap<Node, Access>;
  private readonly accesses = new Map<Node, Access>();

  constructor({ graph, kernels }: Pick<Entry, 'graph' | 'kernels'>) {
    const copied = new Map<Node, Access>();
    const results = new Set(graph.outputs.values());
    const stored = new Set(kernels.flatMap(({ outputs }) => outputs.map(({ result }) => result)));
    for (const node of graph.nodes) {
      const [input] = node.inputs;
      if (ops[node.op].class !== 'view' || !input) continue;
      const access = viewAccess(node, this.of(input), graph);
      if (access && stored.has(node) && !results.has(node)) continue;
      if (access && !results.has(node)) this.accesses.set(node, access);
      else copied.set(node, access ?? this.of(input));
    }
    this.copied = copied;
  }

  of(node: Node): Access {
    return this.accesses.get(node) ?? whole(node);
  }
}

const layouts = new WeakMap<object, Layout>();

/**
 * The layout of an entry, worked out once. Before there are kernels every view that can be one is; later those that a
 * kernel stores as its result have memory of their own.
 */
export function layoutOf({ graph, kernels }: Pick<Entry, 'graph' | 'kernels'>): Layout {
  const key = kernels.length > 0 ? kernels : graph;
  const layout = layouts.get(key) ?? new Layout({ graph, kernels });
  layouts.set(key, layout);
  return layout;
}

export type { Layout };

/** The distinct values in memory that a kernel reads. */
export function kernelSources(kernel: Entry['kernels'][number], layout: Layout): Set<Node> {
  const sources = new Set<Node>();
  for (const node of kernel.nodes) {
    for (const input of node.inputs) if (!kernel.nodes.has(input)) sources.add(layout.of(input).source);
  }
  return sources;
}
