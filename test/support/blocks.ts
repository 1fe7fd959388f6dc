import { decodeF16 } from '../../src/weights/dtype.js';
import { readTensor, readTensorBytes } from '../../src/weights/read.js';
import type { TensorEntry } from '../../src/weights/stored.js';

/**
 * The quantised formats of GGML that can be read. A row is a whole number of blocks; a block holds its elements as small
 * integers q with scales d and minima m, as f16. All values are those of GGML's own f32 arithmetic, bit for bit: products
 * of such few bits are exact, so only the difference or sum with a minimum rounds, once, when it is stored as f32.
 */
export interface BlockFormat {
  readonly elements: number;
  readonly bytes: number;
  /** Decodes the block at a byte offset into `out` from the index `to` on. */
  readonly decode: (view: DataView, offset: number, out: Float32Array, to: number) => void;
}

const f16 = (view: DataView, offset: number): number => decodeF16(view.getUint16(offset, true));

/** Blocks of 32: the low halves of 16 bytes are the first 16 elements, the high halves the others. */
const blocksOf32 = {
  Q4_0: {
    elements: 32,
    bytes: 18,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      for (let j = 0; j < 16; j++) {
        const byte = view.getUint8(offset + 2 + j);
        out[to + j] = ((byte & 15) - 8) * d;
        out[to + j + 16] = ((byte >> 4) - 8) * d;
      }
    },
  },
  Q4_1: {
    elements: 32,
    bytes: 20,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      const m = f16(view, offset + 2);
      for (let j = 0; j < 16; j++) {
        const byte = view.getUint8(offset + 4 + j);
        out[to + j] = (byte & 15) * d + m;
        out[to + j + 16] = (byte >> 4) * d + m;
      }
    },
  },
  Q5_0: {
    elements: 32,
    bytes: 22,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      const high = view.getUint32(offset + 2, true);
      for (let j = 0; j < 16; j++) {
        const byte = view.getUint8(offset + 6 + j);
        out[to + j] = (((byte & 15) | (((high >>> j) & 1) << 4)) - 16) * d;
        out[to + j + 16] = (((byte >> 4) | (((high >>> (j + 16)) & 1) << 4)) - 16) * d;
      }
    },
  },
  Q5_1: {
    elements: 32,
    bytes: 24,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      const m = f16(view, offset + 2);
      const high = view.getUint32(offset + 4, true);
      for (let j = 0; j < 16; j++) {
        const byte = view.getUint8(offset + 8 + j);
        out[to + j] = ((byte & 15) | (((high >>> j) & 1) << 4)) * d + m;
        out[to + j + 16] = ((byte >> 4) | (((high >>> (j + 16)) & 1) << 4)) * d + m;
      }
    },
  },
  Q8_0: {
    elements: 32,
    bytes: 34,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      for (let j = 0; j < 32; j++) out[to + j] = view.getInt8(offset + 2 + j) * d;
    },
  },
} satisfies Record<string, BlockFormat>;

/** The scale and the minimum, of 6 bits each, of the j-th 32 elements of a K block: packed into 12 bytes. */
function scaleAndMinimum(view: DataView, offset: number, j: number): [number, number] {
  const at = (i: number): number => view.getUint8(offset + i);
  if (j < 4) return [at(j) & 63, at(j + 4) & 63];
  return [(at(j + 4) & 15) | ((at(j - 4) >> 6) << 4), (at(j + 4) >> 4) | ((at(j) >> 6) << 4)];
}

/** Blocks of 256, whose parts have scales of their own. */
const blocksOf256 = {
  Q4_K: {
    elements: 256,
    bytes: 144,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      const min = f16(view, offset + 2);
      for (let j = 0; j < 8; j++) {
        const [scale, m] = scaleAndMinimum(view, offset + 4, j);
        // Two parts share 32 bytes: the low halves, then the high ones.
        const bytes = offset + 16 + (j >> 1) * 32;
        for (let l = 0; l < 32; l++) {
          const q = (view.getUint8(bytes + l) >> (4 * (j & 1))) & 15;
          out[to + j * 32 + l] = d * scale * q - min * m;
        }
      }
    },
  },
  Q5_K: {
    elements: 256,
    bytes: 176,
    decode(view, offset, out, to) {
      const d = f16(view, offset);
      const min = f16(view, offset + 2);
      for (let j = 0; j < 8; j++) {
        const [scale, m] = scaleAndMinimum(view, offset + 4, j);
        const bytes = offset + 48 + (j >> 1) * 32;
        for (let l = 0; l < 32; l++) {
          const low = (view.getUint8(bytes + l) >> (4 * (j & 1))) & 15;
          // Bit j of the high byte l belongs to part j.
          const q = low | (((view.getUint8(offset + 16 + l) >> j) & 1) << 4);
          out[to + j * 32 + l] = d * scale * q - min * m;
        }
      }
    },
  },
  Q6_K: {
    elements: 256,
    bytes: 210,
    decode(view, offset, out, to) {
      const d = f16(view, offset + 208);
      for (let i = 0; i < 256; i++) {
        // Each half of 128: four parts of 32, of which the last two are the high halves of the first two's bytes.
        const half = i >> 7;
        const part = (i >> 5) & 3;
        const l = i & 31;
        const low = (view.getUint8(offset + half * 64 + (part & 1) * 32 + l) >> (4 * (part >> 1))) & 15;
        const high = (view.getUint8(offset + 128 + half * 32 + l) >> (2 * part)) & 3;
        const scale = view.getInt8(offset + 192 + (i >> 4));
        out[to + i] = d * scale * ((low | (high << 4)) - 32);
      }
    },
  },
} satisfies Record<string, BlockFormat>;

/** A Map: names come from files. */
export const blockFormats: ReadonlyMap<string, BlockFormat> = new Map(
  Object.entries({ ...blocksOf32, ...blocksOf256 }),
);

/** The values of a stored tensor, row-major, in the model's order of rows: what the packer has to arrive at. */
export function readValues(entry: TensorEntry): Float64Array {
  const format = blockFormats.get(entry.dtype);
  if (!format) return inOrder(readTensor(entry), entry);
  const raw = readTensorBytes(entry);
  const view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength);
  const blocks = raw.length / format.bytes;
  const values = new Float32Array(blocks * format.elements);
  for (let block = 0; block < blocks; block++)
    format.decode(view, block * format.bytes, values, block * format.elements);
  return inOrder(Float64Array.from(values), entry);
}

/** Rows of heads: the even ones of a head, then the odd ones. */
function inOrder(values: Float64Array, { headRows, shape: [rows = 1] }: TensorEntry): Float64Array {
  if (headRows === undefined) return values;
  const columns = values.length / rows;
  const half = headRows / 2;
  return values.map((_, i) => {
    const row = Math.floor(i / columns);
    const within = row % headRows;
    const source = row - within + (within % half) * 2 + Math.floor(within / half);
    return values[source * columns + (i % columns)] ?? NaN;
  });
}
