import { CompilerBug, UserError } from '../diagnostic.js';
import { inferType, isLeaf, leafKey, type Graph, type Node } from './graph.js';
import { ops } from './ops/index.js';
import { formatNode, valueNames } from './text.js';
import { formatType, sameType, type TensorType } from './type.js';

/**
 * Invariants of a graph:
 *  1. every node comes after its inputs, once;
 *  2. a node has the inputs that its op asks for;
 *  3. its attributes satisfy the op's schema;
 *  4. its type is what the op infers from its inputs;
 *  5. outputs and updates are nodes of the graph, and there is an output;
 *  6. an update has the type of its state;
 *  7. a leaf name stands for one leaf;
 *  8. every named dim is T or C;
 *  9. every node is needed by an output or an update: there is no dead code.
 * Throws CompilerBug, which names the first that is broken and shows the node.
 */
export function verifyGraph(graph: Graph, after: string): void {
  const names = valueNames(graph.nodes);
  const broken = (node: Node, what: string): never => {
    throw new CompilerBug(`after ${after}, graph ${graph.name}: ${what}`, {
      notes: [formatNode(node, names)],
    });
  };
  const seen = new Set<Node>();
  const leaves = new Map<string, Node>();
  for (const node of graph.nodes) {
    if (seen.has(node)) broken(node, 'a node is listed twice');
    if (!node.inputs.every((input) => seen.has(input))) broken(node, 'a node comes before one of its inputs');
    seen.add(node);
    if (!verified.has(node)) verifyNode(node, broken);
    verified.add(node);
    if (isLeaf(node)) {
      const key = leafKey(node);
      if ((leaves.get(key) ?? node) !== node) broken(node, `two leaves are called ${key}`);
      leaves.set(key, node);
    }
  }
  if (graph.outputs.size === 0) throw new CompilerBug(`after ${after}, graph ${graph.name} has no output`);
  for (const node of graph.outputs.values())
    if (!seen.has(node)) broken(node, 'an output is not in the graph');
  for (const [state, value] of graph.updates) {
    if (!seen.has(value)) broken(value, 'an update is not in the graph');
    if (!sameType(state.type, value.type))
      broken(value, `an update of ${formatType(state.type)} has another type`);
  }
  const needed = new Set<Node>([...graph.outputs.values(), ...graph.updates.values()]);
  for (const node of [...graph.nodes].reverse()) {
    if (!needed.has(node)) broken(node, 'no output or update needs a node');
    for (const input of node.inputs) needed.add(input);
  }
}

/** Nodes do not change: what holds of one holds in every graph that has it. */
const verified = new WeakSet<Node>();

function verifyNode(node: Node, broken: (node: Node, what: string) => never): void {
  const names: readonly string[] = ops[node.op].inputs;
  const required = names.filter((name) => !name.endsWith('?')).length;
  if (node.inputs.length < required || node.inputs.length > names.length) {
    broken(node, `${node.op} takes ${names.join(', ')}, not ${node.inputs.length} inputs`);
  }
  if (!ops[node.op].attrs.safeParse(node.attrs).success) broken(node, 'attributes do not satisfy the schema');
  const inferred = inferredType(node, broken);
  if (!sameType(inferred, node.type)) broken(node, `the type should be ${formatType(inferred)}`);
  for (const dim of node.type.shape) {
    if (typeof dim === 'string' && dim !== 'T' && dim !== 'C') broken(node, `dim ${dim} is not known`);
  }
}

function inferredType(node: Node, broken: (node: Node, what: string) => never): TensorType {
  try {
    return inferType(
      node.op,
      node.inputs.map((input) => input.type),
      node.attrs,
    );
  } catch (error) {
    if (error instanceof UserError) return broken(node, `the op refuses its inputs: ${error.message}`);
    throw error;
  }
}
