import { CompilerBug, Unsupported } from '../diagnostic.js';
import { isOp, type Node } from '../ir/graph.js';
import type { Layout } from '../passes/access.js';
import type { Entry, Kernel, KernelKind } from '../passes/entry.js';
import type { Target } from '../passes/target.js';
import { kernelName } from '../passes/text.js';
import { ArgumentList } from './arguments.js';
import { writeEpilogue } from './epilogue.js';
import {
  conversion,
  elementType,
  floatLiteral,
  isPacked,
  iterationOf,
  rowPointer,
  rowStart,
  inParentheses,
  rowStrides,
  sum,
  times,
  type Iteration,
} from './expression.js';

/** Everything that a template needs: literals and text, no decisions left. */
export interface KernelText {
  readonly template: KernelKind;
  /** Shape and variant in words, e.g. `matvec_f32_add_64x172`. */
  readonly name: string;
  readonly context: Readonly<Record<string, unknown>>;
  readonly list: ArgumentList;
  readonly threads: number;
  readonly grid: readonly [number, number, number];
}

/** A kernel being written, and what the writer of its kind may look at. */
interface Site {
  readonly kernel: Kernel;
  readonly entry: Entry;
  readonly layout: Layout;
  readonly target: Target;
  readonly list: ArgumentList;
  /** Loops over the result's elements. */
  readonly iteration: Iteration;
}

interface Written {
  /** The name without the suffixes that any kernel's name can have. */
  readonly name: string;
  /** What the template computes, in words; what is fused follows. */
  readonly doc: string;
  readonly context: Readonly<Record<string, unknown>>;
  readonly threads: number;
  /** Threadgroups along y; x counts tokens. */
  readonly tiles: number;
}

/** The writer of each kind. */
const writers: { readonly [K in KernelKind]: (site: Site) => Written } = {
  embed: writeEmbed,
  linear: writeLinear,
  rms_norm: writeRmsNorm,
  rope: writeRope,
  attention: writeAttention,
  softmax: writeSoftmax,
  argmax: writeArgmax,
  elementwise: writeElementwise,
};

/** Decides the text of a kernel: names, literals, arguments, launch size. */
export function writeKernel(kernel: Kernel, entry: Entry, layout: Layout, target: Target): KernelText {
  const list = new ArgumentList();
  // The axes of the value as it is computed; an append stores the same elements, perhaps under another shape.
  const computed = kernel.epilogue.at(-1) ?? kernel.anchors[0] ?? kernel.append?.inputs[1] ?? kernel.result;
  const iteration = iterationOf(computed.type, entry.graph.dims);
  const site: Site = { kernel, entry, layout, target, list, iteration };
  const written = writers[kernel.kind](site);
  const token = iteration.rows > 1 ? ['const uint t = group.x;', 'if (t >= step.tokens) return;'] : [];
  const variant = [...(iteration.rows > 1 ? ['tokens'] : []), ...(readsLast(site) ? ['last'] : [])];
  return {
    template: kernel.kind,
    name: [written.name, ...variant].join('_'),
    context: {
      ...written.context,
      doc: `${written.doc}${fusedWords(kernel)}.`,
      token,
      declarations: list.declarations,
    },
    list,
    threads: written.threads,
    grid: [iteration.rows, written.tiles, 1],
  };
}

const ceilDiv = (a: number, b: number): number => Math.ceil(a / b);

function operand(node: Node, index: number): Node {
  const input = node.inputs[index];
  if (!input) throw new CompilerBug(`${node.op} has no input ${index}`);
  return input;
}

function anchor(kernel: Kernel): Node {
  const [first] = kernel.anchors;
  if (!first) throw new CompilerBug(`a ${kernel.kind} kernel has no anchor`);
  return first;
}

/** A matrix or vector that the template reads by itself: its buffer, where it starts there, how its elements are read. */
function parameter({ layout, list, iteration }: Site, name: string, node: Node) {
  const access = layout.of(node);
  const { dtype } = access.source.type;
  return {
    buffer: list.read(name, access.source, dtype),
    start: rowStart(access, iteration),
    /** Elements from one row to the next. */
    stride: access.strides[0] ?? 1,
    dtype,
    type: elementType[dtype],
    ...conversion[dtype],
  };
}

/** The templates of these ops make the rows of a step's tokens, or one row. */
function requireTokenRows(node: Node): void {
  const [rows] = node.type.shape;
  if (rows === 'T' || rows === 1) return;
  throw new Unsupported(`${node.op} with ${rows} rows: only the rows of the step's tokens can be computed`, {
    span: node.origin.span,
  });
}

function readsLast({ kernel, layout }: Site): boolean {
  return [...kernel.nodes].some((node) => node.inputs.some((input) => layout.of(input).fromLast));
}

/** `linear_silu_mul_cache` less its first word. */
function fusedSteps(kernel: Kernel): string {
  return kernelName(kernel).slice(kernel.kind === 'elementwise' ? 0 : kernel.kind.length + 1);
}

/** `; then silu, mul; into the cache`. */
function fusedWords({ epilogue, append }: Kernel): string {
  const steps = epilogue.map((node) => node.op).join(', ');
  return `${steps === '' ? '' : `; then ${steps}`}${append ? '; into the cache' : ''}`;
}

function nameOf(...parts: readonly (string | number)[]): string {
  return parts.filter((part) => part !== '').join('_');
}

/** Arguments and text of the store; comes after the template's own inputs. Adds `step` when the kernel needs it. */
function writeStore(site: Site, needsStep = false): Record<string, unknown> {
  const { kernel, iteration, layout, list } = site;
  const epilogue = writeEpilogue(kernel, iteration, layout, list);
  const name = list.write(kernel.append ? 'cache' : 'y', kernel.result, kernel.result.type.dtype);
  const token = iteration.rows > 1 ? 't' : '';
  const row = kernel.append ? inParentheses(sum('step.position', token)) : token;
  if (needsStep || kernel.append || iteration.rows > 1 || readsLast(site)) list.step();
  return { ...epilogue, output: `${name}[${sum(times(row, iteration.width), 'n')}]` };
}

/** A loop in which each of `lanes` takes `vector` contiguous elements at a time, and what is left, one at a time. */
function strip(length: number, lanes: number, vector: number) {
  const stride = lanes * vector;
  const main = Math.floor(length / stride) * stride;
  return {
    main,
    stride,
    whole: main > 0 ? [{}] : [],
    tail: main < length ? [{}] : [],
    tailSteps: ceilDiv(length - main, lanes),
    tailStart: sum(String(main), times('j', lanes)),
  };
}

function writeLinear(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const products = kernel.anchors.map((part) => (isOp(part, 'split') ? operand(part, 0) : part));
  const [product = anchor(kernel)] = products;
  for (const each of products) requireTokenRows(each);
  const x = layout.of(operand(product, 0));
  const [k = 0] = product.inputs[1]?.type.shape.slice(1) ?? [];
  const n = iteration.width;
  const { rows, simdgroups } = target.matvec;
  const xName = list.read('x', x.source, 'f32');
  const perGroup = rows * simdgroups;
  // Rows past the end read the last row, and are not stored.
  const whole = n % perGroup === 0;
  const parts = kernel.anchors.map((part, i) => {
    const linear = products[i] ?? product;
    const weight = parameter(site, `weight${i === 0 ? '' : i}`, operand(linear, 1));
    const offset = isOp(part, 'split')
      ? part.attrs.sizes.slice(0, part.attrs.part).reduce((a, b) => a + b, 0)
      : 0;
    const row = inParentheses(sum('m', String(offset)));
    const [, , biasNode] = linear.inputs;
    const bias = biasNode && parameter(site, `bias${i === 0 ? '' : i}`, biasNode);
    const read = bias && `${bias.open}${bias.buffer}[${sum(bias.start, 'n', String(offset))}]${bias.close}`;
    return {
      sums: `sums${i}`,
      block: `block${i}`,
      value: `v${i}`,
      type: weight.type,
      weight: weight.buffer,
      start: sum(weight.start, times(row, weight.stride)),
      open: weight.open,
      close: weight.close,
      bias: read === undefined ? '' : whole ? ` + ${read}` : ` + (n < ${n} ? ${read} : 0.0f)`,
    };
  });
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  if (simdgroups > 1) list.position('simdgroup_index_in_threadgroup');
  const length = Number(k);
  const biased = product.inputs.length > 2 ? 'bias' : '';
  return {
    name: nameOf(
      iteration.rows > 1 ? 'matmul' : 'matvec',
      operand(product, 1).type.dtype,
      biased,
      fusedSteps(kernel),
      `${n}x${length}`,
    ),
    doc: `${iteration.rows > 1 ? 'Each vector of x' : 'The vector x'} times the rows of ${parts.length > 1 ? `${parts.length} matrices` : 'a matrix'}, ${n} x ${length}`,
    context: {
      ...store,
      ...strip(length, target.simdWidth, target.vector),
      x: rowPointer(xName, x, iteration),
      k: length,
      rows,
      vector: target.vector,
      simdWidth: target.simdWidth,
      parts,
      loopHints:
        target.simdWidth === 1
          ? [
              '    // Vectorised across rows, this would transpose the sums.',
              '    #pragma clang loop vectorize(disable)',
            ]
          : [],
      firstRow: times(
        inParentheses(sum(times('group.y', simdgroups), simdgroups > 1 ? 'simdgroup' : '')),
        rows,
      ),
      clampedRow: whole ? 'first + r' : `metal::min(first + r, ${n - 1}u)`,
      storeGuard: whole ? 'lane == 0' : `lane == 0 && n < ${n}`,
    },
    threads: simdgroups * target.simdWidth,
    tiles: ceilDiv(n, perGroup),
  };
}

/** How a kernel that reduces along the last axis is cut: one threadgroup per row. */
function rowShape(site: Site, x: Node, minimumPerThread: number) {
  const { layout, target, iteration, list } = site;
  const access = layout.of(x);
  const axes = iterationOf(x.type, site.entry.graph.dims).axes;
  const width = axes.at(-1) ?? 1;
  const tiles = axes.slice(0, -1).reduce((a, b) => a * b, 1);
  const needed = ceilDiv(ceilDiv(width, minimumPerThread), target.simdWidth) * target.simdWidth;
  const threads = Math.max(1, Math.min(target.rowThreads, needed));
  const strides = rowStrides(access, { ...iteration, axes });
  const inRow = tiles > 1 ? times('group.y', strides.at(-2) ?? 0) : '';
  const pointer = sum(list.read('x', access.source, 'f32'), rowStart(access, iteration), inRow);
  return { width, tiles, threads, simdgroups: threads / target.simdWidth, pointer };
}

function acrossSimdgroups(list: ArgumentList, simdgroups: number): readonly object[] {
  if (simdgroups === 1) return [];
  list.threadgroup('scratch', 'float', simdgroups * 4);
  list.position('thread_index_in_simdgroup', 'simdgroup_index_in_threadgroup');
  return [{}];
}

function writeRmsNorm(site: Site): Written {
  const { kernel, target, list } = site;
  const norm = anchor(kernel);
  const [, weight = norm] = norm.inputs;
  const { width, tiles, threads, simdgroups, pointer } = rowShape(site, operand(norm, 0), target.vector);
  const { buffer, start, dtype, open, close } = parameter(site, 'weight', weight);
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('rms_norm', dtype, fusedSteps(kernel), width),
    doc: `x / sqrt(mean(x^2) + eps) * weight over rows of ${width}`,
    context: {
      ...store,
      ...strip(width, threads, target.vector),
      weight: `${open}${buffer}[${sum(start, 'i')}]${close}`,
      x: pointer,
      width,
      threads,
      simdgroups,
      vector: target.vector,
      acrossSimdgroups: acrossSimdgroups(list, simdgroups),
      eps: floatLiteral(isOp(norm, 'rms_norm') ? norm.attrs.eps : 0),
      element: tiles > 1 ? `group.y * ${width} + i` : 'i',
    },
    threads,
    tiles,
  };
}

function writeSoftmax(site: Site): Written {
  const { kernel, list } = site;
  const { width, tiles, threads, simdgroups, pointer } = rowShape(site, operand(anchor(kernel), 0), 1);
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  return {
    name: nameOf('softmax', fusedSteps(kernel), width),
    doc: `e^x / sum(e^x) over rows of ${width}`,
    context: {
      ...store,
      x: pointer,
      width,
      threads,
      simdgroups,
      acrossSimdgroups: acrossSimdgroups(list, simdgroups),
      element: tiles > 1 ? `group.y * ${width} + i` : 'i',
    },
    threads,
    tiles,
  };
}

function writeArgmax(site: Site): Written {
  const { kernel, target, list, iteration } = site;
  const { width, tiles, pointer } = rowShape(site, operand(anchor(kernel), 0), 1);
  const name = list.write('y', kernel.result, 'i32');
  if (iteration.rows > 1 || readsLast(site)) list.step();
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  const row = sum(iteration.rows > 1 ? times('t', tiles) : '', tiles > 1 ? 'group.y' : '');
  return {
    name: nameOf('argmax', width),
    doc: `Index of the greatest of ${width}, the lowest of equals`,
    context: {
      x: pointer,
      width,
      simdWidth: target.simdWidth,
      output: `${name}[${row}]`,
    },
    threads: target.simdWidth,
    tiles,
  };
}

function writeRope(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const node = anchor(kernel);
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
    name: nameOf('rope', fusedSteps(kernel), `${heads}x${width}`, dims < width ? `d${dims}` : ''),
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

function writeAttention(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const node = anchor(kernel);
  if (!isOp(node, 'attention')) throw new CompilerBug(`an attention kernel computes ${node.op}`);
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
  const token = iteration.rows > 1 ? 't' : '';
  const group = heads === groups ? 'head' : `head / ${heads / groups}`;
  return {
    name: nameOf('attention', fusedSteps(kernel), `${heads}x${groups}x${width}`),
    doc: `Causal attention of ${heads} heads over the cached keys and values of ${groups}`,
    context: {
      ...store,
      keys: sum('step.position', token, '1'),
      q: sum(qName, rowStart(q, iteration), times('head', rowStrides(q, iteration).at(-2) ?? 0)),
      keyHead: times(inParentheses(group), width),
      cacheRow: groups * width,
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
      scale: floatLiteral(node.attrs.scale ?? 1 / Math.sqrt(width)),
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

/** How a kernel that treats every element alike is cut: blocks of a row. */
function blockShape({ target, iteration }: Site) {
  const wanted = Math.min(target.rowThreads, ceilDiv(iteration.width, target.simdWidth) * target.simdWidth);
  return {
    width: iteration.width,
    block: target.block,
    threads: Math.max(1, wanted),
    tiles: ceilDiv(iteration.width, target.block),
  };
}

function writeEmbed(site: Site): Written {
  const { kernel, layout, list, iteration } = site;
  const node = anchor(kernel);
  requireTokenRows(node);
  const ids = layout.of(operand(node, 0));
  const table = operand(node, 1);
  const idName = list.read('ids', ids.source, 'i32');
  const { buffer, start, stride, dtype, type, open, close } = parameter(site, 'table', table);
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  const shape = blockShape(site);
  return {
    name: nameOf('embed', dtype, fusedSteps(kernel), iteration.width),
    doc: `Row ids[t] of a table with ${iteration.width} columns`,
    context: {
      ...store,
      ...shape,
      open,
      close,
      type,
      row: sum(buffer, start, times(`uint(${idName}[${rowStart(ids, iteration)}])`, stride)),
    },
    threads: shape.threads,
    tiles: shape.tiles,
  };
}

function writeElementwise(site: Site): Written {
  const { kernel, list, iteration } = site;
  const store = writeStore(site);
  list.position('threadgroup_position_in_grid', 'thread_index_in_threadgroup');
  const shape = blockShape(site);
  return {
    name: nameOf(fusedSteps(kernel), iteration.width),
    doc: `${kernel.epilogue.length > 0 ? 'Elementwise over' : 'Copies'} rows of ${iteration.width}`,
    context: {
      ...store,
      ...shape,
    },
    threads: shape.threads,
    tiles: shape.tiles,
  };
}
