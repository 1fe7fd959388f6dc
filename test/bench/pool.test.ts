import { describe, expect, it } from 'vitest';
import { bestFit, firstFit, greedyBySize, noReuse } from '../../bench/pool/baselines.js';
import { markdownTable, textTable, type Row } from '../../bench/pool/table.js';
import { placeBuffers } from '../../src/passes/pool/place.js';
import { buffersOf, mostAlive, numbers, randomBuffers } from '../support/placement.js';

describe('the allocators compared with', () => {
  it('differ as their names say', () => {
    // A gap of 3 below one of 2, and then a buffer of 2 and one of 3.
    const gaps = buffersOf([
      [3, 0, 0],
      [1, 0, 2],
      [2, 0, 0],
      [1, 0, 2],
      [2, 1, 2],
      [3, 1, 2],
    ]);
    expect(firstFit(gaps), 'the 2 takes the gap of 3').toBe(10);
    expect(bestFit(gaps), 'the 2 takes the gap of 2').toBe(7);
    expect(greedyBySize(gaps), 'the 3 goes first').toBe(7);
    expect(noReuse(gaps)).toBe(12);
  });

  it('are sound: never below the bound, nor below the planner (seed 3)', () => {
    const next = numbers(3);
    for (let round = 0; round < 50; round++) {
      const shape = { count: 1 + next(20), epochs: 12, longest: 6, unit: 16, most: 9 };
      const buffers = randomBuffers(next, shape);
      const { bytes, optimal } = placeBuffers(buffers);
      expect(optimal).toBe(true);
      for (const allocator of [greedyBySize, bestFit, firstFit, noReuse]) {
        expect(allocator(buffers)).toBeGreaterThanOrEqual(Math.max(bytes, mostAlive(buffers)));
      }
    }
  });
});

describe('the table', () => {
  const row: Row = {
    problem: 'a',
    buffers: 1234,
    lowerBound: 90,
    bytes: 100,
    optimal: true,
    ms: 1.26,
    greedyBySize: 100,
    bestFit: 150,
    firstFit: 90,
    noReuse: 1_000_000,
  };

  it('is Markdown', () => {
    expect(markdownTable([row, { ...row, problem: 'b', optimal: false, ms: 12.6 }])).toBe(
      [
        '| problem | buffers | lower bound | upgc | proven | ms | greedy by size | best fit | first fit | no reuse |',
        '| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |',
        '| a | 1,234 | 90 | 100 | optimal | 1.3 | 100 | 150 (+50 %) | 90 (−10 %) | 1,000,000 |',
        '| b | 1,234 | 90 | 100 |  | 13 | 100 | 150 (+50 %) | 90 (−10 %) | 1,000,000 |',
        '',
      ].join('\n'),
    );
  });

  it('is aligned in a terminal', () => {
    const [head = '', first = '', second = ''] = textTable([row, { ...row, problem: 'longer' }]).split('\n');
    expect([first.length, second.length]).toEqual([head.length, head.length]);
    expect(first).toMatch(/^a {8,}1,234 {2}/);
    expect(head.indexOf('upgc') + 4).toBe(first.indexOf(' 100 ') + 4);
  });
});
