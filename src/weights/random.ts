import { createHash } from 'node:crypto';

/** Weights out of nothing, all the same for the same seed. */
export interface RandomSeed {
  readonly randomSeed: number;
}

/** The seed in `random:SEED`, which stands where a checkpoint's path could; undefined for anything else. */
export function randomSeed(text: string): RandomSeed | undefined {
  const [, digits] = /^random:(\d{1,15})$/.exec(text) ?? [];
  return digits === undefined ? undefined : { randomSeed: Number(digits) };
}

/**
 * A distribution under which values keep their size from layer to layer: products of normed rows have the deviation 1,
 * gains of norms are near 1, biases small.
 */
export function randomLike(
  name: string,
  shape: readonly number[],
  seed: number,
): { readonly seed: number; readonly mean: number; readonly deviation: number } {
  // 48 bits, which a number holds.
  const own = createHash('sha256')
    .update(JSON.stringify([seed, name]))
    .digest()
    .readUIntBE(0, 6);
  if (shape.length > 1) return { seed: own, mean: 0, deviation: 1 / Math.sqrt(shape.at(-1) ?? 1) };
  return name.endsWith('.bias')
    ? { seed: own, mean: 0, deviation: 0.02 }
    : { seed: own, mean: 1, deviation: 0.05 };
}
