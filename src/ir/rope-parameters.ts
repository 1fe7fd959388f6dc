import { z } from 'zod';
import { UserError } from '../diagnostic.js';
import type { RopeOptions } from './dsl.js';

const positive = z.number().positive();
const factors = z.array(positive);

const common = {
  rope_theta: positive,
  /** How much of each head turns. */
  partial_rotary_factor: positive.max(1).default(1),
};

/** `rope_parameters` of config.json: what a model file whose rotations may be stretched to a longer context takes. */
export const ropeParameters = z.discriminatedUnion('rope_type', [
  z.object({ ...common, rope_type: z.literal('default') }),
  z.object({ ...common, rope_type: z.literal('linear'), factor: positive }),
  z.object({
    ...common,
    rope_type: z.literal('llama3'),
    factor: positive,
    low_freq_factor: positive,
    high_freq_factor: positive,
    original_max_position_embeddings: z.int().positive(),
  }),
  z.object({
    ...common,
    rope_type: z.literal('longrope'),
    short_factor: factors,
    long_factor: factors,
    original_max_position_embeddings: z.int().min(2),
    factor: positive.nullish(),
    attention_factor: positive.nullish(),
  }),
]);

export type RopeParameters = z.output<typeof ropeParameters>;
type Stretched<T> = Extract<RopeParameters, { readonly rope_type: T }>;

/** The most elements of a head that turn: far above any model, and few enough for a list of a factor for each pair. */
const mostDims = 2 ** 16;

/** How heads of `width` elements turn in a model whose config.json has `context` as its max_position_embeddings. */
export function ropeOptions(parameters: RopeParameters, width: number, context: number): RopeOptions {
  const dims = Math.trunc(width * parameters.partial_rotary_factor);
  if (dims > mostDims)
    throw new UserError(`heads of ${width} elements are too wide: at most ${mostDims} can turn`);
  const turn = { theta: parameters.rope_theta, dims };
  switch (parameters.rope_type) {
    case 'default':
      return turn;
    case 'linear':
      return { ...turn, factors: Array.from({ length: dims / 2 }, () => parameters.factor) };
    case 'llama3':
      return { ...turn, factors: llama3Factors(parameters, dims) };
    case 'longrope':
      return { ...turn, ...longRope(parameters, context) };
  }
}

/**
 * Llama 3.1: wavelengths up to original / high_freq_factor stay, those past original / low_freq_factor are `factor` times
 * as long; between them frequencies go over smoothly.
 */
function llama3Factors(parameters: Stretched<'llama3'>, dims: number): number[] {
  const { rope_theta: theta, factor, low_freq_factor: low, high_freq_factor: high } = parameters;
  return Array.from({ length: dims / 2 }, (_, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / dims);
    const turns = parameters.original_max_position_embeddings / wavelength;
    if (turns < low) return factor;
    if (turns > high) return 1;
    const kept = (turns - low) / (high - low);
    return 1 / (kept + (1 - kept) / factor);
  });
}

/**
 * LongRoPE (Ding et al. 2024): factors by search, other ones past the original context. transformers chooses by the
 * length of each text, which cannot work with a cache: keys turned before the switch would stay. A build has one table, of
 * the context that it is compiled for.
 */
function longRope(parameters: Stretched<'longrope'>, context: number): Omit<RopeOptions, 'theta'> {
  const { original_max_position_embeddings: past, short_factor, long_factor } = parameters;
  const stretch = parameters.factor ?? context / past;
  const scale = stretch > 1 ? Math.sqrt(1 + Math.log(stretch) / Math.log(past)) : 1;
  return {
    factors: short_factor,
    long: { past, factors: long_factor },
    scale: parameters.attention_factor ?? scale,
  };
}
