import { blockFormats, type BlockFormat } from './blocks.js';
import type { TensorEntry } from './stored.js';

/**
 * How a stored tensor becomes a weight: quantised blocks become f32, rows take the model's order, everything else stays
 * as it is. A whole number of units can be converted on its own, so a tensor need never be in memory whole.
 */
export interface Unpacking {
  /** Bytes in the file. */
  readonly unit: number;
  /** Bytes of the weight for `bytes` bytes in the file. */
  readonly sizeOf: (bytes: number) => number;
  /** May return `raw` itself. */
  readonly convert: (raw: Uint8Array) => Uint8Array;
}

export function unpacking({ dtype, shape, bytes, headRows }: TensorEntry): Unpacking {
  const format = blockFormats.get(dtype);
  const rows = shape[0] ?? 1;
  const ordered = (raw: Uint8Array): Uint8Array =>
    headRows === undefined ? raw : inOrder(raw, headRows, bytes / rows);
  return {
    unit: headRows === undefined ? (format?.bytes ?? 1) : headRows * (bytes / rows),
    sizeOf: (size) => (format ? (size / format.bytes) * format.elements * 4 : size),
    convert: (raw) => (format ? decoded(ordered(raw), format) : ordered(raw)),
  };
}

/** The rows of whole heads: the even ones of a head, then the odd ones. */
function inOrder(raw: Uint8Array, headRows: number, rowBytes: number): Uint8Array {
  const result = new Uint8Array(raw.length);
  const half = headRows / 2;
  for (let row = 0; row * rowBytes < raw.length; row++) {
    const within = row % headRows;
    const source = row - within + (within % half) * 2 + Math.floor(within / half);
    result.set(raw.subarray(source * rowBytes, (source + 1) * rowBytes), row * rowBytes);
  }
  return result;
}

function decoded(raw: Uint8Array, { elements, bytes, decode }: BlockFormat): Uint8Array {
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const blocks = raw.length / bytes;
  const values = new Float32Array(blocks * elements);
  for (let block = 0; block < blocks; block++) decode(view, block * bytes, values, block * elements);
  return new Uint8Array(values.buffer);
}
