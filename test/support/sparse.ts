import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isOp, type Graph } from '../../src/ir/graph.js';
import { buildFiles, readPlan } from '../../src/runtime/plan.js';
import { decodeBF16, decodeF16 } from '../../src/weights/dtype.js';
import { packedValuesOf, type PackedValues } from './packed.js';

/** Sparse matrices, from the documentation of sparse_linear and of pruned weights alone. */

type Size = readonly [rows: number, columns: number];

/** A matrix of which pruning has kept a part, the rest zero; and which blocks of each row of blocks those are. */
export interface PrunedMatrix {
  readonly data: Float64Array;
  readonly columns: number[][];
}

/** Keeps `kept` elements of each row of a matrix: in every r rows the blocks of c columns whose squares add up to most. */
export function pruned(
  matrix: Float64Array,
  [rows, columns]: Size,
  [r, c]: Size,
  kept: number,
): PrunedMatrix {
  const data = new Float64Array(rows * columns);
  const chosen: number[][] = [];
  for (let first = 0; first < rows; first += r) {
    const own = Array.from({ length: r }, (_, i) => first + i);
    const sizes = Array.from({ length: columns / c }, (_, block) =>
      own.reduce(
        (sum, row) =>
          matrix
            .subarray(row * columns + block * c, row * columns + (block + 1) * c)
            .reduce((inner, x) => inner + x * x, sum),
        0,
      ),
    );
    const order = [...sizes.keys()].sort((a, b) => (sizes[b] ?? 0) - (sizes[a] ?? 0) || a - b);
    const blocks = order.slice(0, kept / c).sort((a, b) => a - b);
    chosen.push(blocks);
    for (const row of own) {
      for (const block of blocks) {
        const start = row * columns + block * c;
        data.set(matrix.subarray(start, start + c), start);
      }
    }
  }
  return { data, columns: chosen };
}

/** The dense matrix that values and columns stand for. */
export function dense(
  values: ArrayLike<number>,
  indices: ArrayLike<number>,
  [rows, columns]: Size,
  [r, c]: Size,
): Float64Array {
  const kept = values.length / rows;
  const data = new Float64Array(rows * columns);
  for (let i = 0; i < values.length; i++) {
    const [row, k] = [Math.floor(i / kept), i % kept];
    const block = indices[(Math.floor(row / r) * kept) / c + Math.floor(k / c)] ?? NaN;
    const at = row * columns + block * c + (k % c);
    data[at] = (data[at] ?? 0) + (values[i] ?? NaN);
  }
  return data;
}

const readers: Readonly<
  Record<string, readonly [bytes: number, read: (view: DataView, at: number) => number]>
> = {
  f32: [4, (view, at) => view.getFloat32(at, true)],
  f16: [2, (view, at) => decodeF16(view.getUint16(at, true))],
  bf16: [2, (view, at) => decodeBF16(view.getUint16(at, true))],
  u16: [2, (view, at) => view.getUint16(at, true)],
};

/** The matrices of a build that are not stored element by element, as its weights.bin says, each whole; by name. */
export function storedMatrices(build: string, graph: Graph): ReadonlyMap<string, PackedValues> {
  const plan = readPlan(build);
  const packed = packedValuesOf(build);
  const file = readFileSync(path.join(build, buildFiles.weights));
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const elements = (name: string): number[] => {
    const { dtype, offset, bytes } = plan.weights.find((weight) => weight.name === name) ?? {};
    const [size, read] = readers[dtype ?? ''] ?? [];
    if (offset === undefined || bytes === undefined || !size || !read)
      throw new Error(`${name} has no elements`);
    return Array.from({ length: bytes / size }, (_, i) => read(view, offset + i * size));
  };
  const found = new Map<string, PackedValues>(packed);
  for (const { name: columns, shape: indices } of plan.weights) {
    if (!columns.endsWith('.columns')) continue;
    const name = columns.slice(0, -'.columns'.length);
    const matrix = graph.nodes.find((node) => isOp(node, 'weight') && node.attrs.name === name);
    const [rows = 0, width = 0] = matrix && isOp(matrix, 'weight') ? matrix.attrs.shape : [];
    const values = packed.get(name);
    const data = values?.data ?? elements(name);
    const block: Size = [rows / (indices[0] ?? 0), data.length / rows / (indices[1] ?? 0)];
    const whole = (of: ArrayLike<number>): Float64Array => dense(of, elements(columns), [rows, width], block);
    found.set(name, { data: whole(data), terms: values && whole(values.terms) });
  }
  return found;
}
