import { z } from 'zod';
import { nearest, UserError } from '../diagnostic.js';
import { brief, isObject, jsonKind, quoted, regularFileSize, shown } from '../input-file.js';
import { storedDtypes } from './dtype.js';
import { readExactly, withFile } from './read.js';
import type { TensorEntry } from './stored.js';

/**
 * The safetensors format: a little-endian u64 (the header's length in bytes), the header (JSON: tensor name → dtype,
 * shape, byte range), then the data, which the tensors' ranges cover without gap or overlap. A file comes from the
 * network, so every claim of its header is checked against the file before anything relies on it.
 */

export interface SafetensorsFile {
  readonly file: string;
  /** By name, in the order of the data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

const lengthBytes = 8;
/** `{}` is the shortest header; the longest is the reference implementation's limit. */
const headerLimits = { min: 2, max: 100_000_000 };

const openingBrace = 0x7b;

const size = z.int('expected a whole number').min(0, 'expected a number of at least 0');
const tensorSchema = z.object(
  {
    dtype: z.string('expected the name of a dtype'),
    shape: z.array(size, 'expected a list of dimensions'),
    data_offsets: z.tuple([size, size], 'expected [begin, end]'),
  },
  'expected an object with dtype, shape and data_offsets',
);

/**
 * Reads the header of a safetensors file and checks it against the file; no tensor data is read.
 * @throws {UserError} when the file is missing, damaged or no safetensors file
 */
export function openSafetensors(file: string): SafetensorsFile {
  const fileBytes = regularFileSize(file);
  const { header, dataStart } = readHeader(file, fileBytes);
  const entries: TensorEntry[] = [];
  for (const [name, value] of Object.entries(parseHeader(file, header))) {
    if (name !== '__metadata__') entries.push(checkTensor(file, name, value, dataStart));
  }
  entries.sort((a, b) => a.offset - b.offset || a.bytes - b.bytes);
  checkCoverage(file, entries, dataStart, fileBytes);
  return { file, tensors: new Map(entries.map((entry) => [entry.name, entry])) };
}

function readHeader(file: string, fileBytes: number): { header: Uint8Array; dataStart: number } {
  if (fileBytes < lengthBytes + headerLimits.min) {
    throw damaged(file, `expected at least ${lengthBytes + headerLimits.min} bytes, found ${fileBytes}`);
  }
  return withFile(file, (fd) => {
    const prefix = readExactly(fd, file, 0, lengthBytes);
    // A clone without Git LFS leaves small text files in place of the weights.
    if (prefix.toString('latin1') === 'version ') {
      throw new UserError(`${shown(file)} is a Git LFS pointer, not the weights themselves`, {
        notes: ['run `git lfs pull` in the checkpoint folder, or download the file'],
      });
    }
    const claimed = prefix.readBigUInt64LE();
    const max = Math.min(headerLimits.max, fileBytes - lengthBytes);
    if (claimed < headerLimits.min || claimed > max) {
      throw damaged(
        file,
        `its header length is ${claimed}, expected ${headerLimits.min} to ${max}`,
        'it may be another kind of file, a web page saved in its place, or an incomplete download',
      );
    }
    const length = Number(claimed);
    return { header: readExactly(fd, file, lengthBytes, length), dataStart: lengthBytes + length };
  });
}

function parseHeader(file: string, bytes: Uint8Array): Record<string, unknown> {
  // Trailing spaces pad the header; nothing may stand before it.
  if (bytes[0] !== openingBrace) throw damaged(file, "its header does not begin with '{'");
  let header: unknown;
  try {
    header = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw damaged(file, 'its header is not valid JSON');
  }
  if (!isObject(header)) throw damaged(file, `its header should be a JSON object, found ${jsonKind(header)}`);
  return header;
}

function checkTensor(file: string, name: string, value: unknown, dataStart: number): TensorEntry {
  const wrong = (what: string, ...notes: string[]) =>
    damaged(file, `tensor ${quoted(name)}: ${what}`, ...notes);

  const parsed = tensorSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    const field = issue?.path.length ? `${issue.path.join('.')}: ` : '';
    throw wrong(`${field}${issue?.message ?? 'malformed'}`);
  }
  const { dtype, shape, data_offsets } = parsed.data;
  const [begin, end] = data_offsets;

  const stored = storedDtypes.get(dtype);
  if (!stored) {
    const guess = nearest(dtype.slice(0, 32), storedDtypes.keys());
    throw wrong(`unknown dtype ${quoted(dtype)}`, ...(guess === undefined ? [] : [`did you mean ${guess}?`]));
  }
  if (begin > end) throw wrong(`data_offsets [${begin}, ${end}] run backwards`);
  const bits = shape.reduce((product, dim) => product * dim, stored.bits);
  // A product that is no safe integer is larger than any file; as a float it still compares unequal.
  if (bits !== (end - begin) * 8) {
    throw wrong(
      `${dtype}[${brief(shape.slice(0, 32).join(', '))}] takes ${countBytes(bits / 8)}, but data_offsets ` +
        `[${begin}, ${end}] hold ${end - begin}`,
    );
  }
  return { name, dtype, shape, file, offset: dataStart + begin, bytes: end - begin };
}

/** `entries`, sorted by offset, must cover the data section exactly. */
function checkCoverage(
  file: string,
  entries: readonly TensorEntry[],
  dataStart: number,
  fileBytes: number,
): void {
  let end = dataStart;
  let previous: TensorEntry | undefined;
  for (const entry of entries) {
    if (entry.offset + entry.bytes > fileBytes) {
      throw damaged(
        file,
        `tensor ${quoted(entry.name)} ends at byte ${entry.offset + entry.bytes}, but the file has ${countBytes(fileBytes)}`,
        'the file is probably an incomplete download',
      );
    }
    if (entry.offset !== end) {
      const where = previous ? `after tensor ${quoted(previous.name)}` : 'at the beginning of the data';
      throw damaged(
        file,
        entry.offset < end
          ? `tensors ${quoted(previous?.name ?? '')} and ${quoted(entry.name)} overlap by ${countBytes(end - entry.offset)}`
          : `no tensor covers ${countBytes(entry.offset - end)} ${where}`,
      );
    }
    end = entry.offset + entry.bytes;
    previous = entry;
  }
  if (end !== fileBytes) {
    throw damaged(file, `no tensor covers ${countBytes(fileBytes - end)} at the end of the file`);
  }
}

function damaged(file: string, what: string, ...notes: string[]): UserError {
  return new UserError(`${shown(file)} is not a valid safetensors file: ${what}`, {
    notes: [...notes, 'download the file again, or export it again with safetensors'],
  });
}

function countBytes(count: number): string {
  if (!Number.isSafeInteger(Math.ceil(count))) return 'more bytes than any file has';
  return count === 1 ? '1 byte' : `${count} bytes`;
}
