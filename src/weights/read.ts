import { closeSync, openSync, readSync } from 'node:fs';
import { Unsupported, UserError } from '../diagnostic.js';
import { ioReason, quoted, shown } from '../input-file.js';
import { storedDtypes } from './dtype.js';
import type { TensorEntry } from './stored.js';

/**
 * Reads a tensor's values, row-major, converted exactly.
 * @returns as many elements as the shape has
 * @throws {Unsupported} for a dtype that float64 cannot hold exactly or that has no decoder here
 * @throws {UserError} when the file can no longer be read
 */
export function readTensor(entry: TensorEntry): Float64Array {
  const dtype = storedDtypes.get(entry.dtype);
  if (!dtype?.read) {
    throw new Unsupported(
      `cannot read the values of tensor ${quoted(entry.name)}: its dtype is ${entry.dtype}`,
      {
        notes: [`in ${shown(entry.file)}`, `readable dtypes: ${readableDtypes().join(', ')}`],
      },
    );
  }
  const data = readTensorBytes(entry);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const stride = dtype.bits / 8;
  const values = new Float64Array(data.byteLength / stride);
  for (let i = 0; i < values.length; i++) values[i] = dtype.read(view, i * stride);
  return values;
}

/** A tensor's bytes as they lie in its file. @throws {UserError} when the file can no longer be read */
export function readTensorBytes(entry: TensorEntry): Uint8Array {
  return withFile(entry.file, (fd) => readExactly(fd, entry.file, entry.offset, entry.bytes));
}

export function withFile<T>(file: string, use: (fd: number) => T): T {
  let fd: number;
  try {
    fd = openSync(file, 'r');
  } catch (error) {
    throw new UserError(`cannot read ${shown(file)}: ${ioReason(error)}`);
  }
  try {
    return use(fd);
  } finally {
    closeSync(fd);
  }
}

export function readExactly(fd: number, file: string, offset: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  // One read call moves at most 2 GiB.
  const chunk = 2 ** 30;
  for (let done = 0; done < bytes;) {
    let count: number;
    try {
      count = readSync(fd, buffer, done, Math.min(chunk, bytes - done), offset + done);
    } catch (error) {
      throw new UserError(`cannot read ${shown(file)}: ${ioReason(error)}`);
    }
    if (count === 0) {
      throw new UserError(
        `cannot read ${shown(file)}: it ends at byte ${offset + done}, expected ${bytes - done} more`,
        {
          notes: ['the file became shorter while it was in use'],
        },
      );
    }
    done += count;
  }
  return buffer;
}

function readableDtypes(): string[] {
  return [...storedDtypes].filter(([, dtype]) => dtype.read).map(([name]) => name);
}
