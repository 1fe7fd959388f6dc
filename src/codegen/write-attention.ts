import { CompilerBug } from '../diagnostic.js';
import type { Node } from '../ir/graph.js';
import { elementTypeOf } from '../ir/type.js';
import { partBlock } from '../ir/ops/attention-parts.js';
import { attentionShape, type AttentionShape } from '../passes/attention-shape.js';
import { kernelSteps } from '../passes/text.js';
import type { Position } from './arguments.js';
import {
  cacheRow,
  conversion,
  elementType,
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

/** What a query sees of the cache: operands, and words and text for the template. */
export function writeSight(site: Site, node: Node<'attention' | 'attention_parts'>) {
  const { entry, layout, list, iteration } = site;
  const [q, k, v] = [0, 1, 2].map((index) => layout.of(operand(node, index)));
  if (!q || !k || !v || !isPacked(k) || !isPacked(v))
    throw new CompilerBug('attention reads keys and values from a cache');
  const [heads, width] = operand(node, 0).type.shape.slice(1).map(Number);
  if (heads === undefined || width === undefined) throw new CompilerBug('attention has no heads');
  const groups = Number(k.shape[1]);
  const inHeads = { ...iteration, axes: [heads, width] };
  const query = sum(list.read('q', q.source, 'f32'), rowStart(q, iteration));
  const dtype = elementTypeOf(k.source.type);
  list.read('k', k.source, dtype);
  list.read('v', v.source, dtype);
  const { scale = 1 / Math.sqrt(width), window = Infinity, softcap } = node.attrs;
  // A window of the whole context hides nothing.
  const hides = window < (entry.graph.dims['C'] ?? Infinity);
  const [cacheRows] = k.shape;
  const firstOf = (keys: string): string => (hides ? `${keys} - metal::min(${keys}, ${window}u)` : '0');
  return {
    heads,
    groups,
    width,
    query,
    /** Elements from a head of the query to the next. */
    headStride: rowStrides(q, inHeads).at(-2) ?? 0,
    keyRow: (position: string): string => times(cacheRow(position, cacheRows), groups * width),
    score: (dot: string): string => scoreOf(dot, scale, softcap),
    /** The first position that is seen by a token that sees those below `keys`. */
    firstOf,
    shape: nameOf(
      dtype === 'f32' ? '' : dtype,
      `${heads}x${groups}x${width}`,
      hides ? `w${window}` : '',
      softcap === undefined ? '' : 'softcap',
    ),
    words: `${heads} heads over the ${hides ? `latest ${window} ` : ''}cached keys and values of ${groups}`,
    literals: {
      keys: sum('step.position', iteration.rows > 1 ? 't' : '', '1'),
      first: firstOf('keys'),
      width,
      type: elementType[dtype],
      ...conversion[dtype],
    },
  };
}

type Sight = ReturnType<typeof writeSight>;

/** A template's pass over what a query sees. */
interface Scan {
  readonly template: string;
  readonly literals: Readonly<Record<string, unknown>>;
  readonly threads: number;
  /** Threadgroups for the heads of a token. */
  readonly tiles: number;
  /** What a threadgroup is called in terms of which its output lies. */
  readonly positions: readonly Position[];
}

function writeScan(site: Site, node: Node<'attention' | 'attention_parts'>, sight: Sight): Scan {
  const shape = attentionShape(operand(node, 0), operand(node, 1), site.target);
  return shape ? sharedScan(site, sight, shape) : headScan(site, sight);
}

/** A simdgroup for each head, each lane with a position of its own. */
function headScan({ target }: Site, { heads, groups, width, query, headStride, keyRow, score }: Sight): Scan {
  const { simdWidth } = target;
  const dotVector = greatestPowerOfTwo(width, target.vector);
  const group = heads === groups ? 'head' : `head / ${heads / groups}`;
  return {
    template: '',
    literals: {
      q: sum(query, times('head', headStride)),
      keyHead: times(inParentheses(group), width),
      keyRow: keyRow('position'),
      valueRow: keyRow('begin + j'),
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
      score: score(`pairwise_sum<${dotVector}>(partial)`),
    },
    threads: simdWidth,
    tiles: heads,
    positions: ['threadgroup_position_in_grid', 'thread_index_in_simdgroup'],
  };
}

/** A threadgroup for heads that share keys. */
function sharedScan({ target, list, iteration }: Site, sight: Sight, shape: AttentionShape): Scan {
  const { groups, width, query, headStride, keyRow, score, literals } = sight;
  const { simdgroups, heads, vector, lanes, chunks, rows } = shape;
  const { simdWidth } = target;
  const slots = simdWidth / lanes;
  const stride = width + 2;
  const threads = simdgroups * simdWidth;
  const tiles = sight.heads / heads;
  const group = tiles === groups ? 'tile' : `tile / ${tiles / groups}`;
  const run = lanes * vector;
  const own = chunks === 1 ? 'part + i' : `part + i / ${vector} * ${run} + i % ${vector}`;
  list.threadgroup('sums', 'float', simdgroups * heads * stride * 4);
  return {
    template: '_shared',
    literals: {
      ...shape,
      simdWidth,
      threads,
      stride,
      slots,
      elements: vector * chunks,
      headElements: heads * width,
      q: sum(query, times('tile', heads * headStride)),
      queryElement: sum(times('h', headStride), own),
      ownElement: own,
      keyHead: times(inParentheses(group), width),
      keyRow: keyRow('position'),
      ownPosition: sum('begin', rows > 1 ? times('r', simdgroups * slots) : '', 'row'),
      block: simdgroups * slots * rows,
      chunk: chunks > 1 ? ` + c * ${run}` : '',
      vectorType: vector === 8 ? 'uint4' : `${literals.type}4`,
      score: score('dot'),
      // Only rows of earlier steps are there before the kernels of this one have finished.
      early: target.split && iteration.rows === 1 ? [{}] : [],
    },
    threads,
    tiles,
    positions: [
      'threadgroup_position_in_grid',
      'thread_index_in_threadgroup',
      'thread_index_in_simdgroup',
      'simdgroup_index_in_threadgroup',
    ],
  };
}

/** The score of a dot product. */
function scoreOf(dot: string, scale: number, softcap: number | undefined): string {
  if (softcap === undefined) return `${dot} * ${floatLiteral(scale)}`;
  return `${floatLiteral(softcap)} * metal::precise::tanh(${dot} * ${floatLiteral(scale / softcap)})`;
}

export function writeAttention(site: Site): Written {
  const { kernel, list } = site;
  const node = anchorOf(kernel, 'attention');
  const sight = writeSight(site, node);
  const { template, literals, threads, tiles, positions } = writeScan(site, node, sight);
  const store = writeStore(site, true);
  list.position(...positions);
  return {
    name: nameOf('attention', kernelSteps(kernel), sight.shape),
    doc: `Causal attention of ${sight.words}`,
    template: `attention${template}`,
    context: { ...store, ...sight.literals, ...literals },
    threads,
    tiles,
  };
}

export function writeAttentionParts(site: Site): Written {
  const { kernel, list, iteration } = site;
  const node = anchorOf(kernel, 'attention_parts');
  const sight = writeSight(site, node);
  const { template, literals, threads, tiles, positions } = writeScan(site, node, sight);
  const { heads, width, words } = sight;
  const { parts } = node.attrs;
  const stride = width + 2;
  const y = list.write('y', kernel.outputs[0].result, 'f32');
  list.step();
  list.position(...positions);
  const token = iteration.rows > 1 ? times('t', heads * parts * stride) : '';
  const own =
    tiles === heads
      ? times('group.y', stride)
      : `((tile * ${heads / tiles} + h) * ${parts} + group.y % ${parts}) * ${stride}`;
  return {
    name: nameOf('attention_parts', parts, sight.shape),
    doc: `Causal attention of ${words} in ${parts} parts, not yet divided: sums, greatest score, total of each`,
    template: `attention_parts${template}`,
    context: {
      ...sight.literals,
      ...literals,
      parts,
      partBlock,
      partBlocks: partBlock * parts,
      output: sum(y, token, own),
    },
    threads,
    tiles: tiles * parts,
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
  const { simdWidth } = target;
  // Lanes that have a part each, and threads that have an element each.
  const shared = simdWidth > 1 && parts.width <= target.rowThreads;
  const threads = shared ? ceilDiv(parts.width, simdWidth) * simdWidth : simdWidth;
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  if (shared) {
    list.threadgroup('shares', 'float', parts.count * 4);
    list.position('thread_index_in_threadgroup');
  }
  return {
    name: nameOf('attention_combine', parts.count, kernelSteps(kernel), `${parts.heads}x${parts.width}`),
    doc: `Combines ${parts.count} parts of each of ${parts.heads} heads`,
    template: shared ? 'attention_combine_shared' : 'attention_combine',
    context: {
      ...store,
      ...parts,
      simdWidth,
      threads,
      turns: ceilDiv(parts.count, simdWidth),
      partial: parts.count % simdWidth === 0 ? [] : [{}],
    },
    threads,
    tiles: parts.heads,
  };
}

/** The greatest power of two that divides `length` and does not exceed `limit`. */
function greatestPowerOfTwo(length: number, limit: number): number {
  let power = 1;
  while (power * 2 <= limit && length % (power * 2) === 0) power *= 2;
  return power;
}
