import { CompilerBug } from '../diagnostic.js';
import type { Node } from '../ir/graph.js';
import { partBlock } from '../ir/ops/attention-parts.js';
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
import { ceilDiv, operand, anchorOf, parameter, nameOf, type Site, type Written } from './site.js';
import { writeStore } from './store.js';

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

/** The pass of a query over the keys and values that it sees: operands, literals and words for the template. */
function writeScan(site: Site, node: Node<'attention' | 'attention_parts'>) {
  const { entry, layout, target, list, iteration } = site;
  const [q, k, v] = [0, 1, 2].map((index) => layout.of(operand(node, index)));
  if (!q || !k || !v || !isPacked(k) || !isPacked(v))
    throw new CompilerBug('attention reads keys and values from a cache');
  const [heads, width] = operand(node, 0).type.shape.slice(1).map(Number);
  if (heads === undefined || width === undefined) throw new CompilerBug('attention has no heads');
  const groups = Number(k.shape[1]);
  const inHeads = { ...iteration, axes: [heads, width] };
  const query = sum(
    list.read('q', q.source, 'f32'),
    rowStart(q, iteration),
    times('head', rowStrides(q, inHeads).at(-2) ?? 0),
  );
  list.read('k', k.source, 'f32');
  list.read('v', v.source, 'f32');
  const { simdWidth } = target;
  const { scale = 1 / Math.sqrt(width), window = Infinity, softcap } = node.attrs;
  // A window of the whole context hides nothing.
  const hides = window < (entry.graph.dims['C'] ?? Infinity);
  const [cacheRows] = k.shape;
  const keyRow = (position: string): string => times(cacheRow(position, cacheRows), groups * width);
  const dotVector = greatestPowerOfTwo(width, target.vector);
  const group = heads === groups ? 'head' : `head / ${heads / groups}`;
  return {
    heads,
    width,
    shape: nameOf(
      `${heads}x${groups}x${width}`,
      hides ? `w${window}` : '',
      softcap === undefined ? '' : 'softcap',
    ),
    words: `${heads} heads over the ${hides ? `latest ${window} ` : ''}cached keys and values of ${groups}`,
    literals: {
      keys: sum('step.position', iteration.rows > 1 ? 't' : '', '1'),
      q: query,
      keyHead: times(inParentheses(group), width),
      first: hides ? `keys - metal::min(keys, ${window}u)` : '0',
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
      dotVector,
      score: scoreOf(`pairwise_sum<${dotVector}>(partial)`, scale, softcap),
    },
  };
}

/** The score of a dot product. */
function scoreOf(dot: string, scale: number, softcap: number | undefined): string {
  if (softcap === undefined) return `${dot} * ${floatLiteral(scale)}`;
  return `${floatLiteral(softcap)} * metal::precise::tanh(${dot} * ${floatLiteral(scale / softcap)})`;
}

export function writeAttention(site: Site): Written {
  const { kernel, target, list } = site;
  const { heads, shape, words, literals } = writeScan(site, anchorOf(kernel, 'attention'));
  const store = writeStore(site, true);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  return {
    name: nameOf('attention', kernelSteps(kernel), shape),
    doc: `Causal attention of ${words}`,
    context: { ...store, ...literals },
    threads: target.simdWidth,
    tiles: heads,
  };
}

export function writeAttentionParts(site: Site): Written {
  const { kernel, target, list, iteration } = site;
  const node = anchorOf(kernel, 'attention_parts');
  const { heads, width, shape, words, literals } = writeScan(site, node);
  const { parts } = node.attrs;
  const stride = width + 2;
  const y = list.write('y', kernel.outputs[0].result, 'f32');
  list.step();
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  const token = iteration.rows > 1 ? times('t', heads * parts * stride) : '';
  return {
    name: nameOf('attention_parts', parts, shape),
    doc: `Causal attention of ${words} in ${parts} parts, not yet divided: sums, greatest score, total of each`,
    context: {
      ...literals,
      parts,
      partBlock,
      partBlocks: partBlock * parts,
      output: sum(y, token, times('group.y', stride)),
    },
    threads: target.simdWidth,
    tiles: heads * parts,
  };
}

/** Where the parts of a token's heads lie, and how many there are of what size. */
export function writeParts(site: Site, combine: Node) {
  const parts = operand(combine, 0);
  const [heads = 1, count = 1, stride = 0] = parts.type.shape.slice(1).map(Number);
  const access = site.layout.of(parts);
  const name = site.list.read('parts', access.source, 'f32');
  return {
    start: sum(name, rowStart(access, site.iteration)),
    heads,
    count,
    stride,
    ofHead: count * stride,
    width: stride - 2,
    elements: heads * (stride - 2),
    total: stride - 1,
  };
}

export function writeAttentionCombine(site: Site): Written {
  const { kernel, target, list } = site;
  const parts = writeParts(site, anchorOf(kernel, 'attention_combine'));
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  return {
    name: nameOf('attention_combine', parts.count, kernelSteps(kernel), `${parts.heads}x${parts.width}`),
    doc: `Combines ${parts.count} parts of each of ${parts.heads} heads`,
    context: { ...store, ...parts, simdWidth: target.simdWidth },
    threads: target.simdWidth,
    tiles: parts.heads,
  };
}

/** The greatest power of two that divides `length` and does not exceed `limit`. */
function greatestPowerOfTwo(length: number, limit: number): number {
  let power = 1;
  while (power * 2 <= limit && length % (power * 2) === 0) power *= 2;
  return power;
}
