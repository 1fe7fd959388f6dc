import { CompilerBug } from '../diagnostic.js';
import { isOp, type Node } from '../ir/graph.js';
import type { DType } from '../ir/type.js';
import { kernelSteps } from '../passes/text.js';
import { floatLiteral, iterationOf, rowStart, rowStrides, sum, times } from './expression.js';
import {
  ceilDiv,
  operand,
  anchorOf,
  parameter,
  readsStep,
  nameOf,
  strip,
  type Site,
  type Written,
} from './site.js';
import { writeStore } from './store.js';

/** How a kernel that reduces along the last axis is cut: one threadgroup per row. */
function rowShape(site: Site, node: Node, minimumPerThread: number) {
  const { target } = site;
  const axes = iterationOf(node.type, site.entry.graph.dims).axes;
  const width = axes.at(-1) ?? 1;
  const tiles = axes.slice(0, -1).reduce((a, b) => a * b, 1);
  const needed = ceilDiv(ceilDiv(width, minimumPerThread), target.simdWidth) * target.simdWidth;
  const threads = Math.max(1, Math.min(target.rowThreads, needed));
  const element = tiles > 1 ? `group.y * ${width} + i` : 'i';
  return { tiles, threads, literals: { ...rowLiterals(site, node, threads), element } };
}

/** The row of `node` that a threadgroup works on. */
function rowLiterals({ layout, iteration, list, entry }: Site, node: Node, threads: number) {
  const access = layout.of(node);
  const axes = iterationOf(node.type, entry.graph.dims).axes;
  const strides = rowStrides(access, { ...iteration, axes });
  const rows = axes.slice(0, -1).reduce((a, b) => a * b, 1);
  const inRow = rows > 1 ? times('group.y', strides.at(-2) ?? 0) : '';
  const x = sum(list.read('x', access.source, 'f32'), rowStart(access, iteration), inRow);
  return { x, width: axes.at(-1) ?? 1, threads };
}

/** Text of reductions over a threadgroup. */
export function reductionsOf({ list, target }: Site, threads: number) {
  const simdgroups = threads / target.simdWidth;
  list.position('thread_index_in_simdgroup');
  if (simdgroups === 1)
    return { sum: (x: string): string => `simd_sum(${x})`, max: (x: string): string => `simd_max(${x})` };
  list.threadgroup('scratch', 'float', simdgroups * 4);
  list.position('simdgroup_index_in_threadgroup');
  const reduce = (how: string, x: string): string =>
    `threadgroup_${how}<${simdgroups}>(${x}, scratch, lane, simdgroup)`;
  return { sum: (x: string): string => reduce('sum', x), max: (x: string): string => reduce('max', x) };
}

/** A sum over the row that `row` points to, of the text `term` makes of an element: into `name`, then in all. */
function rowSum(site: Site, width: number, threads: number, name: string, term: (x: string) => string) {
  const { vector } = site.target;
  return {
    ...strip(width, threads, vector),
    name,
    width,
    vector,
    ofBlock: term('block[j]'),
    ofRow: term('row[k]'),
    total: reductionsOf(site, threads).sum(`pairwise_sum<${vector}>(${name})`),
  };
}

/** Element i of the vector that a norm takes as input `index`. */
function elementOf(site: Site, name: string, node: Node): { readonly text: string; readonly dtype: DType } {
  const { buffer, start, dtype, open, close } = parameter(site, name, node);
  return { text: `${open}${buffer}[${sum(start, 'i')}]${close}`, dtype };
}

/** The factor of a norm over the row that `x` points to, as `factor`, and the weight of element i. */
export function writeNorm(site: Site, node: Node, threads: number) {
  if (!isOp(node, 'rms_norm')) throw new CompilerBug(`${node.op} is no norm`);
  const { eps, offset } = node.attrs;
  const literals = rowLiterals(site, operand(node, 0), threads);
  const { text, dtype } = elementOf(site, 'gain', operand(node, 1));
  return {
    ...literals,
    dtype,
    weight: offset === undefined ? text : `(${text} + ${floatLiteral(offset)})`,
    squares: rowSum(site, literals.width, threads, 'squares', (x) => `${x} * ${x}`),
    eps: floatLiteral(eps),
  };
}

export function writeRmsNorm(site: Site): Written {
  const { kernel, target, list } = site;
  const norm = anchorOf(kernel, 'rms_norm');
  const { tiles, threads, literals } = rowShape(site, operand(norm, 0), target.vector);
  const written = writeNorm(site, norm, threads);
  const gain = norm.attrs.offset === undefined ? 'gain' : `(gain + ${norm.attrs.offset})`;
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('rms_norm', written.dtype, kernelSteps(kernel), literals.width),
    doc: `x / sqrt(mean(x^2) + eps) * ${gain} over rows of ${literals.width}`,
    context: { ...store, ...literals, ...written },
    threads,
    tiles,
  };
}

export function writeLayerNorm(site: Site): Written {
  const { kernel, target, list } = site;
  const norm = anchorOf(kernel, 'layer_norm');
  const { tiles, threads, literals } = rowShape(site, operand(norm, 0), target.vector);
  const { width } = literals;
  const weight = elementOf(site, 'gain', operand(norm, 1));
  const [, , biasNode] = norm.inputs;
  const bias = biasNode && elementOf(site, 'bias', biasNode);
  const deviation = (x: string): string => `(${x} - mean)`;
  const sums = rowSum(site, width, threads, 'sums', (x) => x);
  const squares = rowSum(site, width, threads, 'squares', (x) => `${deviation(x)} * ${deviation(x)}`);
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('layer_norm', weight.dtype, bias ? 'bias' : '', kernelSteps(kernel), width),
    doc: `(x - mean(x)) / sqrt(variance(x) + eps) * gain${bias ? ' + bias' : ''} over rows of ${width}`,
    context: {
      ...store,
      ...literals,
      sums,
      squares,
      eps: floatLiteral(norm.attrs.eps),
      weight: weight.text,
      bias: bias ? ` + ${bias.text}` : '',
    },
    threads,
    tiles,
  };
}

export function writeSoftmax(site: Site): Written {
  const { kernel, list } = site;
  const { tiles, threads, literals } = rowShape(site, operand(anchorOf(kernel, 'softmax'), 0), 1);
  const store = writeStore(site);
  const { sum: total, max } = reductionsOf(site, threads);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('softmax', kernelSteps(kernel), literals.width),
    doc: `e^x / sum(e^x) over rows of ${literals.width}`,
    context: { ...store, ...literals, greatest: max('most'), total: total('part') },
    threads,
    tiles,
  };
}

export function writeArgmax(site: Site): Written {
  const { kernel, target, list, iteration } = site;
  const { tiles, literals } = rowShape(site, operand(anchorOf(kernel, 'argmax'), 0), 1);
  const { x, width } = literals;
  const threads = Math.min(target.scanThreads, ceilDiv(width, target.simdWidth) * target.simdWidth);
  const name = list.write('y', kernel.outputs[0].result, 'i32');
  if (iteration.rows > 1 || readsStep(site)) list.step();
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  const { max } = reductionsOf(site, threads);
  const row = sum(iteration.rows > 1 ? times('t', tiles) : '', tiles > 1 ? 'group.y' : '');
  return {
    name: nameOf('argmax', width),
    doc: `Index of the greatest of ${width}, the lowest of equals`,
    context: {
      x,
      width,
      threads,
      greatest: max('best'),
      winner: max(`best == greatest ? -float(index) : -${width}.0f`),
      output: `${name}[${row}]`,
    },
    threads,
    tiles,
  };
}
