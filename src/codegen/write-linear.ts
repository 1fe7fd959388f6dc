import { CompilerBug, Unsupported } from '../diagnostic.js';
import { asProduct, isOp, type Node, type Product } from '../ir/graph.js';
import { blockOf } from '../ir/ops/sparse.js';
import { isPackedName } from '../ir/packed.js';
import type { Output } from '../passes/entry.js';
import { productShape, stagesOperand, type ProductShape } from '../passes/product.js';
import { kernelSteps } from '../passes/text.js';
import { inParentheses, rowPointer, sum, times } from './expression.js';
import {
  matrixRows,
  nameOf,
  operand,
  parameter,
  requireTokenRows,
  siteOf,
  type Site,
  type Written,
} from './site.js';
import { writeStore } from './store.js';
import { writeParts } from './write-attention.js';
import { writeNorm } from './write-rows.js';

/** The products whose rows a result is made of, each with the first row that is its own. */
export function partsOf({ anchors }: Output): { readonly linear: Node; readonly offset: number }[] {
  return anchors.map((part) => {
    if (!isOp(part, 'split')) return { linear: part, offset: 0 };
    const offset = part.attrs.sizes.slice(0, part.attrs.part).reduce((a, b) => a + b, 0);
    return { linear: operand(part, 0), offset };
  });
}

/** The rotation that pairs of products go through first. */
export function turnOf({ epilogue }: Output): Node | undefined {
  return epilogue.find((node) => isOp(node, 'rope'));
}

/** The matrix and the bias of each part of a result, and the text that reads them. */
export function writeSectionParts({ site, index, rows }: { site: Site; index: string; rows: number }) {
  return partsOf(site.output).map(({ linear, offset }, i) => {
    requireTokenRows(linear);
    const own = `${index}${i === 0 ? '' : `_${i}`}`;
    const product = productOf(linear);
    const { buffers, declared, multiply, row, sparse } = rowsOf(site, own, product, { offset, rows });
    const bias = product.bias && parameter(site, `bias${own}`, product.bias);
    const biasAt = (n: string): string =>
      bias ? ` + ${bias.open}${bias.buffer}[${sum(bias.start, n, String(offset))}]${bias.close}` : '';
    return {
      index: sum(String(i * rows), 'r'),
      buffers,
      declared,
      multiply,
      sparse,
      row: row(sum('n', String(offset))),
      value: `v${i}`,
      bias: biasAt('n'),
      biasOfPair: { first: biasAt('n0'), second: biasAt('n1') },
    };
  });
}

function productOf(node: Node): Product {
  const product = asProduct(node);
  if (!product) throw new CompilerBug(`${node.op} is no product`);
  return product;
}

/** How the rows of a matrix are declared, found and multiplied; `sparse` is what the latter is told of its blocks. */
function rowsOf(
  site: Site,
  own: string,
  { x, matrix, columns }: Product,
  tile: { offset: number; rows: number },
) {
  const dense = matrixRows(site, `weight${own}`, matrix);
  if (!columns) return { ...dense, sparse: undefined };
  if (!isOp(matrix, 'weight') || !isOp(columns, 'weight'))
    throw new Unsupported(
      'sparse_linear with a matrix that is computed: its values and columns must be weights',
      {
        span: matrix.origin.span,
      },
    );
  const [, kept = 0] = matrix.type.shape;
  const block = blockOf(matrix.type.shape, columns.type.shape);
  const buffer = site.list.readColumns(`columns${own}`, columns);
  const row = (n: string): string =>
    times(
      block.rows > 1 ? `${inParentheses(n)} / ${block.rows}` : inParentheses(n),
      Number(kept) / block.columns,
    );
  // A tile of rows that all lie in one block has its columns in common.
  const together = block.rows % tile.rows === 0 && tile.offset % tile.rows === 0 && !turnOf(site.output);
  return {
    ...dense,
    declared: `sparse_row<${dense.declared}>`,
    multiply: isPackedName(matrix.type.dtype) ? 'multiply_sparse_packed' : 'multiply_sparse',
    row: (n: string): string => `{${dense.row(n)}, ${sum(buffer, row(n))}}`,
    sparse: { length: Number(x.type.shape[1]), kept: Number(kept), block: block.columns, together },
  };
}

/** The branch for one of several results, which have these numbers of tiles: where its own begin, and the text around it. */
export function branchOf(tile: string, tiles: readonly number[], index: number) {
  const start = tiles.slice(0, index).reduce((a, b) => a + b, 0);
  const last = index === tiles.length - 1;
  const condition = `if (${tile} < ${start + (tiles[index] ?? 0)}) {`;
  const otherwise = last ? '} else {' : `} else ${condition}`;
  return {
    start,
    guard: tiles.length === 1 ? '{' : index === 0 ? condition : otherwise,
    close: last ? ['}'] : [],
  };
}

/** One result of the kernel: which rows of which matrices, and what happens to their products. */
function writeSection(site: Site, index: number, shape: ProductShape): Record<string, unknown> {
  const { output, iteration, target } = site;
  const n = iteration.width;
  const { rows } = target.matvec;
  const { start, guard, close } = branchOf('block', shape.blocks, index);
  // Rows past the end read the last row, and are not stored.
  const whole = n % shape.rows === 0;
  const slot = whole ? 'first + r' : `metal::min(first + r, ${n - 1}u)`;
  const turn = turnOf(output);
  const number = shape.blocks.length > 1 ? String(index) : '';
  const parts = writeSectionParts({ site, index: number, rows });
  // All parts are of one type (fuse-layers).
  const [{ declared, multiply, sparse } = { declared: '', multiply: '', sparse: undefined }] = parts;
  const shared = parts.every((part) => part.sparse?.together) ? rows : 1;
  const own = start === 0 ? 'block' : shape.simdgroups === 1 ? `block - ${start}` : `(block - ${start})`;
  const pairs = turn ? [writeTurn(site, turn)] : [];
  return {
    ...writeStore(site),
    guard,
    close,
    firstRow: times(
      inParentheses(sum(times(own, shape.simdgroups), shape.simdgroups > 1 ? 'simdgroup' : '')),
      rows,
    ),
    parts,
    declared,
    multiply,
    sparse: sparse ? `, ${sparse.kept}, ${sparse.block}, ${shared}` : '',
    products: rows * parts.length,
    rows,
    n: pairs.length > 0 ? `pair_order<${pairWidths(turn).join(', ')}>(${slot})` : slot,
    elements: pairs.length > 0 ? [] : [{}],
    pairs: pairs.map((pair) => ({ ...pair, bias: parts[0]?.biasOfPair })),
    stored: whole ? 'lane == 0' : `lane == 0 && first + r < ${n}`,
  };
}

/** Elements of a head, and how many of them turn. */
export function pairWidths(rope: Node | undefined): readonly [number, number] {
  return [Number(rope?.type.shape[2]), Number(rope?.inputs[1]?.type.shape[1])];
}

/** The rotation of two products at a time. */
export function writeTurn(site: Site, rope: Node): Record<string, unknown> {
  const [width, dims] = pairWidths(rope);
  const { buffer, start } = parameter(site, 'angles', operand(rope, 1));
  const token = site.iteration.rows > 1 ? 't' : '';
  site.list.step();
  const rest = dims < width;
  return {
    width,
    dims,
    half: dims / 2,
    angles: sum(buffer, start, times(inParentheses(sum('step.position', token)), dims)),
    cosine: rest ? `i < ${dims / 2} ? angle[i] : 1.0f` : 'angle[i]',
    // What does not turn is kept, not multiplied by 1 and 0: the other may be infinite.
    first: rest ? `i < ${dims / 2} ? a * c - b * s : a` : 'a * c - b * s',
    second: rest ? `i < ${dims / 2} ? b * c + a * s : b` : 'b * c + a * s',
    sine: rest ? `i < ${dims / 2} ? angle[i + ${dims / 2}] : 0.0f` : `angle[i + ${dims / 2}]`,
  };
}

/** What the threadgroup does to x before it reads it, into `prepared`. */
function writePrologue(site: Site, prologue: Node, threads: number) {
  if (isOp(prologue, 'rms_norm'))
    return { norm: [{ ...writeNorm(site, prologue, threads), threads }], combine: [] };
  if (!isOp(prologue, 'attention_combine')) throw new CompilerBug(`${prologue.op} cannot be a prologue`);
  const parts = writeParts(site, prologue);
  site.list.threadgroup('shares', 'float', parts.heads * parts.count * 4);
  return { norm: [], combine: [{ ...parts, threads }] };
}

export function writeLinear(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const [first] = partsOf(kernel.outputs[0]);
  if (!first) throw new CompilerBug('a linear kernel has no product');
  const shape = productShape(kernel, target);
  const length = Number(operand(first.linear, 0).type.shape[1]);
  const threads = shape.simdgroups * target.simdWidth;
  const prologue = kernel.prologue && writePrologue(site, kernel.prologue, threads);
  const staged = stagesOperand(kernel, target);
  if (prologue || staged) list.threadgroup('prepared', 'float', length * 4);
  const rowsOfX = layout.of(operand(first.linear, 0));
  if (site.laneOrders.has(rowsOfX.source))
    throw new CompilerBug('only split products read the order of lanes');
  const read = (): string => rowPointer(list.read('x', rowsOfX.source, 'f32'), rowsOfX, iteration);
  const stage = staged ? [{ x: read(), length, threads }] : [];
  const x = prologue || staged ? 'prepared' : read();
  const sections = kernel.outputs.map((output, i) => writeSection(siteOf(site, output), i, shape));
  list.position('threadgroup_position_in_grid', 'thread_index_in_simdgroup');
  if (shape.simdgroups > 1) list.position('simdgroup_index_in_threadgroup');
  if (prologue || staged) list.position('thread_index_in_threadgroup');
  const widths = kernel.outputs.map((output) => siteOf(site, output).iteration.width);
  const matrices = kernel.outputs.flatMap((output) => partsOf(output));
  const sparseWord = matrices.some(({ linear }) => productOf(linear).columns) ? 'sparse ' : '';
  return {
    name: nameOf(
      iteration.rows > 1 ? 'matmul' : 'matvec',
      ...new Set(matrices.map(({ linear }) => operand(linear, 1).type.dtype)),
      matrices.some(({ linear }) => productOf(linear).columns) ? 'sparse' : '',
      matrices.some(({ linear }) => productOf(linear).bias) ? 'bias' : '',
      kernelSteps(kernel),
      `${widths.join('_')}x${length}`,
    ),
    doc: `${iteration.rows > 1 ? 'Each vector of x' : 'The vector x'} times the ${sparseWord}rows of ${new Set(matrices.map(({ linear }) => linear)).size > 1 ? 'matrices' : 'a matrix'}, ${widths.join(' + ')} x ${length}`,
    context: {
      ...(prologue ?? { norm: [], combine: [] }),
      blocks: shape.blocks.reduce((a, b) => a + b, 0),
      threadgroups: shape.threadgroups,
      vector: target.vector,
      simdWidth: target.simdWidth,
      length,
      x,
      stage,
      space: prologue || staged ? 'threadgroup' : 'device',
      sections: sections.map((section) => ({
        ...section,
        vector: target.vector,
        simdWidth: target.simdWidth,
        length,
      })),
    },
    threads,
    tiles: shape.threadgroups,
  };
}
