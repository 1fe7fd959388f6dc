import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile, type TargetName } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { generateGreedily, largestDifference, readGolden } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';
import { logitTolerance } from '../support/tolerance.js';

const { inputIds, logits: goldenLogits, greedyIds } = readGolden('stories260k');
const greedyText = readFileSync('test/fixtures/stories260k/greedy.txt', 'utf8');
const bos = 1;
const vocabulary = 512;

async function build(target: TargetName, chunk: number): Promise<string> {
  const out = path.join(sharedFolder(), `${target}-${chunk}`);
  await compile({ model: 'models/llama.graph.ts', weights: 'examples/stories260k', target, chunk, out });
  return out;
}

describe.each(['cpu', 'metal'] as const)('stories260k compiled for %s, on the CPU device', (target) => {
  let session: Session;

  beforeAll(async () => {
    session = await Session.open(await build(target, 64), { device: 'cpu' });
  });

  afterAll(() => session.close());

  it('tells the published story, token by token through the KV cache', async () => {
    session.reset();
    expect((await generateGreedily(session, [bos], 255)).text).toBe(greedyText);
  });

  it('continues the golden prompt with the golden ids', async () => {
    session.reset();
    const { ids } = await generateGreedily(session, inputIds, greedyIds.length - inputIds.length);
    expect([...inputIds, ...ids]).toEqual(greedyIds);
  });

  it('scores all 160 golden positions within 2e-3 of float64', async () => {
    expect(inputIds).toHaveLength(160);
    expect(largestDifference(await session.score(inputIds), goldenLogits)).toBeLessThanOrEqual(2e-3);
  });

  it('allocates nothing on the device after open', async () => {
    session.reset();
    expect((await generateGreedily(session, [bos], 20)).ids).toHaveLength(20);
    await session.score(inputIds);
    expect(session.stats.deviceAllocations).toBe(0);
  });

  it('resumes a text across calls', async () => {
    session.reset();
    const first = await generateGreedily(session, [bos], 30);
    // The last generated token has not been read yet: the next call reads it before its own tokens.
    const second = await generateGreedily(session, [], 30);
    session.reset();
    expect([...first.ids, ...second.ids]).toEqual((await generateGreedily(session, [bos], 60)).ids);
  });
});

describe.each([
  ['cpu', [1, 7, 16]],
  ['metal', [1, 7, 16]],
] as const)('chunks of prefill, target %s', (target, chunks) => {
  it('gives the logits of one-token-at-a-time decoding at every position, whatever the chunk', async () => {
    const length = 40;
    const tokens = inputIds.slice(0, length);
    const scores = await Promise.all(
      chunks.map(async (chunk) => {
        const session = await Session.open(await build(target, chunk));
        const logits = await session.score(tokens);
        session.close();
        return logits;
      }),
    );
    const [single] = scores;
    for (const logits of scores) {
      expect(largestDifference(logits, single ?? [])).toBeLessThanOrEqual(
        logitTolerance({ layers: 5, width: 64, hidden: 172, context: length, logits: goldenLogits }),
      );
    }
    expect(single).toHaveLength(length * vocabulary);
  });

  it('generates the same ids from every prompt length around the chunk boundaries', async () => {
    const [, chunk] = chunks;
    const session = await Session.open(await build(target, chunk));
    for (const length of [1, chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk, 2 * chunk + 1]) {
      session.reset();
      const { ids } = await generateGreedily(session, greedyIds.slice(0, length), 4);
      expect(ids, `prompt of ${length}`).toEqual(greedyIds.slice(length, length + 4));
    }
    session.close();
  });
});
