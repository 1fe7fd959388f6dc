import type { Lifetime } from './problem.js';

/** The most bytes alive in one epoch: no placement can need less. */
export function maxLive(lifetimes: readonly Lifetime[]): number {
  const change = new Map<number, number>();
  for (const { bytes, firstEpoch, lastEpoch } of lifetimes) {
    change.set(firstEpoch, (change.get(firstEpoch) ?? 0) + bytes);
    change.set(lastEpoch + 1, (change.get(lastEpoch + 1) ?? 0) - bytes);
  }
  let live = 0;
  let most = 0;
  for (const epoch of [...change.keys()].sort((a, b) => a - b)) {
    live += change.get(epoch) ?? 0;
    most = Math.max(most, live);
  }
  return most;
}
