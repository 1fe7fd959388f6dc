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
