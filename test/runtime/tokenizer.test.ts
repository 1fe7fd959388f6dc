import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { openTokenizer, type TextTokenizer } from '../../src/runtime/tokenizer.js';
import { readTensor } from '../../src/weights/read.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

const root = path.join(import.meta.dirname, '../..');
const seed = 20250611;

function open(dir: string): TextTokenizer {
  const tokenizer = openTokenizer(path.join(root, dir));
  if (!tokenizer) throw new Error(`no tokenizer in ${dir}`);
  return tokenizer;
}

/** SentencePiece style: byte fallback, and a leading space that the decoder takes off again. */
const stories = open('examples/stories260k');
/** GPT style: byte-level, every id is some bytes. */
const phi4 = open('examples/phi4-shakespeare');

function streamed(tokenizer: TextTokenizer, ids: readonly number[]): string[] {
  const stream = tokenizer.stream();
  return [...ids.map((id) => stream.push(id)), stream.end()];
}

describe('openTokenizer', () => {
  it('encodes as the published tokenizers do', () => {
    expect(stories.vocabularySize).toBe(512);
    expect(stories.encode('Once upon a time')).toEqual([1, 403, 407, 261, 378]);
    expect(stories.encode('')).toEqual([1]);
    expect(phi4.vocabularySize).toBe(1024);
    expect(phi4.encode('')).toEqual([]);
    expect(phi4.decode(phi4.encode("ROMEO:\nI'll do n't ."))).toBe("ROMEO:\nI'll do n't .");
  });

  it('decodes the published greedy text', () => {
    const fixture = path.join(root, 'test/fixtures/stories260k');
    const entry = openSafetensors(path.join(fixture, 'golden.safetensors')).tensors.get('greedy_ids');
    if (!entry) throw new Error('no greedy_ids');
    const ids = [...readTensor(entry)];
    const text = readFileSync(path.join(fixture, 'greedy.txt'), 'utf8');
    // greedy_ids is the beginning of the published text, which goes on to 256 ids.
    expect(ids).toHaveLength(208);
    expect(stories.encode(text)).toHaveLength(256);
    expect(stories.encode(text).slice(0, 208)).toEqual(ids);
    expect(stories.decode(stories.encode(text))).toBe(text);
    expect(streamed(stories, ids).join('')).toBe(stories.decode(ids));
  });

  it('gives special tokens and ids outside the vocabulary no text', () => {
    expect(stories.decode([1, 403, 2, 99999, 407, -1, 0.5])).toBe('Once upon');
    expect(stories.decode([1, 2])).toBe('');
    expect(phi4.decode([])).toBe('');
    expect(phi4.decode([0, ...phi4.encode('é'), 5000])).toBe('é');
  });

  it('is undefined without tokenizer.json, and needs no tokenizer_config.json', () => {
    const dir = temporaryFolder();
    expect(openTokenizer(dir)).toBeUndefined();
    writeFileSync(
      path.join(dir, 'tokenizer.json'),
      readFileSync(path.join(root, 'examples/stories260k/tokenizer.json')),
    );
    expect(openTokenizer(dir)?.encode('Once')).toEqual([1, 403]);
  });

  it('explains a damaged tokenizer', () => {
    const model = { type: 'BPE', vocab: { a: 0 }, merges: [] };
    const faults: unknown[] = [
      '{"model":',
      [],
      {},
      { model: { type: 'BPE', vocab: 3 } },
      { model: { type: 'BPE', vocab: { a: 0 } } },
      { model: { ...model, type: 'Mystery' } },
      { model: { ...model, vocab: { a: 'x' } } },
      { model: { ...model, vocab: { a: 1e9 } } },
      { model: { ...model, merges: [3] } },
      { model: { type: 'Unigram', vocab: [['a', 0], 'b'] } },
      { model, added_tokens: [{ id: 'x', content: 'a' }] },
      { model, decoder: { type: 'Mystery' } },
    ];
    const shown = faults.map((value) => {
      const dir = temporaryFolder();
      writeFileSync(
        path.join(dir, 'tokenizer.json'),
        typeof value === 'string' ? value : JSON.stringify(value),
      );
      return `${JSON.stringify(value)}\n${renderedError(() => openTokenizer(dir), dir)}`;
    });
    const dir = temporaryFolder();
    writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify({ model }));
    writeFileSync(path.join(dir, 'tokenizer_config.json'), '{');
    shown.push(renderedError(() => openTokenizer(dir), dir));
    expect(`\n${shown.join('\n\n')}\n`).toMatchInlineSnapshot(`
      "
      "{\\"model\\":"
      error: <dir>/tokenizer.json is not valid JSON
       note: <parser's message>
       note: the file is damaged: download it again

      []
      error: <dir>/tokenizer.json: expected a JSON object, found an array
       note: the file is damaged: download it again

      {}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":3}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":{"a":0}}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"Mystery","vocab":{"a":0},"merges":[]}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":{"a":"x"},"merges":[]}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":{"a":1000000000},"merges":[]}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":{"a":0},"merges":[3]}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"Unigram","vocab":[["a",0],"b"]}}
      error: <dir>/tokenizer.json is not a valid tokenizer: model: expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"added_tokens":[{"id":"x","content":"a"}]}
      error: <dir>/tokenizer.json is not a valid tokenizer: added_tokens.0.id: Invalid input: expected number, received string
       note: expected a tokenizer.json of the Hugging Face tokenizers library
       note: download the file again

      {"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"decoder":{"type":"Mystery"}}
      error: <dir>/tokenizer.json cannot be used
       note: Unknown Decoder type: Mystery
       note: either the file is damaged, or it uses a part of the tokenizers library that is unknown here

      error: <dir>/tokenizer_config.json is not valid JSON
       note: <parser's message>
       note: the file is damaged: download it again
      "
    `);
  });
});

describe.each([
  ['stories260k', stories],
  ['phi4-shakespeare', phi4],
])('stream of %s', (_, tokenizer) => {
  const joinsToDecode = (ids: readonly number[]) => {
    expect(streamed(tokenizer, ids).join('')).toBe(tokenizer.decode(ids));
  };

  it(`joins to decode for any text, without broken characters (seed ${seed})`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.oneof(fc.string({ unit: 'grapheme' }), fc.string({ unit: 'binary' }))),
        (parts) => {
          const text = parts.join(' ').replaceAll('\uFFFD', '');
          const ids = tokenizer.encode(text);
          const pieces = streamed(tokenizer, ids);
          expect(pieces.join('')).toBe(tokenizer.decode(ids));
          expect(pieces.every((piece) => !/[\p{Surrogate}\uFFFD]/u.test(piece))).toBe(true);
        },
      ),
      { seed, numRuns: 300 },
    );
  });

  it(`joins to decode for any ids (seed ${seed})`, () => {
    const id = fc.oneof(
      fc.integer({ min: -1, max: tokenizer.vocabularySize + 5 }),
      // The ids of single bytes in both vocabularies: long runs of broken UTF-8.
      fc.integer({ min: 3, max: 260 }),
    );
    const bytes = fc.array(fc.integer({ min: 3 + 0x7e, max: 260 }), { minLength: 30, maxLength: 200 });
    fc.assert(fc.property(fc.oneof(fc.array(id, { maxLength: 200 }), bytes), joinsToDecode), {
      seed,
      numRuns: 2000,
    });
  });

  it('keeps leading spaces after the first token, however long the text', () => {
    joinsToDecode(tokenizer.encode('Once upon a time  there   was '.repeat(20)));
    joinsToDecode(tokenizer.encode(' '.repeat(100)));
  });

  it('holds back half a character, and no more', () => {
    const ids = tokenizer.encode('a😀b\uFFFDc');
    expect(streamed(tokenizer, ids).filter((piece) => piece !== '')).toEqual(['a', '😀', 'b', '\uFFFDc']);
    const stream = tokenizer.stream();
    expect(stream.push(ids.at(-1) ?? 0) + stream.end()).toBe('c');
    expect(ids.map((id) => stream.push(id)).join('') + stream.end()).toBe('a😀b\uFFFDc');
  });

  it('lets bytes that are no text flow on', () => {
    const [lead] = tokenizer.encode('😀').slice(-4);
    if (lead === undefined) throw new Error('no bytes');
    const pieces = streamed(tokenizer, Array(100).fill(lead));
    expect(pieces.slice(1, 100).every((piece) => piece === '\uFFFD')).toBe(true);
  });
});
