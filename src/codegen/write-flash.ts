import { bytesPerElement, elementTypeOf } from '../ir/type.js';
import { copyBytes, flashShape, matrixSize } from '../passes/flash-shape.js';
import { kernelSteps } from '../passes/text.js';
import { inParentheses, sum, times } from './expression.js';
import { anchorOf, nameOf, operand, type Site, type Written } from './site.js';
import { writeStore } from './store.js';
import { writeSight } from './write-attention.js';

/** Attention of a chunk of tokens, whose keys and values pass through threadgroup memory; undefined where that does not fit. */
export function writeFlash(site: Site): Written | undefined {
  const { kernel, entry, target, list } = site;
  const node = anchorOf(kernel, 'attention');
  const cache = operand(node, 1);
  const shape = flashShape(operand(node, 0), cache, entry.graph.dims, target);
  if (!shape) return undefined;
  const sight = writeSight(site, node);
  const { heads, groups, width, words } = sight;
  const { tokens, block } = shape;
  const type = elementTypeOf(cache.type);
  const bytes = bytesPerElement[type];
  const tiles = tokens / matrixSize;
  const simdgroups = tiles * shape.heads;
  const threads = simdgroups * target.simdWidth;
  const vector = copyBytes / bytes;
  const stride = width + vector;
  const scoreStride = block + matrixSize;
  const group = heads / shape.heads === groups ? 'group.y' : `group.y / ${heads / shape.heads / groups}`;
  const begin = sight.firstOf('fewest');
  const store = writeStore(site, true);
  list.threadgroup('block_keys', sight.literals.type, block * stride * bytes);
  list.threadgroup('block_values', sight.literals.type, block * stride * bytes);
  list.threadgroup('scores', 'float', simdgroups * matrixSize * scoreStride * bytesPerElement.f32);
  list.position(
    'threadgroup_position_in_grid',
    'thread_index_in_threadgroup',
    'thread_index_in_simdgroup',
    'simdgroup_index_in_threadgroup',
  );
  return {
    name: nameOf('attention_flash', kernelSteps(kernel), sight.shape),
    doc: `Causal attention of ${words}; ${shape.heads} heads of ${tokens} tokens at a time`,
    template: 'attention_flash',
    context: {
      ...store,
      ...sight.literals,
      ...shape,
      threads,
      matrix: `simdgroup_${sight.literals.type}8x8`,
      matrices: width / matrixSize,
      ownToken: sum('first_token', tiles === 1 ? '' : times(`simdgroup % ${tiles}`, matrixSize)),
      tileHead: tiles === 1 ? 'simdgroup' : `simdgroup / ${tiles}`,
      q: sum(sight.query, times('head', sight.headStride)),
      window: begin === '0' ? [] : [{}],
      begin,
      keyHead: times(inParentheses(group), width),
      keyRow: sight.keyRow('position'),
      vector,
      vectorType: type === 'f32' ? 'float4' : 'uint4',
      stride,
      rowPieces: width / vector,
      pieces: (block * width) / vector,
      scoreStride,
      tileScores: matrixSize * scoreStride,
      powerStride: (scoreStride * bytesPerElement.f32) / bytes,
      laneScores: (block * matrixSize) / target.simdWidth,
      score: sight.score('dot'),
    },
    threads,
    tiles: heads / shape.heads,
    tokens,
  };
}
