import { isPackedName } from '../ir/packed.js';
import { isHalved, matmulShape, resultStride, type MatmulShape } from '../passes/matmul.js';
import { kernelSteps } from '../passes/text.js';
import { elementType, sum, times } from './expression.js';
import { nameOf, operand, siteOf, type Site, type Written } from './site.js';
import { writeStore } from './store.js';
import { branchOf, pairWidths, partsOf, turnOf, writeSectionParts, writeTurn } from './write-linear.js';

/** The products of a chunk of tokens with matrices, in tiles; undefined where they cannot be. */
export function writeMatmul(site: Site): Written | undefined {
  const { kernel, entry, target, list, layout } = site;
  const shape = matmulShape(kernel, entry.graph.dims, target);
  const [first] = partsOf(kernel.outputs[0]);
  if (!shape || !first) return undefined;
  const vectors = layout.of(operand(first.linear, 0));
  const stride = vectors.strides[0] ?? 1;
  // Vectors are loaded four elements at a time, matrices 16 bytes.
  const aligned = vectors.offset % 4 === 0 && stride % 4 === 0;
  const matrices = kernel.outputs.flatMap((output) =>
    partsOf(output).map(({ linear }) => operand(linear, 1)),
  );
  if (!aligned || vectors.fromLast || vectors.fromPosition) return undefined;
  const length = Number(operand(first.linear, 1).type.shape[1]);
  const x = sum(list.read('x', vectors.source, 'f32'), String(vectors.offset));
  const sections = kernel.outputs.map((output, i) => writeSection(siteOf(site, output), i, shape));
  list.step();
  list.threadgroup('tiles', 'float', shape.threadgroupBytes);
  list.position(
    'threadgroup_position_in_grid',
    'thread_index_in_threadgroup',
    'simdgroup_index_in_threadgroup',
  );
  const widths = kernel.outputs.map((output) => siteOf(site, output).iteration.width);
  const linears = kernel.outputs.flatMap((output) => partsOf(output).map(({ linear }) => linear));
  return {
    template: 'matmul',
    name: nameOf(
      'matmul',
      ...new Set(matrices.map(({ type }) => type.dtype)),
      linears.some(({ inputs }) => inputs.length > 2) ? 'bias' : '',
      kernelSteps(kernel),
      `${widths.join('_')}x${length}`,
    ),
    doc: `Vectors of x times the rows of ${new Set(linears).size > 1 ? 'matrices' : 'a matrix'}, ${widths.join(' + ')} x ${length}, in tiles of ${shape.rows} rows and ${shape.tokens} tokens`,
    context: { ...tileLiterals(shape), x, stride, length, sections },
    threads: shape.threads,
    tiles: shape.tiles.reduce((a, b) => a + b, 0),
    tokens: shape.tokens,
  };
}

/** The numbers in the text of `multiply_tile`, which are the same for all kernels of a target. */
function tileLiterals(shape: MatmulShape): Readonly<Record<string, unknown>> {
  const { rows, tokens, simdgroupRows, simdgroupTokens, across, threads, stages } = shape;
  const [down, along] = [simdgroupRows / 8, simdgroupTokens / 8];
  return {
    rows,
    tokens,
    simdgroupRows,
    simdgroupTokens,
    across,
    threads,
    down,
    along,
    matrices: down * along,
    pieces: (tokens * 4) / threads,
    turns: tokens / simdgroupTokens,
    resultStride: resultStride(rows),
    double: stages === 2 ? [{ stageRows: rows + tokens }] : [],
    single: stages === 1 ? [{}] : [],
  };
}

/** One result: which rows of which matrices a tile has, and what happens to their products. */
function writeSection(site: Site, index: number, { tiles, partRows, simdgroupTokens }: MatmulShape) {
  const { output, iteration } = site;
  const { start, guard, close } = branchOf('group.y', tiles, index);
  const turn = turnOf(output);
  const taken = turn ? 2 : 1;
  const parts = writeSectionParts({ site, index: tiles.length > 1 ? String(index) : '', rows: partRows });
  const [dtype = 'f32'] = partsOf(output).map(({ linear }) => operand(linear, 1).type.dtype);
  const whole = iteration.width % partRows === 0;
  const slot = whole ? 'first_row + r' : `metal::min(first_row + r, ${iteration.width - 1}u)`;
  const pairs = turn ? [writeTurn(site, turn)] : [];
  const perToken = partRows / taken;
  return {
    ...writeStore(site),
    guard,
    close,
    first: times(start === 0 ? 'group.y' : `(group.y - ${start})`, partRows),
    declared: parts[0]?.declared ?? '',
    staged: isHalved(dtype) ? 'half' : 'float',
    part: isPackedName(dtype) ? dtype : elementType[dtype],
    several: parts.length > 1 ? [{ partRows }] : [],
    parts: parts.map((part, i) => ({
      ...part,
      own: i === 0 ? '' : `if (thread_index / 2 >= ${i * partRows}) `,
    })),
    rows: taken,
    items: simdgroupTokens * perToken,
    perToken,
    n: turn ? `pair_order<${pairWidths(turn).join(', ')}>(${slot})` : slot,
    elements: turn ? [] : [{}],
    pairs: pairs.map((pair) => ({ ...pair, bias: parts[0]?.biasOfPair })),
    stored: `t < step.tokens${whole ? '' : ` && first + r < ${iteration.width}`}`,
  };
}
