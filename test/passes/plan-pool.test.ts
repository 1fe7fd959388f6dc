import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import type { Node } from '../../src/ir/graph.js';
import { f32 } from '../../src/ir/type.js';
import { kernelSources, layoutOf } from '../../src/passes/access.js';
import { resultsOf, type Entry, type PoolBuffer } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { placeBuffers, planPool } from '../../src/passes/plan-pool.js';
import { schedule } from '../../src/passes/schedule.js';
import { targets } from '../../src/passes/target.js';
import { entryOf, graphOf, inputOf } from '../support/graphs.js';

const value: Node = inputOf('x', f32(1));

/** A buffer of `bytes` that is alive in the epochs `first` to `last`. */
const alive = (bytes: number, firstEpoch: number, lastEpoch: number): Omit<PoolBuffer, 'offset'> => ({
  value,
  bytes,
  firstEpoch,
  lastEpoch,
});

/** Byte by byte and epoch by epoch: whether any byte is held twice. */
function holdsAByteTwice(buffers: readonly PoolBuffer[], unit: number): boolean {
  const held = new Set<string>();
  for (const { offset, bytes, firstEpoch, lastEpoch } of buffers) {
    for (let epoch = firstEpoch; epoch <= lastEpoch; epoch++) {
      for (let at = offset; at < offset + bytes; at += unit) {
        const key = `${epoch} ${at}`;
        if (held.has(key)) return true;
        held.add(key);
      }
    }
  }
  return false;
}

/** A generator of whole numbers below `limit`, the same in every run (Lehmer). */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state * 48271) % 2147483647;
    return state % limit;
  };
}

describe('placeBuffers', () => {
  it('gives simultaneous buffers bytes of their own', () => {
    const plan = placeBuffers([alive(64, 0, 1), alive(128, 1, 2), alive(64, 1, 1)], 64);
    expect(plan.buffers.map(({ bytes, offset }) => [bytes, offset])).toEqual([
      [128, 0],
      [64, 128],
      [64, 192],
    ]);
    expect(plan).toMatchObject({ bytes: 256, lowerBound: 256 });
  });

  it('reuses bytes from the epoch after the last use on', () => {
    const touching = placeBuffers([alive(64, 0, 1), alive(64, 1, 2)], 64);
    expect(touching.bytes, 'one epoch in common').toBe(128);
    const apart = placeBuffers([alive(64, 0, 1), alive(64, 2, 3)], 64);
    expect(apart.bytes, 'none in common').toBe(64);
  });

  it('fills gaps between live buffers', () => {
    const plan = placeBuffers([alive(256, 0, 0), alive(192, 1, 3), alive(128, 0, 1), alive(64, 2, 3)], 64);
    expect(plan.buffers.map(({ bytes, offset }) => [bytes, offset])).toEqual([
      [256, 0],
      [192, 0],
      [128, 256],
      [64, 192],
    ]);
    expect(plan.bytes).toBe(384);
  });

  it('needs exactly the lower bound on a chain', () => {
    const next = numbers(7);
    for (let length = 1; length < 30; length++) {
      const chain = Array.from({ length }, (_, i) => alive(64 * (1 + (i % 2 === 0 ? 2 : next(2))), i, i));
      const plan = placeBuffers(chain, 64);
      expect(plan.bytes).toBe(plan.lowerBound);
      expect(plan.bytes).toBe(Math.max(...chain.map(({ bytes }) => bytes)));
    }
  });

  it('needs exactly the lower bound on a chain of equal buffers, each read by the next', () => {
    const chain = Array.from({ length: 12 }, (_, i) => alive(64, i, i + 1));
    expect(placeBuffers(chain, 64)).toMatchObject({ bytes: 128, lowerBound: 128 });
  });

  it('never overlaps, never goes below the lower bound, and stays near it', () => {
    const next = numbers(42);
    let worst = 1;
    for (let round = 0; round < 200; round++) {
      const buffers = Array.from({ length: 1 + next(30) }, () => {
        const first = next(20);
        return alive(64 * (1 + next(20)), first, first + next(6));
      });
      const plan = placeBuffers(buffers, 64);
      expect(plan.buffers).toHaveLength(buffers.length);
      expect(holdsAByteTwice(plan.buffers, 64)).toBe(false);
      const most = Math.max(
        ...Array.from({ length: 26 }, (_, epoch) =>
          buffers
            .filter(({ firstEpoch, lastEpoch }) => firstEpoch <= epoch && epoch <= lastEpoch)
            .reduce((sum, { bytes }) => sum + bytes, 0),
        ),
      );
      expect(plan.lowerBound).toBe(most);
      expect(plan.bytes).toBeGreaterThanOrEqual(plan.lowerBound);
      worst = Math.max(worst, plan.bytes / plan.lowerBound);
    }
    expect(worst).toBeLessThan(1.5);
  });

  it('plans nothing for nothing', () => {
    expect(placeBuffers([], 64)).toEqual({ buffers: [], bytes: 0, lowerBound: 0 });
  });
});

describe('plan-pool', () => {
  const matrix = (x: dsl.Tensor, name: string, n: number): dsl.Tensor =>
    dsl.linear(x, dsl.weight(name, [n, Number(x.type.shape[1])]));

  const graph = graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 24]));
    const heads = (name: string): dsl.Tensor => dsl.splitHeads(matrix(x, name, 24), 2);
    const mixed = dsl.mergeHeads(dsl.attention(heads('q'), heads('k'), heads('v'), { causal: true }));
    return matrix(dsl.add(x, matrix(mixed, 'o', 24)), 'head', 10);
  });

  const planned = (name: 'decode' | 'prefill' | 'score', target: keyof typeof targets): Entry =>
    entryOf(graph, name, [fuseLayers, schedule, planPool], {
      context: 64,
      chunk: 8,
      target: targets[target],
    });

  it.each(['cpu', 'metal'] as const)(
    'keeps every result of target %s until its last reader has run',
    (target) => {
      for (const name of ['decode', 'prefill', 'score'] as const) {
        const entry = planned(name, target);
        const layout = layoutOf(entry);
        const buffers = entry.pool?.buffers ?? [];
        expect(buffers.length).toBeGreaterThan(3);
        for (const buffer of buffers) {
          const epochOf = (kernel: Entry['kernels'][number]): number => entry.epochs.get(kernel) ?? -1;
          const made = entry.kernels
            .filter((kernel) => resultsOf(kernel).includes(buffer.value))
            .map(epochOf);
          const read = entry.kernels
            .filter((kernel) => kernelSources(kernel, layout).has(buffer.value))
            .map(epochOf);
          expect([buffer.firstEpoch, buffer.lastEpoch]).toEqual([made[0], Math.max(...read)]);
          expect(buffer.offset % targets[target].alignment).toBe(0);
          expect(buffer.bytes % targets[target].alignment).toBe(0);
        }
        expect(holdsAByteTwice(buffers, targets[target].alignment)).toBe(false);
      }
    },
  );

  it('leaves outputs and appended rows to their own memory', () => {
    const entry = planned('decode', 'cpu');
    const buffered = (entry.pool?.buffers ?? []).map(({ value: { op } }) => op).sort();
    expect(buffered).toEqual(['add', 'attention', 'embed', 'linear']);
  });

  it('sizes values for the greatest step', () => {
    const embedBytes = (name: 'decode' | 'prefill'): number | undefined =>
      planned(name, 'cpu').pool?.buffers.find(({ value: { op } }) => op === 'embed')?.bytes;
    expect([embedBytes('decode'), embedBytes('prefill')]).toEqual([128, 8 * 24 * 4]);
  });
});
