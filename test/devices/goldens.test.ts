import path from 'node:path';
import { expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { generateGreedily, largestDifference, readGolden } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';

it.each([
  ['llama', 'random-llama', 'cpu'],
  ['llama', 'random-llama', 'metal'],
  ['phi4', 'random-phi3', 'cpu'],
  ['phi4', 'random-phi3', 'metal'],
  ['phi4', 'random-phi3-sliding', 'cpu'],
  ['phi4', 'random-phi3-sliding', 'metal'],
] as const)(
  'models/%s.graph.ts computes what transformers does: %s, target %s',
  async (model, folder, target) => {
    const golden = readGolden(folder);
    const out = path.join(sharedFolder(), `${folder}-${target}`);
    await compile({ model: `models/${model}.graph.ts`, weights: `test/fixtures/${folder}`, target, out });
    const session = await Session.open(out);
    expect(golden.inputIds.length).toBeGreaterThanOrEqual(96);
    const largest = golden.logits.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const difference = largestDifference(await session.score(golden.inputIds), golden.logits);
    expect(difference).toBeLessThanOrEqual(2e-3 * Math.max(1, largest / 10));
    const { ids } = await generateGreedily(
      session,
      golden.inputIds,
      golden.greedyIds.length - golden.inputIds.length,
    );
    expect([...golden.inputIds, ...ids]).toEqual(golden.greedyIds);
    session.close();
  },
);
