import { UserError } from '../diagnostic.js';

/** How the next id is drawn. The filters apply in this order, each to what the last one left. */
export interface SamplingOptions {
  /** Always take the likeliest token; the same as a temperature of 0. */
  readonly greedy?: boolean;
  /** Divides the logits; 1 by default. */
  readonly temperature?: number;
  /** Draw among this many of the likeliest tokens; 0, the default, is all. */
  readonly topK?: number;
  /** Draw among the likeliest tokens that together have this much of the probability; 1 by default. */
  readonly topP?: number;
  /** Draw among tokens at least this many times as likely as the likeliest; 0 by default. */
  readonly minP?: number;
  /** A whole number below 2^32; by default a random one. The same seed draws the same ids. */
  readonly seed?: number;
}

/** What the device is told: `sampling` and `seed` of the plan's inputs. */
export interface Sampling {
  readonly parameters: Float32Array;
  readonly seed: Uint32Array;
}

const isWhole = (value: number, below: number): boolean =>
  Number.isInteger(value) && value >= 0 && value < below;

export function samplingOf(options: SamplingOptions): Sampling {
  const { greedy = false, temperature = 1, topK = 0, topP = 1, minP = 0 } = options;
  const { seed = Math.floor(Math.random() * 2 ** 32) } = options;
  const check = (name: string, value: number, fits: boolean, expected: string): void => {
    if (!fits) throw new UserError(`${name} must be ${expected}, not ${value}`);
  };
  // Times the greatest Gumbel variate, 16.6, it is still a number of f32.
  check('temperature', temperature, temperature >= 0 && temperature <= 1e37, 'from 0 to 1e37');
  check('topK', topK, isWhole(topK, 2 ** 24), 'a whole number from 0 to 2^24 - 1');
  check('topP', topP, topP > 0 && topP <= 1, 'above 0 and at most 1');
  check('minP', minP, minP >= 0 && minP <= 1, 'from 0 to 1');
  check('seed', seed, isWhole(seed, 2 ** 32), 'a whole number from 0 to 2^32 - 1');
  return {
    parameters: Float32Array.of(greedy ? 0 : temperature, topK, topP, minP),
    seed: Uint32Array.of(seed),
  };
}
