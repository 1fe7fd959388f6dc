import path from 'node:path';
import { expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { runs } from '../support/devices.js';
import { generateGreedily, largestDifference, readGolden } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';
import { halfTolerance } from '../support/tolerance.js';

interface Case {
  readonly model: string;
  readonly folder: string;
  /** Where the weights are, if not beside the golden file. */
  readonly weights?: string;
  readonly golden?: string;
  readonly context?: number;
  /** Of a checkpoint in 16 bits. */
  readonly layers?: number;
}

const cases: readonly Case[] = [
  { model: 'llama', folder: 'random-llama' },
  { model: 'llama', folder: 'random-llama3-rope' },
  { model: 'phi4', folder: 'random-phi3' },
  { model: 'phi4', folder: 'random-phi3-sliding' },
  { model: 'phi4', folder: 'phi4-shakespeare', weights: 'examples/phi4-shakespeare', layers: 4 },
  // The long factors hold in a context that is longer than the original one of 64 tokens, the short ones in others.
  { model: 'phi4', folder: 'random-phi4-mini' },
  { model: 'phi4', folder: 'random-phi4-mini', golden: 'golden_short', context: 64 },
  { model: 'qwen2', folder: 'random-qwen2' },
  { model: 'gpt2', folder: 'random-gpt2' },
];

const named = runs().flatMap((run) => cases.map((each) => ({ golden: 'golden', ...each, ...run })));

it.each(named)(
  '$folder, $golden: models/$model computes what transformers does, target $target on $device',
  async ({
    model,
    folder,
    weights = `test/fixtures/${folder}`,
    golden: file,
    context,
    layers,
    target,
    device,
  }) => {
    const golden = readGolden(folder, file);
    const out = path.join(sharedFolder(), `${folder}-${file}-${target}-${device}`);
    await compile({
      model: `models/${model}.graph.ts`,
      weights,
      target,
      out,
      ...(context === undefined ? {} : { context }),
    });
    const session = await Session.open(out, { device });
    const largest = golden.logits.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const difference = largestDifference(await session.score(golden.inputIds), golden.logits);
    const halves = layers !== undefined && target !== 'cpu' ? halfTolerance(layers, largest) : 0;
    expect(difference).toBeLessThanOrEqual(2e-3 * Math.max(1, largest / 10) + halves);
    // The id that follows the last token of the context needs no place in it.
    const greedy = golden.greedyIds.slice(0, (context ?? Infinity) + 1);
    const count = greedy.length - golden.inputIds.length;
    expect(count).toBeGreaterThanOrEqual(8);
    const { ids } = await generateGreedily(session, golden.inputIds, count);
    expect([...golden.inputIds, ...ids]).toEqual(greedy);
    session.close();
  },
);
