import { expect, it } from 'vitest';
import { attentionSteps, attentionTitle, type AttentionCase } from '../support/attention.js';

/**
 * The kernels of attention as they are emitted, over caches with NaN past the last token: heads of many widths, few and
 * many that share keys, counts of keys that divide nothing. Each element is within its error bound of the interpreter's.
 */

const context = 160;
const chunk = 3;

const cases: readonly AttentionCase[] = (
  [
    { heads: 4, groups: 4, size: 64 },
    { heads: 6, groups: 2, size: 80 },
    { heads: 5, groups: 1, size: 96, kv: 'f16' },
    { heads: 8, groups: 2, size: 128 },
    { heads: 8, groups: 2, size: 128, kv: 'f16' },
    { heads: 8, groups: 1, size: 256, kv: 'f16' },
    { heads: 2, groups: 1, size: 256 },
    { heads: 16, groups: 1, size: 16, kv: 'f16' },
    // A lane for each row; half a load at a time.
    { heads: 3, groups: 1, size: 12 },
    { heads: 4, groups: 2, size: 20, kv: 'f16' },
    // What vectors or lanes do not divide.
    { heads: 6, groups: 2, size: 6, kv: 'f16' },
    { heads: 2, groups: 1, size: 36 },
    { heads: 4, groups: 1, size: 64, window: 50 },
    { heads: 4, groups: 1, size: 64, window: 70, kv: 'f16', softcap: 3 },
    { heads: 8, groups: 2, size: 24, target: 'cpu', kv: 'f16' },
    { heads: 8, groups: 2, size: 24, target: 'cpu', kv: 'f16', window: 50 },
  ] satisfies readonly Omit<AttentionCase, 'context' | 'chunk'>[]
).map((given) => ({ context, chunk, ...given }));

it.each(cases.map((given) => ({ title: attentionTitle(given), given })))('$title', async ({ given }) => {
  for (const entry of ['decode', 'prefill'] as const) {
    const steps = [0, 1, 31, 64, 101, 157].map((start) => ({
      start,
      tokens: entry === 'decode' ? 1 : chunk - (start % 2),
    }));
    for await (const { kernel, start, comparison, beyond } of attentionSteps(given, entry, steps)) {
      expect(comparison.wrong, `${kernel} at ${start}`).toBeUndefined();
      // Nothing is stored for tokens that are not there.
      expect(beyond.every(Number.isNaN)).toBe(true);
    }
  }
});
