import { InvalidArgumentError, Option, type Command } from 'commander';
import { policyNames } from '../ir/policy.js';
import { cacheDtypes, type CacheDType } from '../passes/insert-kv-cache.js';
import { targets, type TargetName } from '../passes/target.js';

/** A whole number of at least `least`, as a commander argument parser. */
export function wholeNumber(least: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`expected a whole number, at least ${least}`);
  };
}

export function nonNegative(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value >= 0) return value;
  throw new InvalidArgumentError('expected a number, at least 0');
}

/** `1,2,3` */
export function tokenList(text: string): number[] {
  const ids = text.split(',').map((part) => part.trim());
  if (ids.every((id) => /^\d+$/.test(id))) return ids.map(Number);
  throw new InvalidArgumentError('expected token ids with commas between them, like 1,2,3');
}

/** Which model, and what for. */
export interface ModelFlags {
  readonly target: 'auto' | TargetName;
  readonly weights?: string;
  readonly quantize?: string;
  readonly sparsify?: string;
  readonly context?: number;
  readonly chunk?: number;
  readonly kv?: CacheDType;
}

/** Adds the options of `ModelFlags`. */
export function withModelOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--target <name>', 'what to compile for')
        .choices(['auto', ...Object.keys(targets)])
        .default('auto', 'auto: the best device of this machine'),
    )
    .option(
      '--weights <path>',
      'checkpoint: a folder (config.json, model.safetensors, tokenizer.json), a GGUF file, or random:SEED',
    )
    .option(
      '--quantize <how>',
      `how matrices are stored: ${policyNames.join(', ')}, or rules in a file POLICY.json (default: the model's own rules, or as in the checkpoint)`,
    )
    .option(
      '--sparsify <how>',
      'keep a share of each row of matrices: magnitude:0.5, in blocks magnitude:0.5:4x8, for some *.mlp.*=magnitude:0.5, or rules in a file POLICY.json',
    )
    .option('--context <n>', 'most tokens of a text (default: what the model was made for)', wholeNumber(1))
    .option('--chunk <n>', 'most tokens of one prefill step (default: 64)', wholeNumber(1))
    .addOption(
      new Option(
        '--kv <type>',
        'how keys and values are cached (default: f32); f16 halves the cache and rounds them',
      ).choices(cacheDtypes),
    );
}

const byteUnits: ReadonlyMap<string, number> = new Map(
  ['', 'k', 'm', 'g', 't'].flatMap((prefix, power) => [
    [`${prefix}b`, 1000 ** power] as const,
    [`${prefix}ib`, 1024 ** power] as const,
  ]),
);

/** `8GiB`, `900 MB`, `1.5GB`, or bytes as a plain number: a whole number of bytes, at least 1. */
export function byteSize(text: string): number {
  const [, count = '', unit = ''] = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text.trim()) ?? [];
  const scale = byteUnits.get(unit === '' ? 'b' : unit.toLowerCase());
  const bytes = count === '' || scale === undefined ? NaN : Math.floor(Number(count) * scale);
  if (Number.isSafeInteger(bytes) && bytes >= 1) return bytes;
  throw new InvalidArgumentError('expected a size, such as 8GiB, 900MB or 123456789 (bytes)');
}
