import { CompilerBug, type Span } from '../diagnostic.js';
import { nameInputs, reject } from './define.js';
import { ops, type AttrsOf, type OpName } from './ops/index.js';
import { isPackedName } from './packed.js';
import { formatType, type DimBindings, type TensorType } from './type.js';

/** Where a node comes from in the user's file. */
export interface Origin {
  readonly span: Span | undefined;
  /** The variable the user gave the result, e.g. `h`. */
  readonly name: string | undefined;
  /** The scope it was built in, e.g. `model.layers.0`; empty at the top. */
  readonly scope: string;
  /** Index of the layer it belongs to, when it was built by `layers()`. */
  readonly layer: number | undefined;
}

interface NodeOf<N extends OpName> {
  readonly op: N;
  readonly attrs: AttrsOf<N>;
  readonly inputs: readonly Node[];
  readonly type: TensorType;
  readonly origin: Origin;
}

/** One op applied to values. Every node has one result, so a node is also the value it computes. */
export type Node<N extends OpName = OpName> = { [M in N]: NodeOf<M> }[N];

export type Leaf = Node<'input' | 'weight' | 'state' | 'rope_table'>;

/**
 * A pure function of its inputs, weights and states. `nodes` holds everything the results need, each after its
 * inputs; a node may be used any number of times. There are no buffers here and no order but that of dependence.
 */
export interface Graph {
  readonly name: string;
  readonly nodes: readonly Node[];
  readonly outputs: ReadonlyMap<string, Node>;
  /** The new value of each state after the step. */
  readonly updates: ReadonlyMap<Node<'state'>, Node>;
  /** Lengths of the named dims; for `T` the greatest a step may have. */
  readonly dims: DimBindings;
}

/** The entry points that generation needs, all made from one model. */
export interface Program {
  readonly name: string;
  /** One graph per entry, e.g. `decode`. They share their weight and state nodes. */
  readonly entries: ReadonlyMap<string, Graph>;
}

export const noOrigin: Origin = { span: undefined, name: undefined, scope: '', layer: undefined };

export function isOp<N extends OpName>(
  node: Node,
  ...names: readonly N[]
): node is Extract<Node, { readonly op: N }> {
  return (names as readonly OpName[]).includes(node.op);
}

export function isLeaf(node: Node): node is Leaf {
  return ops[node.op].class === 'leaf';
}

/** A product of vectors with the rows of a matrix, however that is stored. */
export interface Product {
  readonly x: Node;
  /** What is multiplied: all elements of the matrix, or those that a sparse one keeps. */
  readonly matrix: Node;
  /** Of a sparse matrix. */
  readonly columns: Node | undefined;
  readonly bias: Node | undefined;
}

/** The operands of a product; undefined when `node` is none. */
export function asProduct(node: Node): Product | undefined {
  const sparse = isOp(node, 'sparse_linear');
  if (!sparse && !isOp(node, 'linear')) return undefined;
  const [x, matrix, third, fourth] = node.inputs;
  if (!x || !matrix) throw new CompilerBug(`${node.op} lacks an operand`);
  return { x, matrix, columns: sparse ? third : undefined, bias: sparse ? fourth : third };
}

/** What makes a leaf one of its kind: two leaves of one key are one value. */
export function leafKey(node: Leaf): string {
  return `${node.op} ${node.op === 'rope_table' ? ropeKey(node.attrs) : node.attrs.name}`;
}

/** `theta 10000 dims 64`, and in what else two tables may differ. */
export function ropeKey({ theta, dims, factors, long, scale }: AttrsOf<'rope_table'>): string {
  const words = [`theta ${theta} dims ${dims}`];
  if (factors) words.push(`factors ${factors.join()}`);
  if (long) words.push(`past ${long.past} factors ${long.factors.join()}`);
  if (scale !== undefined) words.push(`scale ${scale}`);
  return words.join(' ');
}

/** Makes a node, its type inferred from the inputs; throws UserError when they do not fit. */
export function makeNode<N extends OpName>(
  op: N,
  inputs: readonly Node[],
  attrs: AttrsOf<N>,
  origin: Origin = noOrigin,
): Node {
  const type = inferType(
    op,
    inputs.map((input) => input.type),
    attrs,
  );
  // The compiler cannot see that the members of this record agree on N.
  return { op, inputs, attrs, type, origin } as unknown as Node;
}

export function inferType<N extends OpName>(
  op: N,
  inputs: readonly TensorType[],
  attrs: AttrsOf<N>,
): TensorType {
  const record = ops[op];
  checkPacked(op, inputs);
  const infer = record.infer as (inputs: Record<string, TensorType>, attrs: AttrsOf<N>) => TensorType;
  return infer(nameInputs(record.inputs, inputs), attrs);
}

function checkPacked(op: OpName, inputs: readonly TensorType[]): void {
  const { inputs: names, packed }: { readonly inputs: readonly string[]; readonly packed?: string } = ops[op];
  inputs.forEach((type, i) => {
    const name = (names[i] ?? '').replace('?', '');
    if (!isPackedName(type.dtype) || name === packed) return;
    reject(
      `${name} ${formatType(type)} is packed; only the matrix of a product and the table of an embed can be`,
    );
  });
}

/** The nodes that the roots need, each after its inputs, in a stable order. */
export function topologicalOrder(roots: Iterable<Node>): Node[] {
  const order: Node[] = [];
  const seen = new Set<Node>();
  const stack: { node: Node; next: number }[] = [];
  const enter = (node: Node): void => {
    if (seen.has(node)) return;
    seen.add(node);
    stack.push({ node, next: 0 });
  };
  for (const root of roots) {
    enter(root);
    for (let top = stack.at(-1); top; top = stack.at(-1)) {
      const input = top.node.inputs[top.next++];
      if (input) enter(input);
      else order.push((stack.pop() ?? top).node);
    }
  }
  return order;
}

export function makeGraph(graph: Omit<Graph, 'nodes'>): Graph {
  return { ...graph, nodes: topologicalOrder([...graph.outputs.values(), ...graph.updates.values()]) };
}

/** Every use of every node: the nodes that read it; a result of the graph counts as a use by nobody. */
export function usersOf(graph: Graph): Map<Node, Node[]> {
  const users = new Map<Node, Node[]>(graph.nodes.map((node) => [node, []]));
  for (const node of graph.nodes) for (const input of node.inputs) users.get(input)?.push(node);
  return users;
}

/** Rebuilds a graph node by node: `replace` sees each node after its inputs have been replaced. */
export function rewrite(graph: Graph, replace: (node: Node, original: Node) => Node): Graph {
  const image = new Map<Node, Node>();
  const imageOf = (node: Node): Node => image.get(node) ?? node;
  for (const node of graph.nodes) {
    const inputs = node.inputs.map(imageOf);
    const same = inputs.every((input, i) => input === node.inputs[i]);
    image.set(node, replace(same ? node : makeNode(node.op, inputs, node.attrs, node.origin), node));
  }
  return makeGraph({
    ...graph,
    outputs: new Map([...graph.outputs].map(([name, node]) => [name, imageOf(node)])),
    updates: new Map([...graph.updates].map(([state, node]) => [state, imageOf(node)])),
  });
}
