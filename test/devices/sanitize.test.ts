import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { generateGreedily, readGolden } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';

/** The sanitizer finds nothing in what upgc compiles: prefill, with a chunk that is not full, and decode. */

const models = [
  ['llama', 'test/fixtures/random-llama', readGolden('random-llama').inputIds],
  ['phi4', 'test/fixtures/random-phi3-sliding', readGolden('random-phi3-sliding').inputIds],
  ['phi4', 'test/fixtures/random-phi4-mini', readGolden('random-phi4-mini').inputIds],
  ['gpt2', 'test/fixtures/random-gpt2', readGolden('random-gpt2').inputIds],
  ['llama', 'examples/stories260k', readGolden('stories260k').inputIds],
] as const;

describe.each(['cpu', 'metal'] as const)('sanitized, compiled for %s', (target) => {
  it.each(models)(
    '%s of %s runs clean',
    async (model, weights, prompt) => {
      const out = path.join(sharedFolder(), `sanitize-${path.basename(weights)}-${target}`);
      await compile({ model: `models/${model}.graph.ts`, weights, target, chunk: 4, out });
      const tokens = prompt.slice(0, 7);
      const run = async (sanitize: boolean): Promise<{ ids: number[]; ms: number }> => {
        const session = await Session.open(out, { device: 'cpu', sanitize });
        const started = performance.now();
        const { ids } = await generateGreedily(session, tokens, 3);
        const ms = performance.now() - started;
        session.close();
        return { ids, ms };
      };
      const plain = await run(false);
      const sanitized = await run(true);
      expect(sanitized.ids).toHaveLength(3);
      const factor = Math.round(sanitized.ms / plain.ms);
      console.log(`${path.basename(weights)} for ${target}: sanitized ${factor} times slower`);
    },
    180_000,
  );
});
