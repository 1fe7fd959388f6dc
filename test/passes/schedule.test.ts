import { describe, expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import { makeGraph, makeNode } from '../../src/ir/graph.js';
import { resultsOf, type Entry } from '../../src/passes/entry.js';
import { fuseLayers } from '../../src/passes/fuse-layers.js';
import { planPool } from '../../src/passes/plan-pool.js';
import { schedule } from '../../src/passes/schedule.js';
import { targets } from '../../src/passes/target.js';
import { formatEntry, kernelName } from '../../src/passes/text.js';
import { entryOf, graphOf } from '../support/graphs.js';

const embedded = (): dsl.Tensor => dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8]));
const project = (x: dsl.Tensor, name: string): dsl.Tensor => dsl.linear(x, dsl.weight(name, [8, 8]));

const scheduled = (body: () => dsl.Tensor): Entry => entryOf(graphOf(body), 'score', [fuseLayers, schedule]);

/** The names of the kernels of every epoch. */
function epochs(entry: Entry): string[][] {
  const result: string[][] = [];
  for (const kernel of entry.kernels)
    (result[entry.epochs.get(kernel) ?? -1] ??= []).push(kernelName(kernel));
  return result;
}

/** The most kernels that must run one after the other, by following every chain. */
function longestChain(entry: Entry): number {
  const depth = new Map<unknown, number>();
  for (const node of entry.graph.nodes) {
    const kernel = entry.kernels.find((candidate) => resultsOf(candidate).includes(node));
    const before = (inside: ReadonlySet<unknown>): number =>
      Math.max(
        0,
        ...[...inside].flatMap((member) =>
          (member as typeof node).inputs
            .filter((input) => !inside.has(input))
            .map((input) => depth.get(input) ?? 0),
        ),
      );
    depth.set(node, kernel ? before(kernel.nodes) + 1 : before(new Set([node])));
  }
  return Math.max(...entry.kernels.flatMap(resultsOf).map((result) => depth.get(result) ?? 0));
}

describe('schedule', () => {
  it('lets independent kernels share an epoch', () => {
    const entry = scheduled(() => {
      const x = embedded();
      const a = dsl.softmax(project(dsl.silu(x), 'a'));
      return dsl.add(a, dsl.softmax(project(dsl.gelu(x), 'b')));
    });
    expect(epochs(entry)).toEqual([
      ['embed'],
      ['silu', 'gelu'],
      ['linear', 'linear'],
      ['softmax'],
      ['softmax_add'],
    ]);
  });

  it('ends the step when all kernels have run, those that the next id does not wait for, too', () => {
    const decode = entryOf(
      graphOf(() => project(embedded(), 'a')),
      'decode',
      [],
    );
    const logits = decode.graph.outputs.get('logits');
    if (!logits) throw new Error('no logits');
    for (const length of [1, 2, 4]) {
      let value = logits;
      for (let i = 0; i < length; i++) value = makeNode('softmax', [value], {});
      const outputs = new Map([...decode.graph.outputs, ['more', value]]);
      const graph = makeGraph({ ...decode.graph, outputs });
      const entry = [fuseLayers, schedule].reduce(
        (before, pass) => pass.run(before, { target: targets.cpu }),
        { ...decode, graph },
      );
      expect(epochs(entry)).toEqual([
        ['embed'],
        ['linear'],
        ...Array.from({ length }, () => ['softmax']),
        ['sample'],
      ]);
    }
  });

  it('puts dependent kernels in epochs of their own', () => {
    const entry = scheduled(() => project(project(project(embedded(), 'a'), 'b'), 'c'));
    expect(epochs(entry)).toEqual([['embed'], ['linear'], ['linear'], ['linear']]);
  });

  it('runs a short branch beside a long one, and lists kernels by epoch', () => {
    const entry = scheduled(() => {
      const x = embedded();
      const long = project(project(x, 'a'), 'b');
      const short = project(dsl.silu(x), 'c');
      return dsl.add(short, project(long, 'd'));
    });
    expect(epochs(entry)).toEqual([['embed'], ['silu', 'linear'], ['linear', 'linear'], ['linear_add']]);
  });

  it('needs as many epochs as the longest chain has kernels', () => {
    const entry = scheduled(() =>
      dsl.layers(3, 'layers', embedded(), (x) => {
        const heads = (name: string): dsl.Tensor =>
          dsl.rope(dsl.splitHeads(project(x, name), 2), { theta: 10 });
        const mixed = dsl.mergeHeads(dsl.attention(heads('q'), heads('k'), heads('v'), { causal: true }));
        const h = dsl.add(x, project(mixed, 'o'));
        return dsl.add(h, project(dsl.mul(dsl.silu(project(h, 'gate')), project(h, 'up')), 'down'));
      }),
    );
    expect(epochs(entry)).toHaveLength(longestChain(entry));
    expect(longestChain(entry)).toBe(1 + 3 * 5);
  });

  it('prints barriers between epochs, and buffers once they are planned', () => {
    const body = (): dsl.Tensor => {
      const x = embedded();
      return dsl.add(project(project(x, 'a'), 'b'), x);
    };
    expect(formatEntry(entryOf(graphOf(body), 'score', [fuseLayers, schedule, planPool])))
      .toMatchInlineSnapshot(`
        "entry score of small (T = 8, C = 64) {
          %tokens = input : i32[T]
          @table : f32[10, 8]
          @a : f32[8, 8]
          @b : f32[8, 8]
          epoch 0
          kernel k0 embed {
            %embed = embed %tokens, @table : f32[T, 8]
            store %embed to pool [0, 256) in epochs 0 to 2   // border: 2 kernels read %embed
          }
          barrier epoch 1
          kernel k1 linear {
            %linear = linear %embed, @a : f32[T, 8]
            store %linear to pool [256, 512) in epochs 1 to 2   // border: every row of a product needs all of %linear
          }
          barrier epoch 2
          kernel k2 linear {   // linear_add
            %linear.1 = linear %linear, @b : f32[T, 8]
            %add = add %linear.1, %embed : f32[T, 8]
            store %add (anchors %linear.1; epilogue %add)   // border: the host reads %add
          }
          return logits = %add
          pool 512 bytes, lower bound 512, optimal
        }
        "
      `);
  });
});
