import { describe, expect, it } from 'vitest';
import { ropeOptions, ropeParameters } from 'upgc';
import { z } from 'zod';

const optionsOf = (parameters: unknown, width = 16, context = 512) =>
  ropeOptions(ropeParameters.parse(parameters), width, context);

/** What is wrong with rope parameters, as a model that reads them says it. */
function wrong(parameters: unknown): string[] {
  const { error } = z.object({ rope_parameters: ropeParameters }).safeParse({ rope_parameters: parameters });
  return error?.issues.map(({ path, message }) => `${path.join('.')}: ${message}`) ?? [];
}

describe('rope parameters', () => {
  it('turn a part of each head', () => {
    const plain = { rope_theta: 500, rope_type: 'default' };
    expect(optionsOf(plain)).toEqual({ theta: 500, dims: 16 });
    expect(optionsOf({ ...plain, partial_rotary_factor: 0.75 }, 128).dims).toBe(96);
  });

  it('stretch all wavelengths alike', () => {
    const linear = { rope_theta: 500, rope_type: 'linear', factor: 4 };
    expect(optionsOf(linear, 6).factors).toEqual([4, 4, 4]);
  });

  it('stretch as Llama 3.1 does: short wavelengths not, long ones wholly, smoothly between', () => {
    // θ^(2/dims) = 16: wavelengths 2π, 32π, 512π; the original context is 256π of them.
    const factors = optionsOf(
      {
        rope_theta: 4096,
        rope_type: 'llama3',
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 15,
        original_max_position_embeddings: Math.round(256 * Math.PI),
      },
      6,
    ).factors;
    expect(factors?.[0]).toBe(1);
    expect(factors?.[2]).toBe(8);
    // 8 turns: half-way between 1 and 15, so the frequency is half-way between f and f / 8.
    expect(factors?.[1]).toBeCloseTo(2 / (1 + 1 / 8), 3);
  });

  it('stretch as LongRoPE does', () => {
    const long = {
      rope_theta: 10000,
      rope_type: 'longrope',
      short_factor: [1, 2],
      long_factor: [3, 4],
      original_max_position_embeddings: 64,
    };
    expect(optionsOf(long, 4)).toEqual({
      theta: 10000,
      dims: 4,
      factors: [1, 2],
      long: { past: 64, factors: [3, 4] },
      // √(1 + ln 8 / ln 64)
      scale: Math.sqrt(1.5),
    });
    expect(optionsOf(long, 4, 64).scale, 'not stretched').toBe(1);
    expect(optionsOf({ ...long, factor: 64 }, 4).scale).toBe(Math.SQRT2);
    expect(optionsOf({ ...long, attention_factor: 1.25 }, 4).scale).toBe(1.25);
  });

  it('are refused by name where a model does not cover them', () => {
    expect([
      wrong({ rope_theta: 10000, rope_type: 'yarn', factor: 4 }),
      wrong({ rope_theta: 10000, rope_type: 'llama3', factor: 4 }),
      wrong({ rope_theta: 0, rope_type: 'default' }),
    ]).toMatchInlineSnapshot(`
      [
        [
          "rope_parameters.rope_type: Invalid discriminator value. Expected 'default' | 'linear' | 'llama3' | 'longrope'",
        ],
        [
          "rope_parameters.low_freq_factor: Invalid input: expected number, received undefined",
          "rope_parameters.high_freq_factor: Invalid input: expected number, received undefined",
          "rope_parameters.original_max_position_embeddings: Invalid input: expected number, received undefined",
        ],
        [
          "rope_parameters.rope_theta: Too small: expected number to be >0",
        ],
      ]
    `);
  });
});
