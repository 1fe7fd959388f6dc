import { readFileSync } from 'node:fs';
import path from 'node:path';
import {
  blockElements,
  isPackedName,
  packedFormats,
  placePlanes,
  type PackedName,
} from '../../src/ir/packed.js';
import { targets } from '../../src/passes/target.js';
import { buildFiles, readPlan } from '../../src/runtime/plan.js';
import { decodeF16 } from '../../src/weights/dtype.js';

/** The elements of a packed matrix, and for each the magnitudes added up that it is the sum of. */
export interface PackedValues {
  readonly data: Float64Array;
  readonly terms: Float64Array;
}

/** The packed matrices of a build, by name, as the bytes of its weights.bin say. */
export function packedValuesOf(build: string): ReadonlyMap<string, PackedValues> {
  const plan = readPlan(build);
  const packed = plan.weights.filter(({ dtype }) => isPackedName(dtype));
  if (packed.length === 0) return new Map();
  const file = readFileSync(path.join(build, buildFiles.weights));
  return new Map(
    packed.map(({ name, dtype, shape, offset, bytes }) => {
      const data = file.subarray(offset, offset + bytes);
      const [rows = 0, columns = 0] = shape;
      return [name, unpacked(data, dtype as PackedName, [rows, columns], targets[plan.target])];
    }),
  );
}

/** Written from the description in src/ir/packed.ts, one element after the other. */
function unpacked(
  bytes: Uint8Array,
  name: PackedName,
  shape: readonly [number, number],
  layout: { readonly tileRows: number; readonly alignment: number },
): PackedValues {
  const { bits, group, scale, zero } = packedFormats[name];
  const [rows, columns] = shape;
  const { planes } = placePlanes(packedFormats[name], shape, layout);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const data = new Float64Array(rows * columns);
  const terms = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    /** Where the run of a plane with that element of the row begins. */
    const at = (plane: string, element: number): number => {
      const placed = planes.find((each) => each.name === plane);
      if (!placed) throw new Error(`${name} has no ${plane}`);
      const runs = columns / placed.elements;
      const run = Math.floor(row / layout.tileRows) * runs + Math.floor(element / placed.elements);
      return placed.offset + (run * layout.tileRows + (row % layout.tileRows)) * placed.bytes;
    };
    const half = (plane: string, element: number): number =>
      decodeF16(view.getUint16(at(plane, element), true));
    for (let i = 0; i < columns; i++) {
      const j = i % 32;
      let q: number;
      if (bits === 8) q = view.getInt8(at('quants', i) + j);
      else {
        const byte = view.getUint8(at('quants', i) + (j % 16));
        q = j < 16 ? byte & 15 : byte >> 4;
        for (let bit = 4; bit < bits; bit++)
          q += ((view.getUint32(at('high', i) + 4 * (bit - 4), true) >>> j) & 1) * 2 ** bit;
      }
      let [s, b] = [0, 0];
      if (scale === 'half' || scale === 'half_bias') {
        s = half('scales', i);
        if (scale === 'half_bias') b = half('biases', i);
      } else if (scale === 'block') {
        s = half('block_scales', i) * view.getInt8(at('scales', i));
      } else {
        s = half('block_scales', i) * view.getUint8(at('scales', i));
        b = -half('block_biases', i) * view.getUint8(at('biases', i));
      }
      data[row * columns + i] = s * (q - zero) + b;
      terms[row * columns + i] = Math.abs(s * (q - zero)) + Math.abs(b);
    }
  }
  if (columns % group !== 0 || (scale.startsWith('block') && columns % blockElements !== 0))
    throw new Error(`rows of ${columns} cannot be ${name}`);
  return { data, terms };
}
