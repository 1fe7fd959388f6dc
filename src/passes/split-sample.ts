import { isOp, makeNode, rewrite } from '../ir/graph.js';
import type { EntryPass } from './entry.js';

/** Threadgroups of the target's `block` elements each: with fewer, one threadgroup draws as fast by itself. */
const fewestParts = 4;

/**
 * sample(…) = sample(…, sample_parts(…)): noise for every id of a large vocabulary is too much work for the one threadgroup
 * that ends the step, where a machine runs several at a time.
 */
export const splitSample: EntryPass = {
  name: 'split-sample',
  doc: 'draw from parts of a large vocabulary at the same time',
  run: (entry, { target }) => ({
    ...entry,
    graph: rewrite(entry.graph, (node) => {
      if (!isOp(node, 'sample') || node.inputs.length > 5 || target.cost.threadgroups === 1) return node;
      const parts = Math.ceil(Number(node.inputs[0]?.type.shape[1]) / target.block);
      if (parts < fewestParts) return node;
      const winners = makeNode('sample_parts', node.inputs, { parts }, node.origin);
      return makeNode('sample', [...node.inputs, winners], {}, node.origin);
    }),
  }),
};
