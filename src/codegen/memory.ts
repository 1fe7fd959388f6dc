import { UserError } from '../diagnostic.js';
import type { Plan } from '../runtime/plan.js';

/** What a build needs, in bytes, part by part. */
export type MemoryParts = Readonly<Record<'weights' | 'KV cache' | 'pool' | 'io' | 'code', number>>;

/** Tables that are computed from the context count as weights; the code is the text of kernels.metal. */
export function memoryOf({ arenas }: Plan, kernels: string): MemoryParts {
  return {
    weights: arenas.weights.bytes,
    'KV cache': arenas.state.bytes,
    pool: arenas.pool.bytes,
    io: arenas.io.bytes,
    code: Buffer.byteLength(kernels),
  };
}

const totalOf = (parts: MemoryParts): number => Object.values(parts).reduce((a, b) => a + b, 0);

/**
 * Refuses a plan that needs more than `budget` bytes.
 * @param at the parts of the same model compiled for another context
 * @throws {UserError} with the sum, part by part, and the longest context that fits
 */
export function checkBudget(
  plan: Plan,
  parts: MemoryParts,
  budget: number,
  at: (context: number) => MemoryParts,
): void {
  const total = totalOf(parts);
  if (total <= budget) return;
  const longest = longestContext(plan.context, total, budget, (context) => totalOf(at(context)));
  throw new UserError(
    `${plan.model.name} needs ${shown(total)} bytes at a context of ${shown(plan.context)}; the budget is ${shown(budget)}`,
    {
      notes: [
        `${Object.entries(parts)
          .map(([name, bytes]) => `${name} ${shown(bytes)}`)
          .join(' + ')} = ${shown(total)} bytes`,
        longest > 0
          ? `the longest that fits is --context ${longest}`
          : 'no context fits: the rest is too large alone',
      ],
    },
  );
}

/**
 * The greatest context that needs at most `budget` bytes, 0 when there is none; `context` needs `total`, which is more.
 * @param totalAt what a context needs; it is a compilation, and is asked for few
 */
export function longestContext(
  context: number,
  total: number,
  budget: number,
  totalAt: (context: number) => number,
): number {
  // Needs grow with the context, nearly all of them in proportion: a few steps along the slope find the place.
  const alongSlope = 6;
  let [fits, tooLong] = [0, context];
  let last = { context, total, slope: total / context };
  for (let tries = 0; tooLong - fits > 1; tries++) {
    const guess =
      tries < alongSlope && last.slope > 0
        ? last.context + Math.floor((budget - last.total) / last.slope)
        : Math.floor((fits + tooLong) / 2);
    const next = Math.min(Math.max(guess, fits + 1), tooLong - 1);
    const needed = totalAt(next);
    if (needed <= budget) fits = next;
    else tooLong = next;
    last = { context: next, total: needed, slope: (needed - last.total) / (next - last.context) };
  }
  return fits;
}

const shown = (count: number): string => count.toLocaleString('en-US');
