import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { candidates, gumbel, philox, sample } from '../../src/ir/ops/sample.js';
import { array } from '../support/graphs.js';

interface Options {
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
}

const samplingOf = ({ temperature = 1, topK = 0, topP = 1, minP = 0 }: Options): Float64Array =>
  Float64Array.of(temperature, topK, topP, minP);

/** The ids that may be drawn. */
const allowed = (logits: readonly number[], options: Options): number[] =>
  candidates(Float64Array.from(logits), samplingOf(options)).flatMap((fits, id) => (fits ? [id] : []));

/** The id at `next`, after a step of one token. */
function draw(logits: readonly number[], options: Options, next = 1, seed = 0, rows = 1): number {
  const inputs = {
    logits: array([rows, logits.length / rows], logits),
    tokens: array([1], [0]),
    position: array([], [next - 1]),
    sampling: { shape: [4], data: samplingOf(options) },
    seed: array([], [seed]),
  };
  return sample.evaluate(inputs, {}, [1])[0] ?? -1;
}

describe('philox', () => {
  it.each([
    // The known answers of Random123 1.14 (kat_vectors: philox2x32 10).
    [0x00000000, 0x00000000, 0x00000000, 0xff1dae59, 0x6cd10df2],
    [0xffffffff, 0xffffffff, 0xffffffff, 0x2c3f628b, 0xab4fd7ad],
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0xdd7ce038, 0xf62a4c12],
  ])('of %i, %i with key %i', (low, high, key, first, second) => {
    expect(philox(low, high, key)).toEqual([first, second]);
  });

  it('takes signed words for the same bits', () => {
    expect(philox(-1, -1, -1)).toEqual(philox(0xffffffff, 0xffffffff, 0xffffffff));
  });
});

describe('gumbel', () => {
  const variates = Array.from({ length: 20_000 }, (_, i) => gumbel(i % 100, Math.floor(i / 100), 5));

  it('has the mean and the variance of the distribution', () => {
    const count = variates.length;
    const mean = variates.reduce((a, b) => a + b, 0) / count;
    const variance = variates.reduce((sum, x) => sum + (x - mean) ** 2, 0) / count;
    // γ and π²/6; the fourth central moment is 5.4 of the variance's square.
    expect(Math.abs(mean - 0.5772156649)).toBeLessThan(5 * Math.sqrt(Math.PI ** 2 / 6 / count));
    expect(Math.abs(variance / (Math.PI ** 2 / 6) - 1)).toBeLessThan(5 * Math.sqrt(4.4 / count));
  });

  it('is never infinite', () => {
    const uniform = (bits: number): number => (bits + 0.5) * 2 ** -23;
    for (const u of [uniform(0), uniform(2 ** 23 - 1)]) {
      expect(Math.fround(u)).toBe(u);
      expect(Math.abs(Math.log(-Math.log(u)))).toBeLessThan(17);
    }
    expect(variates.every(Number.isFinite)).toBe(true);
  });
});

describe('candidates', () => {
  const logits = [0, 2, 1, -1];

  it('are all ids without filters', () => {
    expect(allowed(logits, {})).toEqual([0, 1, 2, 3]);
    expect(allowed([-3], {})).toEqual([0]);
  });

  it('of top-k are the likeliest, and equals of the last', () => {
    expect(allowed(logits, { topK: 1 })).toEqual([1]);
    expect(allowed(logits, { topK: 3 })).toEqual([0, 1, 2]);
    for (const topK of [4, 5, 1000]) expect(allowed(logits, { topK })).toEqual([0, 1, 2, 3]);
    expect(allowed([1, 3, 1, 1, 0], { topK: 2 })).toEqual([0, 1, 2, 3]);
    expect(allowed([-0, 0, -1], { topK: 1 })).toEqual([0, 1]);
  });

  it('of top-p are the likeliest with less than that before them', () => {
    // Probabilities 1/2, 1/4, 1/8, 1/8.
    const halves = [0, Math.log(4), Math.log(2), 0];
    for (const [topP, ids] of [
      [1e-9, [1]],
      [0.49, [1]],
      [0.51, [1, 2]],
      [0.74, [1, 2]],
      // The last two are equal: both or neither.
      [0.76, [0, 1, 2, 3]],
      [1, [0, 1, 2, 3]],
    ] as const)
      expect([topP, allowed(halves, { topP })]).toEqual([topP, ids]);
    expect(allowed([5, 5, 5], { topP: 1e-9 })).toEqual([0, 1, 2]);
  });

  it('of min-p are those not much less likely than the likeliest', () => {
    const odds = [1, 0.5, 0.25, 0.1].map((x) => Math.log(x) + 7);
    expect(allowed(odds, { minP: 0.3 })).toEqual([0, 1]);
    expect(allowed(odds, { minP: 0.2 })).toEqual([0, 1, 2]);
    expect(allowed(odds, { minP: 0.01 })).toEqual([0, 1, 2, 3]);
    expect(allowed(odds, { minP: 1 })).toEqual([0]);
    expect(allowed([3, 4, 4], { minP: 1 })).toEqual([1, 2]);
  });

  it('depend on the temperature, but those of top-k do not', () => {
    expect(allowed(logits, { temperature: 0.1, minP: 0.1 })).toEqual([1]);
    expect(allowed(logits, { temperature: 10, minP: 0.1 })).toEqual([0, 1, 2, 3]);
    expect(allowed(logits, { temperature: 0.1, topP: 0.9 })).toEqual([1]);
    expect(allowed(logits, { temperature: 10, topP: 0.9 })).toEqual([0, 1, 2, 3]);
    for (const temperature of [0.1, 10]) expect(allowed(logits, { temperature, topK: 2 })).toEqual([1, 2]);
  });

  it('of top-p are taken from what top-k left', () => {
    // Of five equals and a likelier one: alone it has e/(e + 5) = 0.35 of all, but all of top-k 1.
    expect(allowed([0, 0, 1, 0, 0, 0], { topP: 0.5 })).toEqual([0, 1, 2, 3, 4, 5]);
    expect(allowed([0, 0, 1, 0, 0, 0], { topP: 0.5, topK: 1 })).toEqual([2]);
  });

  it('are all ids at a top-p of 1, however unlikely', () => {
    expect(allowed([0, 50, -50], { temperature: 0.1 })).toEqual([0, 1, 2]);
  });

  it('are what is left by the filters of Hugging Face transformers, one after the other', () => {
    const row = fc
      .uniqueArray(fc.integer({ min: -9e6, max: 9e6 }), { minLength: 1, maxLength: 40 })
      .map((values) => values.map((x) => x / 1e6));
    const fraction = fc.double({ min: 0.001, max: 0.999, noNaN: true });
    const options = fc.record({
      temperature: fc.double({ min: 0.1, max: 4, noNaN: true }),
      topK: fc.nat(45),
      topP: fc.oneof(fc.constant(1), fraction),
      minP: fc.oneof(fc.constant(0), fraction),
    });
    fc.assert(
      fc.property(row, options, (logits, given) => {
        expect(allowed(logits, given)).toEqual(leftByTransformers(logits, given));
      }),
      { seed: 1, numRuns: 2000 },
    );
  });
});

/**
 * TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper and MinPLogitsWarper of transformers 5, in the order of
 * `GenerationMixin._get_logits_processor`, by what they say: which scores are not -inf in the end.
 */
function leftByTransformers(
  logits: readonly number[],
  { temperature, topK, topP, minP }: Required<Options>,
): number[] {
  let scores = logits.map((x) => x / temperature);
  const softmax = (values: readonly number[]): number[] => {
    const greatest = Math.max(...values);
    const powers = values.map((x) => Math.exp(x - greatest));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((x) => x / total);
  };
  const remove = (where: (id: number) => boolean): void => {
    scores = scores.map((x, id) => (where(id) ? -Infinity : x));
  };
  if (topK > 0) {
    const kth = scores.toSorted((a, b) => b - a)[Math.min(topK, scores.length) - 1] ?? 0;
    const before = scores;
    remove((id) => (before[id] ?? 0) < kth);
  }
  if (topP < 1) {
    const ascending = [...scores.keys()].sort((a, b) => (scores[a] ?? 0) - (scores[b] ?? 0));
    const probabilities = softmax(ascending.map((id) => scores[id] ?? 0));
    let cumulative = 0;
    const removed = ascending.filter((_, i) => {
      cumulative += probabilities[i] ?? 0;
      return cumulative <= 1 - topP && i < ascending.length - 1;
    });
    remove((id) => removed.includes(id));
  }
  if (minP > 0) {
    const probabilities = softmax(scores);
    const least = minP * Math.max(...probabilities);
    remove((id) => (probabilities[id] ?? 0) < least);
  }
  return scores.flatMap((x, id) => (x > -Infinity ? [id] : []));
}

describe('sample', () => {
  it('is the likeliest at temperature 0, the lowest of equals, whatever the filters', () => {
    for (const options of [{}, { topK: 3 }, { topP: 0.1 }, { minP: 0.5 }]) {
      expect(draw([1, 5, 2, 5], { temperature: 0, ...options }, 7, 9)).toBe(1);
      expect(draw([-3, -1, -1], { temperature: 0, ...options }, 7, 9)).toBe(1);
    }
  });

  it('draws from the last row', () => {
    expect(draw([9, 0, 0, 0, 0, 9], { temperature: 0 }, 1, 0, 2)).toBe(2);
  });

  it('is the only id there is a logit for', () => {
    for (let next = 1; next < 50; next++) {
      expect(draw([-Infinity, -Infinity, -4, -Infinity], { temperature: 3 }, next)).toBe(2);
      expect(draw([-Infinity, -Infinity, -4, -Infinity], { topK: 3, topP: 0.9, minP: 0.1 }, next)).toBe(2);
    }
  });

  it('is an id even where nothing can be drawn', () => {
    for (const temperature of [0, 1])
      for (const logit of [-Infinity, Number.NaN]) expect(draw([logit, logit], { temperature })).toBe(0);
  });

  it('is the greatest sum of logit and noise that depends on seed, position and id alone', () => {
    const logits = [0.3, -1, 1.1, 0];
    for (let next = 1; next < 50; next++) {
      const scores = logits.map((x, id) => x + 0.7 * gumbel(id, next, 11));
      expect(draw(logits, { temperature: 0.7 }, next, 11)).toBe(scores.indexOf(Math.max(...scores)));
    }
  });
});

describe('the frequencies of ids', () => {
  const logits = [1.2, 0, 0.4, 2, -0.3];
  const count = 20_000;
  const softmaxOf = (options: Options): number[] => {
    const ids = allowed(logits, options);
    const powers = logits.map((x, id) => (ids.includes(id) ? Math.exp(x / (options.temperature ?? 1)) : 0));
    const total = powers.reduce((a, b) => a + b, 0);
    return powers.map((x) => x / total);
  };
  const counted = (ids: readonly number[]): number[] =>
    logits.map((_, id) => ids.filter((drawn) => drawn === id).length);
  const range = (n: number): number[] => [...new Array(n).keys()];

  /** Each count is binomial: within five standard deviations, which one in 1.7 million is not. */
  function expectFrequencies(ids: readonly number[], probabilities: readonly number[]): void {
    counted(ids).forEach((found, id) => {
      const p = probabilities[id] ?? 0;
      const deviation = Math.sqrt(ids.length * p * (1 - p));
      expect(Math.abs(found - ids.length * p), `id ${id}`).toBeLessThanOrEqual(5 * deviation);
    });
  }

  it.each<[Options, number]>([
    [{}, 5],
    [{ temperature: 0.5 }, 5],
    [{ temperature: 3 }, 5],
    [{ topK: 3 }, 3],
    [{ topP: 0.7 }, 2],
    [{ minP: 0.2 }, 3],
    [{ temperature: 2, topK: 4, topP: 0.85, minP: 0.4 }, 3],
  ])('over positions are the softmax, %j', (options, ids) => {
    const probabilities = softmaxOf(options);
    expect(probabilities.filter((p) => p > 0)).toHaveLength(ids);
    expectFrequencies(
      range(count).map((position) => draw(logits, options, position, 77)),
      probabilities,
    );
  });

  it('over seeds are the softmax', () => {
    expectFrequencies(
      range(count).map((seed) => draw(logits, {}, 100, seed)),
      softmaxOf({}),
    );
  });

  /** χ² of pairs against the products of their probabilities, whose mean and variance for n cells are n - 1 and 2(n - 1). */
  function expectIndependent(pairs: readonly (readonly [number, number])[]): void {
    const p = softmaxOf({});
    const cells = p.flatMap((a, i) => p.map((b, j) => ({ i, j, expected: a * b * pairs.length })));
    const square = cells.reduce((sum, { i, j, expected }) => {
      expect(expected).toBeGreaterThan(5);
      const found = pairs.filter(([a, b]) => a === i && b === j).length;
      return sum + (found - expected) ** 2 / expected;
    }, 0);
    const freedom = cells.length - 1;
    expect(square).toBeLessThan(freedom + 5 * Math.sqrt(2 * freedom));
  }

  it('of neighbouring positions are independent', () => {
    expectIndependent(
      range(count / 2).map((i) => [draw(logits, {}, 2 * i, 5), draw(logits, {}, 2 * i + 1, 5)]),
    );
  });

  it('of neighbouring seeds are independent', () => {
    expectIndependent(
      range(count / 2).map((i) => [draw(logits, {}, 9, 2 * i), draw(logits, {}, 9, 2 * i + 1)]),
    );
  });

  it('of one text and itself are not', () => {
    const ids = range(count / 2).map((i) => draw(logits, {}, i, 5));
    expect(() => expectIndependent(ids.map((id) => [id, id]))).toThrow();
    expect(() => expectFrequencies(ids, softmaxOf({ temperature: 1.1 }))).toThrow();
  });
});
