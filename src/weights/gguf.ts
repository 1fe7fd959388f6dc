import { Unsupported, UserError } from '../diagnostic.js';
import { quoted, regularFileSize, shown } from '../input-file.js';
import { blockFormats } from './blocks.js';
import { storedDtypes } from './dtype.js';
import { readExactly, withFile } from './read.js';
import type { TensorEntry } from './stored.js';

/**
 * The GGUF format, little-endian throughout: magic, version, the numbers of tensors and of metadata entries; the
 * metadata (key, type, value); the tensors (name, dimensions with the row length first, type, offset within the data);
 * then, from the next multiple of the alignment, the data. A file comes from the network, so every claim of its header
 * is checked against the file before anything relies on it: an array that is longer than the rest of the file is
 * refused before a byte of it is allocated.
 */
export interface GgufFile {
  readonly file: string;
  readonly metadata: ReadonlyMap<string, MetadataValue>;
  /** By name, with the file's own names and types, in the order of the data. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

/** Whole numbers are numbers where those hold them exactly. */
export type MetadataValue = string | number | bigint | boolean | MetadataArray;
export type MetadataArray =
  | readonly string[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | BigUint64Array
  | BigInt64Array
  | Float64Array;

/** A file, or bytes in its place. */
export interface ByteSource {
  readonly name: string;
  readonly size: number;
  /** `offset` + `length` is at most `size`. */
  readonly read: (offset: number, length: number) => Uint8Array;
}

/** The longest header that is read; that of a vocabulary of 250,000 pieces is about 12 MB. */
const maxHeaderBytes = 128 * 2 ** 20;
/** What one read takes at least. */
const windowBytes = 256 * 2 ** 10;
const limits = { keyBytes: 65535, nameBytes: 1024, dimensions: 4, strings: 2 ** 24, alignment: 2 ** 20 };
/** The fewest bytes that an entry of the metadata, and a tensor's, can take. */
const leastBytes = { metadata: 13, tensor: 24 };

/** The types of tensors by their number. Those that neither table of formats has can be named, but not read. */
const tensorTypes: ReadonlyMap<number, string> = new Map(
  Object.entries({
    0: 'F32 F16 Q4_0 Q4_1',
    6: 'Q5_0 Q5_1 Q8_0 Q8_1 Q2_K Q3_K Q4_K Q5_K Q6_K Q8_K',
    16: 'IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ2_S IQ4_XS I8 I16 I32 I64 F64 IQ1_M BF16',
    34: 'TQ1_0 TQ2_0',
    39: 'MXFP4 NVFP4',
  }).flatMap(([first, names]) =>
    names.split(' ').map((name, i): [number, string] => [Number(first) + i, name]),
  ),
);

/** The types that weights can have. */
const readable: readonly string[] = ['F32', 'F16', 'BF16', ...blockFormats.keys()];

/**
 * Reads the header of a GGUF file and checks it against the file; no tensor data is read.
 * @throws {UserError} when the file is missing, damaged or no GGUF file
 * @throws {Unsupported} for a version, a byte order or a tensor type that cannot be read
 */
export function openGguf(file: string): GgufFile {
  const size = regularFileSize(file);
  return withFile(file, (fd) =>
    parseGguf({ name: file, size, read: (offset, length) => readExactly(fd, file, offset, length) }),
  );
}

/** As `openGguf`, of bytes from anywhere. */
export function parseGguf(source: ByteSource): GgufFile {
  const cursor = new Cursor(source);
  checkBeginning(cursor);
  const tensorCount = cursor.count('the number of tensors', leastBytes.tensor);
  const metadataCount = cursor.count('the number of metadata entries', leastBytes.metadata);
  const metadata = new Map<string, MetadataValue>();
  for (let i = 0; i < metadataCount; i++) {
    cursor.field = `metadata entry ${i}`;
    const key = cursor.text(limits.keyBytes);
    cursor.field = `metadata ${quoted(key)}`;
    if (metadata.has(key)) throw cursor.damaged('the key is there twice');
    metadata.set(key, readValue(cursor, cursor.u32()));
  }
  const alignment = alignmentOf(metadata, source.name);
  const described = new Map<string, Description>();
  for (let i = 0; i < tensorCount; i++) {
    const tensor = describeTensor(cursor, i, alignment);
    if (described.has(tensor.name)) throw cursor.damaged('the name is there twice');
    described.set(tensor.name, tensor);
  }
  const dataStart = Math.ceil(cursor.position / alignment) * alignment;
  return { file: source.name, metadata, tensors: placed([...described.values()], dataStart, source) };
}

/** Whether a file begins as GGUF files do; false when it cannot be read. */
export function looksLikeGguf(file: string): boolean {
  try {
    return (
      regularFileSize(file) >= 4 &&
      withFile(file, (fd) => readExactly(fd, file, 0, 4)).toString('latin1') === magic
    );
  } catch {
    return false;
  }
}

const magic = 'GGUF';

function checkBeginning(cursor: Cursor): void {
  cursor.field = 'the magic number';
  const { source } = cursor;
  const beginning = latin1(source.read(0, Math.min(8, source.size)));
  if (beginning === 'version ') {
    throw new UserError(`${shown(source.name)} is a Git LFS pointer, not the weights themselves`, {
      notes: ['run `git lfs pull` in its folder, or download the file'],
    });
  }
  if (latin1(cursor.bytes(4)) !== magic) {
    throw cursor.damaged(
      `it is not '${magic}'`,
      'it may be another kind of file, or a web page saved in its place',
    );
  }
  cursor.field = 'the version';
  const version = cursor.u32();
  if ((version & 0xffff) === 0 && version !== 0) {
    throw new Unsupported(`${shown(source.name)} is a big-endian GGUF file`, {
      notes: [
        'only little-endian files can be read: convert or download the model again without --bigendian',
      ],
    });
  }
  if (version !== 2 && version !== 3) {
    throw new Unsupported(`${shown(source.name)} is a GGUF file of version ${version}`, {
      notes: ['versions 2 and 3 can be read: convert the model again with a current llama.cpp'],
    });
  }
}

/** Reads a header front to back. Whatever the file claims, no more than a window or one value is in memory. */
class Cursor {
  position = 0;
  /** What is being read, for errors. */
  field = '';
  private window: Uint8Array = new Uint8Array();
  private view = new DataView(this.window.buffer);
  private windowStart = 0;

  constructor(readonly source: ByteSource) {}

  damaged(what: string, ...notes: string[]): UserError {
    return damaged(this.source.name, `${this.field}: ${what}`, ...notes);
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  u64(): bigint {
    return this.view.getBigUint64(this.take(8), true);
  }

  /** A number of things of at least `least` bytes each, which the rest of the file must be able to hold. */
  count(field: string, least: number): number {
    this.field = field;
    const count = this.u64();
    this.checkRest(count, least);
    return Number(count);
  }

  checkRest(count: bigint, least: number): void {
    const rest = this.source.size - this.position;
    if (count * BigInt(least) > rest) {
      throw this.damaged(
        `${count} of them cannot lie in the ${rest} bytes that follow`,
        'the file may be an incomplete download',
      );
    }
  }

  text(most: number): string {
    const length = this.u64();
    if (length > most) throw this.damaged(`a text of ${length} bytes, expected at most ${most}`);
    return decoder.decode(this.bytes(Number(length)));
  }

  /** Valid until the next read. */
  bytes(length: number): Uint8Array {
    const at = this.take(length);
    return this.window.subarray(at, at + length);
  }

  /** Makes the next `length` bytes part of the window and returns where they begin in it. */
  take(length: number): number {
    const end = this.position + length;
    if (end > this.source.size) {
      throw this.damaged(
        `the file ends at byte ${this.source.size}, before it is complete`,
        'the file may be an incomplete download',
      );
    }
    if (end > maxHeaderBytes) throw this.damaged(`the header is longer than ${maxHeaderBytes} bytes`);
    if (end > this.windowStart + this.window.length) {
      const size = Math.min(Math.max(length, windowBytes), this.source.size - this.position);
      this.window = this.source.read(this.position, size);
      this.view = new DataView(this.window.buffer, this.window.byteOffset, this.window.byteLength);
      this.windowStart = this.position;
    }
    const at = this.position - this.windowStart;
    this.position = end;
    return at;
  }
}

const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('latin1');

interface NumberType {
  readonly bytes: number;
  readonly read: (view: DataView) => number | bigint | boolean;
  readonly array: (buffer: ArrayBuffer) => MetadataArray;
}

/** The types of metadata that are not text (8) or arrays (9). */
const numberTypes: ReadonlyMap<number, NumberType> = new Map<number, NumberType>([
  [0, { bytes: 1, read: (view) => view.getUint8(0), array: (buffer) => new Uint8Array(buffer) }],
  [1, { bytes: 1, read: (view) => view.getInt8(0), array: (buffer) => new Int8Array(buffer) }],
  [2, { bytes: 2, read: (view) => view.getUint16(0, true), array: (buffer) => new Uint16Array(buffer) }],
  [3, { bytes: 2, read: (view) => view.getInt16(0, true), array: (buffer) => new Int16Array(buffer) }],
  [4, { bytes: 4, read: (view) => view.getUint32(0, true), array: (buffer) => new Uint32Array(buffer) }],
  [5, { bytes: 4, read: (view) => view.getInt32(0, true), array: (buffer) => new Int32Array(buffer) }],
  [
    6,
    {
      bytes: 4,
      read: (view) => decimal(view.getFloat32(0, true)),
      array: (buffer) => new Float32Array(buffer),
    },
  ],
  [7, { bytes: 1, read: (view) => view.getUint8(0) !== 0, array: (buffer) => new Uint8Array(buffer) }],
  [
    10,
    {
      bytes: 8,
      read: (view) => exact(view.getBigUint64(0, true)),
      array: (buffer) => new BigUint64Array(buffer),
    },
  ],
  [
    11,
    {
      bytes: 8,
      read: (view) => exact(view.getBigInt64(0, true)),
      array: (buffer) => new BigInt64Array(buffer),
    },
  ],
  [12, { bytes: 8, read: (view) => view.getFloat64(0, true), array: (buffer) => new Float64Array(buffer) }],
]);
const textType = 8;
const arrayType = 9;

/** The shortest decimal that rounds to an f32: 1e-5, as it was written, rather than 9.999999747378752e-6. */
function decimal(value: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const shorter = Number(value.toPrecision(digits));
    if (Math.fround(shorter) === value) return shorter;
  }
  return value;
}

const exact = (value: bigint): number | bigint => {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
};

function readValue(cursor: Cursor, type: number): MetadataValue {
  if (type === textType) return cursor.text(maxHeaderBytes);
  if (type === arrayType) return readArray(cursor);
  const number = numberTypes.get(type);
  if (!number) throw cursor.damaged(`unknown type of metadata ${type}`);
  return number.read(copied(cursor.bytes(number.bytes)));
}

function readArray(cursor: Cursor): MetadataArray {
  const type = cursor.u32();
  const length = cursor.u64();
  if (type === textType) {
    cursor.checkRest(length, 8);
    if (length > limits.strings) throw cursor.damaged(`${length} texts, expected at most ${limits.strings}`);
    const texts: string[] = [];
    for (let i = 0; i < Number(length); i++) texts.push(cursor.text(maxHeaderBytes));
    return texts;
  }
  const number = numberTypes.get(type);
  if (!number) {
    throw cursor.damaged(
      type === arrayType ? 'arrays within arrays' : `unknown type of array elements ${type}`,
    );
  }
  cursor.checkRest(length, number.bytes);
  return number.array(copied(cursor.bytes(Number(length) * number.bytes)).buffer);
}

/** Aligned for any element, and not kept alive by the window. */
function copied(bytes: Uint8Array): DataView<ArrayBuffer> {
  return new DataView(Uint8Array.from(bytes).buffer);
}

function alignmentOf(metadata: ReadonlyMap<string, MetadataValue>, file: string): number {
  const alignment = metadata.get('general.alignment') ?? 32;
  const fine =
    typeof alignment === 'number' &&
    Number.isInteger(Math.log2(alignment)) &&
    alignment >= 1 &&
    alignment <= limits.alignment;
  if (fine) return alignment;
  throw damaged(file, `metadata "general.alignment": expected a power of two up to ${limits.alignment}`);
}

interface Description {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  /** From the beginning of the data. */
  readonly offset: number;
  readonly bytes: number;
}

function describeTensor(cursor: Cursor, index: number, alignment: number): Description {
  cursor.field = `tensor ${index}`;
  const name = cursor.text(limits.nameBytes);
  cursor.field = `tensor ${quoted(name)}`;
  const dimensions = cursor.u32();
  if (dimensions > limits.dimensions) {
    throw cursor.damaged(`${dimensions} dimensions, expected at most ${limits.dimensions}`);
  }
  const shape: number[] = [];
  let elements = 1n;
  for (let i = 0; i < dimensions; i++) {
    const dimension = cursor.u64();
    elements *= dimension;
    if (dimension === 0n || elements > Number.MAX_SAFE_INTEGER) {
      throw cursor.damaged(`dimension ${i} is ${dimension}`);
    }
    // The file has the row length first.
    shape.unshift(Number(dimension));
  }
  const type = cursor.u32();
  const dtype = tensorTypes.get(type);
  if (dtype === undefined) throw cursor.damaged(`unknown type ${type}`);
  const offset = cursor.u64();
  const bytes = bytesOf(cursor, name, dtype, Number(elements), shape.at(-1) ?? 1);
  if (offset % BigInt(alignment) !== 0n) {
    throw cursor.damaged(`its offset ${offset} is no multiple of the alignment ${alignment}`);
  }
  if (offset + BigInt(bytes) > cursor.source.size) {
    throw cursor.damaged(
      `it ends at byte ${offset + BigInt(bytes)} of the data, but the file has ${cursor.source.size}`,
      'the file may be an incomplete download',
    );
  }
  return { name, dtype, shape, offset: Number(offset), bytes };
}

function bytesOf(cursor: Cursor, name: string, dtype: string, elements: number, row: number): number {
  if (!readable.includes(dtype)) {
    throw new Unsupported(
      `${shown(cursor.source.name)}: tensor ${quoted(name)} is of type ${dtype}, which cannot be read`,
      {
        notes: [
          `types that can be read: ${readable.join(', ')}`,
          'take the file of another quantisation, such as Q4_K_M or Q8_0, or make one with llama-quantize',
        ],
      },
    );
  }
  const format = blockFormats.get(dtype);
  if (!format) return (elements * (storedDtypes.get(dtype)?.bits ?? 0)) / 8;
  if (row % format.elements !== 0) {
    throw cursor.damaged(
      `rows of ${row} elements are no multiple of the ${format.elements} of a ${dtype} block`,
    );
  }
  return (elements / format.elements) * format.bytes;
}

/** The tensors with their places in the file, which no two may share. */
function placed(
  described: Description[],
  dataStart: number,
  { name: file, size }: ByteSource,
): ReadonlyMap<string, TensorEntry> {
  const tensors = new Map<string, TensorEntry>();
  let previous: TensorEntry | undefined;
  for (const { name, dtype, shape, offset, bytes } of described.sort((a, b) => a.offset - b.offset)) {
    const entry = { name, dtype, shape, file, offset: dataStart + offset, bytes };
    const end = entry.offset + bytes;
    if (end > size) {
      throw damaged(
        file,
        `tensor ${quoted(name)}: it ends at byte ${end}, but the file has ${size}`,
        'the file may be an incomplete download',
      );
    }
    if (previous && entry.offset < previous.offset + previous.bytes) {
      throw damaged(file, `tensors ${quoted(previous.name)} and ${quoted(name)} overlap`);
    }
    tensors.set(name, entry);
    previous = entry;
  }
  return tensors;
}

function damaged(file: string, what: string, ...notes: string[]): UserError {
  return new UserError(`${shown(file)} is not a valid GGUF file: ${what}`, {
    notes: [...notes, 'download the file again, or convert the model again'],
  });
}
