import { UserError } from '../diagnostic.js';

/** Along x, y and z; axes that are left out are 1. */
export type Size = number | readonly [x: number, y?: number, z?: number];

/** @throws {UserError} when a count is not a whole number of at least 1 */
export function sizeOf(size: Size, what: string): readonly [number, number, number] {
  const [x, y = 1, z = 1] = typeof size === 'number' ? [size] : size;
  for (const count of [x, y, z])
    if (!Number.isInteger(count) || count < 1)
      throw new UserError(`${what} must be whole numbers of at least 1, not ${[x, y, z].join(' × ')}`);
  return [x, y, z];
}
