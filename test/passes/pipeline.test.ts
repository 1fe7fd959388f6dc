import { describe, expect, it } from 'vitest';
import { CompilerBug } from '../../src/diagnostic.js';
import * as dsl from '../../src/ir/dsl.js';
import { checkStage, entryPasses, runPasses, stageNames } from '../../src/passes/pipeline.js';
import { targets } from '../../src/passes/target.js';
import { graphOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';

/** Every pass finds something to do: a scale by 1, after whose folding there is one silu written twice; attention. */
const graph = graphOf(() => {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 16]));
  const heads = dsl.splitHeads(x, 2);
  const mixed = dsl.mergeHeads(dsl.attention(heads, heads, heads, { causal: true }));
  return dsl.add(dsl.add(dsl.silu(x), dsl.silu(dsl.scale(x, { by: 1 }))), mixed);
});
const options = { target: targets.cpu, context: 16, chunk: 4 };

describe('runPasses', () => {
  it('runs every stage in order and shows each', () => {
    const stages = new Map<string, string>();
    const entries = runPasses(graph, {
      ...options,
      // So small a block cuts the draw from this vocabulary into parts.
      target: { ...targets.metal, block: 4 },
      context: 256,
      onStage: (stage, text) => stages.set(stage, text()),
    });
    expect([...stages.keys()]).toEqual([
      'load',
      'insert-kv-cache',
      'fold-constants',
      'share-subexpressions',
      'narrow-last',
      'split-attention',
      'split-sample',
      'fuse-layers',
      'schedule',
      'plan-pool',
    ]);
    expect([...stages.keys()]).toEqual(stageNames);
    expect(new Set(stages.values()).size, 'each stage shows more or less').toBe(stages.size);
    expect(entries?.map(({ name }) => name)).toEqual(['decode', 'prefill', 'score']);
    for (const entry of entries ?? []) {
      expect(entry.kernels.length).toBeGreaterThan(0);
      expect(entry.epochs.size).toBe(entry.kernels.length);
      expect(entry.pool).toBeDefined();
    }
  });

  it.each(stageNames)('stops after %s', (stopAfter) => {
    const seen: string[] = [];
    expect(runPasses(graph, { ...options, stopAfter, onStage: (stage) => seen.push(stage) })).toBeUndefined();
    expect(seen).toEqual(stageNames.slice(0, stageNames.indexOf(stopAfter) + 1));
  });

  it('makes no text that nobody asks for', () => {
    let made = 0;
    const onStage = (_: string, text: () => string): void => {
      if (made === 0) made += text().length > 0 ? 1 : 0;
    };
    runPasses(graph, { ...options, onStage });
    expect(made).toBe(1);
  });

  it('names the pass that broke an invariant', () => {
    const broken = { ...graph, outputs: new Map() };
    expect(() => runPasses(broken, options)).toThrow(CompilerBug);
    expect(() => runPasses(broken, options)).toThrow('after load, graph small has no output');
  });

  it('describes every pass', () => {
    for (const pass of entryPasses) expect(pass.doc).toMatch(/^[a-z].{20,}[^.]$/);
  });
});

describe('checkStage', () => {
  it('takes every stage', () => {
    for (const name of stageNames) expect(() => checkStage(name)).not.toThrow();
  });

  it('suggests the nearest', () => {
    const refused = (name: string): string => renderedError(() => checkStage(name), import.meta.dirname);
    expect([refused('fuse-layer'), refused('everything')]).toMatchInlineSnapshot(`
      [
        "error: there is no pass 'fuse-layer'; did you mean 'fuse-layers'?
       note: passes: load, insert-kv-cache, fold-constants, share-subexpressions, narrow-last, split-attention, split-sample, fuse-layers, schedule, plan-pool",
        "error: there is no pass 'everything'
       note: passes: load, insert-kv-cache, fold-constants, share-subexpressions, narrow-last, split-attention, split-sample, fuse-layers, schedule, plan-pool",
      ]
    `);
  });
});
