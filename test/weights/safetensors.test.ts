import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { UserError } from '../../src/diagnostic.js';
import { decodeBF16, decodeF16 } from '../../src/weights/dtype.js';
import { readTensor } from '../../src/weights/read.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import type { TensorEntry } from '../../src/weights/stored.js';
import { f32, layOut, safetensorsBytes, writeSafetensors } from '../support/safetensors.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

const fixture = path.join(import.meta.dirname, '../../examples/stories260k/model.safetensors');
const seed = 20250611;

function entryOf(file: string, name: string): TensorEntry {
  const entry = openSafetensors(file).tensors.get(name);
  if (!entry) throw new Error(`no tensor ${name}`);
  return entry;
}

describe('openSafetensors', () => {
  it('lists the tensors of a real checkpoint', () => {
    const { tensors } = openSafetensors(fixture);
    expect(tensors.size).toBe(47);
    expect(tensors.get('model.embed_tokens.weight')).toMatchObject({
      dtype: 'F32',
      shape: [512, 64],
      bytes: 131072,
    });
  });

  it('reads what was written', () => {
    const file = path.join(temporaryFolder(), 'model.safetensors');
    writeSafetensors(file, {
      a: f32([2, 3], [1, 2, 3, 4, 5, 6]),
      scalar: f32([], [7]),
      empty: f32([0, 4], []),
      i: { dtype: 'I32', shape: [2], data: new Uint8Array(Int32Array.of(-1, 2 ** 31 - 1).buffer) },
    });
    expect([...readTensor(entryOf(file, 'a'))]).toEqual([1, 2, 3, 4, 5, 6]);
    expect([...readTensor(entryOf(file, 'scalar'))]).toEqual([7]);
    expect([...readTensor(entryOf(file, 'empty'))]).toEqual([]);
    expect([...readTensor(entryOf(file, 'i'))]).toEqual([-1, 2 ** 31 - 1]);
    expect(entryOf(file, 'a').offset % 8).toBe(0);
  });

  it('treats names of Object.prototype as names', () => {
    const file = path.join(temporaryFolder(), 'model.safetensors');
    const range = (i: number) => `{"dtype":"U8","shape":[1],"data_offsets":[${i},${i + 1}]}`;
    writeFileSync(
      file,
      safetensorsBytes(
        `{"__proto__":${range(0)},"constructor":${range(1)},"toString":${range(2)}}`,
        Buffer.of(5, 6, 7),
      ),
    );
    const { tensors } = openSafetensors(file);
    expect([...tensors.keys()]).toEqual(['__proto__', 'constructor', 'toString']);
    expect([...readTensor(entryOf(file, '__proto__'))]).toEqual([5]);
  });

  const tensor = (fields: object) => ({ dtype: 'F32', shape: [2], data_offsets: [0, 8], ...fields });
  const eight = Buffer.alloc(8);
  const header = (...tensors: object[]) =>
    JSON.stringify(Object.fromEntries(tensors.map((value, i) => [`model.layers.${i}.weight`, value])));
  const lengthOf = (length: bigint) => {
    const bytes = Buffer.alloc(16, ' ');
    bytes.writeBigUInt64LE(length);
    return bytes;
  };
  const faults: Record<string, Uint8Array> = {
    'an empty file': Buffer.alloc(0),
    'a Git LFS pointer': Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n'),
    'an HTML page': Buffer.from('<!doctype html><html><body>Not found</body></html>'),
    'header length 1': lengthOf(1n),
    'header length 2^64 - 1': lengthOf(2n ** 64n - 1n),
    'header length just past the end': lengthOf(9n),
    'leading space': safetensorsBytes(' {}'),
    'no JSON': safetensorsBytes('{"a":'),
    'no UTF-8': safetensorsBytes(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])),
    'a tensor that is null': safetensorsBytes('{"a":null}'),
    'no dtype': safetensorsBytes(header(tensor({ dtype: undefined })), eight),
    'an unknown dtype': safetensorsBytes(header(tensor({ dtype: 'BF32' })), eight),
    'a dtype of Object.prototype': safetensorsBytes(header(tensor({ dtype: 'constructor' })), eight),
    'a negative dimension': safetensorsBytes(header(tensor({ shape: [2, -1] })), eight),
    'a fractional dimension': safetensorsBytes(header(tensor({ shape: [0.5] })), eight),
    'a dimension that is no safe integer': safetensorsBytes(header(tensor({ shape: [2 ** 53] })), eight),
    'a shape whose product overflows': safetensorsBytes(
      header(tensor({ shape: Array(32).fill(2 ** 52) })),
      eight,
    ),
    'three offsets': safetensorsBytes(header(tensor({ data_offsets: [0, 4, 8] })), eight),
    'offsets run backwards': safetensorsBytes(header(tensor({ data_offsets: [8, 0] })), eight),
    'size and shape differ': safetensorsBytes(header(tensor({ shape: [3] })), eight),
    'data cut short': safetensorsBytes(header(tensor({})), Buffer.alloc(7)),
    overlap: safetensorsBytes(header(tensor({}), tensor({ data_offsets: [4, 12] })), Buffer.alloc(12)),
    'a hole at the beginning': safetensorsBytes(header(tensor({ data_offsets: [4, 12] })), Buffer.alloc(12)),
    'a hole between': safetensorsBytes(
      header(tensor({}), tensor({ data_offsets: [12, 20] })),
      Buffer.alloc(20),
    ),
    'a name twice': safetensorsBytes(
      '{"w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"w":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}',
      eight,
    ),
    'bytes at the end': safetensorsBytes(header(tensor({})), Buffer.alloc(9)),
    'a name with control characters': safetensorsBytes('{"\\u001b[31m\\u009b":{}}'),
    'a very long name': safetensorsBytes(JSON.stringify({ ['x'.repeat(1000)]: {} })),
  };

  it('explains every fault', () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'model.safetensors');
    const shown = Object.entries(faults).map(([title, bytes]) => {
      writeFileSync(file, bytes);
      return `${title}\n${renderedError(() => openSafetensors(file), dir)}`;
    });
    expect(`\n${shown.join('\n\n')}\n`).toMatchInlineSnapshot(`
      "
      an empty file
      error: <dir>/model.safetensors is not a valid safetensors file: expected at least 10 bytes, found 0
       note: download the file again, or export it again with safetensors

      a Git LFS pointer
      error: <dir>/model.safetensors is a Git LFS pointer, not the weights themselves
       note: run \`git lfs pull\` in the checkpoint folder, or download the file

      an HTML page
      error: <dir>/model.safetensors is not a valid safetensors file: its header length is 8104636974849335612, expected 2 to 42
       note: it may be another kind of file, a web page saved in its place, or an incomplete download
       note: download the file again, or export it again with safetensors

      header length 1
      error: <dir>/model.safetensors is not a valid safetensors file: its header length is 1, expected 2 to 8
       note: it may be another kind of file, a web page saved in its place, or an incomplete download
       note: download the file again, or export it again with safetensors

      header length 2^64 - 1
      error: <dir>/model.safetensors is not a valid safetensors file: its header length is 18446744073709551615, expected 2 to 8
       note: it may be another kind of file, a web page saved in its place, or an incomplete download
       note: download the file again, or export it again with safetensors

      header length just past the end
      error: <dir>/model.safetensors is not a valid safetensors file: its header length is 9, expected 2 to 8
       note: it may be another kind of file, a web page saved in its place, or an incomplete download
       note: download the file again, or export it again with safetensors

      leading space
      error: <dir>/model.safetensors is not a valid safetensors file: its header does not begin with '{'
       note: download the file again, or export it again with safetensors

      no JSON
      error: <dir>/model.safetensors is not a valid safetensors file: its header is not valid JSON
       note: download the file again, or export it again with safetensors

      no UTF-8
      error: <dir>/model.safetensors is not a valid safetensors file: its header is not valid JSON
       note: download the file again, or export it again with safetensors

      a tensor that is null
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "a": expected an object with dtype, shape and data_offsets
       note: download the file again, or export it again with safetensors

      no dtype
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": dtype: expected the name of a dtype
       note: download the file again, or export it again with safetensors

      an unknown dtype
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": unknown dtype "BF32"
       note: did you mean F32?
       note: download the file again, or export it again with safetensors

      a dtype of Object.prototype
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": unknown dtype "constructor"
       note: download the file again, or export it again with safetensors

      a negative dimension
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": shape.1: expected a number of at least 0
       note: download the file again, or export it again with safetensors

      a fractional dimension
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": shape.0: expected a whole number
       note: download the file again, or export it again with safetensors

      a dimension that is no safe integer
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": shape.0: expected a whole number
       note: download the file again, or export it again with safetensors

      a shape whose product overflows
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": F32[4503599627370496, 4503599627370496, 4503599627370496, 4503599627370496, 4503599627370496, 450359962…] takes more bytes than any file has, but data_offsets [0, 8] hold 8
       note: download the file again, or export it again with safetensors

      three offsets
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": data_offsets: expected [begin, end]
       note: download the file again, or export it again with safetensors

      offsets run backwards
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": data_offsets [8, 0] run backwards
       note: download the file again, or export it again with safetensors

      size and shape differ
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight": F32[3] takes 12 bytes, but data_offsets [0, 8] hold 8
       note: download the file again, or export it again with safetensors

      data cut short
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "model.layers.0.weight" ends at byte 90, but the file has 89 bytes
       note: the file is probably an incomplete download
       note: download the file again, or export it again with safetensors

      overlap
      error: <dir>/model.safetensors is not a valid safetensors file: tensors "model.layers.0.weight" and "model.layers.1.weight" overlap by 4 bytes
       note: download the file again, or export it again with safetensors

      a hole at the beginning
      error: <dir>/model.safetensors is not a valid safetensors file: no tensor covers 4 bytes at the beginning of the data
       note: download the file again, or export it again with safetensors

      a hole between
      error: <dir>/model.safetensors is not a valid safetensors file: no tensor covers 4 bytes after tensor "model.layers.0.weight"
       note: download the file again, or export it again with safetensors

      a name twice
      error: <dir>/model.safetensors is not a valid safetensors file: no tensor covers 4 bytes at the beginning of the data
       note: download the file again, or export it again with safetensors

      bytes at the end
      error: <dir>/model.safetensors is not a valid safetensors file: no tensor covers 1 byte at the end of the file
       note: download the file again, or export it again with safetensors

      a name with control characters
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "\\u001b[31m?": dtype: expected the name of a dtype
       note: download the file again, or export it again with safetensors

      a very long name
      error: <dir>/model.safetensors is not a valid safetensors file: tensor "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…": dtype: expected the name of a dtype
       note: download the file again, or export it again with safetensors
      "
    `);
  });

  it('refuses what is no regular file', () => {
    const dir = temporaryFolder();
    expect(
      renderedError(() => openSafetensors(path.join(dir, 'absent.safetensors')), dir),
    ).toMatchInlineSnapshot(`"error: cannot read <dir>/absent.safetensors: no such file or folder"`);
    mkdirSync(path.join(dir, 'folder.safetensors'));
    expect(
      renderedError(() => openSafetensors(path.join(dir, 'folder.safetensors')), dir),
    ).toMatchInlineSnapshot(`"error: cannot read <dir>/folder.safetensors: it is not a regular file"`);
  });

  const opensOrExplains = (file: string, bytes: Uint8Array) => {
    writeFileSync(file, bytes);
    let opened;
    try {
      opened = openSafetensors(file);
    } catch (error) {
      if (error instanceof UserError) return;
      throw error;
    }
    const ranges = [...opened.tensors.values()].map(({ offset, bytes }) => [offset, offset + bytes] as const);
    for (const [begin, end] of ranges) expect(begin <= end && end <= bytes.length).toBe(true);
  };

  it(`opens any bytes or explains (seed ${seed})`, () => {
    const file = path.join(temporaryFolder(), 'model.safetensors');
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc.uint8Array().map((b) => safetensorsBytes(b)),
        ),
        (bytes) => {
          opensOrExplains(file, bytes);
        },
      ),
      { seed, numRuns: 500 },
    );
  });

  it(`opens any JSON header or explains (seed ${seed})`, () => {
    const file = path.join(temporaryFolder(), 'model.safetensors');
    const number = fc.oneof(fc.nat(20), fc.maxSafeInteger(), fc.double());
    const entry = fc.record(
      {
        dtype: fc.oneof(fc.constantFrom('F32', 'BF16', 'U8', 'F4', '__proto__'), fc.string()),
        shape: fc.oneof(fc.array(number, { maxLength: 5 }), fc.jsonValue()),
        data_offsets: fc.oneof(fc.tuple(number, number), fc.jsonValue()),
      },
      { requiredKeys: [] },
    );
    const headers = fc.dictionary(
      fc.oneof(fc.string(), fc.constant('__proto__')),
      fc.oneof(entry, fc.jsonValue()),
    );
    fc.assert(
      fc.property(fc.oneof(headers, fc.jsonValue()), fc.uint8Array({ maxLength: 64 }), (header, data) => {
        opensOrExplains(file, safetensorsBytes(JSON.stringify(header), data));
      }),
      { seed, numRuns: 500 },
    );
  });

  it(`opens a damaged copy of a valid file or explains (seed ${seed})`, () => {
    const file = path.join(temporaryFolder(), 'model.safetensors');
    const { header, data } = layOut({
      a: f32([2, 2], [1, 2, 3, 4]),
      b: f32([3], [5, 6, 7]),
      c: f32([], [8]),
    });
    const valid = safetensorsBytes(header, data);
    const edit = fc.record({ at: fc.nat(valid.length - 1), byte: fc.integer({ min: 0, max: 255 }) });
    const digit = fc.record({
      at: fc.nat(valid.length - 1),
      byte: fc.constantFrom(...Buffer.from('0123456789-.e,[]{}"')),
    });
    fc.assert(
      fc.property(
        fc.array(fc.oneof(edit, digit), { maxLength: 4 }),
        fc.integer({ min: -16, max: 16 }),
        (edits, grow) => {
          const bytes = Buffer.alloc(valid.length + grow);
          valid.copy(bytes);
          for (const { at, byte } of edits) if (at < bytes.length) bytes[at] = byte;
          opensOrExplains(file, bytes);
        },
      ),
      { seed, numRuns: 2000 },
    );
  });
});

describe('readTensor', () => {
  it('explains a dtype without a decoder and a file that shrank', () => {
    const dir = temporaryFolder();
    const file = path.join(dir, 'model.safetensors');
    writeSafetensors(file, {
      ids: { dtype: 'I64', shape: [1], data: new Uint8Array(8) },
      w: f32([2], [1, 2]),
    });
    const [ids, w] = [entryOf(file, 'ids'), entryOf(file, 'w')];
    expect(renderedError(() => readTensor(ids), dir)).toMatchInlineSnapshot(`
      "unsupported: cannot read the values of tensor "ids": its dtype is I64
       note: in <dir>/model.safetensors
       note: readable dtypes: U8, I8, I16, U16, F16, BF16, I32, U32, F32, F64"
    `);
    truncateSync(file, w.offset + 4);
    expect(renderedError(() => readTensor(w), dir).replaceAll(/\d+/g, 'N')).toMatchInlineSnapshot(`
      "error: cannot read <dir>/model.safetensors: it ends at byte N, expected N more
       note: the file became shorter while it was in use"
    `);
  });

  it('decodes every f16 and bf16 bit pattern exactly', () => {
    // Independent of the decoders: a finite half is fraction × 2^k, stated in integers; bf16 is the top of an f32.
    const f32Bits = new Uint32Array(1);
    const f32Value = new Float32Array(f32Bits.buffer);
    for (let bits = 0; bits < 65536; bits++) {
      const magnitude = bits & 0x7fff;
      let expected: number;
      if (magnitude > 0x7c00) expected = NaN;
      else if (magnitude === 0x7c00) expected = Infinity;
      else if (magnitude < 0x400) expected = magnitude / 2 ** 24;
      else expected = ((magnitude % 0x400) + 0x400) * 2 ** (Math.floor(magnitude / 0x400) - 25);
      if (!Object.is(decodeF16(bits), bits >= 0x8000 ? -expected : expected)) expect.fail(`f16 ${bits}`);
      f32Bits[0] = bits * 65536;
      if (!Object.is(decodeBF16(bits), f32Value[0])) expect.fail(`bf16 ${bits}`);
    }
  });

  it('reads the 16-bit dtypes', () => {
    const file = path.join(temporaryFolder(), 'model.safetensors');
    const halves = (...bits: number[]) => new Uint8Array(Uint16Array.from(bits).buffer);
    writeSafetensors(file, {
      h: { dtype: 'F16', shape: [5], data: halves(0x3c00, 0x0001, 0x7c00, 0xfbff, 0x8000) },
      b: { dtype: 'BF16', shape: [4], data: halves(0x3f80, 0x0001, 0xff80, 0x4049) },
    });
    expect([...readTensor(entryOf(file, 'h'))]).toEqual([1, 2 ** -24, Infinity, -65504, -0]);
    expect([...readTensor(entryOf(file, 'b'))]).toEqual([1, 2 ** -133, -Infinity, 3.140625]);
  });
});
