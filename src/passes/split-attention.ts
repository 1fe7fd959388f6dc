import { isOp, makeNode, rewrite, type Graph, type Node } from '../ir/graph.js';
import { partBlock } from '../ir/ops/attention-parts.js';
import { attentionShape } from './attention-shape.js';
import type { EntryPass } from './entry.js';
import type { Target } from './target.js';

/** Most parts of a head; what each adds to combining is small, and a longer context would not run any faster. */
const mostParts = 32;

/**
 * attention = attention_combine(attention_parts): one token has too few heads to keep a GPU busy, so the rows that each
 * head sees are cut into parts that are weighed at the same time. The number of parts is what is fastest half-way
 * through the context; one part where the machine is busy already.
 */
export const splitAttention: EntryPass = {
  name: 'split-attention',
  doc: 'cut the attention of a single token into parts of the context where that pays',
  run: (entry, { target }) => ({
    ...entry,
    graph: rewrite(entry.graph, (node) => {
      const parts = partsOf(node, entry.graph, target);
      if (parts === 1 || !isOp(node, 'attention')) return node;
      const cut = makeNode('attention_parts', node.inputs, { ...node.attrs, parts }, node.origin);
      return makeNode('attention_combine', [cut], {}, node.origin);
    }),
  }),
};

function partsOf(node: Node, { dims }: Graph, target: Target): number {
  if (!isOp(node, 'attention') || dims['T'] !== 1) return 1;
  const [query, keys] = node.inputs;
  if (!query || !keys) return 1;
  const [, heads = 1, width = 1] = node.type.shape.map(Number);
  const { C: context = 1 } = dims;
  const rows = Math.min(node.attrs.window ?? context, context) / 2;
  // A threadgroup has fewer simdgroups than one of the cost model: more of them run at a time, each slower.
  const { cost, rowThreads, simdWidth } = target;
  const shape = attentionShape(query, keys, target) ?? { heads: 1, simdgroups: 1 };
  const slower = rowThreads / (simdWidth * shape.simdgroups);
  const flops = cost.flops / slower;
  const rounds = (parts: number): number =>
    Math.ceil(((heads / shape.heads) * parts) / (cost.threadgroups * slower));
  const weighing = (parts: number): number =>
    (rounds(parts) * 4 * rows * width * shape.heads) / (parts * flops);
  const combining = (parts: number): number => (parts === 1 ? 0 : (2 * parts * width) / cost.flops);
  let best = 1;
  for (let parts = 2; parts <= mostParts && rows >= parts * partBlock; parts *= 2) {
    if (weighing(parts) + combining(parts) < weighing(best) + combining(best)) best = parts;
  }
  return best;
}
