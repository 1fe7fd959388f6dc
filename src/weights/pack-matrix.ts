import {
  blockElements,
  packedFormats,
  placePlanes,
  type PackedFormat,
  type PackedName,
  type Plane,
} from '../ir/packed.js';
import type { DType } from '../ir/type.js';
import { decodeF16 } from './dtype.js';
import { readTensor, readTensorBytes } from './read.js';
import type { TensorEntry } from './stored.js';

/** How matrices become planes (src/ir/packed.ts): slow and plain. */

/** A matrix as small integers: parts in row-major order, one for each element, group or block. */
export interface Integers {
  /** As stored: unsigned, but for 8 bits. */
  readonly quants: Int16Array;
  /** f16, or 8-bit integers in the formats that have blocks. */
  readonly scales: Uint16Array;
  readonly biases: Uint16Array;
  readonly block_scales: Uint16Array;
  readonly block_biases: Uint16Array;
}

export interface MatrixLayout {
  readonly shape: readonly [number, number];
  readonly tileRows: number;
  readonly alignment: number;
}

/** The planes of a stored tensor. What is quantised already keeps its integers and scales. */
export function packMatrix(
  stored: TensorEntry,
  name: PackedName,
  layout: MatrixLayout & { readonly transposed: boolean },
): Uint8Array {
  const own = layout.transposed ? undefined : blockReaders.get(stored.dtype);
  const integers = own
    ? fromBlocks(stored, own)
    : nearestIntegers(valuesOf(stored, layout.transposed), packedFormats[name]);
  return writePlanes(integers, packedFormats[name], layout);
}

/** The elements of a stored tensor, rounded to another type. */
export function convertMatrix(stored: TensorEntry, dtype: DType, transposed: boolean): Uint8Array {
  const values = valuesOf(stored, transposed);
  const elements =
    dtype === 'f16'
      ? Uint16Array.from(values, encodeF16)
      : dtype === 'bf16'
        ? Uint16Array.from(values, encodeBF16)
        : Float32Array.from(values);
  return new Uint8Array(elements.buffer);
}

function valuesOf(stored: TensorEntry, transposed: boolean): Float64Array {
  const values = readTensor(stored);
  if (!transposed) return values;
  const [rows = 0, columns = 0] = stored.shape;
  return values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)] ?? Number.NaN);
}

/** Rounds every element to the nearest integer of its group, whose scale fits its greatest (or least) one. */
export function nearestIntegers(values: ArrayLike<number>, format: PackedFormat): Integers {
  const { group, bits, zero } = format;
  const groups = values.length / group;
  const blocks = Math.floor(values.length / blockElements);
  const at = (i: number): number => values[i] ?? 0;
  const most = bits === 8 ? 127 : 2 ** bits - 1;
  const biased = format.scale === 'half_bias' || format.scale === 'block_bias';
  const blocked = format.scale === 'block' || format.scale === 'block_bias';
  // The scale and the bias that each group would like.
  const scale = new Float64Array(groups);
  const bias = new Float64Array(groups);
  for (let g = 0; g < groups; g++) {
    let [least, greatest, furthest] = [0, 0, 0];
    for (let i = g * group; i < (g + 1) * group; i++) {
      least = Math.min(least, at(i));
      greatest = Math.max(greatest, at(i));
      if (Math.abs(at(i)) > Math.abs(furthest)) furthest = at(i);
    }
    scale[g] = biased ? (greatest - least) / most : zero > 0 ? -furthest / zero : Math.abs(furthest) / most;
    bias[g] = biased ? least : 0;
  }
  const scales = new Uint16Array(groups);
  const biases = new Uint16Array(groups);
  const block_scales = new Uint16Array(blocks);
  const block_biases = new Uint16Array(blocks);
  const perBlock = blockElements / group;
  const mostScale = format.scale === 'block' ? 127 : 63;
  const inBlock = (from: Float64Array, into: Uint16Array, block: Uint16Array, sign: number): void => {
    for (let b = 0; b < blocks; b++) {
      const own = from.subarray(b * perBlock, (b + 1) * perBlock);
      const unit = encodeF16(Math.max(...own.map(Math.abs)) / mostScale);
      block[b] = unit;
      own.forEach((value, i) => {
        const ratio = unit === 0 ? 0 : Math.round((sign * value) / decodeF16(unit));
        into[b * perBlock + i] = Math.min(mostScale, ratio) & 255;
        from[b * perBlock + i] = sign * decodeF16(unit) * Math.min(mostScale, ratio);
      });
    }
  };
  if (blocked) {
    inBlock(scale, scales, block_scales, 1);
    if (biased) inBlock(bias, biases, block_biases, -1);
  } else {
    const inHalves = (from: Float64Array, into: Uint16Array): void =>
      from.forEach((value, g) => {
        into[g] = encodeF16(value);
        from[g] = decodeF16(into[g] ?? 0);
      });
    inHalves(scale, scales);
    inHalves(bias, biases);
  }
  const quants = Int16Array.from({ length: values.length }, (_, i) => {
    const g = Math.floor(i / group);
    const [s, b] = [scale[g] ?? 0, bias[g] ?? 0];
    const q = s === 0 ? zero : Math.round((at(i) - b) / s) + zero;
    return Math.min(most, Math.max(bits === 8 ? -127 : 0, q));
  });
  return { quants, scales, biases, block_scales, block_biases };
}

export function writePlanes(parts: Integers, format: PackedFormat, layout: MatrixLayout): Uint8Array {
  const { shape, tileRows } = layout;
  const [rows, columns] = shape;
  const { planes, bytes } = placePlanes(format, shape, layout);
  const data = new Uint8Array(bytes);
  const view = new DataView(data.buffer);
  for (const plane of planes) {
    const runs = columns / plane.elements;
    for (let row = 0; row < rows; row++) {
      for (let run = 0; run < runs; run++) {
        const tile = Math.floor(row / tileRows);
        const to = plane.offset + ((tile * runs + run) * tileRows + (row % tileRows)) * plane.bytes;
        writeRun(view, to, plane, parts, row * columns + run * plane.elements, format.bits);
      }
    }
  }
  return data;
}

/** Writes what a plane holds of the elements from `from` on. */
function writeRun(
  view: DataView,
  to: number,
  plane: Plane,
  parts: Integers,
  from: number,
  bits: number,
): void {
  const { name, elements, bytes } = plane;
  const quant = (j: number): number => parts.quants[from + j] ?? 0;
  if (name === 'quants' && bits === 8) {
    for (let j = 0; j < 32; j++) view.setInt8(to + j, quant(j));
  } else if (name === 'quants') {
    for (let j = 0; j < 16; j++) view.setUint8(to + j, (quant(j) & 15) | ((quant(j + 16) & 15) << 4));
  } else if (name === 'high') {
    for (let bit = 4; bit < bits; bit++) {
      let word = 0;
      for (let j = 0; j < 32; j++) word |= ((quant(j) >> bit) & 1) << j;
      view.setUint32(to + (bit - 4) * 4, word >>> 0, true);
    }
  } else {
    const value = parts[name][from / elements] ?? 0;
    if (bytes === 1) view.setUint8(to, value);
    else view.setUint16(to, value, true);
  }
}

/** Takes one block of a GGML format apart: integers of its elements, from index `e` on, and what they share. */
interface BlockReader {
  readonly bytes: number;
  readonly elements: number;
  readonly read: (view: DataView, at: number, parts: Integers, e: number) => void;
}

/** Blocks of 32: f16 values, high bits, then bytes with two elements each; or 32 bytes. */
function blockOf32({ bits, bias }: { readonly bits: 4 | 5 | 8; readonly bias: boolean }): BlockReader {
  const header = bias ? 4 : 2;
  const quantsAt = header + (bits === 5 ? 4 : 0);
  return {
    elements: 32,
    bytes: quantsAt + (bits === 8 ? 32 : 16),
    read(view, at, { quants, scales, biases }, e) {
      scales[e / 32] = view.getUint16(at, true);
      if (bias) biases[e / 32] = view.getUint16(at + 2, true);
      const high = bits === 5 ? view.getUint32(at + header, true) : 0;
      for (let j = 0; j < 32; j++) {
        const low = (view.getUint8(at + quantsAt + (j % 16)) >> (j < 16 ? 0 : 4)) & 15;
        quants[e + j] = bits === 8 ? view.getInt8(at + quantsAt + j) : low | (((high >>> j) & 1) << 4);
      }
    },
  };
}

/** Blocks of 256 whose groups of 32 have 6-bit scales and minima. */
function blockOf256(bits: 4 | 5): BlockReader {
  const quantsAt = bits === 4 ? 16 : 48;
  return {
    elements: 256,
    bytes: quantsAt + 128,
    read(view, at, { quants, scales, biases, block_scales, block_biases }, e) {
      const byte = (i: number): number => view.getUint8(at + 4 + i);
      block_scales[e / 256] = view.getUint16(at, true);
      block_biases[e / 256] = view.getUint16(at + 2, true);
      for (let g = 0; g < 8; g++) {
        const upper = g < 4 ? 0 : byte(g - 4) >> 6;
        scales[e / 32 + g] = g < 4 ? byte(g) & 63 : (byte(g + 4) & 15) | (upper << 4);
        biases[e / 32 + g] = g < 4 ? byte(g + 4) & 63 : (byte(g + 4) >> 4) | ((byte(g) >> 6) << 4);
        for (let j = 0; j < 32; j++) {
          const low = (view.getUint8(at + quantsAt + (g >> 1) * 32 + j) >> (4 * (g & 1))) & 15;
          const high = bits === 4 ? 0 : (view.getUint8(at + 16 + j) >> g) & 1;
          quants[e + g * 32 + j] = low | (high << 4);
        }
      }
    },
  };
}

const q6k: BlockReader = {
  elements: 256,
  bytes: 210,
  read(view, at, { quants, scales, block_scales }, e) {
    block_scales[e / 256] = view.getUint16(at + 208, true);
    for (let g = 0; g < 16; g++) scales[e / 16 + g] = view.getUint8(at + 192 + g);
    for (let i = 0; i < 256; i++) {
      const [half, part, l] = [i >> 7, (i >> 5) & 3, i & 31];
      const low = (view.getUint8(at + half * 64 + (part & 1) * 32 + l) >> (4 * (part >> 1))) & 15;
      quants[e + i] = low | (((view.getUint8(at + 128 + half * 32 + l) >> (2 * part)) & 3) << 4);
    }
  },
};

const blockReaders: ReadonlyMap<string, BlockReader> = new Map([
  ['Q4_0', blockOf32({ bits: 4, bias: false })],
  ['Q4_1', blockOf32({ bits: 4, bias: true })],
  ['Q5_0', blockOf32({ bits: 5, bias: false })],
  ['Q5_1', blockOf32({ bits: 5, bias: true })],
  ['Q8_0', blockOf32({ bits: 8, bias: false })],
  ['Q4_K', blockOf256(4)],
  ['Q5_K', blockOf256(5)],
  ['Q6_K', q6k],
]);

function fromBlocks(stored: TensorEntry, { bytes, elements, read }: BlockReader): Integers {
  const raw = readTensorBytes(stored);
  const rowBytes = stored.bytes / (stored.shape[0] ?? 1);
  const ordered = stored.headRows === undefined ? raw : inHeadOrder(raw, stored.headRows, rowBytes);
  const view = new DataView(ordered.buffer, ordered.byteOffset, ordered.byteLength);
  const count = (ordered.byteLength / bytes) * elements;
  const parts: Integers = {
    quants: new Int16Array(count),
    scales: new Uint16Array(count / 16),
    biases: new Uint16Array(count / 32),
    block_scales: new Uint16Array(Math.ceil(count / 256)),
    block_biases: new Uint16Array(Math.ceil(count / 256)),
  };
  for (let block = 0; block * bytes < ordered.byteLength; block++)
    read(view, block * bytes, parts, block * elements);
  return parts;
}

/** The rows of whole heads: the even ones of a head, then the odd ones. */
function inHeadOrder(raw: Uint8Array, headRows: number, rowBytes: number): Uint8Array {
  const result = new Uint8Array(raw.length);
  for (let row = 0; row * rowBytes < raw.length; row++) {
    const within = row % headRows;
    const source = row - within + (within % (headRows / 2)) * 2 + Math.floor((2 * within) / headRows);
    result.set(raw.subarray(source * rowBytes, (source + 1) * rowBytes), row * rowBytes);
  }
  return result;
}

function encodeF16(value: number): number {
  const size = Math.abs(value);
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (size >= 65520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const steps = nearestEven(size / 2 ** (exponent - 10));
  return sign | (steps < 1024 ? steps : ((exponent + 14) << 10) + steps);
}

const scratch = new DataView(new ArrayBuffer(4));

function encodeBF16(value: number): number {
  scratch.setFloat32(0, value);
  const bits = scratch.getUint32(0);
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

function nearestEven(value: number): number {
  const low = Math.floor(value);
  const rest = value - low;
  return rest > 0.5 || (rest === 0.5 && low % 2 === 1) ? low + 1 : low;
}
