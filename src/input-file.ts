import { readFileSync, statSync } from 'node:fs';
import { relativeTo, UserError } from './diagnostic.js';

/** The largest JSON file read whole. The biggest tokenizer.json in use is about 35 MB. */
const maxJsonBytes = 256 * 2 ** 20;

/** The path as errors show it. */
export function shown(file: string): string {
  return relativeTo(process.cwd(), file);
}

/** Why a file-system call failed, in words: `no such file or folder`. */
export function ioReason(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  switch (code) {
    case 'ENOENT':
      return 'no such file or folder';
    case 'EACCES':
    case 'EPERM':
      return 'permission denied';
    case 'ENOTDIR':
      return 'a part of the path is not a folder';
    case 'EISDIR':
      return 'it is a folder';
    case 'ENOSPC':
      return 'no space left on the device';
    case 'EMFILE':
    case 'ENFILE':
      return 'too many open files';
    default:
      return error instanceof Error ? error.message : String(error);
  }
}

/**
 * The size in bytes of a regular file. Anything else (a folder, a pipe, whose opening could block for ever) is
 * refused.
 * @throws {UserError} when there is no such file or it is no regular file
 */
export function regularFileSize(file: string): number {
  let stats;
  try {
    stats = statSync(file);
  } catch (error) {
    throw new UserError(`cannot read ${shown(file)}: ${ioReason(error)}`);
  }
  if (!stats.isFile()) throw new UserError(`cannot read ${shown(file)}: it is not a regular file`);
  return stats.size;
}

/**
 * Reads a file that holds one JSON object.
 * @throws {UserError} when it is missing, unreadable, larger than 256 MiB, no JSON or no object
 */
export function readJsonObject(file: string): Record<string, unknown> {
  if (regularFileSize(file) > maxJsonBytes) {
    throw new UserError(`cannot read ${shown(file)}: expected a JSON file of at most ${maxJsonBytes} bytes`);
  }
  return parseJsonObject(readText(file), file);
}

/**
 * Reads a file of JSON that a user wrote.
 * @throws {UserError} when it is missing, unreadable or no JSON
 */
export function readJson(file: string): unknown {
  const text = readText(file);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UserError(`${shown(file)} is not valid JSON`, {
      notes: error instanceof Error ? [error.message] : [],
    });
  }
}

/**
 * Reads a text in UTF-8.
 * @throws {UserError} when it is missing, unreadable or no regular file
 */
export function readText(file: string): string {
  regularFileSize(file);
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UserError(`cannot read ${shown(file)}: ${ioReason(error)}`);
  }
}

/**
 * Parses the text of one JSON object; `file` is named in errors.
 * @throws {UserError} when the text is no JSON or no object
 */
function parseJsonObject(text: string, file: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UserError(`${shown(file)} is not valid JSON`, {
      notes: [...(error instanceof Error ? [error.message] : []), 'the file is damaged: download it again'],
    });
  }
  if (!isObject(value)) {
    throw new UserError(`${shown(file)}: expected a JSON object, found ${jsonKind(value)}`, {
      notes: ['the file is damaged: download it again'],
    });
  }
  return value;
}

/** Whether a parsed JSON value is an object (not null, not an array). */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What a parsed JSON value is, in words: `an array`, `null`, `a string`, `nothing`. */
export function jsonKind(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
}

/** Text from a file, fit for one line of a terminal. */
export function quoted(text: string): string {
  return JSON.stringify(brief(text)).replace(/[\u007f-\u009f\u2028\u2029]/g, '?');
}

export function brief(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 99)}…`;
}
