import { isLeaf, rewrite, type Graph, type Node } from '../ir/graph.js';
import type { EntryPass } from './entry.js';

/**
 * Two nodes of one op, with the same attributes and the same inputs, are one value: every op is a pure function. The
 * one that comes first stands for all, and keeps its place in the user's file, its scope and its layer; so a value of
 * one layer may serve the next. Inputs are shared before what reads them, so one sweep with a table of what there is
 * (hash-consing; Ershov 1958) finds all of them. Leaves are unique by name already (src/ir/verify.ts), states among
 * them: what is appended to two caches is two values.
 */
export const shareSubexpressions: EntryPass = {
  name: 'share-subexpressions',
  doc: 'compute once what a model computes twice from the same values',
  run: (entry) => ({ ...entry, graph: shared(entry.graph) }),
};

function shared(graph: Graph): Graph {
  const numbers = new Map<Node, number>();
  const numberOf = (node: Node): number => {
    const number = numbers.get(node) ?? numbers.size;
    numbers.set(node, number);
    return number;
  };
  const firsts = new Map<string, Node>();
  return rewrite(graph, (node) => {
    if (isLeaf(node)) return node;
    const key = [node.op, ...node.inputs.map(numberOf), JSON.stringify(node.attrs)].join(' ');
    const first = firsts.get(key) ?? node;
    firsts.set(key, first);
    return first;
  });
}
