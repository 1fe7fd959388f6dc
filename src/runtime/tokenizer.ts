import path from 'node:path';
import { existsSync } from 'node:fs';
import * as library from '@huggingface/tokenizers';
import { z } from 'zod';
import { UserError } from '../diagnostic.js';
import { brief, isObject, quoted, readJsonObject, shown } from '../input-file.js';

/** Text to token ids and back, as the model's tokenizer.json says. */
export interface TextTokenizer {
  /** The highest id plus one. A model's logits may be wider: such rows are padded, and the ids beyond mean nothing. */
  readonly vocabularySize: number;
  /** The ids of `text`, with the special tokens that the post-processor adds, e.g. a beginning-of-sequence id. */
  encode(text: string): number[];
  /** The text of `ids`. Special tokens and ids outside the vocabulary have no text. */
  decode(ids: readonly number[]): string;
  /** A decoder for ids that arrive one by one. */
  stream(): TextStream;
}

/** Decodes ids as they arrive: the pieces of `push` and `end`, joined, are `decode` of all the ids. */
export interface TextStream {
  /** The text that `id` completes, possibly none: half a UTF-8 character waits for its other half. */
  push(id: number): string;
  /** The text still held back. The next `push` begins a new text. */
  end(): string;
}

/**
 * What is used of the tokenizers library. Its own declarations import without file extensions, which NodeNext does
 * not resolve, so to the type checker its classes are `any`.
 */
interface LibraryTokenizer {
  encode(text: string): { ids: (number | undefined)[] };
  decode(ids: number[], options: { clean_up_tokenization_spaces: boolean }): string;
  id_to_token(id: number): string | undefined;
  get_added_tokens_decoder(): Map<number, { content: string; special: boolean }>;
  get_vocab(): Map<string, number>;
}
const Tokenizer = library.Tokenizer as unknown as new (json: object, config: object) => LibraryTokenizer;

/** Far above any vocabulary in use; tables are as long as the highest id. */
const tokenId = z.int().min(0).max(0xffffff);

/**
 * The parts of tokenizer.json that the tokenizers library relies on without checking them. Values are only checked,
 * never copied: a token may well be spelled `__proto__`.
 */
const tokenizerSchema = z.object({
  model: z.union(
    [
      z.object({
        type: z.literal('BPE').optional(),
        vocab: z.custom<object>(isVocabulary),
        merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
      }),
      z.object({ type: z.literal('WordPiece').optional(), vocab: z.custom<object>(isVocabulary) }),
      z.object({
        type: z.literal('Unigram').optional(),
        vocab: z.array(z.tuple([z.string(), z.number()])),
      }),
    ],
    'expected a model of type BPE (vocab, merges), WordPiece (vocab) or Unigram (vocab of [token, score])',
  ),
  added_tokens: z
    .array(z.object({ id: tokenId, content: z.string(), special: z.boolean().optional() }))
    .optional(),
  normalizer: z.object({}).nullish(),
  pre_tokenizer: z.object({}).nullish(),
  post_processor: z.object({}).nullish(),
  decoder: z.object({}).nullish(),
});

function isVocabulary(value: unknown): boolean {
  return isObject(value) && Object.values(value).every((id) => tokenId.safeParse(id).success);
}

/** What an older or hand-written tokenizer.json leaves out. */
const absentParts = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
};

/**
 * Opens the tokenizer of a model folder.
 * @returns undefined when the folder has no tokenizer.json
 * @throws {UserError} when tokenizer.json or tokenizer_config.json is damaged or asks for something unknown
 */
export function openTokenizer(dir: string): TextTokenizer | undefined {
  const file = path.join(dir, 'tokenizer.json');
  if (!existsSync(file)) return undefined;
  const configFile = path.join(dir, 'tokenizer_config.json');
  const config = existsSync(configFile) ? readJsonObject(configFile) : {};
  return textTokenizer(construct(readJsonObject(file), config, file), file);
}

function construct(
  json: Record<string, unknown>,
  config: Record<string, unknown>,
  file: string,
): LibraryTokenizer {
  const parsed = tokenizerSchema.safeParse(json);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new UserError(
      `${shown(file)} is not a valid tokenizer: ${issue?.path.join('.')}: ${issue?.message}`,
      {
        notes: [
          'expected a tokenizer.json of the Hugging Face tokenizers library',
          'download the file again',
        ],
      },
    );
  }
  try {
    return new Tokenizer({ ...absentParts, ...json }, config);
  } catch (error) {
    throw new UserError(`${shown(file)} cannot be used`, {
      notes: [
        reasonOf(error),
        'either the file is damaged, or it uses a part of the tokenizers library that is unknown here',
      ],
    });
  }
}

function textTokenizer(tokenizer: LibraryTokenizer, file: string): TextTokenizer {
  const special = new Set<number>();
  for (const [id, token] of tokenizer.get_added_tokens_decoder()) if (token.special) special.add(id);
  const hasText = (id: number) => !special.has(id) && tokenizer.id_to_token(id) !== undefined;
  const unusable = (doing: string, reason: string): UserError =>
    new UserError(`${shown(file)} cannot ${doing}: ${reason}`, {
      notes: ['a part of the tokenizer is missing or damaged'],
    });
  // Cleaning up ("do n't" to "don't", " ." to ".") is for word-level vocabularies; here it would alter what the model
  // wrote, in source code for one, and depends on text that a stream has not seen yet.
  const decodeText = (ids: number[]) => {
    if (ids.length === 0) return '';
    try {
      return tokenizer.decode(ids, { clean_up_tokenization_spaces: false });
    } catch (error) {
      throw unusable('decode the ids', reasonOf(error));
    }
  };
  const encodeText = (text: string): (number | undefined)[] => {
    try {
      return tokenizer.encode(text).ids;
    } catch (error) {
      throw unusable('encode the text', reasonOf(error));
    }
  };
  return {
    vocabularySize: [...tokenizer.get_vocab().values()].reduce((size, id) => Math.max(size, id + 1), 0),
    encode: (text) => {
      // Without an unknown token, the library returns `undefined` for a piece of text that no token covers.
      const ids = encodeText(text).filter((id) => id !== undefined);
      // A part may add an id, such as one of a template, that nobody has checked.
      const bad = ids.find((id) => !tokenId.safeParse(id).success);
      if (bad !== undefined) throw unusable('encode the text', `${quoted(String(bad))} is no token id`);
      return ids;
    },
    decode: (ids) => decodeText(ids.filter(hasText)),
    stream: () => textStream(hasText, decodeText),
  };
}

/** Why the library failed, in a line. */
function reasonOf(error: unknown): string {
  return brief(error instanceof Error ? error.message : String(error)).replace(/\p{Cc}/gu, ' ');
}

/**
 * The ids that a stream keeps as context. Decoders look back a few bytes (a UTF-8 character has at most four, and a
 * token at least one) and treat the first token of a text specially (its leading space goes); far enough behind, an
 * older id cannot change how the next one reads.
 */
const contextIds = 16;

/** What a decoder writes for an incomplete UTF-8 character at the end of its input: exactly one, however many bytes. */
const incomplete = '\uFFFD';

/**
 * Decodes a window of the last ids, at most twice `contextIds`, and returns what each id adds to it. Only the final
 * character can still change, and only if it is `incomplete`, so nothing else is held back: bytes that never become
 * UTF-8 flow on as they do in `decode`.
 */
function textStream(hasText: (id: number) => boolean, decodeText: (ids: number[]) => string): TextStream {
  let window: number[] = [];
  let text = '';
  let returned = 0;
  const settled = () => (text.endsWith(incomplete) ? text.length - incomplete.length : text.length);
  return {
    push(id) {
      if (!hasText(id)) return '';
      if (window.length === 2 * contextIds) {
        window = window.slice(-contextIds);
        text = decodeText(window);
        returned = settled();
      }
      window.push(id);
      text = decodeText(window);
      const piece = text.slice(returned, settled());
      returned = Math.max(returned, settled());
      return piece;
    },
    end() {
      const rest = text.slice(returned);
      [window, text, returned] = [[], '', 0];
      return rest;
    },
  };
}
