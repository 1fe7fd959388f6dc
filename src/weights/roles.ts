import { asProduct, isOp, usersOf, type Graph, type Node } from '../ir/graph.js';
import type { Role } from '../ir/policy.js';

/** What each matrix of a graph does, and who reads it. */
export class Roles {
  private readonly users: ReadonlyMap<Node, readonly Node[]>;
  private readonly attended: ReadonlySet<Node>;
  private readonly heads: ReadonlySet<Node>;

  constructor(graph: Graph) {
    this.users = usersOf(graph);
    this.attended = productsAttended(graph);
    this.heads = productsBehind(graph.outputs.get('logits'));
  }

  readersOf(weight: Node): readonly Node[] {
    return this.users.get(weight) ?? [];
  }

  of(weight: Node): ReadonlySet<Role> {
    const roles = new Set<Role>();
    for (const reader of this.readersOf(weight)) {
      if (isOp(reader, 'embed') && reader.inputs[1] === weight) roles.add('embedding');
      if (this.heads.has(reader)) roles.add('lm_head');
      if (this.attended.has(reader)) roles.add('qkv');
    }
    return roles;
  }
}

/** The product that logits are, whatever is done to each of them afterwards. */
function productsBehind(logits: Node | undefined): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (let node = logits; node && !found.has(node);) {
    if (asProduct(node)) return new Set([node]);
    found.add(node);
    node = isOp(node, 'scale', 'tanh', 'reshape') ? node.inputs[0] : undefined;
  }
  return new Set();
}

/** The products that queries, keys and values are, after a bias, a norm or a rotation. */
function productsAttended(graph: Graph): ReadonlySet<Node> {
  const found = new Set<Node>();
  for (const attention of graph.nodes) {
    if (!isOp(attention, 'attention')) continue;
    const seen = new Set<Node>(attention.inputs.slice(0, 3));
    for (const node of seen) {
      if (asProduct(node)) found.add(node);
      else if (isOp(node, 'reshape', 'split', 'rope', 'rms_norm', 'layer_norm', 'scale', 'add', 'mul'))
        for (const input of node.inputs) seen.add(input);
    }
  }
  return found;
}
