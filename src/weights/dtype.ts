/** A number format that checkpoints store tensors in. */
export interface StoredDtype {
  /** Bits per element. */
  readonly bits: number;
  /** Reads the element at a byte offset, exactly; absent where nothing here needs the values. */
  readonly read?: (view: DataView, offset: number) => number;
}

/** The dtypes of the safetensors format, by the name that files give them. A Map: names come from files. */
export const storedDtypes: ReadonlyMap<string, StoredDtype> = new Map<string, StoredDtype>([
  ['BOOL', { bits: 8 }],
  ['F4', { bits: 4 }],
  ['F6_E2M3', { bits: 6 }],
  ['F6_E3M2', { bits: 6 }],
  ['U8', { bits: 8, read: (view, offset) => view.getUint8(offset) }],
  ['I8', { bits: 8, read: (view, offset) => view.getInt8(offset) }],
  ['F8_E5M2', { bits: 8 }],
  ['F8_E4M3', { bits: 8 }],
  ['F8_E8M0', { bits: 8 }],
  ['F8_E4M3FNUZ', { bits: 8 }],
  ['F8_E5M2FNUZ', { bits: 8 }],
  ['I16', { bits: 16, read: (view, offset) => view.getInt16(offset, true) }],
  ['U16', { bits: 16, read: (view, offset) => view.getUint16(offset, true) }],
  ['F16', { bits: 16, read: (view, offset) => decodeF16(view.getUint16(offset, true)) }],
  ['BF16', { bits: 16, read: (view, offset) => decodeBF16(view.getUint16(offset, true)) }],
  ['I32', { bits: 32, read: (view, offset) => view.getInt32(offset, true) }],
  ['U32', { bits: 32, read: (view, offset) => view.getUint32(offset, true) }],
  ['F32', { bits: 32, read: (view, offset) => view.getFloat32(offset, true) }],
  ['C64', { bits: 64 }],
  ['F64', { bits: 64, read: (view, offset) => view.getFloat64(offset, true) }],
  ['I64', { bits: 64 }],
  ['U64', { bits: 64 }],
]);

/** The value of an IEEE binary16 bit pattern; exact, subnormals, infinities and NaN included. */
export function decodeF16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const scratch = new DataView(new ArrayBuffer(4));

/** The value of a bfloat16 bit pattern, which is the upper half of a binary32; exact. */
export function decodeBF16(bits: number): number {
  scratch.setUint32(0, bits << 16);
  return scratch.getFloat32(0);
}
