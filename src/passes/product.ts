import { isOp } from '../ir/graph.js';
import { bytesPerElement } from '../ir/type.js';
import type { Kernel } from './entry.js';
import type { Target } from './target.js';

/** How the rows of a product are dealt out: blocks of rows, to one threadgroup after the other. */
export interface ProductShape {
  readonly simdgroups: number;
  /** Rows of a block, over all simdgroups. */
  readonly rows: number;
  /** Blocks of each result. */
  readonly blocks: readonly number[];
  readonly threadgroups: number;
}

export function productShape(kernel: Kernel, target: Target): ProductShape {
  const { matvec, prepared } = target;
  const prepares = kernel.prologue !== undefined || stagesOperand(kernel, target);
  const { simdgroups } = prepares ? prepared : matvec;
  const rows = matvec.rows * simdgroups;
  const blocks = kernel.outputs.map(({ anchors }) =>
    Math.ceil(Number(anchors[0]?.type.shape[1] ?? 0) / rows),
  );
  const all = blocks.reduce((sum, count) => sum + count, 0);
  return { simdgroups, rows, blocks, threadgroups: prepares ? Math.min(all, prepared.mostGroups) : all };
}

/**
 * Whether a product without a prologue copies its operand to threadgroup memory, as it is: sparse rows read it here and
 * there, and what lanes read from a cache at the same time should lie together.
 */
export function stagesOperand({ prologue, nodes }: Kernel, { simdWidth, threadgroupBytes }: Target): boolean {
  const product = [...nodes].find((node) => isOp(node, 'sparse_linear'));
  if (prologue || !product || simdWidth === 1) return false;
  return Number(product.inputs[0]?.type.shape[1]) * bytesPerElement.f32 <= threadgroupBytes;
}
