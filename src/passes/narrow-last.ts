import { isLeaf, isOp, makeGraph, makeNode, type Graph, type Node } from '../ir/graph.js';
import { ops } from '../ir/ops/index.js';
import type { EntryPass } from './entry.js';

/**
 * last(f(x)) = f(last(x)) when row t of f depends on row t of x alone. Moving `last` towards the inputs keeps the
 * final MLP, norm and vocabulary projection from being computed for tokens nobody asks about.
 */
export const narrowLast: EntryPass = {
  name: 'narrow-last',
  doc: 'compute only the last token where only the last token is asked for',
  run: (entry) => ({ ...entry, graph: narrow(entry.graph) }),
};

const hasTokens = (node: Node): boolean => node.type.shape[0] === 'T';

function narrow(graph: Graph): Graph {
  const wanted = rowsWanted(graph);
  const canNarrow = (node: Node): boolean => !wanted.has(node) && ops[node.op].tokenwise && !isLeaf(node);
  const whole = new Map<Node, Node>();
  const lastRow = new Map<Node, Node>();
  const wholeOf = (node: Node): Node => whole.get(node) ?? node;
  const lastOf = (node: Node): Node => {
    const known = lastRow.get(node) ?? makeNode('last', [wholeOf(node)], {}, node.origin);
    lastRow.set(node, known);
    return known;
  };
  for (const node of graph.nodes) {
    const [input] = node.inputs;
    if (isOp(node, 'last') && input && hasTokens(input)) whole.set(node, lastOf(input));
    else if (hasTokens(node) && canNarrow(node)) lastRow.set(node, narrowed(node, lastOf));
    else
      whole.set(
        node,
        node.inputs.some((x) => wholeOf(x) !== x)
          ? makeNode(node.op, node.inputs.map(wholeOf), node.attrs, node.origin)
          : node,
      );
  }
  return makeGraph({
    ...graph,
    outputs: new Map([...graph.outputs].map(([name, node]) => [name, wholeOf(node)])),
    updates: new Map([...graph.updates].map(([state, node]) => [state, wholeOf(node)])),
  });
}

/** Nodes with a token axis of which more than the last row is wanted. */
function rowsWanted(graph: Graph): ReadonlySet<Node> {
  const wanted = new Set<Node>([...graph.outputs.values(), ...graph.updates.values()]);
  for (const node of [...graph.nodes].reverse()) {
    const onlyLast = isOp(node, 'last') || (ops[node.op].tokenwise && hasTokens(node) && !wanted.has(node));
    if (!onlyLast) for (const input of node.inputs) wanted.add(input);
  }
  return wanted;
}

/** The node on the last row of its inputs. */
function narrowed(node: Node, lastOf: (node: Node) => Node): Node {
  const inputs = node.inputs.map((input) => (hasTokens(input) ? lastOf(input) : input));
  if (!isOp(node, 'reshape')) return makeNode(node.op, inputs, node.attrs, node.origin);
  return makeNode('reshape', inputs, { shape: [1, ...node.attrs.shape.slice(1)] }, node.origin);
}
