import { InvalidArgumentError } from 'commander';

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
