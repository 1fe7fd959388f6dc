import type { Node } from '../ir/graph.js';
import { isOp } from '../ir/graph.js';
import { isPackedName } from '../ir/packed.js';
import { elementTypeOf } from '../ir/type.js';
import {
  contiguousElements,
  runElements,
  splitShape,
  stagedBytes,
  type SplitShape,
} from '../passes/split.js';
import type { Kernel } from '../passes/entry.js';
import { kernelSteps } from '../passes/text.js';
import { elementType, floatLiteral, inParentheses, rowPointer, sum, times } from './expression.js';
import { nameOf, operand, parameter, siteOf, type Site, type Written } from './site.js';
import { writeStore } from './store.js';
import { branchOf, pairWidths, partsOf, turnOf, writeSectionParts, writeTurn } from './write-linear.js';

/** The product of one token with matrices, its vector split over simdgroups; undefined where it cannot be. */
export function writeSplit(site: Site): Written | undefined {
  const { kernel, entry, target, list, layout, iteration } = site;
  const shape = splitShape(kernel, entry.graph.dims, target);
  const [first] = partsOf(kernel.outputs[0]);
  if (!shape || !first) return undefined;
  const matrix = operand(first.linear, 1);
  const vector = layout.of(kernel.prologue ? operand(kernel.prologue, 0) : operand(first.linear, 0));
  const gain = kernel.prologue && layout.of(operand(kernel.prologue, 1));
  // Vectors are loaded four elements at a time, and only weights may be loaded before earlier kernels have finished.
  if (vector.offset % 4 !== 0 || (gain && (gain.offset % 4 !== 0 || !isOp(gain.source, 'weight'))))
    return undefined;
  if (!partsOfAll(kernel).every(({ linear }) => isOp(operand(linear, 1), 'weight'))) return undefined;
  const length = Number(matrix.type.shape[1]);
  const packed = isPackedName(matrix.type.dtype);
  const contiguous = contiguousElements(matrix.type);
  const { slices, lanes, places, products, rows, turns, threads, staged, threadgroups } = shape;
  const x = rowPointer(list.read('x', vector.source, 'f32'), vector, iteration);
  const norm = kernel.prologue ? [writeGain(site, kernel.prologue)] : [];
  const taken = kernel.outputs.some((output) => turnOf(output)) ? 2 : 1;
  const sections = kernel.outputs.map((output, i) => writeSection(siteOf(site, output), i, shape, taken));
  const matrices = new Set(sections.flatMap(({ parts }) => parts.flatMap(({ buffers }) => buffers)));
  // Lanes load x themselves where it lies in their order: packed runs are longer than a load.
  const direct = !kernel.prologue && (contiguous < runElements || site.laneOrders.has(vector.source));
  if (!direct) list.threadgroup('staged', 'float', stagedBytes(staged * lanes * runElements, contiguous));
  list.threadgroup('partial', 'float', 4 * turns * places * products * slices);
  if (kernel.prologue) list.threadgroup('squares', 'float', threads / 8);
  list.position(
    'threadgroup_position_in_grid',
    'thread_index_in_threadgroup',
    'thread_index_in_simdgroup',
    'simdgroup_index_in_threadgroup',
  );
  const tiles = shape.tiles.reduce((a, b) => a + b, 0);
  const passVectors = (staged * lanes * runElements) / 4;
  const passes = direct ? 0 : Math.ceil(slices / staged);
  const exact = (length / 4) % threads === 0;
  const vectorOf = sum(times('j', threads), 'thread_index');
  const inPass = passes > 1 ? `i % ${passVectors}` : 'i';
  const ofSlice = passes > 1 ? `(slice % ${staged})` : 'slice';
  const together = contiguous / 4;
  const ownVector =
    contiguous === runElements
      ? `(${ofSlice} * ${lanes} + own_lane) * 9 + j`
      : `(${ofSlice} * 8 + j / ${together} * ${together}) * ${lanes} + own_lane * ${together} + j % ${together}`;
  // Sums over lanes go by halves.
  const summed = 2 ** Math.ceil(Math.log2(products));
  const widths = kernel.outputs.map((output) => siteOf(site, output).iteration.width);
  const biased = kernel.outputs.some((output) =>
    partsOf(output).some(({ linear }) => linear.inputs.length > 2),
  );
  return {
    template: 'split',
    name: nameOf(
      'matvec',
      matrix.type.dtype,
      biased ? 'bias' : '',
      kernelSteps(kernel),
      `${widths.join('_')}x${length}`,
    ),
    doc: `The vector x times the rows of ${matrices.size > 1 ? 'matrices' : 'a matrix'}, ${widths.join(' + ')} x ${length}`,
    context: {
      ...shape,
      summed,
      unused: summed > products ? ' = {}' : '',
      tiles,
      stride: threadgroups * places,
      x: inParentheses(x),
      norm,
      length,
      matrices: list.parametersOf(matrices),
      matrixNames: [...matrices].join(', '),
      row: sections[0]?.declared ?? '',
      run: packed ? `${matrix.type.dtype}_run` : `${elementType[elementTypeOf(matrix.type)]}_run`,
      vectors: length / 4,
      perThread: Math.ceil(length / 4 / threads),
      several: passes > 1 ? [{ passes, staged, passVectors }] : [],
      single: passes === 1 ? [{}] : [],
      loaded: direct ? [] : [{}],
      direct: direct
        ? [{ index: contiguous === runElements ? `(slice * 8 + j) * ${lanes} + own_lane` : ownVector }]
        : [],
      place: contiguous === runElements ? `${inPass} + ${inPass} / 8` : inPass,
      ownVector,
      slice: slices === 1 ? '0' : places === 1 ? 'simdgroup' : `simdgroup % ${slices}`,
      ofSimdgroup: places === 1 ? '0' : slices === 1 ? 'simdgroup' : `simdgroup / ${slices}`,
      firstTile: sum(times('group.y', places), 'place'),
      loadedVector: exact ? vectorOf : `metal::min(${vectorOf}, ${length / 4}u - 1)`,
      inVector: exact ? '' : `if (${vectorOf} < ${length / 4}) `,
      partial: sum(
        times(
          inParentheses(sum(times(inParentheses(sum(times('turn', places), 'place')), products), 'lane')),
          slices,
        ),
        'slice',
      ),
      ownTile: divided('i', rows / taken),
      tileOf: sum(
        times(divided('own_tile', places), threadgroups * places),
        times('group.y', places),
        remainder('own_tile', places),
      ),
      skipped: times(remainder('i', rows / taken), taken) || '0',
      productsTaken: (products / rows) * taken,
      ofProduct: times(
        inParentheses(
          sum(
            times('own_tile', products),
            times(divided('r', taken), rows),
            'skipped',
            remainder('r', taken),
          ),
        ),
        slices,
      ),
      idle: lanes < 32 ? [{ lanes }] : [],
      totals: packed ? [{}] : [],
      taken,
      items: (turns * places * rows) / taken,
      sections,
    },
    threads,
    tiles: threadgroups,
  };
}

const partsOfAll = ({ outputs }: Kernel) => outputs.flatMap((output) => partsOf(output));

const divided = (value: string, by: number): string => (by === 1 ? value : `${value} / ${by}`);
const remainder = (value: string, by: number): string => (by === 1 ? '' : `${value} % ${by}`);

/** What the norm multiplies x by, four elements at a time. */
function writeGain(site: Site, norm: Node) {
  const gain = parameter(site, 'gain', operand(norm, 1));
  const { eps, offset } = isOp(norm, 'rms_norm') ? norm.attrs : { eps: 0, offset: 0 };
  return {
    type: `${gain.type}4`,
    gain: inParentheses(sum(gain.buffer, gain.start)),
    gained: offset === undefined ? 'real(gains[j])' : `(real(gains[j]) + ${floatLiteral(offset)})`,
    eps: floatLiteral(eps),
  };
}

/** One result: which rows of which matrices a tile has, and what happens to their products. */
function writeSection(site: Site, index: number, { tiles, rows }: SplitShape, taken: number) {
  const { output, iteration } = site;
  const { start, guard, close } = branchOf('tile', tiles, index);
  const turn = turnOf(output);
  const number = tiles.length > 1 ? String(index) : '';
  const parts = writeSectionParts({ site, index: number, rows });
  const whole = iteration.width % rows === 0;
  const slot = whole ? 'first + r' : `metal::min(first + r, ${iteration.width - 1}u)`;
  const pairs = turn ? [writeTurn(site, turn)] : [];
  return {
    ...writeStore(site),
    guard,
    close,
    first: times(start === 0 ? 'tile' : `(tile - ${start})`, rows),
    parts,
    declared: parts[0]?.declared ?? '',
    rows,
    taken: parts.map((part, i) => ({ ...part, index: sum(String(i * taken), 'r') })),
    n: turn ? `pair_order<${pairWidths(turn).join(', ')}>(${slot})` : slot,
    elements: turn ? [] : [{}],
    pairs: pairs.map((pair) => ({ ...pair, bias: parts[0]?.biasOfPair })),
    stored: `first + r < ${iteration.width}`,
  };
}
