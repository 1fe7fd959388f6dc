import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Unsupported, UserError } from '../../src/diagnostic.js';
import { openTokenizer } from '../../src/runtime/tokenizer.js';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { ggufCheckpoint } from '../../src/weights/gguf-checkpoint.js';
import { openGguf, parseGguf, type ByteSource, type GgufFile } from '../../src/weights/gguf.js';
import { packWeights } from '../../src/weights/pack.js';
import { readTensorBytes } from '../../src/weights/read.js';
import { readValues } from '../support/blocks.js';
import {
  array,
  bool,
  f32,
  f64,
  ggufBytes,
  i16,
  i32,
  i64,
  i8,
  randomTensor,
  text,
  typeNumbers,
  u16,
  u32,
  u64,
  u8,
  type Draw,
  type Entry,
  type GgufToWrite,
  type TensorToWrite,
} from '../support/gguf.js';
import { alone, shapeOf } from '../support/packed.js';
import { renderedError, renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

const seed = 20261122;
const typeNames = Object.keys(typeNumbers) as (keyof typeof typeNumbers)[];

/** Numbers that are the same in every run. */
function drawing(start: number): Draw {
  let state = start;
  return (end) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * end);
  };
}

function written(file: GgufToWrite): { dir: string; place: string } {
  const dir = temporaryFolder();
  const place = path.join(dir, 'model.gguf');
  writeFileSync(place, ggufBytes(file));
  return { dir, place };
}

/** Bytes in memory that count how much of them is read. */
function inMemory(bytes: Uint8Array): ByteSource & { bytesRead: number } {
  const source = {
    name: 'model.gguf',
    size: bytes.length,
    bytesRead: 0,
    read(offset: number, length: number): Uint8Array {
      if (offset < 0 || length < 0 || offset + length > bytes.length) throw new Error('read beyond the file');
      source.bytesRead += length;
      return Uint8Array.from(bytes.subarray(offset, offset + length));
    },
  };
  return source;
}

describe('tensors', () => {
  it.each(typeNames)('of type %s come back as they were written', (type) => {
    const draw = drawing(typeNames.indexOf(type));
    const tensors = [randomTensor('a', type, [3, 2], draw), randomTensor('b', type, [4], draw)];
    const { place } = written({ tensors });
    const opened = openGguf(place).tensors;
    expect([...opened.keys()]).toEqual(['a', 'b']);
    for (const { name, shape, values, bytes } of tensors) {
      const entry = opened.get(name);
      if (!entry) throw new Error('no tensor');
      expect(entry.dtype).toBe(type);
      expect(entry.shape).toEqual(shape);
      expect([...readValues(entry)]).toEqual(values);
      // Raw blocks can be had too.
      expect(Buffer.from(readTensorBytes(entry)).equals(bytes)).toBe(true);
    }
  });

  it.each([8, 32, 64, 4096])('lie at multiples of an alignment of %d, in any order', (alignment) => {
    const draw = drawing(alignment);
    const made = typeNames.map((type) => randomTensor(type, type, [1, 3], draw));
    let end = 0;
    const tensors = made.map((tensor) => {
      const offset = end;
      end += Math.ceil(tensor.data.length / alignment) * alignment;
      return { ...tensor, offset };
    });
    const { dir } = written({});
    const file = path.join(dir, 'model.gguf');
    const bytes = ggufBytes({ tensors, alignment, metadata: { 'general.alignment': u32(alignment) } });
    writeFileSync(file, bytes);
    const opened = openGguf(file).tensors;
    for (const { name, values } of tensors) {
      const entry = opened.get(name);
      expect((entry?.offset ?? NaN) % alignment).toBe(0);
      expect(entry && [...readValues(entry)]).toEqual(values);
    }
    // The same data, described back to front.
    const data = bytes.subarray(opened.get(typeNames[0] ?? '')?.offset);
    const head = ggufBytes({
      tensors: [...tensors].reverse().map((tensor) => ({ ...tensor, data: new Uint8Array() })),
      alignment,
      metadata: { 'general.alignment': u32(alignment) },
    });
    writeFileSync(file, Buffer.concat([head, data]));
    expect([...openGguf(file).tensors.values()]).toEqual([...opened.values()]);
  });

  it('take the order of the model, whatever their type', async () => {
    const draw = drawing(9);
    for (const type of typeNames) {
      const tensor = randomTensor('q', type, [12, 2], draw);
      const { dir, place } = written({ tensors: [tensor] });
      const entry = openGguf(place).tensors.get('q');
      if (!entry) throw new Error('no tensor');
      const row = tensor.values.length / 12;
      const rows = Array.from({ length: 12 }, (_, i) => tensor.values.slice(i * row, (i + 1) * row));
      // Heads of 6 rows: 0 2 4 1 3 5.
      const expected = [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11].flatMap((i) => rows[i] ?? []);
      const turned = { ...entry, headRows: 6 };
      expect([...readValues(turned)]).toEqual(expected);
      const file = path.join(dir, 'weights.bin');
      const weight = alone({ tensor: turned }, shapeOf(turned), 'f32');
      await packWeights(file, [weight], weight.bytes);
      expect(readFileSync(file).equals(Buffer.from(Float32Array.from(expected).buffer))).toBe(true);
    }
  });

  it('are unpacked piece by piece', async () => {
    const block = randomTensor('w', 'Q4_0', [4, 8], drawing(3));
    const repeats = 20000;
    const data = Buffer.concat(Array.from({ length: repeats }, () => block.data));
    const { dir, place } = written({ tensors: [{ ...block, shape: [4 * repeats, 256], data }] });
    const tensor = openGguf(place).tensors.get('w');
    if (!tensor) throw new Error('no tensor');
    const file = path.join(dir, 'weights.bin');
    const weight = alone({ tensor }, shapeOf(tensor), 'f32');
    const { bufferBytes, threads } = await packWeights(file, [weight], weight.bytes);
    expect(bufferBytes).toBeLessThan(threads * 4 * 2 ** 20);
    const one = Buffer.from(Float32Array.from(block.values).buffer);
    const packed = readFileSync(file);
    for (let i = 0; i < repeats; i++) {
      if (packed.compare(one, 0, one.length, i * one.length, (i + 1) * one.length) !== 0)
        throw new Error(`the ${i}-th repetition differs`);
    }
  });
});

it('reads metadata of every type', () => {
  const metadata = {
    u8: u8(200),
    i8: i8(-100),
    u16: u16(60000),
    i16: i16(-30000),
    u32: u32(4e9),
    i32: i32(-2e9),
    f32: f32(1e-5),
    third: f32(1 / 3),
    bool: bool(true),
    text: text('héllo\n'),
    u64: u64(2n ** 40n),
    huge: u64(2n ** 64n - 1n),
    i64: i64(-(2n ** 50n)),
    f64: f64(Math.PI),
    none: array([], 8),
    texts: array([text('a'), text(''), text('日本')]),
    numbers: array([f32(0.5), f32(-2)]),
    ids: array([i32(1), i32(-1)]),
    flags: array([bool(true), bool(false)]),
  };
  const read = parseGguf(inMemory(ggufBytes({ metadata }))).metadata;
  expect(Object.fromEntries(read)).toEqual({
    u8: 200,
    i8: -100,
    u16: 60000,
    i16: -30000,
    u32: 4e9,
    i32: -2e9,
    f32: 1e-5,
    third: expect.closeTo(1 / 3, 7) as unknown,
    bool: true,
    text: 'héllo\n',
    u64: 2 ** 40,
    huge: 2n ** 64n - 1n,
    i64: -(2 ** 50),
    f64: Math.PI,
    none: [],
    texts: ['a', '', '日本'],
    numbers: Float32Array.of(0.5, -2),
    ids: Int32Array.of(1, -1),
    flags: Uint8Array.of(1, 0),
  });
});

/** A whole tiny model of the llama architecture. */
function tinyLlama(changes: Readonly<Record<string, Entry | undefined>> = {}, kvHeads = 1): GgufToWrite {
  const pieces = [
    '<unk>',
    '<s>',
    '</s>',
    '<0x00>',
    '\u2581',
    'a',
    'b',
    'ab',
    '\u2581ab',
    '__proto__',
    '1',
    '__',
  ];
  const [hidden, inner, vocabulary] = [8, 16, pieces.length];
  const draw = drawing(5);
  const tensor = (name: string, shape: readonly number[]): TensorToWrite =>
    randomTensor(name, 'F32', shape, draw);
  const metadata: Record<string, Entry | undefined> = {
    'general.architecture': text('llama'),
    'llama.context_length': u32(32),
    'llama.embedding_length': u32(hidden),
    'llama.block_count': u32(1),
    'llama.feed_forward_length': u32(inner),
    'llama.attention.head_count': u32(2),
    'llama.attention.head_count_kv': u32(kvHeads),
    'llama.attention.layer_norm_rms_epsilon': f32(1e-5),
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.tokens': array(pieces.map(text)),
    'tokenizer.ggml.scores': array(pieces.map((_, i) => f32(-i))),
    'tokenizer.ggml.token_type': array([2, 3, 3, 6, 1, 1, 1, 1, 1, 1, 1, 1].map(i32)),
    'tokenizer.ggml.bos_token_id': u32(1),
    'tokenizer.ggml.eos_token_id': u32(2),
    ...changes,
  };
  const kept = Object.entries(metadata).filter((entry): entry is [string, Entry] => entry[1] !== undefined);
  return {
    metadata: Object.fromEntries(kept),
    tensors: [
      tensor('token_embd.weight', [vocabulary, hidden]),
      tensor('output_norm.weight', [hidden]),
      tensor('blk.0.attn_norm.weight', [hidden]),
      tensor('blk.0.attn_q.weight', [hidden, hidden]),
      tensor('blk.0.attn_k.weight', [4 * kvHeads, hidden]),
      tensor('blk.0.attn_v.weight', [4 * kvHeads, hidden]),
      tensor('blk.0.attn_output.weight', [hidden, hidden]),
      tensor('blk.0.ffn_norm.weight', [hidden]),
      tensor('blk.0.ffn_gate.weight', [inner, hidden]),
      tensor('blk.0.ffn_up.weight', [inner, hidden]),
      tensor('blk.0.ffn_down.weight', [hidden, inner]),
    ],
  };
}

describe('a checkpoint', () => {
  it('has the defaults of what its metadata leaves out', () => {
    const { place } = written(tinyLlama({ 'llama.attention.head_count_kv': undefined }, 2));
    const { config, bosToken, eosTokens, tensors } = openCheckpoint(place);
    expect(config).toMatchObject({
      vocab_size: 12,
      num_key_value_heads: 2,
      tie_word_embeddings: true,
      rope_parameters: { rope_theta: 10000, rope_type: 'default' },
      rms_norm_eps: 1e-5,
    });
    expect([bosToken, eosTokens]).toEqual([1, [2]]);
    expect(tensors.get('model.layers.0.self_attn.q_proj.weight')?.headRows).toBe(4);
    expect(tensors.get('model.layers.0.self_attn.k_proj.weight')?.headRows).toBe(4);
    expect(tensors.get('model.layers.0.self_attn.v_proj.weight')?.headRows).toBeUndefined();
  });

  it('is known by its beginning, whatever its name', () => {
    const { dir } = written({});
    const file = path.join(dir, 'blob');
    writeFileSync(file, ggufBytes(tinyLlama()));
    expect(openCheckpoint(file).config['hidden_size']).toBe(8);
  });

  it('of Qwen2 keeps its biases and its rows', () => {
    const { metadata = {}, tensors = [] } = tinyLlama();
    const renamed = Object.entries(metadata).map(([key, value]) => [
      key.replace(/^llama\./, 'qwen2.'),
      value,
    ]);
    const bias = randomTensor('blk.0.attn_q.bias', 'F32', [8], drawing(1));
    const { place } = written({
      metadata: { ...Object.fromEntries(renamed), 'general.architecture': text('qwen2') } as Record<
        string,
        Entry
      >,
      tensors: [...tensors, bias],
    });
    const checkpoint = openCheckpoint(place);
    expect(checkpoint.config['model_type']).toBe('qwen2');
    expect(checkpoint.tensors.get('model.layers.0.self_attn.q_proj.bias')?.shape).toEqual([8]);
    expect(checkpoint.tensors.get('model.layers.0.self_attn.q_proj.weight')?.headRows).toBeUndefined();
  });

  /** The tiny model with heads of 128 elements, and one more tensor. */
  function withFactors(name: string, values: readonly number[], type: 'llama' | 'phi3'): string {
    const { metadata = {}, tensors = [] } = tinyLlama();
    const entries = { ...metadata, 'llama.embedding_length': u32(256), 'llama.rope.freq_base': f32(500000) };
    const renamed = Object.entries(entries).map(([key, value]) => [
      key.replace(/^llama\./, `${type}.`),
      value,
    ]);
    const factors = (tensor: string): TensorToWrite => ({
      name: tensor,
      type: typeNumbers.F32,
      shape: [values.length],
      data: new Uint8Array(Float32Array.from(values).buffer),
    });
    return written({
      metadata: {
        ...(Object.fromEntries(renamed) as Record<string, Entry>),
        'general.architecture': text(type),
        [`${type}.rope.scaling.original_context_length`]: u32(16),
      },
      tensors: [
        ...tensors.slice(0, 3),
        factors(name),
        ...(type === 'phi3' ? [factors('rope_factors_short.weight')] : []),
      ],
    }).place;
  }

  it('of Llama 3.1 finds the settings that its factors come from', () => {
    // As transformers computes them from factor 8, low 1, high 4, of 8192 positions.
    const divisors = Array.from({ length: 64 }, (_, i) => {
      const wavelength = 2 * Math.PI * 500000 ** (i / 64);
      if (wavelength < 8192 / 4) return 1;
      if (wavelength > 8192 / 1) return 8;
      const smooth = (8192 / wavelength - 1) / (4 - 1);
      return 1 / ((1 - smooth) / 8 + smooth);
    });
    const { config, tensors } = openCheckpoint(withFactors('rope_freqs.weight', divisors, 'llama'));
    expect(config['rope_parameters']).toEqual({
      rope_theta: 500000,
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
    });
    expect([...tensors.keys()]).not.toContain('rope_freqs.weight');
    const other = withFactors('rope_freqs.weight', divisors.with(10, 1.5), 'llama');
    expect(() => openCheckpoint(other)).toThrow('rotation with a factor of its own for every frequency');
    const short = withFactors('rope_freqs.weight', divisors.slice(1), 'llama');
    expect(() => openCheckpoint(short)).toThrow('"rope_freqs.weight" is F32[63]; expected F32[64]');
  });

  it('of Phi-4-mini has its long and short factors', () => {
    const values = Array.from({ length: 64 }, (_, i) => 1 + i / 64);
    const { config } = openCheckpoint(withFactors('rope_factors_long.weight', values, 'phi3'));
    expect(config['rope_parameters']).toEqual({
      rope_theta: 500000,
      rope_type: 'longrope',
      partial_rotary_factor: 1,
      long_factor: values,
      short_factor: values,
      original_max_position_embeddings: 16,
    });
  });

  it.each([
    ['gpt-2', ['1234', 'I', "'", 'L', 'L', 'e', 'Ì', 'ģ']],
    ['llama-bpe', ['<s>', '123', '4', 'I', "'LL", 'e', 'Ì', 'ģ']],
    ['dbrx', ['123', '4', 'I', "'LL", 'e', 'Ì', 'ģ']],
    ['gpt-4o', ['123', '4', 'I', "'LL", 'e', 'Ì', 'ģ']],
    ['qwen2', ['1', '2', '3', '4', 'I', "'LL", 'Ã', '©']],
  ])('cuts text into words the %s way', (pre, expected) => {
    // Bytes that print stand for themselves, the others for the characters from 256 on.
    const printed = (byte: number): boolean => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    let others = 256;
    const bytes = Array.from({ length: 256 }, (_, i) => String.fromCharCode(printed(i) ? i : others++));
    const pieces = ['<s>', '</s>', ...bytes, '12', '123', '1234', "'L", "'LL"];
    const place = written(
      tinyLlama({
        'tokenizer.ggml.model': text('gpt2'),
        'tokenizer.ggml.pre': text(pre),
        'tokenizer.ggml.tokens': array(pieces.map(text)),
        'tokenizer.ggml.token_type': array(pieces.map((_, i) => i32(i < 2 ? 3 : 1))),
        'tokenizer.ggml.merges': array(['1 2', '12 3', '123 4', "' L", "'L L"].map(text)),
        'tokenizer.ggml.bos_token_id': u32(0),
        'tokenizer.ggml.eos_token_id': u32(1),
      }),
    );
    const folder = temporaryFolder();
    for (const { name, read } of openCheckpoint(place.place).tokenizerFiles)
      writeFileSync(path.join(folder, name), read());
    const tokenizer = openTokenizer(folder);
    const ids = tokenizer?.encode("1234I'LLe\u0301") ?? [];
    expect(ids.map((id) => pieces[id])).toEqual(expected);
    expect(tokenizer?.decode(ids).normalize('NFD')).toBe("1234I'LLe\u0301");
  });

  it('joins pieces in the order of their scores', () => {
    const [tokenizer, config] = openCheckpoint(written(tinyLlama()).place).tokenizerFiles;
    const json = JSON.parse(Buffer.from(tokenizer?.read() ?? []).toString()) as {
      model: { vocab: Record<string, number>; merges: unknown };
    };
    expect(json.model.merges).toEqual([
      ['a', 'b'],
      ['\u2581', 'ab'],
    ]);
    expect(Object.entries(json.model.vocab)).toContainEqual(['__proto__', 9]);
    expect(JSON.parse(Buffer.from(config?.read() ?? []).toString())).toMatchObject({ bos_token: '<s>' });
  });

  it('explains what it cannot use, and names the key or the tensor', () => {
    const tokens = array(['a', 'b', 'a'].map(text));
    const faults: [string, GgufToWrite][] = [
      ['no architecture', tinyLlama({ 'general.architecture': undefined })],
      ['another architecture', tinyLlama({ 'general.architecture': text('mamba') })],
      ['a part', tinyLlama({ 'split.count': u16(2) })],
      ['experts', tinyLlama({ 'llama.expert_count': u32(8) })],
      ['no width', tinyLlama({ 'llama.embedding_length': undefined })],
      ['a width of text', tinyLlama({ 'llama.embedding_length': text('8') })],
      ['heads by layer', tinyLlama({ 'llama.attention.head_count': array([u32(2)]) })],
      ['too many layers', tinyLlama({ 'llama.block_count': u32(4_000_000_000) })],
      ['odd heads', tinyLlama({ 'llama.attention.head_count_kv': u32(3) })],
      ['partial rotation', tinyLlama({ 'llama.rope.dimension_count': u32(2) })],
      ['another kind of tokenizer', tinyLlama({ 'tokenizer.ggml.model': text('bert') })],
      [
        'an unknown way to cut text',
        tinyLlama({ 'tokenizer.ggml.model': text('gpt2'), 'tokenizer.ggml.pre': text('x') }),
      ],
      ['a token twice', tinyLlama({ 'tokenizer.ggml.tokens': tokens })],
      ['too few scores', tinyLlama({ 'tokenizer.ggml.scores': array([f32(1)]) })],
      ['no such token', tinyLlama({ 'tokenizer.ggml.bos_token_id': u32(99) })],
      ['tokens that are no texts', tinyLlama({ 'tokenizer.ggml.tokens': array([u8(1)]) })],
    ];
    const shown = faults.map(([name, file]) => {
      const { dir, place } = written(file);
      return `${name}\n${renderedError(() => openCheckpoint(place), dir)}`;
    });
    expect(`\n${shown.join('\n\n')}\n`).toMatchInlineSnapshot(`
      "
      no architecture
      error: <dir>/model.gguf: metadata "general.architecture": the file has none

      another architecture
      unsupported: <dir>/model.gguf: models of the architecture "mamba"
       note: GGUF files can be of llama, phi3, qwen2, gemma2, gpt2
       note: other models: give the folder of their Hugging Face checkpoint

      a part
      error: <dir>/model.gguf is one part of 2, and not named as one
       note: expected NAME-00001-of-00002.gguf, with the other parts beside it

      experts
      unsupported: <dir>/model.gguf: a mixture of 8 experts
       note: metadata "llama.expert_count" is 8

      no width
      error: <dir>/model.gguf: metadata "llama.embedding_length": the file has none

      a width of text
      error: <dir>/model.gguf: metadata "llama.embedding_length": expected a whole number

      heads by layer
      error: <dir>/model.gguf: metadata "llama.attention.head_count": expected a whole number

      too many layers
      error: <dir>/model.gguf: metadata "llama.block_count": 4000000000 layers, but there are tensors of 1

      odd heads
      error: <dir>/model.gguf: metadata "llama.attention.head_count_kv": 3 heads cannot share the 4 rows of tensor "blk.0.attn_k.weight" in pairs

      partial rotation
      error: <dir>/model.gguf: metadata "llama.rope.dimension_count": 2, but a head has 4 elements

      another kind of tokenizer
      unsupported: <dir>/model.gguf: a tokenizer of kind "bert"
       note: metadata "tokenizer.ggml.model" can be llama (SentencePiece BPE) or gpt2 (byte-level BPE)

      an unknown way to cut text
      unsupported: <dir>/model.gguf: text cut into words the "x" way
       note: metadata "tokenizer.ggml.pre" can be gpt-2, phi-2, llama-bpe, dbrx, smaug-bpe, qwen2, deepseek-r1-qwen, gpt-4o

      a token twice
      error: <dir>/model.gguf: metadata "tokenizer.ggml.tokens": the token "a" is there twice

      too few scores
      error: <dir>/model.gguf: metadata "tokenizer.ggml.scores": 1 scores for 12 tokens

      no such token
      error: <dir>/model.gguf: metadata "tokenizer.ggml.bos_token_id": 99 is not one of the 12 tokens

      tokens that are no texts
      error: <dir>/model.gguf: metadata "tokenizer.ggml.tokens": expected a list of texts
      "
    `);
  });
});

it("names the file's own key where a setting does not fit the model", async () => {
  const { dir, place } = written(
    tinyLlama({
      'llama.rope.scaling.type': text('yarn'),
      'llama.rope.scaling.original_context_length': u32(16),
      'llama.attention.sliding_window': u32(16),
    }),
  );
  const compiling = () =>
    compile({ model: 'models/llama.graph.ts', weights: place, out: path.join(dir, 'b') });
  expect(await renderedRejection(compiling, dir)).toMatchInlineSnapshot(`
    "error: <dir>/model.gguf does not fit model llama
     note: llama.attention.sliding_window (sliding_window): Invalid input: expected null, received number
     note: llama.rope.scaling.type (rope_parameters.rope_type): Invalid discriminator value. Expected 'default' | 'linear' | 'llama3' | 'longrope'"
  `);
});

describe('openGguf', () => {
  const tensor = (changes: Partial<TensorToWrite> = {}): TensorToWrite => ({
    name: 'w',
    type: 0,
    shape: [4],
    data: new Uint8Array(16),
    ...changes,
  });
  const word = (at: number, value: bigint, bytes = ggufBytes(tinyLlama())): Buffer => {
    bytes.writeBigUInt64LE(value, at);
    return bytes;
  };

  it('explains a damaged file', () => {
    const valid = ggufBytes({ tensors: [tensor()] });
    const faults: [string, Uint8Array][] = [
      ['nothing', Buffer.alloc(0)],
      ['a web page', Buffer.from('<!DOCTYPE html>')],
      ['a Git LFS pointer', Buffer.from('version https://git-lfs.github.com/spec/v1\n')],
      ['version 1', ggufBytes({ version: 1 })],
      ['big-endian', ggufBytes({ version: 3 << 24 })],
      ['cut short in the header', valid.subarray(0, 40)],
      ['cut short in the data', valid.subarray(0, valid.length - 20)],
      ['too many tensors', word(8, 2n ** 63n)],
      ['too many entries', word(16, 2n ** 63n)],
      ['a key without end', word(24, 2n ** 40n)],
      ['a text without end', word(24 + 8 + 20 + 4, 2n ** 30n)],
      ['an unknown type of metadata', ggufBytes({ metadata: { k: { type: 13, bytes: new Uint8Array(8) } } })],
      [
        'an array without end',
        ggufBytes({
          metadata: { k: { type: 9, bytes: Buffer.concat([u32(4).bytes, u64(2n ** 62n).bytes]) } },
        }),
      ],
      ['arrays within arrays', ggufBytes({ metadata: { k: array([array([u8(1)])]) } })],
      ['an odd alignment', ggufBytes({ metadata: { 'general.alignment': u32(48) } })],
      ['an alignment of zero', ggufBytes({ metadata: { 'general.alignment': u32(0) } })],
      ['five dimensions', ggufBytes({ tensors: [tensor({ shape: [1, 1, 1, 1, 4] })] })],
      ['no elements', ggufBytes({ tensors: [tensor({ shape: [4, 0] })] })],
      ['too many elements', ggufBytes({ tensors: [tensor({ shape: [2 ** 40, 2 ** 40] })] })],
      ['an unknown type', ggufBytes({ tensors: [tensor({ type: 77 })] })],
      ['a removed type', ggufBytes({ tensors: [tensor({ type: 4 })] })],
      ['an unsupported type', ggufBytes({ tensors: [tensor({ type: 23, shape: [256] })] })],
      ['broken blocks', ggufBytes({ tensors: [tensor({ type: 8, shape: [48] })] })],
      ['a crooked offset', ggufBytes({ tensors: [tensor({ offset: 4 })] })],
      ['an offset beyond the end', ggufBytes({ tensors: [tensor({ offset: 2 ** 40 })] })],
      ['overlapping tensors', ggufBytes({ tensors: [tensor(), tensor({ name: 'v', offset: 0 })] })],
      ['a name twice', ggufBytes({ tensors: [tensor(), tensor()] })],
    ];
    const shown = faults.map(([name, bytes]) => {
      const dir = temporaryFolder();
      const file = path.join(dir, 'model.gguf');
      writeFileSync(file, bytes);
      return `${name}\n${renderedError(() => openGguf(file), dir)}`;
    });
    expect(`\n${shown.join('\n\n')}\n`).toMatchInlineSnapshot(`
      "
      nothing
      error: <dir>/model.gguf is not a valid GGUF file: the magic number: the file ends at byte 0, before it is complete
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      a web page
      error: <dir>/model.gguf is not a valid GGUF file: the magic number: it is not 'GGUF'
       note: it may be another kind of file, or a web page saved in its place
       note: download the file again, or convert the model again

      a Git LFS pointer
      error: <dir>/model.gguf is a Git LFS pointer, not the weights themselves
       note: run \`git lfs pull\` in its folder, or download the file

      version 1
      unsupported: <dir>/model.gguf is a GGUF file of version 1
       note: versions 2 and 3 can be read: convert the model again with a current llama.cpp

      big-endian
      unsupported: <dir>/model.gguf is a big-endian GGUF file
       note: only little-endian files can be read: convert or download the model again without --bigendian

      cut short in the header
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": the file ends at byte 40, before it is complete
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      cut short in the data
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": it ends at byte 80, but the file has 76
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      too many tensors
      error: <dir>/model.gguf is not a valid GGUF file: the number of tensors: 9223372036854775808 of them cannot lie in the 4272 bytes that follow
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      too many entries
      error: <dir>/model.gguf is not a valid GGUF file: the number of metadata entries: 9223372036854775808 of them cannot lie in the 4264 bytes that follow
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      a key without end
      error: <dir>/model.gguf is not a valid GGUF file: metadata entry 0: a text of 1099511627776 bytes, expected at most 65535
       note: download the file again, or convert the model again

      a text without end
      error: <dir>/model.gguf is not a valid GGUF file: metadata "general.architecture": a text of 1073741824 bytes, expected at most 134217728
       note: download the file again, or convert the model again

      an unknown type of metadata
      error: <dir>/model.gguf is not a valid GGUF file: metadata "k": unknown type of metadata 13
       note: download the file again, or convert the model again

      an array without end
      error: <dir>/model.gguf is not a valid GGUF file: metadata "k": 4611686018427387904 of them cannot lie in the 15 bytes that follow
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      arrays within arrays
      error: <dir>/model.gguf is not a valid GGUF file: metadata "k": arrays within arrays
       note: download the file again, or convert the model again

      an odd alignment
      error: <dir>/model.gguf is not a valid GGUF file: metadata "general.alignment": expected a power of two up to 1048576
       note: download the file again, or convert the model again

      an alignment of zero
      error: <dir>/model.gguf is not a valid GGUF file: metadata "general.alignment": expected a power of two up to 1048576
       note: download the file again, or convert the model again

      five dimensions
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": 5 dimensions, expected at most 4
       note: download the file again, or convert the model again

      no elements
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": dimension 0 is 0
       note: download the file again, or convert the model again

      too many elements
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": dimension 1 is 1099511627776
       note: download the file again, or convert the model again

      an unknown type
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": unknown type 77
       note: download the file again, or convert the model again

      a removed type
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": unknown type 4
       note: download the file again, or convert the model again

      an unsupported type
      unsupported: <dir>/model.gguf: tensor "w" is of type IQ4_XS, which cannot be read
       note: types that can be read: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K
       note: take the file of another quantisation, such as Q4_K_M or Q8_0, or make one with llama-quantize

      broken blocks
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": rows of 48 elements are no multiple of the 32 of a Q8_0 block
       note: download the file again, or convert the model again

      a crooked offset
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": its offset 4 is no multiple of the alignment 32
       note: download the file again, or convert the model again

      an offset beyond the end
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": it ends at byte 1099511627792 of the data, but the file has 96
       note: the file may be an incomplete download
       note: download the file again, or convert the model again

      overlapping tensors
      error: <dir>/model.gguf is not a valid GGUF file: tensors "w" and "v" overlap
       note: download the file again, or convert the model again

      a name twice
      error: <dir>/model.gguf is not a valid GGUF file: tensor "w": the name is there twice
       note: download the file again, or convert the model again
      "
    `);
  });
});

/** Opens the bytes, or explains: with the file's name, after reading little more than there is. */
function opensOrExplains(bytes: Uint8Array): boolean {
  const source = inMemory(bytes);
  let opened: GgufFile | undefined;
  try {
    opened = parseGguf(source);
    for (const { offset, bytes: size } of opened.tensors.values())
      if (offset + size > bytes.length) throw new Error('a tensor beyond the file');
    const { tokenizerFiles } = ggufCheckpoint(opened);
    for (const { read } of tokenizerFiles) JSON.parse(Buffer.from(read()).toString());
  } catch (error) {
    if (!(error instanceof UserError || error instanceof Unsupported)) throw error;
    expect(error.message).toContain('model.gguf');
    // Names are cut to 100 characters, which escapes may make six times as long; there may be two.
    expect(error.message.length).toBeLessThan(1500);
  }
  expect(source.bytesRead).toBeLessThanOrEqual(2 * bytes.length + 16);
  return opened !== undefined;
}

describe(`any bytes (seed ${seed})`, () => {
  const valid = ggufBytes(tinyLlama());
  const header = valid.length - 4 * (12 * 8 + 2 * 8 + 8 + 3 * 64 + 64 + 3 * 128);

  it('open or are explained', () => {
    const magic = fc.constantFrom(
      '',
      'GGUF',
      'GGUF\x03\0\0\0',
      'GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0',
    );
    fc.assert(
      fc.property(magic, fc.uint8Array({ maxLength: 200 }), (start, bytes) => {
        opensOrExplains(Buffer.concat([Buffer.from(start, 'latin1'), bytes]));
      }),
      { seed, numRuns: 3000 },
    );
  });

  it('that are a damaged copy of a valid file open or are explained', () => {
    expect(opensOrExplains(valid)).toBe(true);
    const place = fc.nat(header + 64);
    const damage = fc.oneof(
      fc.record({ kind: fc.constant('byte'), at: place, value: fc.nat(255) }),
      fc.record({
        kind: fc.constant('word'),
        at: place,
        value: fc.constantFrom(0, 1, 8, 9, 2 ** 31, 2 ** 32 - 1),
      }),
      fc.record({ kind: fc.constant('cut'), at: place, value: fc.nat(40) }),
      fc.record({ kind: fc.constant('end'), at: place, value: fc.nat(0) }),
    );
    let opened = 0;
    fc.assert(
      fc.property(fc.array(damage, { minLength: 1, maxLength: 3 }), (damages) => {
        let bytes = Buffer.from(valid);
        for (const { kind, at, value } of damages) {
          if (kind === 'byte' && at < bytes.length) bytes.writeUInt8(value, at);
          if (kind === 'word' && at + 4 <= bytes.length) bytes.writeUInt32LE(value, at);
          if (kind === 'cut') bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + value)]);
          if (kind === 'end') bytes = bytes.subarray(0, at);
        }
        if (opensOrExplains(bytes)) opened++;
      }),
      { seed, numRuns: 5000 },
    );
    // Some damage goes no further than a name.
    expect(opened).toBeGreaterThan(100);
    expect(opened).toBeLessThan(4000);
  });

  it('with any metadata open or are explained', () => {
    const number = fc.oneof(
      fc.constantFrom(0, 1, 2, 3, 4, 8, 12, 4_000_000_000).map(u32),
      fc.constantFrom(-1, 0, 2, 2 ** 31 - 1).map(i32),
      fc.constantFrom(0, -1, 1e-5, NaN, Infinity).map(f32),
      fc.constantFrom(0n, 8n, 2n ** 64n - 1n).map(u64),
      fc.boolean().map(bool),
    );
    const words = fc
      .constantFrom('', 'llama', 'phi3', 'qwen2', 'gpt2', 'gpt-2', 'a', 'ab', 'a b', 'yarn', '\u2581')
      .map(text);
    const value = fc.oneof(
      number,
      words,
      fc.array(words, { maxLength: 14 }).map((list) => array(list, 8)),
      fc.array(fc.constantFrom(-1, 0, 1, 3, 6).map(i32), { maxLength: 14 }).map((list) => array(list, 5)),
      fc.array(fc.constantFrom(NaN, 0, -1).map(f32), { maxLength: 14 }).map((list) => array(list, 6)),
    );
    const keys = [
      ...Object.keys(tinyLlama().metadata ?? {}),
      ...['general.alignment', 'split.count', 'tokenizer.chat_template'],
      ...['vocab_size', 'expert_count', 'attention.key_length', 'attention.value_length'].map(
        (key) => `llama.${key}`,
      ),
      ...['attention.sliding_window', 'rope.freq_base', 'rope.dimension_count'].map((key) => `llama.${key}`),
      ...['rope.scaling.type', 'rope.scaling.factor'].map((key) => `llama.${key}`),
      ...['pre', 'merges', 'unknown_token_id', 'add_bos_token', 'add_eos_token'].map(
        (key) => `tokenizer.ggml.${key}`,
      ),
    ];
    const changes = fc.dictionary(fc.constantFrom(...keys), fc.option(value, { nil: undefined }), {
      maxKeys: 3,
    });
    fc.assert(
      fc.property(changes, (changed) => {
        opensOrExplains(ggufBytes(tinyLlama(changed)));
      }),
      { seed, numRuns: 4000 },
    );
  });
});
