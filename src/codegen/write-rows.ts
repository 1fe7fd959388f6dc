import type { Node } from '../ir/graph.js';
import type { ArgumentList } from './arguments.js';
import { floatLiteral, iterationOf, rowStart, rowStrides, sum, times } from './expression.js';
import {
  ceilDiv,
  operand,
  anchorOf,
  parameter,
  readsLast,
  fusedSteps,
  nameOf,
  writeStore,
  strip,
  type Site,
  type Written,
} from './site.js';

/** How a kernel that reduces along the last axis is cut: one threadgroup per row. */
function rowShape(site: Site, node: Node, minimumPerThread: number) {
  const { layout, target, iteration, list } = site;
  const access = layout.of(node);
  const axes = iterationOf(node.type, site.entry.graph.dims).axes;
  const width = axes.at(-1) ?? 1;
  const tiles = axes.slice(0, -1).reduce((a, b) => a * b, 1);
  const needed = ceilDiv(ceilDiv(width, minimumPerThread), target.simdWidth) * target.simdWidth;
  const threads = Math.max(1, Math.min(target.rowThreads, needed));
  const strides = rowStrides(access, { ...iteration, axes });
  const inRow = tiles > 1 ? times('group.y', strides.at(-2) ?? 0) : '';
  const x = sum(list.read('x', access.source, 'f32'), rowStart(access, iteration), inRow);
  const element = tiles > 1 ? `group.y * ${width} + i` : 'i';
  return { tiles, threads, literals: { x, width, threads, simdgroups: threads / target.simdWidth, element } };
}

function acrossSimdgroups(list: ArgumentList, simdgroups: number): readonly object[] {
  if (simdgroups === 1) return [];
  list.threadgroup('scratch', 'float', simdgroups * 4);
  list.position('thread_index_in_simdgroup', 'simdgroup_index_in_threadgroup');
  return [{}];
}

export function writeRmsNorm(site: Site): Written {
  const { kernel, target, list } = site;
  const norm = anchorOf(kernel, 'rms_norm');
  const { tiles, threads, literals } = rowShape(site, operand(norm, 0), target.vector);
  const { width, simdgroups } = literals;
  const { buffer, start, dtype, open, close } = parameter(site, 'weight', operand(norm, 1));
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('rms_norm', dtype, fusedSteps(kernel), width),
    doc: `x / sqrt(mean(x^2) + eps) * weight over rows of ${width}`,
    context: {
      ...store,
      ...strip(width, threads, target.vector),
      weight: `${open}${buffer}[${sum(start, 'i')}]${close}`,
      ...literals,
      vector: target.vector,
      acrossSimdgroups: acrossSimdgroups(list, simdgroups),
      eps: floatLiteral(norm.attrs.eps),
    },
    threads,
    tiles,
  };
}

export function writeSoftmax(site: Site): Written {
  const { kernel, list } = site;
  const { tiles, threads, literals } = rowShape(site, operand(anchorOf(kernel, 'softmax'), 0), 1);
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('softmax', fusedSteps(kernel), literals.width),
    doc: `e^x / sum(e^x) over rows of ${literals.width}`,
    context: { ...store, ...literals, acrossSimdgroups: acrossSimdgroups(list, literals.simdgroups) },
    threads,
    tiles,
  };
}

export function writeArgmax(site: Site): Written {
  const { kernel, target, list, iteration } = site;
  const { tiles, literals } = rowShape(site, operand(anchorOf(kernel, 'argmax'), 0), 1);
  const { x, width } = literals;
  const name = list.write('y', kernel.result, 'i32');
  if (iteration.rows > 1 || readsLast(site)) list.step();
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  const row = sum(iteration.rows > 1 ? times('t', tiles) : '', tiles > 1 ? 'group.y' : '');
  return {
    name: nameOf('argmax', width),
    doc: `Index of the greatest of ${width}, the lowest of equals`,
    context: {
      x,
      width,
      simdWidth: target.simdWidth,
      output: `${name}[${row}]`,
    },
    threads: target.simdWidth,
    tiles,
  };
}
