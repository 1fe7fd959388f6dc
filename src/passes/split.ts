import { isOp, type Node } from '../ir/graph.js';
import { blockElements, isPackedName, packedFormats, planesOf } from '../ir/packed.js';
import { bytesPerElement, type DimBindings, type StoredAs, type TensorType } from '../ir/type.js';
import { layoutOf, kernelSources } from './access.js';
import type { Entry, Kernel, Output } from './entry.js';
import type { SplitMachine, Target } from './target.js';

/** Elements of x that a lane keeps in registers; of every row it takes the weights that they meet. */
export const runElements = 32;

/**
 * How the products of one token are split: x over `slices` simdgroups of a threadgroup, which keep their part of it in
 * registers, and rows over `places` times as many, and over threadgroups that all run at the same time. Each takes
 * `turns` tiles of rows, one after the other.
 */
export interface SplitShape {
  readonly slices: number;
  /** Lanes of a simdgroup that have a run of x. */
  readonly lanes: number;
  readonly places: number;
  /** Rows of a tile in each part of a result. */
  readonly rows: number;
  /** Rows of a tile, over all parts. */
  readonly products: number;
  /** Tiles of each result. */
  readonly tiles: readonly number[];
  readonly turns: number;
  readonly threadgroups: number;
  readonly threads: number;
  /** Slices of x that lie in threadgroup memory at the same time. */
  readonly staged: number;
}

/** Contiguous elements that a lane loads at a time: 16 bytes, or a whole run of packed ones. */
export function contiguousElements({ dtype }: TensorType): number {
  return isPackedName(dtype) ? runElements : 16 / bytesPerElement[dtype];
}

/** Bytes of the registers that hold a run of a row: its quants, and the scales of blocks besides those of groups. */
function runBytes({ dtype }: TensorType): number {
  if (!isPackedName(dtype)) return runElements * bytesPerElement[dtype];
  const blocks = planesOf(packedFormats[dtype]).filter(({ elements }) => elements === blockElements);
  return packedFormats[dtype].bits * 4 + 4 * blocks.length;
}

/** A float4 of padding for every 32 floats spreads what lanes read at the same time over the banks. */
export const stagedBytes = (elements: number, contiguous: number): number =>
  4 * (elements + (contiguous === runElements ? elements / 8 : 0));

/** Most bytes of threadgroup memory for the partial sums of rows. */
const partialBytes = 8192;

const isReal = (dtype: StoredAs): boolean => dtype !== 'i32' && dtype !== 'u16';

/** How `kernel` is split; undefined where the target or what it computes does not allow it. */
export function splitShape(kernel: Kernel, dims: DimBindings, target: Target): SplitShape | undefined {
  const { split } = target;
  const matrices = [...kernel.nodes].flatMap((node) => (isOp(node, 'linear') ? node.inputs.slice(1, 2) : []));
  const [matrix] = matrices;
  const [x] = [...kernel.nodes].flatMap((node) => (isOp(node, 'linear') ? node.inputs.slice(0, 1) : []));
  if (!split || !matrix || !x || kernel.kind !== 'linear') return undefined;
  if ([...kernel.nodes].some((node) => isOp(node, 'sparse_linear'))) return undefined;
  if (x.type.shape[0] === 'T' ? dims['T'] !== 1 : x.type.shape[0] !== 1) return undefined;
  const { prologue, outputs } = kernel;
  const turns = outputs.some(({ epilogue }) => epilogue.some((node) => isOp(node, 'rope')));
  const length = Number(matrix.type.shape[1]);
  const alike = matrices.every(({ type }) => type.dtype === matrix.type.dtype);
  const splits = alike && isReal(matrix.type.dtype) && length % runElements === 0;
  if (!splits || (prologue && !isOp(prologue, 'rms_norm'))) return undefined;
  const parts = outputs[0].anchors.length;
  if (outputs.some(({ anchors }) => anchors.length !== parts)) return undefined;
  return shapeOf(
    length,
    matrix.type,
    outputs.map(({ anchors }) => Number(anchors[0]?.type.shape[1] ?? 0)),
    { parts, pairs: turns },
    {
      ...split,
      threadgroupBytes: target.threadgroupBytes,
    },
  );
}

/**
 * Values that are stored as the lanes of the one product that reads them take them, each with the lanes that have a run:
 * packed runs are longer than what lanes can load at a time, and turning a long vector in threadgroup memory takes several
 * passes.
 */
export function laneOrders(entry: Entry, target: Target): ReadonlyMap<Node, number> {
  const layout = layoutOf(entry);
  const results = new Set(entry.graph.outputs.values());
  const makers = new Map(
    entry.kernels.flatMap((kernel) =>
      kernel.outputs.map((output) => [output.result, { kernel, output }] as const),
    ),
  );
  const orders = new Map<Node, number>();
  for (const kernel of entry.kernels) {
    const shape = splitShape(kernel, entry.graph.dims, target);
    const [linear] = kernel.outputs[0].anchors.flatMap((node) =>
      isOp(node, 'split') ? node.inputs : [node],
    );
    const [x, matrix] = linear?.inputs ?? [];
    if (!shape || kernel.prologue || !x || !matrix || contiguousElements(matrix.type) < runElements) continue;
    const { source, offset } = layout.of(x);
    const maker = makers.get(source);
    if (!maker || offset !== 0 || results.has(source) || !isFree(maker)) continue;
    const elements = source.type.shape.slice(1).reduce<number>((a, b) => a * Number(b), 1);
    const readers = entry.kernels.filter((reader) => kernelSources(reader, layout).has(source));
    const once = [...kernel.nodes].every(
      (node) => isOp(node, 'linear') || node.inputs.every((input) => layout.of(input).source !== source),
    );
    if (readers.length === 1 && once && elements === Number(matrix.type.shape[1]))
      orders.set(source, shape.lanes);
  }
  return orders;
}

/** Whether a result may be stored in any order: its kernel computes it from nothing that may lie in the same memory. */
function isFree({ kernel, output }: { readonly kernel: Kernel; readonly output: Output }): boolean {
  const inside = kernel.kind === 'linear' || kernel.kind === 'attention_combine';
  return (
    inside &&
    output.append === undefined &&
    output.epilogue.every(({ inputs }) => inputs.every((input) => kernel.nodes.has(input)))
  );
}

function shapeOf(
  length: number,
  matrix: TensorType,
  widths: readonly number[],
  { parts, pairs }: { readonly parts: number; readonly pairs: boolean },
  machine: SplitMachine & { readonly threadgroupBytes: number },
): SplitShape | undefined {
  const runs = length / runElements;
  let slices = Math.ceil(runs / 32);
  while (slices <= 32 && runs % slices !== 0) slices++;
  const lanes = runs / slices;
  if (slices > 32) return undefined;
  const places = Math.max(1, Math.floor(machine.threads / 2 / (32 * slices)));
  const threads = 32 * slices * places;
  const together = machine.cores * Math.max(1, Math.floor(machine.threads / threads)) * places;
  const tilesOf = (rows: number): number[] => widths.map((width) => Math.ceil(width / rows));
  const turnsOf = (rows: number): number => Math.ceil(total(tilesOf(rows)) / together);
  const bytes = runBytes(matrix) * parts;
  const fits = Math.max(2, Math.floor(machine.rowBytes / bytes));
  // One row more where that leaves fewer places idle in the last turn; pairs of elements that turn together are two rows.
  const more = !pairs && (fits + 1) * bytes * 4 <= machine.rowBytes * 5;
  const better = more && (fits + 1) * turnsOf(fits + 1) <= fits * turnsOf(fits);
  const rows = better ? fits + 1 : pairs ? fits - (fits % 2) : fits;
  const products = rows * parts;
  const tiles = tilesOf(rows);
  const all = total(tiles);
  const mostTurns = Math.floor(partialBytes / (4 * places * products * slices));
  const turns = Math.min(mostTurns, turnsOf(rows));
  const contiguous = contiguousElements(matrix);
  const free = machine.threadgroupBytes - 4 * turns * places * products * slices - 4 * 32;
  const staged = Math.min(slices, Math.floor(free / stagedBytes(lanes * runElements, contiguous)));
  if (turns < 1 || staged < 1) return undefined;
  return {
    slices,
    lanes,
    places,
    rows,
    products,
    tiles,
    turns,
    threadgroups: Math.ceil(all / (turns * places)),
    threads,
    staged,
  };
}

const total = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
