import { expect, it } from 'vitest';
import { attentionSteps, attentionTitle, type AttentionCase } from '../support/attention.js';
import { targets, type Target } from '../../src/passes/target.js';
import { laneRuns } from '../support/devices.js';

/**
 * Attention of chunks with matrices, over caches with NaN past the last token: heads of many widths, few and many that
 * share keys, chunks that begin and end anywhere, contexts of several blocks of keys. Each element is within its error
 * bound of the interpreter's, which is of halves where the cache is.
 */

interface Given extends Omit<AttentionCase, 'context'> {
  readonly context?: number;
}

const cases: readonly Given[] = [
  { heads: 2, groups: 2, size: 8, chunk: 40 },
  { heads: 2, groups: 2, size: 8, chunk: 70, kv: 'f16' },
  { heads: 4, groups: 2, size: 16, chunk: 20 },
  { heads: 4, groups: 1, size: 32, chunk: 24, kv: 'f16' },
  { heads: 5, groups: 1, size: 64, chunk: 9, kv: 'f16' },
  { heads: 10, groups: 2, size: 24, chunk: 8 },
  // More heads share keys than a threadgroup takes.
  { heads: 24, groups: 2, size: 16, chunk: 8, kv: 'f16' },
  { heads: 2, groups: 1, size: 80, chunk: 17 },
  { heads: 2, groups: 1, size: 80, chunk: 17, kv: 'f16' },
  { heads: 3, groups: 1, size: 96, chunk: 10, kv: 'f16' },
  { heads: 4, groups: 1, size: 128, chunk: 16, kv: 'f16' },
  { heads: 4, groups: 1, size: 128, chunk: 12 },
  { heads: 1, groups: 1, size: 256, chunk: 8 },
  { heads: 2, groups: 1, size: 256, chunk: 8, kv: 'f16', softcap: 3 },
  { heads: 2, groups: 2, size: 32, chunk: 40, window: 50 },
  { heads: 4, groups: 1, size: 16, chunk: 24, window: 9, kv: 'f16' },
  { heads: 4, groups: 2, size: 24, chunk: 16, window: 70, kv: 'f16', softcap: 3 },
];

const all = laneRuns('metal').flatMap((machine) =>
  cases.map((given) => ({ context: 160, ...given, ...machine })),
);

it.each(all.map((given) => ({ title: `${attentionTitle(given)}, chunk ${given.chunk}`, given })))(
  '$title',
  async ({ given }) => {
    const { chunk, context, kv, target } = given;
    const { attention }: Target = targets[target];
    const flash = attention.flash?.types.includes(kv ?? 'f32');
    const expected = flash ? /^attention_flash/ : /^attention_\d/;
    const steps = [
      { start: 0, tokens: chunk },
      { start: 0, tokens: 1 },
      { start: 13, tokens: chunk - 1 },
      { start: 33, tokens: Math.ceil(chunk / 2) },
      { start: context - chunk, tokens: chunk },
    ];
    for await (const step of attentionSteps(given, 'prefill', steps, kv === 'f16')) {
      expect(step.kernel).toMatch(expected);
      expect(step.comparison.wrong, `${step.kernel} at ${step.start}`).toBeUndefined();
      // Nothing is stored for tokens that are not there.
      expect(step.beyond.every(Number.isNaN)).toBe(true);
    }
  },
);
