import type { Node } from '../ir/graph.js';
import { bytesPerElement, elementTypeOf } from '../ir/type.js';
import type { Target } from './target.js';

/**
 * How attention over a cache is dealt out: a threadgroup takes heads that share their keys, a simdgroup several rows of
 * keys at a time, each read by a few lanes in vectors.
 */
export interface AttentionShape {
  readonly simdgroups: number;
  /** Query heads of a threadgroup. */
  readonly heads: number;
  /** Elements that a lane reads at once. */
  readonly vector: number;
  /** Lanes that share a row. */
  readonly lanes: number;
  /** Vectors of each lane's share of a row. */
  readonly chunks: number;
  /** Rows that a lane has in flight. */
  readonly rows: number;
}

/** Bytes that a lane loads at once. */
const loadBytes = 16;

/** Most elements of a query, over all heads, that a lane holds in registers; it holds as many sums. */
const mostElements = 32;

/** Most rows in flight; and of those that a threadgroup takes at a time, so that short texts leave few lanes idle. */
const mostRows = 4;
const mostRowsOfGroup = 64;

/** Undefined where a lane takes whole rows: simdgroups of one lane, and widths that vectors and lanes do not divide. */
export function attentionShape(
  query: Node,
  keys: Node,
  { attention, simdWidth }: Target,
): AttentionShape | undefined {
  const [heads = 1, width = 1] = query.type.shape.slice(1).map(Number);
  const groups = Number(keys.type.shape[1]);
  // Half a load where rows are no multiple of a whole one.
  const most = loadBytes / bytesPerElement[elementTypeOf(keys.type)];
  const vector = width % most === 0 ? most : 4;
  if (simdWidth === 1 || width % vector !== 0) return undefined;
  let lanes = 1;
  while (lanes < simdWidth && (width / vector) % (2 * lanes) === 0) lanes *= 2;
  const elements = width / lanes;
  if (elements > mostElements) return undefined;
  const ratio = heads / groups;
  let shared = 1;
  for (let count = 2; count <= ratio; count++)
    if (ratio % count === 0 && count * elements <= mostElements) shared = count;
  const { simdgroups } = attention;
  const together = (simdgroups * simdWidth) / lanes;
  const rows = Math.min(mostRows, Math.max(1, mostRowsOfGroup / together));
  return { simdgroups, heads: shared, vector, lanes, chunks: elements / vector, rows };
}
