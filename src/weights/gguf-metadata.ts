import { z } from 'zod';
import { UserError } from '../diagnostic.js';
import { quoted, shown } from '../input-file.js';
import type { GgufFile } from './gguf.js';

/** What entries can be asked for as. */
export const metadataTypes = {
  count: z.int('expected a whole number').positive('expected a number of at least 1'),
  size: z.int('expected a whole number').min(0, 'expected a number of at least 0'),
  positive: z.number('expected a number').positive('expected a positive number'),
  text: z.string('expected a text'),
  flag: z.boolean('expected true or false'),
  // Checked by kind alone: a vocabulary has a quarter of a million pieces, and the reader made the array itself.
  texts: z.custom<readonly string[]>((value) => Array.isArray(value), 'expected a list of texts'),
  scores: z.instanceof(Float32Array, { error: 'expected a list of numbers' }),
  tokenTypes: z.instanceof(Int32Array, { error: 'expected a list of whole numbers' }),
};

/** The metadata of a GGUF file, read with the type that is expected; errors name the key. */
export class Metadata {
  constructor(private readonly gguf: GgufFile) {}

  get file(): string {
    return this.gguf.file;
  }

  get<T>(key: string, type: z.ZodType<T>): T | undefined {
    const value = this.gguf.metadata.get(key);
    if (value === undefined) return undefined;
    const parsed = type.safeParse(value);
    if (parsed.success) return parsed.data;
    throw this.wrong(key, parsed.error.issues[0]?.message ?? 'malformed');
  }

  need<T>(key: string, type: z.ZodType<T>): T {
    const value = this.get(key, type);
    if (value === undefined) throw this.wrong(key, 'the file has none');
    return value;
  }

  wrong(key: string, what: string, ...notes: string[]): UserError {
    return new UserError(`${shown(this.file)}: metadata ${quoted(key)}: ${what}`, { notes });
  }
}
