import { readFileSync } from 'node:fs';
import path from 'node:path';
import { isPackedName, packedFormats, placePlanes, type PackedName } from '../../src/ir/packed.js';
import { targets } from '../../src/passes/target.js';
import { buildFiles, readPlan } from '../../src/runtime/plan.js';
import { decodeF16 } from '../../src/weights/dtype.js';
import type { PackedWeight, WeightSource } from '../../src/weights/pack.js';
import type { TensorEntry } from '../../src/weights/stored.js';

/** Reads packed matrices, from the documentation of src/ir/packed.ts alone. */

interface Layout {
  readonly tileRows: number;
  readonly alignment: number;
}

/** An element is scale · integer + bias. */
type Visit = (index: number, scale: number, integer: number, bias: number | undefined) => void;

/** Calls `visit` with every element of a packed matrix, row-major; throws when rows past the end are not zero. */
function visitElements(
  bytes: Uint8Array,
  name: PackedName,
  [rows, columns]: readonly [number, number],
  { tileRows, alignment }: Layout,
  visit: Visit,
): void {
  const format = packedFormats[name];
  const { planes } = placePlanes(format, [rows, columns], { tileRows, alignment });
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  /** The offset of the run of a plane that holds an element. */
  const runOf = (plane: string, row: number, column: number): number | undefined => {
    const found = planes.find((one) => one.name === plane);
    if (!found) return undefined;
    const runs = columns / found.elements;
    const tile = Math.floor(row / tileRows);
    const index = (tile * runs + Math.floor(column / found.elements)) * tileRows + (row % tileRows);
    return found.offset + index * found.bytes;
  };
  const half = (plane: string, row: number, column: number): number => {
    const at = runOf(plane, row, column);
    return at === undefined ? 0 : decodeF16(view.getUint16(at, true));
  };
  const integer = (row: number, column: number): number => {
    const at = runOf('quants', row, column) ?? 0;
    const j = column % 32;
    if (format.bits === 8) return view.getInt8(at + j);
    let q = (view.getUint8(at + (j % 16)) >> (j < 16 ? 0 : 4)) & 15;
    const high = runOf('high', row, column);
    for (let bit = 4; bit < format.bits; bit++)
      q |= ((view.getUint32((high ?? 0) + (bit - 4) * 4, true) >>> j) & 1) << bit;
    return q;
  };
  const scaleAndBias = (row: number, column: number): [number, number | undefined] => {
    if (format.scale === 'half' || format.scale === 'half_bias')
      return [
        half('scales', row, column),
        runOf('biases', row, column) === undefined ? undefined : half('biases', row, column),
      ];
    const scale = runOf('scales', row, column) ?? 0;
    const d = half('block_scales', row, column);
    if (format.scale === 'block') return [d * view.getInt8(scale), undefined];
    const bias = runOf('biases', row, column) ?? 0;
    return [d * view.getUint8(scale), -(half('block_biases', row, column) * view.getUint8(bias))];
  };
  const padded = Math.ceil(rows / tileRows) * tileRows;
  for (let row = 0; row < padded; row++) {
    for (let column = 0; column < columns; column++) {
      const q = integer(row, column);
      const [s, b] = scaleAndBias(row, column);
      if (row < rows) visit(row * columns + column, s, q - format.zero, b);
      else if (q !== 0 || s !== 0 || (b ?? 0) !== 0)
        throw new Error(`row ${row} is past the end, but not zero`);
    }
  }
}

/** The values of a packed matrix, row-major, in f32 arithmetic. */
export function packedValues(
  bytes: Uint8Array,
  name: PackedName,
  shape: readonly [number, number],
  layout: Layout,
): Float32Array {
  const values = new Float32Array(shape[0] * shape[1]);
  visitElements(bytes, name, shape, layout, (i, s, q, b) => {
    values[i] = b === undefined ? s * q : s * q + b;
  });
  return values;
}

/** The elements of a stored matrix, and where it is packed the magnitudes added up that each is the sum of. */
export interface PackedValues {
  readonly data: Float64Array;
  readonly terms: Float64Array | undefined;
}

/** The packed matrices of a build, by name, as the bytes of its weights.bin say. */
export function packedValuesOf(
  build: string,
): ReadonlyMap<string, PackedValues & { readonly terms: Float64Array }> {
  const plan = readPlan(build);
  const packed = plan.weights.filter(({ dtype }) => isPackedName(dtype));
  if (packed.length === 0) return new Map();
  const file = readFileSync(path.join(build, buildFiles.weights));
  return new Map(
    packed.map(({ name, dtype, shape: [rows = 0, columns = 0], offset, bytes }) => {
      const data = new Float64Array(rows * columns);
      const terms = new Float64Array(rows * columns);
      const stored = file.subarray(offset, offset + bytes);
      visitElements(stored, dtype as PackedName, [rows, columns], targets[plan.target], (i, s, q, b = 0) => {
        data[i] = s * q + b;
        terms[i] = Math.abs(s * q) + Math.abs(b);
      });
      return [name, { data, terms }];
    }),
  );
}

/** A weight at the start of its file, and the bytes of that file. */
export function alone(
  source: WeightSource,
  shape: readonly [number, number],
  format: PackedWeight['format'],
  options: {
    readonly tileRows?: number;
    readonly method?: 'nearest' | 'search';
    readonly importance?: Float32Array;
    readonly pruned?: NonNullable<PackedWeight['pruned']>;
  } = {},
): PackedWeight {
  const { tileRows = 1 } = options;
  if (!isPackedName(format)) {
    const bytes = shape[0] * shape[1] * (format === 'f32' ? 4 : 2);
    return { offset: 0, bytes, shape, format, source, ...options };
  }
  const placed = placePlanes(packedFormats[format], shape, { tileRows, alignment });
  return { offset: 0, ...placed, shape, format, source, ...options, tileRows };
}

/** Of planes in tests. */
export const alignment = 64;

/** A matrix of [rows, columns] or a row, of a stored tensor. */
export const shapeOf = ({ shape, headRows }: TensorEntry): [number, number] => {
  const [rows = 1, columns = 1] = shape;
  if (shape.length === 2) return [rows, columns];
  return headRows === undefined ? [1, rows] : [rows, 1];
};
