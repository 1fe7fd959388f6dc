import { closeSync, openSync, readSync } from 'node:fs';
import { Unsupported, UserError } from '../diagnostic.js';
import { ioReason, quoted, shown } from '../input-file.js';
import { blockFormats } from './blocks.js';
import { storedDtypes } from './dtype.js';
import type { TensorEntry } from './stored.js';
import { unpacking } from './unpack.js';

/**
 * Reads a tensor's values, row-major, converted exactly; those of quantised blocks as f32 arithmetic gives them.
 * @returns as many elements as the shape has
 * @throws {Unsupported} for a dtype that float64 cannot hold exactly or that has no decoder here
 * @throws {UserError} when the file can no longer be read
 */
export function readTensor(entry: TensorEntry): Float64Array {
  const blocks = blockFormats.has(entry.dtype);
  const dtype = storedDtypes.get(blocks ? 'F32' : entry.dtype);
  if (!dtype?.read) {
    throw new Unsupported(
      `cannot read the values of tensor ${quoted(entry.name)}: its dtype is ${entry.dtype}`,
      {
        notes: [`in ${shown(entry.file)}`, `readable dtypes: ${readableDtypes().join(', ')}`],
      },
    );
  }
  const data = unpacking(entry).convert(readTensorBytes(entry));
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

/**
 * Reads a matrix the other way round: the bytes of its elements, column by column; quantised blocks as f32.
 * @throws {UserError} when the file can no longer be read
 */
export function readTransposed(entry: TensorEntry): Uint8Array {
  const [rows = 0, columns = 0] = entry.shape;
  const stored = entry.columnsFirst ? { ...entry, shape: entry.shape.toReversed() } : entry;
  const data = unpacking(stored).convert(readTensorBytes(stored));
  if (entry.columnsFirst) return data;
  const size = data.byteLength / (rows * columns);
  const turned = new Uint8Array(data.byteLength);
  let to = 0;
  for (let column = 0; column < columns; column++) {
    for (let row = 0; row < rows; row++) {
      const from = (row * columns + column) * size;
      for (let byte = 0; byte < size; byte++) turned[to++] = data[from + byte] ?? 0;
    }
  }
  return turned;
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
