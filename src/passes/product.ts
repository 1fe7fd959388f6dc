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

export function productShape({ prologue, outputs }: Kernel, { matvec, prepared }: Target): ProductShape {
  const { simdgroups } = prologue ? prepared : matvec;
  const rows = matvec.rows * simdgroups;
  const blocks = outputs.map(({ anchors }) => Math.ceil(Number(anchors[0]?.type.shape[1] ?? 0) / rows));
  const all = blocks.reduce((sum, count) => sum + count, 0);
  return { simdgroups, rows, blocks, threadgroups: prologue ? Math.min(all, prepared.mostGroups) : all };
}
