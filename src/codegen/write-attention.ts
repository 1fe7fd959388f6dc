import { CompilerBug } from '../diagnostic.js';
import { kernelSteps } from '../passes/text.js';
import {
  cacheRow,
  floatLiteral,
  isPacked,
  rowStart,
  inParentheses,
  rowStrides,
  sum,
  times,
} from './expression.js';
import {
  ceilDiv,
  operand,
  anchorOf,
  parameter,
  nameOf,
  writeStore,
  type Site,
  type Written,
} from './site.js';

export function writeRope(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const node = anchorOf(kernel, 'rope');
  const x = layout.of(operand(node, 0));
  const table = operand(node, 1);
  const [heads = 1, width = 1] = iteration.axes;
  const dims = Number(table.type.shape[1] ?? width);
  const strides = rowStrides(x, iteration);
  const xName = list.read('x', x.source, 'f32');
  const { buffer, start } = parameter(site, 'table', table);
  const store = writeStore(site, true);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  const token = iteration.rows > 1 ? 't' : '';
  return {
    name: nameOf('rope', kernelSteps(kernel), `${heads}x${width}`, dims < width ? `d${dims}` : ''),
    doc: `Turns the pairs (i, i + ${dims / 2}) of each of ${heads} heads by the angles of their position`,
    context: {
      ...store,
      x: sum(xName, rowStart(x, iteration), times('head', strides.at(-2) ?? 0)),
      angles: sum(buffer, start, times(inParentheses(sum('step.position', token)), dims)),
      half: dims / 2,
      dims,
      width,
      simdWidth: target.simdWidth,
      rest: dims < width ? [{}] : [],
    },
    threads: target.simdWidth,
    tiles: heads,
  };
}

/** Positions whose scores are held at a time. */
const attentionBlock = 32;

export function writeAttention(site: Site): Written {
  const { kernel, entry, layout, target, list, iteration } = site;
  const node = anchorOf(kernel, 'attention');
  const [q, k, v] = [0, 1, 2].map((index) => layout.of(operand(node, index)));
  if (!q || !k || !v || !isPacked(k) || !isPacked(v))
    throw new CompilerBug('attention reads keys and values from a cache');
  const [heads = 1, width = 1] = iteration.axes;
  const groups = Number(k.shape[1]);
  const qName = list.read('q', q.source, 'f32');
  list.read('k', k.source, 'f32');
  list.read('v', v.source, 'f32');
  const store = writeStore(site, true);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  const { simdWidth } = target;
  const { scale, window = Infinity } = node.attrs;
  // A window of the whole context hides nothing.
  const hides = window < (entry.graph.dims['C'] ?? Infinity);
  const [cacheRows] = k.shape;
  const keyRow = (position: string): string => times(cacheRow(position, cacheRows), groups * width);
  const token = iteration.rows > 1 ? 't' : '';
  const group = heads === groups ? 'head' : `head / ${heads / groups}`;
  return {
    name: nameOf('attention', kernelSteps(kernel), `${heads}x${groups}x${width}`, hides ? `w${window}` : ''),
    doc: `Causal attention of ${heads} heads over the ${hides ? `latest ${window} ` : ''}cached keys and values of ${groups}`,
    context: {
      ...store,
      keys: sum('step.position', token, '1'),
      q: sum(qName, rowStart(q, iteration), times('head', rowStrides(q, iteration).at(-2) ?? 0)),
      keyHead: times(inParentheses(group), width),
      begin: hides ? `keys - metal::min(keys, ${window}u)` : '0',
      keyRow: keyRow('position'),
      valueRow: keyRow('begin + j'),
      width,
      simdWidth,
      block: attentionBlock,
      scores: attentionBlock / simdWidth,
      ownPosition: sum('begin', times('i', simdWidth), 'lane'),
      ownElement: sum(times('i', simdWidth), 'lane'),
      // Which lane holds the score of position j of the block, and where.
      holder: simdWidth === 1 ? '0' : `j % ${simdWidth}`,
      held: simdWidth === 1 ? 'j' : `j / ${simdWidth}`,
      perLane: ceilDiv(width, simdWidth),
      dotVector: greatestPowerOfTwo(width, target.vector),
      scale: floatLiteral(scale ?? 1 / Math.sqrt(width)),
    },
    threads: simdWidth,
    tiles: heads,
  };
}

/** The greatest power of two that divides `length` and does not exceed `limit`. */
function greatestPowerOfTwo(length: number, limit: number): number {
  let power = 1;
  while (power * 2 <= limit && length % (power * 2) === 0) power *= 2;
  return power;
}
