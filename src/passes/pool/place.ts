import { maxLive } from './bound.js';
import { placeAsTheyLive, placeInOrder, type Placement } from './heuristics.js';
import { minimise, type Minimum } from './minimise.js';
import { ordersOf } from './orders.js';
import { neighboursOf, problemOf, type Lifetime, type Problem } from './problem.js';

export interface PlaceOptions {
  /** Bytes that are few enough: a placement of at most so many is not improved further. By default the lower bound. */
  readonly capacity?: number;
  /**
   * What the exact search may spend; by default about a second. Counted in steps rather than seconds, so that the same
   * buffers get the same placement on every machine.
   */
  readonly steps?: number;
}

export interface Placed<L extends Lifetime> {
  /** In the order given. */
  readonly buffers: readonly (L & { readonly offset: number })[];
  /** The highest end of a buffer. */
  readonly bytes: number;
  /** The most bytes alive in one epoch: no placement can need less. */
  readonly lowerBound: number;
  /** Whether no placement needs fewer bytes: the lower bound is met, or the search has refuted all that is less. */
  readonly optimal: boolean;
}

/** Steps of the exact search in about a second. */
export const defaultSteps = 3e7;

/** The most blocks that the exact search takes on: it goes as deep as there are blocks. */
const mostSearched = 1500;

/** The most pairs of blocks alive at the same time for which anything but one pass in order of execution is tried. */
const mostPairs = 1e7;

/**
 * Gives every buffer an offset such that buffers with an epoch in common share no byte. Offsets are sums of sizes, so
 * they are multiples of whatever all sizes are multiples of.
 */
export function placeBuffers<L extends Lifetime>(
  lifetimes: readonly L[],
  { capacity = 0, steps = defaultSteps }: PlaceOptions = {},
): Placed<L> {
  const lowerBound = maxLive(lifetimes);
  const goal = Math.max(lowerBound, capacity);
  const buffers = lifetimes.map((lifetime) => ({ ...lifetime, offset: 0 }));
  let proven = lowerBound;
  let left = steps;
  for (const part of partsOf(buffers)) {
    const problem = problemOf(part);
    const best = place(problem, Math.floor(goal / problem.unit), left);
    left -= best.steps;
    proven = Math.max(proven, best.proven * problem.unit);
    for (const [index, buffer] of part.entries())
      buffer.offset = (best.placement.offsets[index] ?? 0) * problem.unit;
  }
  const bytes = buffers.reduce((most, buffer) => Math.max(most, buffer.offset + buffer.bytes), 0);
  return { buffers, bytes, lowerBound, optimal: bytes === proven };
}

/** Splits where no buffer is alive on both sides; without the buffers of no bytes. In order of execution. */
function partsOf<L extends Lifetime>(lifetimes: readonly L[]): L[][] {
  const parts: L[][] = [];
  let end = -Infinity;
  for (const lifetime of lifetimes
    .filter(({ bytes }) => bytes > 0)
    .sort((a, b) => a.firstEpoch - b.firstEpoch)) {
    const part = parts.at(-1);
    if (part && lifetime.firstEpoch <= end) part.push(lifetime);
    else parts.push([lifetime]);
    end = Math.max(end, lifetime.lastEpoch);
  }
  return parts;
}

/** The cheap first, each only while the best is above the goal. */
function place(problem: Problem, goal: number, steps: number): Minimum {
  let best = placeAsTheyLive(problem, 'best');
  const consider = (placement: Placement): void => {
    if (placement.height < best.height) best = placement;
  };
  if (best.height > goal) consider(placeAsTheyLive(problem, 'first'));
  if (best.height <= goal || pairsOf(problem) > mostPairs) return { placement: best, proven: 0, steps: 0 };
  const neighbours = neighboursOf(problem.blocks);
  const { size, area, width, contention } = ordersOf(problem);
  for (const order of [contention, size, area, width]) {
    for (const fit of ['best', 'first'] as const) {
      if (best.height > goal) consider(placeInOrder(problem, neighbours, order, fit));
    }
  }
  if (best.height <= goal || problem.blocks.length > mostSearched)
    return { placement: best, proven: 0, steps: 0 };
  return minimise(problem, neighbours, best, goal, steps);
}

/** Pairs of blocks that share a section. */
function pairsOf({ blocks }: Problem): number {
  let pairs = 0;
  let ended = 0;
  const ends = blocks.map(({ last }) => last).sort((a, b) => a - b);
  for (const { index, first } of blocks) {
    while ((ends[ended] ?? Infinity) < first) ended++;
    pairs += index - ended;
  }
  return pairs;
}
