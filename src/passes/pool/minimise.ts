import { Search, type Strategy } from './exact.js';
import type { Placement } from './heuristics.js';
import { inTurn, ordersOf } from './orders.js';
import type { Block, Problem } from './problem.js';

export interface Minimum {
  readonly placement: Placement;
  /** No placement is lower than this many units; 0 when nothing has been proven. */
  readonly proven: number;
  /** Steps of the search. */
  readonly steps: number;
}

/** Dead ends of the first attempt, and by how much each attempt is longer than the one before. */
const firstAttempt = 60;
const growth = 1.07;

/**
 * Lowers a placement until it is at most `goal` units high, is proven minimal, or about `steps` steps are spent. Many
 * short attempts with changing orders beat one long one: a bad early choice costs no more than its attempt.
 */
export function minimise(
  problem: Problem,
  neighbours: readonly (readonly Block[])[],
  start: Placement,
  goal: number,
  steps: number,
): Minimum {
  const search = new Search(problem, neighbours);
  const strategies = strategiesOf(problem);
  let best = start;
  let proven = 0;
  for (let attempt = 0; best.height > Math.max(goal, proven) && search.steps < steps; attempt++) {
    const strategy = strategies[attempt % strategies.length];
    if (!strategy) break;
    const least = Math.max(goal, proven);
    // First the goal itself; once half of the steps are spent on it, anything better than the best.
    const capacity = search.steps < steps / 2 ? least : Math.floor((least + best.height - 1) / 2);
    const outcome = search.attempt(capacity, strategy, {
      deadEnds: firstAttempt * growth ** attempt,
      steps: steps - search.steps,
    });
    if (outcome.kind === 'found') best = outcome.placement;
    if (outcome.kind === 'none') proven = outcome.bound;
  }
  return { placement: best, proven: Math.min(proven, best.height), steps: search.steps };
}

function strategiesOf(problem: Problem): readonly Strategy[] {
  const { size, area, width, contention } = ordersOf(problem);
  const tightest: Strategy = { where: 'tightest', order: inTurn(contention, width, area) };
  return [
    tightest,
    { where: 'lowest', order: inTurn(contention, width, area) },
    tightest,
    { where: 'lowest', order: inTurn(contention, area) },
    tightest,
    { where: 'lowest', order: inTurn(contention, size) },
  ];
}
