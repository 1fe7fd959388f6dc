import { describe, expect, it } from 'vitest';
import { makeGraph, makeNode, type Graph, type Node } from '../../src/ir/graph.js';
import { f32 } from '../../src/ir/type.js';
import { costOf, savedByRepeating } from '../../src/passes/cost.js';
import type { MachineCost } from '../../src/passes/target.js';
import { inputOf } from '../support/graphs.js';

/** A norm of rows of `width`, and a graph of it in steps of `tokens`. */
function normOf(width: number, tokens: number): { norm: Node; graph: Graph } {
  const norm = makeNode('rms_norm', [inputOf('x', f32('T', width)), inputOf('gain', f32(width))], {
    eps: 1e-5,
  });
  const outputs = new Map([['y', norm]]);
  return { norm, graph: makeGraph({ name: 'g', outputs, updates: new Map(), dims: { T: tokens } }) };
}

describe('costOf', () => {
  it('binds the named dims', () => {
    const { norm, graph } = normOf(100, 3);
    expect(costOf(norm, graph)).toEqual({ flops: 4 * 300, reduction: 100 });
  });
});

describe('savedByRepeating', () => {
  /** A norm of 1000 elements is 4000 operations: 4 µs in one threadgroup. Moving its 4000 bytes there and back: 2 µs. */
  const machine: MachineCost = { dispatch: 3, threadgroups: 10, flops: 1000, bytes: 4000 };
  const saved = (tokens: number, tiles: number, changed: Partial<MachineCost> = {}): number => {
    const { norm, graph } = normOf(1000, tokens);
    return savedByRepeating(norm, graph, tiles, { ...machine, ...changed });
  };

  it('is the dispatch and the traffic while all threadgroups run at the same time', () => {
    expect(saved(1, 1)).toBeCloseTo(3 + 2);
    expect(saved(1, 10)).toBeCloseTo(3 + 2);
  });

  it('is less by every further round of threadgroups', () => {
    expect(saved(1, 11)).toBeCloseTo(3 + 2 - 4);
    expect(saved(1, 20)).toBeCloseTo(3 + 2 - 4);
    expect(saved(1, 21)).toBeCloseTo(3 + 2 - 8);
  });

  it('counts the rounds of all tokens on both sides', () => {
    // Once: 5 threadgroups, one round. Repeated: 5 · 4, two rounds. Traffic of five rows.
    expect(saved(5, 4)).toBeCloseTo(3 + 5 * 2 - 4);
    // Once: 20 threadgroups, two rounds. Repeated: 20 · 4, eight rounds.
    expect(saved(20, 4)).toBeCloseTo(3 + 20 * 2 - 6 * 4);
  });

  it('is a loss where a dispatch costs little', () => {
    expect(saved(1, 21)).toBeLessThan(0);
    expect(saved(1, 21, { dispatch: 7 })).toBeGreaterThan(0);
    expect(saved(1, 21, { flops: 2000 })).toBeGreaterThan(0);
    expect(saved(1, 21, { threadgroups: 21 })).toBeGreaterThan(0);
    expect(saved(1, 11, { dispatch: 0, bytes: 1e9 })).toBeLessThan(0);
  });

  it('counts one row where the value has no tokens', () => {
    const x = inputOf('x', f32(1, 1000));
    const norm = makeNode('rms_norm', [x, inputOf('gain', f32(1000))], { eps: 1e-5 });
    const outputs = new Map([['y', norm]]);
    const graph = makeGraph({ name: 'g', outputs, updates: new Map(), dims: { T: 64 } });
    expect(savedByRepeating(norm, graph, 11, machine)).toBeCloseTo(3 + 2 - 4);
  });
});
