import { InvalidArgumentError, Option, type Command } from 'commander';
import { targets, type TargetName } from '../compiler.js';

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
  readonly context?: number;
  readonly chunk?: number;
}

/** Adds the options of `ModelFlags`. */
export function withModelOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--target <name>', 'what to compile for')
        .choices(['auto', ...Object.keys(targets)])
        .default('auto', 'auto: the best device of this machine'),
    )
    .option('--weights <dir>', 'checkpoint folder: config.json, model.safetensors, tokenizer.json')
    .option(
      '--context <n>',
      'tokens that the KV cache holds (default: what the model was made for)',
      wholeNumber(1),
    )
    .option('--chunk <n>', 'most tokens of one prefill step (default: 64)', wholeNumber(1));
}
