import { randomBytes } from 'node:crypto';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { CompilerBug, UserError } from '../diagnostic.js';
import { ioReason, shown } from '../input-file.js';
import type { TensorEntry } from './stored.js';
import { unpacking } from './unpack.js';

/** One weight of weights.bin: `bytes` bytes at byte `offset`, copied from a checkpoint or computed. */
export interface PackedWeight {
  readonly offset: number;
  readonly bytes: number;
  /**
   * A tensor is copied as stored; quantised blocks become f32. `compute` is called once, when its turn comes, so its
   * result need not be kept.
   */
  readonly source: TensorEntry | { compute(): Uint8Array };
}

/** The size of the one copy buffer: large enough that the disk, not the calls, sets the pace. */
const bufferBytes = 8 * 2 ** 20;

/**
 * Writes weights.bin: `total` bytes, the weights of `layout` at their offsets, zeros between. The file appears whole
 * or not at all: it is written under a temporary name in the same folder, synced, then renamed.
 * @param onProgress after every write: weight bytes written so far and in all
 * @throws {UserError} when a checkpoint file ends early or cannot be read, or the output cannot be written
 */
export async function packWeights(
  file: string,
  layout: readonly PackedWeight[],
  total: number,
  onProgress?: (bytesDone: number, bytesTotal: number) => void,
): Promise<void> {
  checkLayout(layout, total);
  const temporary = `${file}.${randomBytes(6).toString('hex')}.partial`;
  const sources = new Map<string, FileHandle>();
  const bytesTotal = layout.reduce((sum, weight) => sum + weight.bytes, 0);
  let bytesDone = 0;
  let output: FileHandle | undefined;
  try {
    const target = (output = await writing(file, () => open(temporary, 'wx')));
    // What is never written reads as zero: that is the padding.
    await writing(file, () => target.truncate(total));
    const write = async (data: Uint8Array, offset: number) => {
      await writing(file, () => writeAll(target, data, offset));
      bytesDone += data.length;
      onProgress?.(bytesDone, bytesTotal);
    };

    let buffer = Buffer.allocUnsafe(Math.min(bufferBytes, bytesTotal));
    // Rows are put in order a head at a time, and a head may be larger than the buffer.
    const bufferOf = (size: number): Buffer => {
      if (size > buffer.length) buffer = Buffer.allocUnsafe(size);
      return buffer.subarray(0, size);
    };
    for (const weight of layout) {
      for await (const [data, at] of contents(weight, sources, bufferOf))
        await write(data, weight.offset + at);
    }
    await writing(file, () => target.sync());
    await writing(file, () => target.close());
    output = undefined;
    await writing(file, () => rename(temporary, file));
  } catch (error) {
    await output?.close().catch(() => undefined);
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  } finally {
    await Promise.all([...sources.values()].map((handle) => handle.close()));
  }
}

/** The bytes of a weight in order, in pieces of about `bufferBytes` at most, each with its offset within the weight. */
async function* contents(
  weight: PackedWeight,
  sources: Map<string, FileHandle>,
  bufferOf: (size: number) => Buffer,
): AsyncGenerator<[Uint8Array, number]> {
  const { source, bytes } = weight;
  if ('compute' in source) {
    const data = source.compute();
    if (data.length !== bytes) {
      throw new CompilerBug(`a computed weight has ${data.length} bytes, planned were ${bytes}`);
    }
    for (let at = 0; at < bytes; at += bufferBytes) yield [data.subarray(at, at + bufferBytes), at];
    return;
  }
  const { unit, sizeOf, convert } = unpacking(source);
  const units = Math.max(1, Math.floor(bufferBytes / Math.max(unit, sizeOf(unit))));
  let done = 0;
  for (let at = 0; at < source.bytes;) {
    const buffer = bufferOf(Math.min(units * unit, source.bytes - at));
    await fill(buffer, source, at, sources);
    const data = convert(buffer);
    yield [data, done];
    done += data.length;
    at += buffer.length;
  }
}

/** Fills `buffer` with the bytes of a tensor from its byte `at` on. */
async function fill(
  buffer: Buffer,
  source: TensorEntry,
  at: number,
  sources: Map<string, FileHandle>,
): Promise<void> {
  const handle = sources.get(source.file) ?? (await reading(source, () => open(source.file, 'r')));
  sources.set(source.file, handle);
  for (let done = 0; done < buffer.length;) {
    const from = source.offset + at + done;
    const { bytesRead } = await reading(source, () => handle.read(buffer, done, buffer.length - done, from));
    if (bytesRead === 0) {
      throw new UserError(
        `cannot read tensor ${JSON.stringify(source.name)}: ${shown(source.file)} ends at byte ` +
          `${from}, expected ${source.bytes - at - done} more`,
        { notes: ['the file changed while it was in use, or its download is incomplete: download it again'] },
      );
    }
    done += bytesRead;
  }
}

function checkLayout(layout: readonly PackedWeight[], total: number): void {
  let end = 0;
  for (const { offset, bytes, source } of [...layout].sort(
    (a, b) => a.offset - b.offset || a.bytes - b.bytes,
  )) {
    if (offset < end) throw new CompilerBug(`weights overlap at byte ${offset} of weights.bin`);
    end = offset + bytes;
    if ('compute' in source) continue;
    const size = unpacking(source).sizeOf(source.bytes);
    if (size !== bytes) {
      throw new CompilerBug(`tensor ${source.name} has ${size} bytes, planned were ${bytes}`);
    }
  }
  if (end > total) throw new CompilerBug(`weights end at byte ${end}, but weights.bin has ${total}`);
}

async function writeAll(handle: FileHandle, data: Uint8Array, offset: number): Promise<void> {
  for (let done = 0; done < data.length;) {
    const { bytesWritten } = await handle.write(data, done, data.length - done, offset + done);
    done += bytesWritten;
  }
}

async function reading<T>(source: TensorEntry, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new UserError(`cannot read ${shown(source.file)}: ${ioReason(error)}`);
  }
}

async function writing<T>(file: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw new UserError(`cannot write ${shown(file)}: ${ioReason(error)}`);
  }
}
