import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { Model } from 'upgc';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { readNpy } from '../../src/cli/npy.js';
import { loadModel } from '../../src/ir/load.js';
import { openTokenizer } from '../../src/runtime/tokenizer.js';
import { openCheckpoint } from '../../src/weights/checkpoint.js';
import { openGguf } from '../../src/weights/gguf.js';
import { packWeights } from '../../src/weights/pack.js';
import { readValues } from '../support/blocks.js';
import { largestDifference } from '../support/golden.js';
import { alone, shapeOf } from '../support/packed.js';
import { renderedError } from '../support/snapshot.js';
import { sharedFolder } from '../support/temporary.js';

/** Files written by llama.cpp's own tools, and what it makes of them; see SOURCE.md there. */
const folder = path.resolve('test/fixtures/gguf');
const inFolder = (name: string): string => path.join(folder, name);
const json = (name: string): unknown => JSON.parse(readFileSync(inFolder(name), 'utf8'));

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Buffer =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);

/** The model file for a file of this name. */
const models = { llama: loadModel('models/llama.graph.ts'), phi4: loadModel('models/phi4.graph.ts') };
const modelFor = (name: string): Model => (name.startsWith('phi4') ? models.phi4 : models.llama);

const all = readdirSync(folder)
  .filter((name) => name.endsWith('.gguf'))
  .map((name) => name.slice(0, -'.gguf'.length));
const readable = all.filter((name) => !name.includes('Q3_K'));

it('has every file', () => {
  expect(all).toHaveLength(12);
  expect(readable).toHaveLength(11);
});

describe.each(readable.filter((name) => !name.endsWith('align128')))('%s.gguf', (name) => {
  const gguf = openGguf(inFolder(`${name}.gguf`));

  it('has the tensors that llama.cpp lists, of those types', () => {
    const { tensors } = json(`${name}.json`) as { tensors: Record<string, string> };
    const types = [...gguf.tensors.values()].map((tensor) => [tensor.name, tensor.dtype]);
    expect(Object.fromEntries(types)).toEqual(tensors);
  });

  const goldens = readdirSync(folder).filter(
    (file) => file.startsWith(`${name}.`) && file.endsWith('.f32.npy'),
  );

  it.each(goldens)('holds the values of %s, bit for bit', async (file) => {
    const tensor = gguf.tensors.get(file.slice(name.length + 1, -'.f32.npy'.length));
    if (!tensor) throw new Error('no such tensor');
    const expected = readNpy(inFolder(file), 'f32');
    expect(tensor.shape).toEqual(expected.shape);
    const weight = alone({ tensor }, shapeOf(tensor), 'f32');
    const output = path.join(sharedFolder(), 'tensor.bin');
    await packWeights(output, [weight], weight.bytes);
    expect(readFileSync(output).equals(bytesOf(expected.data))).toBe(true);
    // So that other tests can rely on the reference.
    expect(bytesOf(Float32Array.from(readValues(tensor))).equals(bytesOf(expected.data))).toBe(true);
  });
});

describe('scores', () => {
  let session: Session | undefined;
  afterEach(() => session?.close());

  it.each(readable)('%s.gguf as llama.cpp does with its weights as f32', async (name) => {
    const [source = ''] = /^(phi4-shakespeare|random256|stories260k)/.exec(name) ?? [];
    const { ids } = json(`${source}.ids.json`) as { ids: number[] };
    // The same tensors at another alignment.
    const golden = readNpy(inFolder(`${name.replace('-align128', '')}.logits-f32act.npy`), 'f32');
    const out = path.join(sharedFolder(), name);
    await compile({ model: modelFor(name), weights: inFolder(`${name}.gguf`), context: 64, out });
    session = await Session.open(out);
    const expected = golden.data as Float32Array;
    const largest = expected.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    expect(ids).toHaveLength(64);
    const difference = largestDifference(await session.score(ids), expected);
    expect(difference).toBeLessThanOrEqual(2e-3 * Math.max(1, largest / 10));
  });
});

it('refuses a type that it cannot read, by name', () => {
  const file = inFolder('random256-Q3_K_S.gguf');
  expect(renderedError(() => openCheckpoint(file), folder)).toMatchInlineSnapshot(`
    "unsupported: test/fixtures/gguf/random256-Q3_K_S.gguf: tensor "token_embd.weight" is of type Q3_K, which cannot be read
     note: types that can be read: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K
     note: take the file of another quantisation, such as Q4_K_M or Q8_0, or make one with llama-quantize"
  `);
});

describe.each([
  ['stories260k-Q8_0', 'stories260k'],
  ['phi4-shakespeare-Q8_0', 'phi4-shakespeare'],
])('the metadata of %s.gguf', (name, example) => {
  const checkpoint = openCheckpoint(inFolder(`${name}.gguf`));
  const original = openCheckpoint(path.resolve('examples', example));

  it('says what config.json says', () => {
    const { config, bosToken, eosTokens } = checkpoint;
    const shared = Object.keys(config).filter((key) => key in original.config);
    expect(shared.length).toBeGreaterThan(10);
    for (const key of shared) expect(config[key], key).toEqual(original.config[key]);
    expect([bosToken, eosTokens]).toEqual([original.bosToken, original.eosTokens]);
  });

  it('has the tensors of the original, by their names and of their shapes', () => {
    const shapes = ({ tensors }: typeof original) =>
      Object.fromEntries([...tensors].map(([tensor, { shape }]) => [tensor, shape]));
    expect(shapes(checkpoint)).toEqual(shapes(original));
  });
});

describe('tokenizers', () => {
  let texts: string[];
  beforeAll(() => {
    const heldout = readFileSync('test/fixtures/phi4-shakespeare/heldout.txt', 'utf8');
    const story = readFileSync('test/fixtures/stories260k/greedy.txt', 'utf8');
    const odd = [
      '',
      ' ',
      '  two  spaces ',
      "I'll do n't .",
      'naïve façade 日本語 🙂',
      '12345 + 6789\n\n\tend',
      'ROMEO:\n',
    ];
    texts = [heldout, story, ...odd];
  });

  it.each([
    ['stories260k-Q4_0', 'stories260k'],
    ['phi4-shakespeare-Q4_0', 'phi4-shakespeare'],
  ])('of %s.gguf gives the ids of tokenizer.json', async (name, example) => {
    const out = path.join(sharedFolder(), `tokenizer-${name}`);
    await compile({ model: modelFor(name), weights: inFolder(`${name}.gguf`), out });
    const [converted, original] = [openTokenizer(out), openTokenizer(path.resolve('examples', example))];
    if (!converted || !original) throw new Error('no tokenizer');
    for (const text of texts) {
      const ids = original.encode(text);
      expect(converted.encode(text)).toEqual(ids);
      expect(converted.decode(ids)).toBe(original.decode(ids));
    }
    expect(converted.vocabularySize).toBe(original.vocabularySize);
  });
});
