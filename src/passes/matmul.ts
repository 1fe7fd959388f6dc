import { isOp } from '../ir/graph.js';
import { isPackedName } from '../ir/packed.js';
import type { DimBindings, StoredAs } from '../ir/type.js';
import type { Kernel } from './entry.js';
import type { MatmulMachine, Target } from './target.js';

/** Tokens of a chunk from which tiles pay. */
export const leastTokens = 8;

/** Elements of a row that a tile takes at a time are a run of a packed matrix. */
const runElements = 32;

/** Of a row in threadgroup memory: 64 of elements, and 16 that spread what is read at the same time over the banks. */
const rowBytes = 80;

/**
 * How the products of a chunk of tokens are tiled: a threadgroup computes `rows` x `tokens` of them, each simdgroup
 * `simdgroupRows` x `simdgroupTokens` in 8 x 8 matrices.
 */
export interface MatmulShape extends MatmulMachine {
  readonly simdgroupTokens: number;
  /** Simdgroups that share the rows of a tile, for the same tokens. */
  readonly across: number;
  readonly threads: number;
  /** Rows of a tile that a part of a result has. */
  readonly partRows: number;
  /** 2 if what is multiplied next can be stored while the present is still read. */
  readonly stages: 1 | 2;
  readonly threadgroupBytes: number;
  /** Tiles of each result along its rows. */
  readonly tiles: readonly number[];
}

/** How `kernel` is tiled; undefined where the target or what it computes does not allow it. */
export function matmulShape(kernel: Kernel, dims: DimBindings, target: Target): MatmulShape | undefined {
  const { kind, prologue, outputs, nodes } = kernel;
  const products = [...nodes].filter((node) => isOp(node, 'linear'));
  const { matmul } = target;
  if ([...nodes].some((node) => isOp(node, 'sparse_linear'))) return undefined;
  if (!matmul || kind !== 'linear' || prologue || (dims['T'] ?? 1) < leastTokens) return undefined;
  const tiled = products.every(({ inputs: [x, matrix] }) => {
    if (x?.type.shape[0] !== 'T' || !matrix || !isOp(matrix, 'weight')) return false;
    return isTiled(matrix.type.dtype, Number(matrix.type.shape[1]));
  });
  const parts = outputs[0].anchors.length;
  const alike = outputs.every(({ anchors }) => anchors.length === parts);
  if (!tiled || !alike || matmul.rows % (8 * parts) !== 0) return undefined;
  const { rows, tokens, simdgroupRows } = matmul;
  // Two threads unpack a row.
  const threads = 2 * rows;
  const across = rows / simdgroupRows;
  const simdgroupTokens = tokens / (threads / 32 / across);
  const stage = (rows + tokens) * rowBytes;
  const stages = 2 * stage <= target.threadgroupBytes ? 2 : 1;
  const partRows = rows / parts;
  return {
    ...matmul,
    simdgroupTokens,
    across,
    threads,
    partRows,
    stages,
    threadgroupBytes: Math.max(stages * stage, simdgroupTokens * resultStride(rows) * 4),
    tiles: outputs.map(({ anchors }) => Math.ceil(Number(anchors[0]?.type.shape[1] ?? 0) / partRows)),
  };
}

/** Floats from the products of one token to those of the next in threadgroup memory. */
export const resultStride = (rows: number): number => rows + 4;

/** Whether rows of this length, stored like this, are multiplied in tiles. */
export const isTiled = (dtype: StoredAs, length: number): boolean =>
  dtype !== 'i32' && length % runElements === 0;

/** Whether tiles of a matrix are multiplied as halves: all but those of floats. */
export const isHalved = (dtype: StoredAs): boolean => isPackedName(dtype) || dtype !== 'f32';
