import { InvalidArgumentError } from 'commander';
import { describe, expect, it } from 'vitest';
import { byteSize } from '../../src/cli/arguments.js';

describe('byteSize', () => {
  it.each([
    ['8GiB', 8 * 2 ** 30],
    ['900MB', 900e6],
    ['1.5 GB', 1.5e9],
    ['64kib', 64 * 1024],
    ['2TiB', 2 ** 41],
    ['123456789', 123456789],
    ['512B', 512],
  ])('reads %s', (text, bytes) => {
    expect(byteSize(text)).toBe(bytes);
  });

  it.each(['', '0', '-1', '8 gigs', 'GiB', '1e9', '0.1B', '9999999TiB', '8GiB please', 'NaN'])(
    'refuses "%s"',
    (text) => {
      expect(() => byteSize(text)).toThrow(InvalidArgumentError);
    },
  );
});
