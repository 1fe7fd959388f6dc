import { decodeF16 } from '../../src/weights/dtype.js';

/** Writes GGUF files, from their specification alone. */

/** A value of the metadata with its type's number. */
export interface Entry {
  readonly type: number;
  readonly bytes: Uint8Array;
}

const of = (type: number, bytes: number, write: (view: DataView) => void): Entry => {
  const view = new DataView(new ArrayBuffer(bytes));
  write(view);
  return { type, bytes: new Uint8Array(view.buffer) };
};
export const u8 = (value: number): Entry => of(0, 1, (view) => view.setUint8(0, value));
export const i8 = (value: number): Entry => of(1, 1, (view) => view.setInt8(0, value));
export const u16 = (value: number): Entry => of(2, 2, (view) => view.setUint16(0, value, true));
export const i16 = (value: number): Entry => of(3, 2, (view) => view.setInt16(0, value, true));
export const u32 = (value: number): Entry => of(4, 4, (view) => view.setUint32(0, value, true));
export const i32 = (value: number): Entry => of(5, 4, (view) => view.setInt32(0, value, true));
export const f32 = (value: number): Entry => of(6, 4, (view) => view.setFloat32(0, value, true));
export const bool = (value: boolean): Entry => of(7, 1, (view) => view.setUint8(0, Number(value)));
export const u64 = (value: bigint): Entry => of(10, 8, (view) => view.setBigUint64(0, value, true));
export const i64 = (value: bigint): Entry => of(11, 8, (view) => view.setBigInt64(0, value, true));
export const f64 = (value: number): Entry => of(12, 8, (view) => view.setFloat64(0, value, true));
export const text = (value: string): Entry => ({ type: 8, bytes: lengthFirst(value) });

/** An array of entries of one type. */
export function array(entries: readonly Entry[], type = entries[0]?.type ?? 0): Entry {
  const head = [u32(type).bytes, u64(BigInt(entries.length)).bytes];
  return { type: 9, bytes: Buffer.concat([...head, ...entries.map(({ bytes }) => bytes)]) };
}

function lengthFirst(value: string): Uint8Array {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(BigInt(bytes.length)).bytes, bytes]);
}

/** The numbers of the types of tensors. */
export const typeNumbers = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q4_1: 3,
  Q5_0: 6,
  Q5_1: 7,
  Q8_0: 8,
  Q4_K: 12,
  Q5_K: 13,
  Q6_K: 14,
  BF16: 30,
} as const;

export interface TensorToWrite {
  readonly name: string;
  readonly type: number;
  /** Row-major: the row length last. */
  readonly shape: readonly number[];
  readonly data: Uint8Array;
  /** By default after the tensor before, aligned. */
  readonly offset?: number;
}

export interface GgufToWrite {
  readonly version?: number;
  readonly metadata?: Readonly<Record<string, Entry>>;
  readonly tensors?: readonly TensorToWrite[];
  readonly alignment?: number;
}

export function ggufBytes({ version = 3, metadata = {}, tensors = [], alignment = 32 }: GgufToWrite): Buffer {
  const entries = Object.entries(metadata);
  const header = [
    Buffer.from('GGUF'),
    u32(version).bytes,
    u64(BigInt(tensors.length)).bytes,
    u64(BigInt(entries.length)).bytes,
    ...entries.flatMap(([key, { type, bytes }]) => [lengthFirst(key), u32(type).bytes, bytes]),
  ];
  const data: Uint8Array[] = [];
  let end = 0;
  for (const tensor of tensors) {
    const offset = tensor.offset ?? end;
    header.push(
      lengthFirst(tensor.name),
      u32(tensor.shape.length).bytes,
      ...[...tensor.shape].reverse().map((dimension) => u64(BigInt(dimension)).bytes),
      u32(tensor.type).bytes,
      u64(BigInt(offset)).bytes,
    );
    const padding = -tensor.data.length & (alignment - 1);
    data.push(tensor.data, new Uint8Array(padding));
    end += tensor.data.length + padding;
  }
  const whole = Buffer.concat(header);
  return Buffer.concat([whole, new Uint8Array(-whole.length & (alignment - 1)), ...data]);
}

/** A tensor's bytes and the values that they stand for. */
export interface Encoded {
  readonly bytes: Uint8Array;
  readonly values: readonly number[];
}

/** Whole numbers from 0 up to and without `end`. */
export type Draw = (end: number) => number;

/** A finite f16, its bits and its value. */
function half(draw: Draw): { bits: number; value: number } {
  const bits = (draw(2) << 15) | (draw(31) << 10) | draw(1024);
  return { bits, value: decodeF16(bits) };
}

const two = (bits: number): number[] => [bits & 255, bits >> 8];
const many = (count: number, make: () => number): number[] => Array.from({ length: count }, make);
const at = (values: readonly number[], i: number): number => values[i] ?? NaN;
/** The low 4 bits of one element and those of another in a byte. */
const pair = (low: number, high: number): number => (low & 15) | ((high & 15) << 4);

/** A block of 32 with elements of `bits` bits: q · d, or q · d + m. */
function block32(draw: Draw, bits: 4 | 5, withMinimum: boolean): Encoded {
  const [d, m] = [half(draw), half(draw)];
  const q = many(32, () => draw(1 << bits));
  const fifth = q.reduce((mask, value, i) => mask | ((value >> 4) << i), 0);
  return {
    bytes: Uint8Array.from([
      ...two(d.bits),
      ...(withMinimum ? two(m.bits) : []),
      ...(bits === 5 ? [0, 8, 16, 24].map((shift) => (fifth >>> shift) & 255) : []),
      ...many(16, () => 0).map((_, i) => pair(at(q, i), at(q, i + 16))),
    ]),
    values: q.map((value) =>
      Math.fround(withMinimum ? value * d.value + m.value : (value - (1 << (bits - 1))) * d.value),
    ),
  };
}

/** A block of 256 in 8 parts with a scale and a minimum of 6 bits each: q · (scale · d) - minimum · m. */
function block256(draw: Draw, bits: 4 | 5): Encoded {
  const [d, m] = [half(draw), half(draw)];
  const q = many(256, () => draw(1 << bits));
  const scales = many(8, () => draw(64));
  const minima = many(8, () => draw(64));
  const packed = many(12, () => 0).map((_, i) => {
    if (i < 4) return at(scales, i) | ((at(scales, i + 4) >> 4) << 6);
    if (i < 8) return at(minima, i - 4) | ((at(minima, i) >> 4) << 6);
    return pair(at(scales, i - 4), at(minima, i - 4));
  });
  // Byte l has bit 4 of element l of every part.
  const fifth = many(32, () => 0).map((_, l) =>
    scales.reduce((byte, _scale, part) => byte | ((at(q, part * 32 + l) >> 4) << part), 0),
  );
  const low = many(128, () => 0).map((_, i) => {
    const first = (i >> 5) * 64 + (i & 31);
    return pair(at(q, first), at(q, first + 32));
  });
  return {
    bytes: Uint8Array.from([...two(d.bits), ...two(m.bits), ...packed, ...(bits === 5 ? fifth : []), ...low]),
    values: q.map((value, i) => {
      const scale = Math.fround(d.value * at(scales, i >> 5));
      const minimum = Math.fround(m.value * at(minima, i >> 5));
      return Math.fround(Math.fround(scale * value) - minimum);
    }),
  };
}

/** A block of 256 in 16 parts with a scale of 8 bits each: (q - 32) · (scale · d). */
function blockQ6K(draw: Draw): Encoded {
  const d = half(draw);
  const q = many(256, () => draw(64));
  const scales = many(16, () => draw(256) - 128);
  const low = many(128, () => 0).map((_, i) => {
    const first = (i >> 6) * 128 + (i & 63);
    return pair(at(q, first), at(q, first + 64));
  });
  const high = many(64, () => 0).map((_, i) => {
    const first = (i >> 5) * 128 + (i & 31);
    return [0, 1, 2, 3].reduce((byte, part) => byte | ((at(q, first + part * 32) >> 4) << (2 * part)), 0);
  });
  return {
    bytes: Uint8Array.from([...low, ...high, ...scales.map((scale) => scale & 255), ...two(d.bits)]),
    values: q.map((value, i) => Math.fround(Math.fround(d.value * at(scales, i >> 4)) * (value - 32))),
  };
}

function blockQ8(draw: Draw): Encoded {
  const d = half(draw);
  const q = many(32, () => draw(256) - 128);
  return {
    bytes: Uint8Array.from([...two(d.bits), ...q.map((value) => value & 255)]),
    values: q.map((value) => Math.fround(value * d.value)),
  };
}

function plain(draw: Draw, type: 'F32' | 'F16' | 'BF16'): Encoded {
  if (type === 'F16') {
    const { bits, value } = half(draw);
    return { bytes: Uint8Array.from(two(bits)), values: [value] };
  }
  const value = Math.fround((draw(2 ** 24) - 2 ** 23) * 2 ** -20);
  const bytes = f32(value).bytes;
  if (type === 'F32') return { bytes, values: [value] };
  const upper = Uint8Array.from([0, 0, at([...bytes], 2), at([...bytes], 3)]);
  return { bytes: upper.subarray(2), values: [new DataView(upper.buffer).getFloat32(0, true)] };
}

/** The smallest whole piece of a tensor of that type, with random contents. */
export function randomBlock(type: keyof typeof typeNumbers, draw: Draw): Encoded {
  switch (type) {
    case 'Q4_0':
      return block32(draw, 4, false);
    case 'Q4_1':
      return block32(draw, 4, true);
    case 'Q5_0':
      return block32(draw, 5, false);
    case 'Q5_1':
      return block32(draw, 5, true);
    case 'Q8_0':
      return blockQ8(draw);
    case 'Q4_K':
      return block256(draw, 4);
    case 'Q5_K':
      return block256(draw, 5);
    case 'Q6_K':
      return blockQ6K(draw);
    case 'F32':
    case 'F16':
    case 'BF16':
      return plain(draw, type);
  }
}

/** A tensor of random contents: `shape` with the row length in blocks. */
export function randomTensor(
  name: string,
  type: keyof typeof typeNumbers,
  shape: readonly number[],
  draw: Draw,
): TensorToWrite & Encoded {
  const blocks = Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => randomBlock(type, draw));
  const values = blocks.flatMap((block) => block.values);
  const perBlock = values.length / blocks.length;
  const bytes = Buffer.concat(blocks.map((block) => block.bytes));
  return {
    name,
    type: typeNumbers[type],
    shape: shape.map((dimension, i) => (i === shape.length - 1 ? dimension * perBlock : dimension)),
    data: bytes,
    bytes,
    values,
  };
}
