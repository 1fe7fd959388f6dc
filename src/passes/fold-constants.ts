import { singlePrecision } from '../ir/define.js';
import { isOp, makeNode, rewrite, type Node } from '../ir/graph.js';
import type { OpName } from '../ir/ops/index.js';
import { sameShape } from '../ir/type.js';
import type { EntryPass } from './entry.js';

/**
 * Replaces a node by a simpler one of the same value and type. A rule looks at most at the node's input, and what it
 * returns is shorter by a node, so folding until nothing folds ends. No rule adds an error: what f32 computes after it
 * is off by at most the roundings that the node's own value had before.
 */
export const foldConstants: EntryPass = {
  name: 'fold-constants',
  doc: 'take out what computes nothing: scales by 1, chains of scales and reshapes, splits into one part',
  run: (entry) => ({ ...entry, graph: rewrite(entry.graph, folded) }),
};

/** A simpler node, or undefined when there is none. */
type Rule<N extends OpName> = (node: Node<N>) => Node | undefined;

const rules: { readonly [N in OpName]: Rule<N> | undefined } = {
  input: undefined,
  weight: undefined,
  state: undefined,
  rope_table: undefined,
  embed: undefined,
  linear: undefined,
  sparse_linear: undefined,
  rms_norm: undefined,
  layer_norm: undefined,
  rope: undefined,
  cache_append: undefined,
  attention: undefined,
  attention_parts: undefined,
  attention_combine: undefined,
  silu: undefined,
  gelu: undefined,
  tanh: undefined,
  mul: undefined,
  add: undefined,
  scale: foldScale,
  split: ({ inputs: [x], attrs }) => (attrs.sizes.length === 1 ? x : undefined),
  reshape: foldReshape,
  positions: undefined,
  softmax: undefined,
  last: ({ inputs: [x] }) => (x?.type.shape[0] === 1 ? x : undefined),
  argmax: undefined,
  sample_parts: undefined,
  sample: undefined,
};

function folded(node: Node): Node {
  let result = node;
  for (let next = fold(node.op, node); next; next = fold(next.op, next)) result = next;
  return result;
}

function fold<N extends OpName>(op: N, node: Node<N>): Node | undefined {
  return rules[op]?.(node);
}

/** The least magnitude that f32 holds in full precision. */
const leastNormal = 2 ** -126;

/** Scaling a weight of 16 bits also makes it f32, so that scale stays. */
function foldScale({ inputs, attrs, type, origin }: Node<'scale'>): Node | undefined {
  const [x] = inputs;
  if (x && attrs.by === 1 && x.type.dtype === type.dtype) return x;
  if (!x || !isOp(x, 'scale')) return undefined;
  const by = attrs.by * x.attrs.by;
  const exact = by === 0 || (Math.abs(by) >= leastNormal && singlePrecision.safeParse(by).success);
  return exact ? makeNode('scale', x.inputs, { by }, origin) : undefined;
}

function foldReshape({ inputs, attrs, origin }: Node<'reshape'>): Node | undefined {
  const [x] = inputs;
  if (x && sameShape(x.type.shape, attrs.shape)) return x;
  return x && isOp(x, 'reshape') ? makeNode('reshape', x.inputs, attrs, origin) : undefined;
}
