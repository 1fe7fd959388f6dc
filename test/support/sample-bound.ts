import { gumbel } from '../../src/ir/ops/sample.js';
import { expError, gamma, logError, tiny, u } from './rounding.js';

/** Logits, and how far those of the device may be from them. */
interface Row {
  readonly data: Float64Array;
  readonly error: Float64Array;
}

/** A number of the device lies between these. */
interface Interval {
  readonly low: number;
  readonly high: number;
}

/** A set of ids of which some are certain and others possible. */
interface Vague {
  readonly surely: readonly boolean[];
  readonly maybe: readonly boolean[];
}

const at = (values: ArrayLike<number>, index: number): number => values[index] ?? Number.NaN;
const around = (middle: number, error: number): Interval => ({ low: middle - error, high: middle + error });
const greatestOf = (values: Iterable<number>): number => {
  let most = -Infinity;
  for (const value of values) most = Math.max(most, value);
  return most;
};

/**
 * The ids that a device may draw: those that no roundings within their bounds keep from being the first with the
 * greatest score. An id is left out when it is certainly no candidate, or when one that certainly is has a score that
 * is certainly greater. Where nothing is near a threshold or a tie, one is left.
 */
export function possibleIds(row: Row, sampling: ArrayLike<number>, seed: number, next: number): number[] {
  const temperature = at(sampling, 0);
  const logits = [...row.data].map((x, id) => around(x, at(row.error, id)));
  const everyId = logits.map(() => true);
  const filters = temperature > 0 ? filtersOf(row, logits, sampling) : [{ surely: everyId, maybe: everyId }];
  const scores = logits.map((logit, id) =>
    temperature > 0 && logit.high > -Infinity
      ? score(at(row.data, id), at(row.error, id), temperature, gumbel(id, next, seed))
      : logit,
  );
  let best = -1;
  let most = -Infinity;
  scores.forEach(({ low }, id) => {
    if (low > most && filters.every(({ surely }) => surely[id])) [best, most] = [id, low];
  });
  const possible = scores.flatMap(({ high }, id) => {
    const beaten = high < most || (high === most && best < id) || high === -Infinity;
    return !beaten && filters.every(({ maybe }) => maybe[id]) ? [id] : [];
  });
  return possible.length > 0 ? possible : [0];
}

/** x + temperature · -ln(-ln u): two logarithms, the first of an exact u, a product and a sum. */
function score(x: number, off: number, temperature: number, variate: number): Interval {
  const moved = -Math.log1p(-logError);
  const variateOff = moved + logError * (Math.abs(variate) + moved);
  const noise = temperature * variate;
  const noiseOff = temperature * variateOff + u * (Math.abs(noise) + temperature * variateOff) + tiny;
  const exact = x + noise;
  return around(exact, off + noiseOff + u * (Math.abs(exact) + off + noiseOff) + tiny);
}

/** What top-k, top-p and min-p leave. */
function filtersOf(row: Row, logits: readonly Interval[], sampling: ArrayLike<number>): readonly Vague[] {
  const byK = amongLikeliest(logits, at(sampling, 1));
  return [
    byK,
    amongProbable(row, logits, at(sampling, 0), at(sampling, 2), byK),
    nearGreatest(logits, at(sampling, 0), at(sampling, 3)),
  ];
}

/** At least the k-th greatest: compared without rounding. */
function amongLikeliest(logits: readonly Interval[], k: number): Vague {
  const kth = (values: readonly number[]): number =>
    k > 0 ? (values.toSorted((a, b) => b - a)[k - 1] ?? -Infinity) : -Infinity;
  const last = { low: kth(logits.map(({ low }) => low)), high: kth(logits.map(({ high }) => high)) };
  return {
    surely: logits.map(({ low }) => low >= last.high),
    maybe: logits.map(({ high }) => high >= last.low),
  };
}

/** Less than p of the weight of all that top-k leaves lies above. */
function amongProbable(
  { data, error }: Row,
  logits: readonly Interval[],
  temperature: number,
  p: number,
  byK: Vague,
): Vague {
  if (p >= 1) return { surely: logits.map(() => true), maybe: logits.map(() => true) };
  const greatest = greatestOf(data);
  const greatestOff = greatestOf(error);
  // exp((x - greatest) / temperature): a difference and a quotient in the exponent.
  const weights = [...data].map((x, id): Interval => {
    if (x === -Infinity) return { low: 0, high: 0 };
    const exponent = (x - greatest) / temperature;
    const inherited = (at(error, id) + greatestOff) / temperature;
    const off = inherited + gamma(2) * (Math.abs(exponent) + inherited);
    return {
      low: Math.max(0, Math.exp(exponent - off) * (1 - expError) - tiny),
      high: Math.exp(exponent + off) * (1 + expError) + tiny,
    };
  });
  // Sums of positive terms, in any order.
  const summed = gamma(data.length);
  const kept = (inside: readonly boolean[], bound: keyof Interval): number =>
    weights.reduce((sum, weight, id) => (inside[id] ? sum + weight[bound] : sum), 0);
  const enough = {
    low: p * kept(byK.surely, 'low') * (1 - summed) * (1 - u),
    high: p * kept(byK.maybe, 'high') * (1 + summed) * (1 + u),
  };
  const lowAbove = weightAbove(
    logits.map(({ low }) => low),
    weights.map(({ low }) => low),
  );
  const highAbove = weightAbove(
    logits.map(({ high }) => high),
    weights.map(({ high }) => high),
  );
  return {
    surely: logits.map(({ low, high }, id) => {
      const own = high > low ? (weights[id]?.high ?? 0) : 0;
      return (highAbove(low) - own) * (1 + summed) < enough.low;
    }),
    maybe: logits.map(({ high }) => lowAbove(high) * (1 - summed) < enough.high),
  };
}

/** The sum of the weights whose keys are above a threshold. */
function weightAbove(keys: readonly number[], weights: readonly number[]): (threshold: number) => number {
  const order = [...keys.keys()].sort((a, b) => at(keys, b) - at(keys, a));
  const sums = [0];
  for (const id of order) sums.push(at(sums, sums.length - 1) + at(weights, id));
  return (threshold) => {
    let [low, high] = [0, order.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (at(keys, at(order, middle)) > threshold) low = middle + 1;
      else high = middle;
    }
    return at(sums, low);
  };
}

/** At least greatest + temperature · ln(least): a logarithm, a product and a sum. The logarithm of 1 is 0. */
function nearGreatest(logits: readonly Interval[], temperature: number, least: number): Vague {
  const offset = least > 0 ? temperature * Math.log(least) : -Infinity;
  const offsetOff = offset < 0 ? gamma(3) * -offset + tiny : 0;
  const limit = (greatest: number): Interval => {
    if (offset === -Infinity || offset === 0) return around(greatest + offset, 0);
    const exact = greatest + offset;
    return around(exact, offsetOff + u * (Math.abs(exact) + offsetOff));
  };
  const lowest = limit(greatestOf(logits.map(({ low }) => low))).low;
  const highest = limit(greatestOf(logits.map(({ high }) => high))).high;
  return {
    surely: logits.map(({ low }) => low >= highest),
    maybe: logits.map(({ high }) => high >= lowest),
  };
}
