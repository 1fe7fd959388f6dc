import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { loadModel } from '../../src/ir/load.js';
import { stageNames } from '../../src/passes/pipeline.js';
import { targets } from '../../src/passes/target.js';
import { compileGraph } from '../../src/compiler.js';
import { expectRoundTrips } from '../support/round-trip.js';

const root = path.join(import.meta.dirname, '../..');
const options = { target: targets.cpu, context: 32, chunk: 8 };

describe('golden dumps', () => {
  const { graph } = loadModel(path.join(root, 'test/fixtures/block.graph.ts')).build({});

  it('of prefill after every stage', async () => {
    const texts = new Map<string, string>();
    compileGraph(graph, { ...options, onStage: (stage, text) => texts.set(stage, text('prefill')) });
    expect([...texts.keys()]).toEqual(stageNames);
    for (const [stage, text] of texts)
      await expect(text).toMatchFileSnapshot(path.join(root, `test/golden/dump/${stage}.ir`));
  });

  it('are read back', () => {
    expectRoundTrips(graph, options);
  });
});

describe('the shipped models', () => {
  it.each(['llama', 'phi4'])('%s is read back from every stage, for every target', (model) => {
    const { graph } = loadModel(path.join(root, `models/${model}.graph.ts`)).build({ num_hidden_layers: 3 });
    for (const target of Object.values(targets)) {
      const texts = expectRoundTrips(graph, { target, context: 1024, chunk: 64 });
      expect(texts.get('plan-pool')).toContain(' in model.layers.2   // ');
    }
  });
});
