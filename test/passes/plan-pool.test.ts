import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { kernelSources, layoutOf } from '../../src/passes/access.js';
import { resultsOf, type Entry, type PoolBuffer } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { planPool } from '../../src/passes/plan-pool.js';
import { schedule } from '../../src/passes/schedule.js';
import { targets } from '../../src/passes/target.js';
import { entryOf, graphOf } from '../support/graphs.js';

/**
 * Byte by byte and epoch by epoch: whether any byte is held twice. A value written over another takes its bytes in the
 * epoch that reads the other for the last time.
 */
function holdsAByteTwice(buffers: readonly PoolBuffer[], unit: number): boolean {
  const held = new Set<string>();
  for (const { offset, bytes, firstEpoch, lastEpoch } of buffers) {
    const over = buffers.some((other) => other.offset === offset && other.lastEpoch === firstEpoch);
    for (let epoch = over ? firstEpoch + 1 : firstEpoch; epoch <= lastEpoch; epoch++) {
      for (let at = offset; at < offset + bytes; at += unit) {
        const key = `${epoch} ${at}`;
        if (held.has(key)) return true;
        held.add(key);
      }
    }
  }
  return false;
}

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
