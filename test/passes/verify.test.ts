import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import type { Node } from '../../src/ir/graph.js';
import type { Entry, Kernel, PoolBuffer } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { planPool } from '../../src/passes/plan-pool.js';
import { schedule } from '../../src/passes/schedule.js';
import { verifyEntry } from '../../src/passes/verify.js';
import { entryOf, graphOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';

/** embed, linear a, silu · linear b: three kernels, two of them with a buffer, the last an output. */
const sound = entryOf(
  graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 16]));
    const y = dsl.linear(x, dsl.weight('a', [16, 16]));
    return dsl.silu(dsl.linear(y, dsl.weight('b', [16, 16])));
  }),
  'score',
  [fuseLayers, schedule, planPool],
);

const kernel = (index: number): Kernel => {
  const found = sound.kernels[index];
  if (!found) throw new Error(`no kernel ${index}`);
  return found;
};
const [embed, first, last] = [kernel(0), kernel(1), kernel(2)];
const bordered: Entry = { ...sound, epochs: new Map(), pool: undefined };

const broken = (entry: Entry): string =>
  renderedError(() => verifyEntry(entry, 'a-pass', 64), import.meta.dirname);

/** The sound entry with its pool changed. */
function withBuffers(change: (buffers: readonly PoolBuffer[]) => readonly PoolBuffer[]): Entry {
  const { pool } = sound;
  if (!pool) throw new Error('no pool');
  return { ...sound, pool: { ...pool, buffers: change(pool.buffers) } };
}

const inEpochs = (...epochs: readonly [Kernel, number][]): Entry => ({
  ...sound,
  kernels: epochs.map(([one]) => one),
  epochs: new Map(epochs),
  pool: undefined,
});

describe('verifyEntry', () => {
  it('accepts a sound entry at every stage', () => {
    expect(sound.kernels).toHaveLength(3);
    for (const entry of [{ ...bordered, kernels: [] }, bordered, { ...sound, pool: undefined }, sound])
      expect(() => verifyEntry(entry, 'a-pass', 64)).not.toThrow();
  });

  it('of its graph first', () => {
    expect(broken({ ...sound, graph: { ...sound.graph, outputs: new Map() } })).toMatchInlineSnapshot(
      `"bug in upgc: after a-pass (score), graph small has no output"`,
    );
  });

  it('1: a node in no kernel', () => {
    expect(broken({ ...bordered, kernels: [embed, last] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a node is in no kernel
       note: %linear = linear %embed, @a : f32[T, 16]"
    `);
  });

  it('1: a node in two kernels', () => {
    const greedy = { ...last, nodes: new Set([...first.nodes, ...last.nodes]) };
    expect(broken({ ...bordered, kernels: [embed, first, greedy] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a node is inside two kernels
       note: %linear = linear %embed, @a : f32[T, 16]"
    `);
  });

  it('1: a kernel without its result', () => {
    const without = { ...embed, nodes: new Set<Node>() };
    expect(broken({ ...bordered, kernels: [without, first, last] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a kernel lacks its result
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('1: a kernel without one of its results', () => {
    const [only] = last.outputs;
    const without: Kernel = { ...last, outputs: [only, ...embed.outputs] };
    expect(broken({ ...bordered, kernels: [embed, first, without] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a kernel lacks its result
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('2: a value inside a kernel that is read outside', () => {
    const swallowed = { ...last, nodes: new Set([...embed.nodes, ...last.nodes]) };
    expect(broken({ ...bordered, kernels: [first, swallowed] })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a value inside a kernel is read outside of it
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('2: an output inside a kernel', () => {
    const [linear] = last.outputs[0].anchors;
    if (!linear) throw new Error('no anchor');
    const hidden: Entry = {
      ...bordered,
      graph: { ...sound.graph, outputs: new Map([...sound.graph.outputs, ['hidden', linear]]) },
    };
    expect(broken(hidden)).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a value inside a kernel is read outside of it
       note: %linear.1 = linear %linear, @b : f32[T, 16]"
    `);
  });

  it('3: a kernel that reads what its own epoch makes', () => {
    expect(broken(inEpochs([embed, 0], [first, 0], [last, 1]))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a kernel reads what is not made in an earlier epoch
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('3: kernels that are not listed by epoch', () => {
    expect(broken(inEpochs([embed, 0], [last, 2], [first, 1]))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: kernels are not listed by epoch
       note: %linear = linear %embed, @a : f32[T, 16]"
    `);
  });

  it('3: a kernel without an epoch', () => {
    const epochs = new Map([...sound.epochs].filter(([one]) => one !== last));
    expect(broken({ ...sound, epochs })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: kernels are not listed by epoch
       note: %silu = silu %linear.1 : f32[T, 16]"
    `);
  });

  describe('4: the kernel that ends the step', () => {
    const decode = entryOf(
      graphOf(() =>
        dsl.linear(dsl.embed(dsl.tokens(), dsl.weight('table', [10, 16])), dsl.weight('a', [10, 16])),
      ),
      'decode',
      [fuseLayers, schedule],
    );
    const ending = decode.kernels.find(({ kind }) => kind === 'sample');
    const [embedding, product] = decode.kernels;

    /** The entry with its kernels in these epochs. */
    const at = (...epochs: readonly (readonly [Kernel | undefined, number])[]): Entry => {
      const known = epochs.flatMap(([one, epoch]) => (one ? [[one, epoch] as const] : []));
      return { ...decode, kernels: known.map(([one]) => one), epochs: new Map(known) };
    };

    it('shares the last epoch', () => {
      expect(() => verifyEntry(at([embedding, 0], [product, 1], [ending, 2]), 'a-pass', 64)).not.toThrow();
      expect(broken(at([embedding, 0], [product, 2], [ending, 2]))).toContain(
        'the kernel that ends the step is not alone in the last epoch',
      );
    });

    it('comes before the last epoch', () => {
      expect(broken(at([embedding, 0], [ending, 1], [product, 2]))).toContain(
        'the kernel that ends the step is not alone in the last epoch',
      );
    });
  });

  it('5: a result without a buffer', () => {
    expect(broken(withBuffers((buffers) => buffers.slice(1)))).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a result has no buffer
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('5: one of several results without a buffer', () => {
    const both: Kernel = {
      ...first,
      outputs: [...embed.outputs, ...first.outputs],
      nodes: new Set([...embed.nodes, ...first.nodes]),
    };
    const joined = inEpochs([both, 0], [last, 1]);
    expect(() => verifyEntry(joined, 'a-pass', 64)).not.toThrow();
    const { pool } = withBuffers((buffers) => buffers.filter(({ value }) => value.op !== 'linear'));
    expect(broken({ ...joined, pool })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a result has no buffer
       note: %linear = linear %embed, @a : f32[T, 16]"
    `);
  });

  it('5: a buffer that is misaligned', () => {
    expect(broken(withBuffers(([one, ...rest]) => (one ? [{ ...one, offset: 8, bytes: 64 }, ...rest] : []))))
      .toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a buffer at 8 of 64 bytes is misaligned or outside the pool
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('5: a buffer outside the pool', () => {
    const shrunk = sound.pool && { ...sound.pool, bytes: sound.pool.bytes - 64 };
    expect(broken({ ...sound, pool: shrunk })).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a buffer at 512 of 512 bytes is misaligned or outside the pool
       note: %linear = linear %embed, @a : f32[T, 16]"
    `);
  });

  it('5: a buffer smaller than its value', () => {
    expect(broken(withBuffers((buffers) => buffers.map((one) => ({ ...one, bytes: 64 })))))
      .toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a buffer of 64 bytes is smaller than its value
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('6: a buffer that is given up before its last reader has run', () => {
    const early = withBuffers((buffers) =>
      buffers.map((one) => ({ ...one, offset: 0, lastEpoch: one.firstEpoch })),
    );
    expect(broken(early)).toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: a value has its buffer in epochs 0 to 0 only
       note: %embed = embed %tokens, @table : f32[T, 16]"
    `);
  });

  it('7: live buffers that overlap', () => {
    expect(broken(withBuffers((buffers) => buffers.map((one) => ({ ...one, offset: 0 })))))
      .toMatchInlineSnapshot(`
      "bug in upgc: after a-pass, entry score: two live buffers overlap at 0
       note: %linear = linear %embed, @a : f32[T, 16]"
    `);
  });
});
