import { existsSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile, type CompileSummary } from 'upgc/compiler';
import { longestContext } from '../../src/codegen/memory.js';
import { UserError } from '../../src/diagnostic.js';
import { loadModel } from '../../src/ir/load.js';
import { renderedRejection } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

const llama = loadModel('models/llama.graph.ts');
const compileAt = (context: number, memoryBudget?: number, out: string | null = null) =>
  compile({
    model: llama,
    weights: 'examples/stories260k',
    target: 'cpu',
    context,
    out,
    ...(memoryBudget === undefined ? {} : { memoryBudget }),
  });

const fits = (context: number, budget: number): Promise<boolean> =>
  compileAt(context, budget).then(
    () => true,
    (error: unknown) => {
      if (error instanceof UserError) return false;
      throw error;
    },
  );

describe('--memory-budget', () => {
  it('refuses a build that needs more, writes nothing, and shows the sum', async () => {
    const out = path.join(temporaryFolder(), 'build');
    expect(await renderedRejection(() => compileAt(512, 1_800_000, out), out)).toMatchSnapshot();
    expect(existsSync(out)).toBe(false);
  });

  it('says when no context would do', async () => {
    expect(await renderedRejection(() => compileAt(512, 900_000), '/nowhere')).toMatchSnapshot();
  });

  it('refuses a budget that is no number of bytes', async () => {
    expect(await renderedRejection(() => compileAt(512, 0.5), '/nowhere')).toMatchInlineSnapshot(
      `"error: memoryBudget must be a whole number of bytes, at least 1, not 0.5"`,
    );
  });

  it.each([1_900_000, 1_500_000, 1_100_000])(
    'names the longest context that fits %i bytes',
    async (budget) => {
      const message = await renderedRejection(() => compileAt(512, budget), '/nowhere');
      const longest = Number(/the longest that fits is --context (\d+)/.exec(message)?.[1]);
      expect(longest).toBeGreaterThan(1);
      expect(longest).toBeLessThan(512);
      expect([await fits(longest, budget), await fits(longest + 1, budget)]).toEqual([true, false]);
    },
  );

  it('counts what the summary counts, and the kernels', async () => {
    const summary: CompileSummary | undefined = await compileAt(64);
    const total = summary?.totalBytes ?? NaN;
    expect(await fits(64, total), 'without room for the kernels').toBe(false);
    expect(await fits(64, total + 200_000)).toBe(true);
  });
});

describe('longestContext', () => {
  const phi4 = (context: number): number =>
    29_000_000_000 + context * 409_600 + Math.ceil(context / 64) * 64 * 512 + 7_000_000;

  it.each([
    ['in proportion', phi4, 33_000_000_000, undefined],
    ['barely', phi4, phi4(16383), 16383],
    ['one token', phi4, phi4(1), 1],
    ['none', phi4, phi4(1) - 1, 0],
    ['in steps', (context: number) => Math.ceil(context / 1000) * 1e6, 7_500_000, 7000],
    ['with its square', (context: number) => context * context, 1_000_000, 1000],
  ])('%s', (_, totalAt, budget, expected) => {
    let asked = 0;
    const longest = longestContext(16384, totalAt(16384), budget, (context) => {
      asked++;
      return totalAt(context);
    });
    if (longest > 0) expect(totalAt(longest)).toBeLessThanOrEqual(budget);
    expect(totalAt(longest + 1)).toBeGreaterThan(budget);
    if (expected !== undefined) expect(longest).toBe(expected);
    // Bisection alone would take 14.
    expect(asked).toBeLessThan(20);
    if (totalAt === phi4) expect(asked).toBeLessThan(7);
  });
});
