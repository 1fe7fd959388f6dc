import { UserError } from '../diagnostic.js';

/** Along x, y and z; axes that are left out are 1. */
export type Size = number | readonly [x: number, y?: number, z?: number];

/** The most threads of a grid along an axis. */
const maxCount = 2 ** 31 - 1;

/** @throws {UserError} when `count` is not a whole number of at least `least` and at most `most` */
export function checkWhole(what: string, count: number, least: number, most: number): void {
  if (!Number.isInteger(count) || count < least || count > most)
    throw new UserError(`${what} must be a whole number from ${least} to ${most}, not ${count}`);
}

/** @throws {UserError} when a count is not a whole number of at least 1 and less than 2^31 */
export function sizeOf(size: Size, what: string): readonly [number, number, number] {
  const [x, y = 1, z = 1] = typeof size === 'number' ? [size] : size;
  for (const count of [x, y, z])
    if (!Number.isInteger(count) || count < 1 || count > maxCount)
      throw new UserError(
        `${what} must be whole numbers from 1 to ${maxCount}, not ${[x, y, z].join(' × ')}`,
      );
  return [x, y, z];
}
