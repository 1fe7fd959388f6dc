import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dump, float16ToFloat32, parse, type NpyArray } from 'npyjs';
import { UserError } from '../diagnostic.js';
import { ioReason, regularFileSize, shown } from '../input-file.js';

/** Element types of buffers by the names that `--buffer` takes, with NumPy's name; floats of 16 bits are kept as bits. */
export const elementTypes = {
  f32: { numpy: 'f4', array: Float32Array },
  f16: { numpy: 'f2', array: Uint16Array },
  bf16: { numpy: 'u2', array: Uint16Array },
  i8: { numpy: 'i1', array: Int8Array },
  u8: { numpy: 'u1', array: Uint8Array },
  i16: { numpy: 'i2', array: Int16Array },
  u16: { numpy: 'u2', array: Uint16Array },
  i32: { numpy: 'i4', array: Int32Array },
  u32: { numpy: 'u4', array: Uint32Array },
  i64: { numpy: 'i8', array: BigInt64Array },
  u64: { numpy: 'u8', array: BigUint64Array },
} as const;

export type ElementType = keyof typeof elementTypes;

/** A row-major array of a NumPy file. */
export interface NdArray {
  readonly type: ElementType;
  readonly shape: readonly number[];
  readonly data: InstanceType<(typeof elementTypes)[ElementType]['array']>;
}

/** An element as a number that people read: of a float as many digits as it takes. */
export function shownElement(type: ElementType, element: number | bigint): string {
  if (typeof element === 'bigint' || !['f32', 'f16', 'bf16'].includes(type)) return String(element);
  const value = type === 'f16' ? float16ToFloat32(element) : type === 'bf16' ? ofBfloat(element) : element;
  // With 9 digits every f32 is itself again; the other types are values of it.
  for (let digits = 1; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === value) return String(short);
  }
  return String(value);
}

const ofBfloat = (bits: number): number => new Float32Array(Uint32Array.of(bits << 16).buffer)[0] ?? NaN;

/** @throws {UserError} when the file is no whole `.npy` of this element type in row-major order */
export function readNpy(file: string, type: ElementType): NdArray {
  regularFileSize(file);
  const { numpy, array } = elementTypes[type];
  const { dtype, shape, fortranOrder, data } = parsed(file);
  if (dtype !== numpy)
    throw new UserError(`${shown(file)} has elements of type ${dtype}, not ${numpy} (${type})`, {
      notes: [`save it with numpy.save(file, x.astype('${numpy}'))`],
    });
  if (fortranOrder)
    throw new UserError(`${shown(file)} is column-major`, {
      notes: ['save it with numpy.save(file, numpy.ascontiguousarray(x))'],
    });
  const count = shape.reduce((product, dim) => product * dim, 1);
  if (data.byteLength !== count * array.BYTES_PER_ELEMENT)
    throw new UserError(
      `${shown(file)} holds ${data.byteLength} bytes of data, but its shape [${shape.join(', ')}] takes ${count * array.BYTES_PER_ELEMENT}`,
    );
  return { type, shape, data: new array(data.buffer as ArrayBuffer, data.byteOffset, count) };
}

function parsed(file: string): NpyArray {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new UserError(`cannot read ${shown(file)}: ${ioReason(error)}`);
  }
  try {
    // A copy of its own: the bytes of a small file lie inside a pool that Node shares.
    return parse(Uint8Array.from(bytes).buffer, { convertFloat16: false });
  } catch (error) {
    throw new UserError(`${shown(file)} is no NumPy array that can be read: ${ioReason(error)}`, {
      notes: ['expected a .npy file, as numpy.save writes it'],
    });
  }
}

/** Writes the file whole or not at all. @throws {UserError} when it cannot be written */
export function writeNpy(file: string, { type, shape, data }: NdArray): void {
  const part = `${file}.${process.pid}.part`;
  try {
    writeFileSync(part, Buffer.from(dump(data, [...shape], { dtype: elementTypes[type].numpy })));
    renameSync(part, file);
  } catch (error) {
    rmSync(part, { force: true });
    throw new UserError(`cannot write ${shown(file)}: ${ioReason(error)}`);
  }
}
