import { readFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { compareBuilds, evaluate, Session } from 'upgc/runtime';
import { renderedRejection } from '../support/snapshot.js';
import { sharedFolder } from '../support/temporary.js';

const heldout = readFileSync('test/fixtures/phi4-shakespeare/heldout.txt', 'utf8');
/** Made by transformers in float32; see SOURCE.md there. */
const reference = JSON.parse(readFileSync('test/fixtures/phi4-shakespeare/perplexity.json', 'utf8')) as {
  heldout_tokens: number;
  nll_nats_ctx256: number;
  ppl_ctx256: number;
};
const gguf = 'test/fixtures/gguf';

let ids: readonly number[];
let original: Session;
let quantised: Session;

async function open(weights: string, name: string): Promise<Session> {
  const out = path.join(sharedFolder(), name);
  await compile({ model: 'models/phi4.graph.ts', weights, context: 256, out });
  return Session.open(out);
}

beforeAll(async () => {
  original = await open('examples/phi4-shakespeare', 'original');
  quantised = await open(`${gguf}/phi4-shakespeare-Q4_0.gguf`, 'quantised');
  ids = original.tokenizer?.encode(heldout) ?? [];
});

afterAll(() => {
  original.close();
  quantised.close();
});

describe('evaluate', () => {
  it('finds the published perplexity of phi4-shakespeare', async () => {
    const progress: number[] = [];
    const result = await evaluate(original, ids, {
      context: 256,
      onProgress: (done, total) => progress.push(done / total),
    });
    expect(result.tokens).toBe(reference.heldout_tokens);
    expect(Math.abs(result.nll - reference.nll_nats_ctx256)).toBeLessThanOrEqual(0.002);
    expect(result.perplexity).toBeCloseTo(Math.exp(result.nll), 10);
    expect(Math.abs(result.perplexity / reference.ppl_ctx256 - 1)).toBeLessThanOrEqual(0.002);
    expect(result.tokensPerSecond).toBeGreaterThan(0);
    expect(progress).toEqual([...progress].sort((a, b) => a - b));
    expect([progress[0], progress.at(-1)]).toEqual([0, 1]);
  });

  it('is the mean over windows of one token more than the context', async () => {
    const text = ids.slice(0, 8);
    const logits = [await original.score(text.slice(0, 5)), await original.score(text.slice(5, 7))];
    const rows = logits.flatMap((part) =>
      Array.from({ length: part.length / 1024 }, (_, i) => [...part.subarray(i * 1024, (i + 1) * 1024)]),
    );
    const losses = rows.map((row, i) => {
      const sum = row.reduce((total, logit) => total + Math.exp(logit), 0);
      return -Math.log(Math.exp(row[text[i + 1] ?? NaN] ?? NaN) / sum);
    });
    const result = await evaluate(original, text, { context: 5 });
    expect(result.tokens).toBe(7);
    expect(result.nll).toBeCloseTo(losses.reduce((a, b) => a + b, 0) / 7, 5);
  });

  it('refuses what it cannot measure', async () => {
    expect(await renderedRejection(() => evaluate(original, [1]), '/')).toMatchInlineSnapshot(`
      "error: the text is too short: there is no token to predict
       note: a text of at least two tokens is needed"
    `);
    expect(await renderedRejection(() => evaluate(original, [1, 2], { context: 257 }), '/'))
      .toMatchInlineSnapshot(`
      "error: a window must be of 1 to 256 tokens, not 257
       note: the build's context is 256: compile with a longer --context"
    `);
  });
});

describe('compareBuilds', () => {
  // The first 64 ids, whose divergence SOURCE.md of the GGUF files gives.
  it('finds how far Q4_0 is from the original', async () => {
    const result = await compareBuilds(original, quantised, ids.slice(0, 65));
    expect(result.tokens).toBe(64);
    expect(result.klDivergence).toBeCloseTo(0.0179, 3);
    expect(result.top1Agreement).toBeGreaterThan(0.8);
    expect(result.top1Agreement).toBeLessThan(1);
    expect(result.reference.nll).toBeCloseTo((await evaluate(original, ids.slice(0, 65))).nll, 10);
    expect(result.nll).toBeCloseTo((await evaluate(quantised, ids.slice(0, 65))).nll, 10);
  });

  it('finds no distance of a build from one like it', async () => {
    const other = await Session.open(path.join(sharedFolder(), 'original'));
    const result = await compareBuilds(original, other, ids.slice(0, 20));
    expect(result.klDivergence).toBe(0);
    expect(result.top1Agreement).toBe(1);
    other.close();
  });
});
