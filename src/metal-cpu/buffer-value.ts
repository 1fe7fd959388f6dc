import { UserError } from '../diagnostic.js';

/**
 * What a buffer parameter points to: an array, whose bytes the kernel reads and writes in place; or a number for a
 * parameter that points to one scalar, like `constant uint& n`.
 */
export type BufferValue = ArrayBufferView | number | bigint | boolean;

interface Scalar {
  readonly bytes: number;
  /** The least and the greatest whole number; undefined for floats. */
  readonly range?: readonly [bigint, bigint];
  write(view: DataView, value: number | bigint): void;
}

function integer(bits: 8 | 16 | 32 | 64, signed: boolean): Scalar {
  const least = signed ? -(1n << BigInt(bits - 1)) : 0n;
  return {
    bytes: bits / 8,
    range: [least, least + (1n << BigInt(bits)) - 1n],
    write: (view, value) => {
      const raw = new DataView(new ArrayBuffer(8));
      raw.setBigInt64(0, BigInt(value), true);
      for (let i = 0; i < bits / 8; i++) view.setUint8(i, raw.getUint8(i));
    },
  };
}

/** MSL's scalar types that a number can stand for. Other pointees take arrays. */
const scalars: ReadonlyMap<string, Scalar> = new Map([
  ['bool', integer(8, false)],
  ['char', integer(8, true)],
  ['int8_t', integer(8, true)],
  ['uchar', integer(8, false)],
  ['uint8_t', integer(8, false)],
  ['short', integer(16, true)],
  ['int16_t', integer(16, true)],
  ['ushort', integer(16, false)],
  ['uint16_t', integer(16, false)],
  ['int', integer(32, true)],
  ['int32_t', integer(32, true)],
  ['uint', integer(32, false)],
  ['uint32_t', integer(32, false)],
  ['unsigned', integer(32, false)],
  ['long', integer(64, true)],
  ['int64_t', integer(64, true)],
  ['ulong', integer(64, false)],
  ['uint64_t', integer(64, false)],
  ['size_t', integer(64, false)],
  ['float', { bytes: 4, write: (view, value) => view.setFloat32(0, Number(value), true) }],
]);

/** A value as errors show it. */
export const shownValue = (value: unknown): string =>
  typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean'
    ? String(value)
    : Object.prototype.toString.call(value).slice('[object '.length, -1);

/**
 * The bytes of a value for a parameter `what` that points to `type`. Those of an array are shared with it.
 * @throws {UserError} when the value is a number that the type cannot hold
 */
export function bytesOf(value: BufferValue, type: string, what: string): Uint8Array {
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
  const scalar = scalars.get(type);
  if (!scalar || !['number', 'bigint', 'boolean'].includes(typeof value))
    throw new UserError(
      `${what} points to ${type}: give a typed array or a DataView, not ${shownValue(value)}`,
      {
        notes: ['a number stands for a bool, an integer or a float'],
      },
    );
  const number = typeof value === 'boolean' ? Number(value) : value;
  const { range } = scalar;
  if (range) {
    const whole = typeof number === 'bigint' || Number.isInteger(number) ? BigInt(number) : undefined;
    if (whole === undefined || whole < range[0] || whole > range[1])
      throw new UserError(
        `${what} must be a whole number from ${range[0]} to ${range[1]} (${type}), not ${number}`,
      );
  }
  const bytes = new Uint8Array(scalar.bytes);
  scalar.write(new DataView(bytes.buffer), number);
  return bytes;
}
