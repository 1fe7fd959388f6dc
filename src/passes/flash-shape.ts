import type { Node } from '../ir/graph.js';
import { bytesPerElement, elementTypeOf, type DimBindings } from '../ir/type.js';
import type { Target } from './target.js';

/**
 * How attention of a chunk of tokens is dealt out: a threadgroup takes tokens and the heads that share their keys, a
 * simdgroup 8 of the tokens for one of the heads, as the rows of matrices of 8 x 8. Keys and values pass through
 * threadgroup memory a block at a time, once for all of them.
 */
export interface FlashShape {
  /** Query heads of a threadgroup. */
  readonly heads: number;
  /** Tokens of a threadgroup. */
  readonly tokens: number;
  /** Keys in threadgroup memory at a time. */
  readonly block: number;
}

/** Rows and columns of a simdgroup's matrices. */
export const matrixSize = 8;

/** Bytes that a lane copies at once; as much lies between rows in threadgroup memory, so that they start in other banks. */
export const copyBytes = 16;

/** Most elements of a head: a simdgroup holds that many of 8 queries, and as many sums, in registers. */
const mostWidth = 256;

/** Most keys of a block: more would need threadgroup memory for their scores. */
const mostKeys = 32;

/** Undefined for fewer tokens than a matrix has rows, and heads that are not of whole matrices. */
export function flashShape(
  query: Node,
  keys: Node,
  dims: DimBindings,
  { attention: { flash }, threadgroupBytes }: Target,
): FlashShape | undefined {
  const [rows] = query.type.shape;
  const [heads = 1, width = 1] = query.type.shape.slice(1).map(Number);
  const tokens = rows === 'T' ? (dims['T'] ?? 1) : 1;
  const type = elementTypeOf(keys.type);
  if (!flash?.types.some((each) => each === type)) return undefined;
  if (tokens < matrixSize || width % matrixSize !== 0 || width > mostWidth) return undefined;
  const ratio = heads / Number(keys.type.shape[1]);
  let shared = 1;
  for (let count = 2; count <= flash.simdgroups; count++) if (ratio % count === 0) shared = count;
  const tiles = Math.min(Math.floor(flash.simdgroups / shared), Math.ceil(tokens / matrixSize));
  for (let block = mostKeys; block >= matrixSize; block /= 2) {
    const copied = 2 * block * (width * bytesPerElement[type] + copyBytes);
    const scored = tiles * shared * matrixSize * (block + matrixSize) * bytesPerElement.f32;
    if (copied + scored <= threadgroupBytes) return { heads: shared, tokens: tiles * matrixSize, block };
  }
  return undefined;
}
