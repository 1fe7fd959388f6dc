import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { openTokenizer } from '../../src/runtime/tokenizer.js';
import { damagedJson, fuzz, opensOrExplains, titleOf } from '../support/damage.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

// For a busy machine; it takes less than a minute.
vi.setConfig({ testTimeout: 300_000 });

/** The parts of a real tokenizer.json, with few of its pieces. */
function cutDown(file: string, pieces: number): object {
  const json = JSON.parse(readFileSync(file, 'utf8')) as {
    model: { vocab: Record<string, number>; merges: (string | [string, string])[] };
  };
  const vocab = Object.fromEntries(Object.entries(json.model.vocab).filter(([, id]) => id < pieces));
  const merges = json.model.merges.filter((merge) => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge;
    return pair.every((piece) => piece in vocab) && pair.join('') in vocab;
  });
  return { ...json, model: { ...json.model, vocab, merges } };
}

const word = { type: 'Split', pattern: { Regex: '\\w+|\\s+' }, behavior: 'Isolated', invert: false };
const tokenizers: Readonly<Record<string, object>> = {
  'SentencePiece BPE': cutDown('examples/stories260k/tokenizer.json', 280),
  'byte-level BPE': cutDown('examples/phi4-shakespeare/tokenizer.json', 280),
  'WordPiece and Unigram parts': {
    added_tokens: [
      {
        id: 0,
        content: '[UNK]',
        special: true,
        lstrip: true,
        rstrip: true,
        normalized: false,
        single_word: false,
      },
    ],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFKC' },
        { type: 'Replace', pattern: { String: 'a' }, content: 'b' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        word,
        { type: 'Digits', individual_digits: true },
        { type: 'Metaspace', replacement: '▁' },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '[UNK]', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
      special_tokens: { '[UNK]': { id: '[UNK]', ids: [0], tokens: ['[UNK]'] } },
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: {
      type: 'WordPiece',
      unk_token: '[UNK]',
      continuing_subword_prefix: '##',
      max_input_chars_per_word: 20,
      vocab: { '[UNK]': 0, b: 1, '##b': 2, '1': 3, '▁': 4, '##c': 5 },
    },
  },
  Unigram: {
    added_tokens: [{ id: 0, content: '<unk>', special: true }],
    normalizer: { type: 'Precompiled', precompiled_charsmap: null },
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    post_processor: null,
    decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
    model: {
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['<unk>', 0],
        ['▁', -1],
        ['a', -2],
        ['▁a', -1.5],
        ['1', -3],
      ],
    },
  },
};
const parts = [
  ...[
    'type',
    'vocab',
    'merges',
    'unk_token',
    'byte_fallback',
    'ignore_merges',
    'dropout',
    'unk_id',
    'added_tokens',
  ],
  ...[
    'normalizer',
    'pre_tokenizer',
    'post_processor',
    'decoder',
    'model',
    'content',
    'id',
    'special',
    'pattern',
  ],
  ...['Regex', 'String', 'behavior', 'prepend_scheme', 'replacement', 'end_of_word_suffix', 'fuse_unk'],
];
const show = (text: Buffer): string => text.toString('latin1');

beforeEach(() => {
  // The library remarks on patterns that it does not know.
  vi.spyOn(console, 'warn').mockReturnValue();
});

/** Opens the tokenizer, and uses it. */
function use(dir: string): void {
  const tokenizer = openTokenizer(dir);
  if (!tokenizer) throw new Error('no tokenizer');
  const ids = tokenizer.encode('Once upon a time 12 <s>\u00e9\u{1F600}\n\n');
  for (const id of ids) expect(Number.isInteger(id) && id >= 0).toBe(true);
  const stream = tokenizer.stream();
  const all = [...ids, 0, 1, 2, 99, 300];
  const text = all.map((id) => stream.push(id)).join('') + stream.end();
  expect(typeof (text + tokenizer.decode(all))).toBe('string');
}

describe.each(Object.entries(tokenizers))('tokenizer.json of %s', (_, json) => {
  it(titleOf('damaged, is used or explained', 2500), async () => {
    const dir = temporaryFolder();
    const of = damagedJson(JSON.stringify(json), parts);
    const used = await fuzz({ runs: 2500, of, show }, (text) => {
      writeFileSync(path.join(dir, 'tokenizer.json'), text);
      return opensOrExplains('tokenizer.json', () => use(dir));
    });
    expect(used).toBeGreaterThan(200);
    expect(used).toBeLessThan(2000);
  });
});

it(titleOf('tokenizer_config.json, damaged, is used or explained', 2000), async () => {
  const dir = temporaryFolder();
  writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify(tokenizers['SentencePiece BPE']));
  const config = readFileSync('examples/stories260k/tokenizer_config.json', 'utf8');
  const keys = ['bos_token', 'eos_token', 'add_bos_token', 'legacy', 'tokenizer_class', 'chat_template'];
  await fuzz({ runs: 2000, of: damagedJson(config, keys), show }, (text) => {
    writeFileSync(path.join(dir, 'tokenizer_config.json'), text);
    return opensOrExplains('tokenizer', () => use(dir));
  });
});

describe('a damaged tokenizer', () => {
  const unigram = tokenizers['Unigram'] ?? {};

  /** A folder with the Unigram tokenizer, changed. */
  function changed(changes: object): string {
    const dir = temporaryFolder();
    writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify({ ...unigram, ...changes }));
    return dir;
  }

  it('has a long name of a part shown cut short', () => {
    const dir = changed({ normalizer: { type: 'x'.repeat(100_000) } });
    expect(renderedError(() => openTokenizer(dir), dir).length).toBeLessThan(500);
  });

  it('does not give ids that are none', () => {
    const vocab = [
      ['<unk>', 0],
      ['a', -2],
    ];
    const dir = changed({ model: { type: 'Unigram', unk_id: null, vocab } });
    expect(renderedError(() => openTokenizer(dir)?.encode('b'), dir)).toMatchInlineSnapshot(`
      "error: <dir>/tokenizer.json cannot encode the text: "null" is no token id
       note: a part of the tokenizer is missing or damaged"
    `);
  });

  it('says that it cannot decode', () => {
    const dir = changed({ decoder: { type: 'Metaspace', replacement: 'R' } });
    const file = path.join(dir, 'tokenizer.json');
    writeFileSync(file, readFileSync(file, 'utf8').replace('"R"', '['.repeat(5000) + ']'.repeat(5000)));
    expect(renderedError(() => openTokenizer(dir)?.decode([2]), dir)).toMatchInlineSnapshot(`
      "error: <dir>/tokenizer.json cannot decode the ids: Maximum call stack size exceeded
       note: a part of the tokenizer is missing or damaged"
    `);
  });
});
