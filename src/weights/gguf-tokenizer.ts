import { Unsupported } from '../diagnostic.js';
import { quoted, shown } from '../input-file.js';
import { metadataTypes, type Metadata } from './gguf-metadata.js';
import type { TokenizerFile } from './stored.js';

const { flag, scores, size, text, texts, tokenTypes } = metadataTypes;
const key = (name: string): string => `tokenizer.ggml.${name}`;

/** The ids that begin and end a text, as the file says. */
export function specialTokens(metadata: Metadata): { bosToken: number | null; eosTokens: readonly number[] } {
  // A chat model also ends its turn (eot) and its message (eom).
  const ends = ['eos', 'eot', 'eom'].map((name) => metadata.get(key(`${name}_token_id`), size));
  return {
    bosToken: metadata.get(key('bos_token_id'), size) ?? null,
    eosTokens: [...new Set(ends.filter((id) => id !== undefined))],
  };
}

/**
 * tokenizer.json and tokenizer_config.json in the terms of the Hugging Face tokenizers library; none when the file has
 * no tokenizer.
 * @throws {UserError} when a part is missing or damaged
 * @throws {Unsupported} for a kind of tokenizer, or a way of cutting text into words, that is unknown here
 */
export function tokenizerFiles(metadata: Metadata): readonly TokenizerFile[] {
  const kind = metadata.get(key('model'), text);
  if (kind === undefined || kind === 'none' || kind === 'no_vocab') return [];
  const convert = kind === 'llama' ? sentencePiece : kind === 'gpt2' ? byteLevel : undefined;
  if (!convert) {
    throw new Unsupported(`${shown(metadata.file)}: a tokenizer of kind ${quoted(kind)}`, {
      notes: [`metadata "${key('model')}" can be llama (SentencePiece BPE) or gpt2 (byte-level BPE)`],
    });
  }
  const pieces = readPieces(metadata);
  const tokenizer = { version: '1.0', truncation: null, padding: null, ...convert(metadata, pieces) };
  const config = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    ...Object.fromEntries(
      (['bos', 'eos'] as const).flatMap((name) => {
        const token = specialToken(metadata, pieces, name);
        return token ? [[`${name}_token`, token.content]] : [];
      }),
    ),
    chat_template: metadata.get('tokenizer.chat_template', text),
  };
  return [
    { name: 'tokenizer.json', read: () => json(tokenizer) },
    { name: 'tokenizer_config.json', read: () => json(config) },
  ];
}

const json = (value: object): Uint8Array => Buffer.from(`${JSON.stringify(value, null, 1)}\n`);

/** GGML's types of tokens; 1 is a normal one, 5 an unused one. */
const tokenType = { unknown: 2, control: 3, userDefined: 4, byte: 6 };

interface Pieces {
  readonly tokens: readonly string[];
  readonly ids: ReadonlyMap<string, number>;
  /** All normal where the file has none. */
  readonly typeOf: (id: number) => number;
}

function readPieces(metadata: Metadata): Pieces {
  const tokens = metadata.need(key('tokens'), texts);
  const ids = new Map(tokens.map((token, id) => [token, id]));
  if (ids.size !== tokens.length) {
    const twice = tokens.find((token, id) => ids.get(token) !== id);
    throw metadata.wrong(key('tokens'), `the token ${quoted(twice ?? '')} is there twice`);
  }
  const types = metadata.get(key('token_type'), tokenTypes);
  if (types && types.length !== tokens.length) {
    throw metadata.wrong(key('token_type'), `${types.length} types for ${tokens.length} tokens`);
  }
  return { tokens, ids, typeOf: (id) => types?.[id] ?? 1 };
}

interface SpecialToken {
  readonly id: number;
  readonly content: string;
}

function specialToken(
  metadata: Metadata,
  { tokens }: Pieces,
  name: 'bos' | 'eos' | 'unknown',
  absent?: number,
): SpecialToken | undefined {
  const id = metadata.get(key(`${name}_token_id`), size) ?? absent;
  if (id === undefined) return undefined;
  const content = tokens[id];
  if (content === undefined) {
    throw metadata.wrong(key(`${name}_token_id`), `${id} is not one of the ${tokens.length} tokens`);
  }
  return { id, content };
}

/** A vocabulary of pieces with scores: the pair whose piece has the highest score is joined first. */
function sentencePiece(metadata: Metadata, pieces: Pieces): object {
  const unknown = specialToken(metadata, pieces, 'unknown', 0);
  const spaceFirst = metadata.get(key('add_space_prefix'), flag) ?? true;
  const space = '\u2581';
  return {
    added_tokens: addedTokens(pieces),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        ...(spaceFirst ? [{ type: 'Prepend', prepend: space }] : []),
        { type: 'Replace', pattern: { String: ' ' }, content: space },
      ],
    },
    pre_tokenizer: null,
    post_processor: surroundings(metadata, pieces, true),
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: space }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(spaceFirst ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      unk_token: unknown?.content ?? null,
      fuse_unk: true,
      byte_fallback: pieces.ids.has('<0x00>'),
      vocab: vocabulary(pieces),
      merges: mergesByScore(metadata, pieces),
    },
  };
}

/** All ways of joining two pieces are tried, which takes the square of a piece's length; real ones take 10^8 in all. */
const mostMergeWork = 2 ** 31;

function mergesByScore(metadata: Metadata, { tokens, ids, typeOf }: Pieces): [string, string][] {
  const score = metadata.need(key('scores'), scores);
  if (score.length !== tokens.length) {
    throw metadata.wrong(key('scores'), `${score.length} scores for ${tokens.length} tokens`);
  }
  const apart: readonly number[] = [tokenType.unknown, tokenType.control, tokenType.byte];
  const joined = [...tokens.keys()].filter((id) => !apart.includes(typeOf(id)));
  const work = joined.reduce((sum, id) => sum + (tokens[id] ?? '').length ** 2, 0);
  if (work > mostMergeWork)
    throw metadata.wrong(key('tokens'), 'the tokens are too long to be pieces of text');
  joined.sort((a, b) => (score[b] ?? 0) - (score[a] ?? 0) || a - b);
  return joined.flatMap((id) => {
    const token = tokens[id] ?? '';
    const pairs: { left: number; right: number }[] = [];
    for (let at = 1; at < token.length; at++) {
      const left = ids.get(token.slice(0, at));
      const right = left === undefined ? undefined : ids.get(token.slice(at));
      if (left !== undefined && right !== undefined) pairs.push({ left, right });
    }
    pairs.sort((a, b) => a.left - b.left || a.right - b.right);
    return pairs.map(({ left, right }): [string, string] => [tokens[left] ?? '', tokens[right] ?? '']);
  });
}

/** A way of cutting text into words before its bytes are joined. */
interface Words {
  /** Absent: GPT-2's own, which the library has. */
  readonly pattern?: string;
  /** A word that is a token is that token, whatever the merges say. */
  readonly wholeWords?: boolean;
  /** Whether a beginning-of-sequence token comes first when the file does not say. */
  readonly bos?: boolean;
  readonly normalizer?: string;
}

const contractions = "'(?:[sS]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])";
const rest = (digits: string, punctuation: string): string =>
  `${digits}| ?[^\\s\\p{L}\\p{N}]+[${punctuation}]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;
const word = '[^\\r\\n\\p{L}\\p{N}]?';
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const llama3 = `${contractions}|${word}\\p{L}+|${rest('\\p{N}{1,3}', '\\r\\n')}`;
const qwen2 = `${contractions}|${word}\\p{L}+|${rest('\\p{N}', '\\r\\n')}`;
const gpt4o =
  `${word}${upper}*${lower}+(?:${contractions})?|${word}${upper}+${lower}*(?:${contractions})?|` +
  rest('\\p{N}{1,3}', '\\r\\n/');

/** By the name in `tokenizer.ggml.pre`. A Map: names come from files. */
const waysOfCutting: ReadonlyMap<string, Words> = new Map<string, Words>([
  ['gpt-2', {}],
  ['phi-2', {}],
  ['llama-bpe', { pattern: llama3, wholeWords: true, bos: true }],
  ['dbrx', { pattern: llama3 }],
  ['smaug-bpe', { pattern: llama3 }],
  ['qwen2', { pattern: qwen2, normalizer: 'NFC' }],
  ['deepseek-r1-qwen', { pattern: qwen2 }],
  ['gpt-4o', { pattern: gpt4o }],
]);

/** A vocabulary of bytes and what they join to, by a list of merges. */
function byteLevel(metadata: Metadata, pieces: Pieces): object {
  const name = metadata.need(key('pre'), text);
  const words = waysOfCutting.get(name);
  if (!words) {
    throw new Unsupported(`${shown(metadata.file)}: text cut into words the ${quoted(name)} way`, {
      notes: [`metadata "${key('pre')}" can be ${[...waysOfCutting.keys()].join(', ')}`],
    });
  }
  const merges = metadata.need(key('merges'), texts);
  const strange = merges.find((merge) => !/^\S+ \S+$/.test(merge));
  if (strange !== undefined) {
    throw metadata.wrong(key('merges'), `${quoted(strange)}: expected two pieces with a space between`);
  }
  const bytes = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: !words.pattern };
  const split = { type: 'Split', pattern: { Regex: words.pattern }, behavior: 'Isolated', invert: false };
  return {
    added_tokens: addedTokens(pieces),
    normalizer: words.normalizer === undefined ? null : { type: words.normalizer },
    pre_tokenizer: words.pattern === undefined ? bytes : { type: 'Sequence', pretokenizers: [split, bytes] },
    post_processor: surroundings(metadata, pieces, words.bos ?? false),
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: words.wholeWords ?? false,
      vocab: vocabulary(pieces),
      merges,
    },
  };
}

/** An object of its own keys, one of which may well be `__proto__`. */
function vocabulary({ ids }: Pieces): object {
  return Object.fromEntries(ids);
}

/** The tokens that are found in a text before it is cut into pieces. */
function addedTokens({ tokens, typeOf }: Pieces): object[] {
  return tokens.flatMap((content, id) => {
    const special = typeOf(id) === tokenType.control || typeOf(id) === tokenType.unknown;
    if (!special && typeOf(id) !== tokenType.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

/** The post-processor that puts the first and the last token around a text. */
function surroundings(metadata: Metadata, pieces: Pieces, bosByDefault: boolean): object | null {
  const around = (name: 'bos' | 'eos', byDefault: boolean): SpecialToken | undefined => {
    if (!(metadata.get(key(`add_${name}_token`), flag) ?? byDefault)) return undefined;
    const token = specialToken(metadata, pieces, name);
    if (token) return token;
    throw metadata.wrong(key(`add_${name}_token`), `the file has no ${key(`${name}_token_id`)}`);
  };
  const bos = around('bos', bosByDefault);
  const eos = around('eos', false);
  const tokens = [bos, eos].filter((token) => token !== undefined);
  if (tokens.length === 0) return null;
  const template = (token: SpecialToken | undefined): object[] =>
    token ? [{ SpecialToken: { id: token.content, type_id: 0 } }] : [];
  const sequence = (id: string): object[] => [
    ...template(bos),
    { Sequence: { id, type_id: 0 } },
    ...template(eos),
  ];
  return {
    type: 'TemplateProcessing',
    single: sequence('A'),
    pair: [...sequence('A'), ...sequence('B')],
    special_tokens: Object.fromEntries(
      tokens.map(({ id, content }) => [content, { id: content, ids: [id], tokens: [content] }]),
    ),
  };
}
