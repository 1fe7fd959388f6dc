import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { runs, type Run } from '../support/devices.js';
import { generateGreedily, largestDifference, readGolden } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';
import { logitTolerance } from '../support/tolerance.js';

/** A Phi-3 of random weights whose tokens see 32 tokens each, over caches that hold little more than that. */

const { inputIds, logits, greedyIds } = readGolden('random-phi3-sliding');
const window = 32;
const context = greedyIds.length;
const tolerance = logitTolerance({ layers: 3, width: 64, hidden: 128, context, logits });

async function open({ target, device }: Run, chunk: number): Promise<Session> {
  const out = path.join(sharedFolder(), `${target}-${chunk}`);
  const weights = 'test/fixtures/random-phi3-sliding';
  await compile({ model: 'models/phi4.graph.ts', weights, target, context, chunk, out });
  return Session.open(out, { device });
}

/** Interpreting 32 lanes on the CPU takes long. */
const chunksOf = ({ target, device }: Run): number[] =>
  target === 'metal' && device === 'cpu' ? [5, 16] : [1, 5, 16, 64];

const cases = runs().flatMap((run) => chunksOf(run).map((chunk) => ({ run, ...run, chunk })));

describe.each(cases)('a sliding window, target $target on $device, chunk $chunk', ({ run, chunk }) => {
  it('computes what transformers does while the caches go round', async () => {
    const session = await open(run, chunk);
    const rows = window + chunk;
    expect(session.plan.state.map(({ shape }) => shape[0])).toEqual(new Array<number>(6).fill(rows));
    expect(inputIds.length, 'tokens').toBeGreaterThan(1.3 * rows);
    expect(largestDifference(await session.score(inputIds), logits)).toBeLessThanOrEqual(tolerance);
    const { ids } = await generateGreedily(session, inputIds, greedyIds.length - inputIds.length);
    expect([...inputIds, ...ids]).toEqual(greedyIds);
    session.close();
  });

  it('goes on token by token from a short prompt as from a long one', async () => {
    const session = await open(run, chunk);
    const { ids } = await generateGreedily(session, inputIds.slice(0, 3), 100);
    session.reset();
    const prompt = [...inputIds.slice(0, 3), ...ids.slice(0, 60)];
    expect((await generateGreedily(session, prompt, 40)).ids).toEqual(ids.slice(60));
    session.close();
  });
});
