import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import type { Model } from 'upgc';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { loadModel } from '../../src/ir/load.js';
import { temporaryFolder } from '../support/temporary.js';

/** Phi-4 as deep as it is, but narrow. */
function narrowPhi4(): Model {
  const base = loadModel('models/phi4.graph.ts');
  const config = {
    hidden_size: 64,
    intermediate_size: 128,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    vocab_size: 96,
  };
  return { ...base, build: (_, dtype) => base.build(config, dtype) };
}

it('a build of random weights has logits of a plausible size after 40 layers', async () => {
  const dir = temporaryFolder();
  const model = narrowPhi4();
  const build = async (name: string, seed: number): Promise<Buffer> => {
    await compile({ model, weights: `random:${seed}`, context: 32, out: path.join(dir, name) });
    return readFileSync(path.join(dir, name, 'weights.bin'));
  };
  const first = await build('a', 1);
  expect((await build('b', 1)).equals(first)).toBe(true);
  expect((await build('c', 2)).equals(first)).toBe(false);
  const session = await Session.open(path.join(dir, 'a'));
  const logits = await session.score([1, 5, 95, 7]);
  session.close();
  const deviation = Math.sqrt(logits.reduce((sum, value) => sum + value * value, 0) / logits.length);
  expect(deviation).toBeGreaterThan(0.2);
  expect(deviation).toBeLessThan(5);
});

it('a folder that only an interrupted build has touched can be built into', async () => {
  const out = temporaryFolder();
  writeFileSync(path.join(out, '.weights.bin.partial'), 'of another job');
  await compile({ model: narrowPhi4(), weights: 'random:1', context: 32, out });
  expect(readdirSync(out).sort()).toEqual(['kernels.metal', 'plan.json', 'weights.bin']);
});
