import { expect, it } from 'vitest';
import { compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import type { NdArray } from '../../src/ir/define.js';
import { makeGraph, makeNode, type Node } from '../../src/ir/graph.js';
import { evaluateNode } from '../../src/ir/interpret.js';
import { attentionCombine } from '../../src/ir/ops/attention-parts.js';
import { philox } from '../../src/ir/ops/sample.js';
import { f32, i32 } from '../../src/ir/type.js';
import type { CacheDType } from '../../src/passes/insert-kv-cache.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { cacheFolder } from '../../src/runtime/addon.js';
import { decodeF16 } from '../../src/weights/dtype.js';
import { addon, launchSpec } from '../native/support.js';
import { compare, errorBounds } from '../support/error-bound.js';
import { graphOf, inputOf } from '../support/graphs.js';

/**
 * The kernels of attention as they are emitted, over caches with NaN past the last token: heads of many widths, few and
 * many that share keys, counts of keys that divide nothing. Each element is within its error bound of the interpreter's.
 */

const context = 160;
const chunk = 3;

interface Case {
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly kv?: CacheDType;
  readonly window?: number;
  readonly softcap?: number;
  readonly target?: TargetName;
}

const cases: readonly Case[] = [
  { heads: 4, groups: 4, size: 64 },
  { heads: 6, groups: 2, size: 80 },
  { heads: 5, groups: 1, size: 96, kv: 'f16' },
  { heads: 8, groups: 2, size: 128 },
  { heads: 8, groups: 2, size: 128, kv: 'f16' },
  { heads: 8, groups: 1, size: 256, kv: 'f16' },
  { heads: 2, groups: 1, size: 256 },
  { heads: 16, groups: 1, size: 16, kv: 'f16' },
  // A lane for each row; half a load at a time.
  { heads: 3, groups: 1, size: 12 },
  { heads: 4, groups: 2, size: 20, kv: 'f16' },
  // What vectors or lanes do not divide.
  { heads: 6, groups: 2, size: 6, kv: 'f16' },
  { heads: 2, groups: 1, size: 36 },
  { heads: 4, groups: 1, size: 64, window: 50 },
  { heads: 4, groups: 1, size: 64, window: 70, kv: 'f16', softcap: 3 },
  { heads: 8, groups: 2, size: 24, target: 'cpu', kv: 'f16' },
  { heads: 8, groups: 2, size: 24, target: 'cpu', kv: 'f16', window: 50 },
];

const title = ({ heads, groups, size, kv = 'f32', window, softcap, target = 'metal' }: Case): string =>
  [
    `${heads} heads of ${size} over ${groups} in ${kv}`,
    window && `window ${window}`,
    softcap && 'softcap',
    target,
  ]
    .filter(Boolean)
    .join(', ');

/** Halves, which f32 holds too, with magnitudes around 1; `bits` as f16. */
function halves(count: number, key: number): { bits: Uint16Array; values: Float64Array } {
  const bits = Uint16Array.from({ length: count }, (_, i) => {
    const [random] = philox(i, 0, key);
    return ((random & 0x8000) | ((13 + (random & 1)) << 10) | ((random >>> 16) & 0x3ff)) & 0xffff;
  });
  return { bits, values: Float64Array.from(bits, decodeF16) };
}

it.each(cases.map((given) => ({ title: title(given), given })))('$title', async ({ given }) => {
  const { heads, groups, size, kv = 'f32', window, softcap, target = 'metal' } = given;
  const sight = { causal: true, ...(window && { window }), ...(softcap && { softcap }) };
  const graph = graphOf(() => {
    const x = dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8]));
    const project = (name: string, n: number): dsl.Tensor =>
      dsl.splitHeads(dsl.linear(x, dsl.weight(name, [n * size, 8])), n);
    const mixed = dsl.attention(project('q', heads), project('k', groups), project('v', groups), sight);
    return dsl.linear(dsl.mergeHeads(mixed), dsl.weight('head', [10, heads * size]));
  });
  const compiled = compileGraph(graph, { target: targets[target], context, chunk, kv });
  if (!compiled) throw new Error('nothing was compiled');
  const { plan, kernels: source } = compiled;
  const rows = plan.state[0]?.shape[0] ?? 0;
  expect(rows).toBe(window === undefined ? context : window + chunk);
  expect(plan.arenas.state.bytes).toBeGreaterThanOrEqual(2 * rows * groups * size * (kv === 'f16' ? 2 : 4));

  const q = halves(chunk * heads * size, 1);
  const [k, v] = [halves(rows * groups * size, 2), halves(rows * groups * size, 3)];
  /** A cache of which `seen` rows are filled. */
  const cache = ({ bits, values }: typeof k, seen: number): Uint8Array => {
    const end = Math.min(seen, rows) * groups * size;
    const data =
      kv === 'f16' ? Uint16Array.from(bits).fill(0x7e00, end) : Float32Array.from(values).fill(NaN, end);
    return new Uint8Array(data.buffer);
  };
  const bounds = (start: number, tokens: number) => {
    const type = { dtype: kv, shape: [rows, groups, size] };
    const leaves = [inputOf('q', f32(tokens, heads, size)), inputOf('k', type), inputOf('v', type)];
    const inputs = [...leaves, inputOf('start', i32())];
    const node = makeNode('attention', inputs, sight);
    const arrays = [
      { shape: [tokens, heads, size], data: q.values.subarray(0, tokens * heads * size) },
      { shape: type.shape, data: k.values },
      { shape: type.shape, data: v.values },
      { shape: [], data: Float64Array.of(start) },
    ];
    const values = new Map<Node, NdArray>([[node, evaluateNode(node, arrays, {})]]);
    arrays.forEach((value, i) => values.set(inputs[i] ?? node, value));
    const made = makeGraph({ name: 'g', outputs: new Map([['y', node]]), updates: new Map(), dims: {} });
    return errorBounds(made, values).get(node);
  };

  for (const entry of ['decode', 'prefill'] as const) {
    const dispatch = plan.entries[entry].dispatches.find(({ kernel }) =>
      plan.kernels[kernel]?.name.startsWith('attention'),
    );
    const kernel = dispatch && plan.kernels[dispatch.kernel];
    if (!kernel) throw new Error(`${entry} has no attention`);
    const parts = kernel.name.startsWith('attention_parts') ? Number(kernel.name.split('_')[2]) : 0;
    const count = heads * (parts > 0 ? parts * (size + 2) : size) * (entry === 'decode' ? 1 : chunk);
    const bytes = {
      q: q.bits.length * 4,
      k: cache(k, 0).length,
      v: cache(v, 0).length,
      y: count * 4,
      step: 8,
    };
    const names = kernel.arguments.flatMap(({ kind, name }) => (kind === 'buffer' ? [name] : []));
    const program = await addon.createProgram(
      'cpu',
      launchSpec(cacheFolder(), {
        source,
        kernel: {
          name: kernel.name,
          threads: [kernel.threads, 1, 1],
          arguments: kernel.arguments.map((argument) => ({ index: 0, bytes: 0, ...argument })),
        },
        grid: dispatch.grid,
        data: names.map((name) => new Uint32Array(Math.ceil(bytes[name as keyof typeof bytes] / 4))),
        simdWidth: targets[target].simdWidth,
      }),
    );
    const write = (name: keyof typeof bytes, data: Uint8Array): void =>
      program.write(names.indexOf(name), 0, data);
    write('q', new Uint8Array(Float32Array.from(q.values).buffer));
    for (const start of [0, 1, 31, 64, 101, 157]) {
      const tokens = entry === 'decode' ? 1 : chunk - (start % 2);
      write('k', cache(k, start + tokens));
      write('v', cache(v, start + tokens));
      write('step', new Uint8Array(Uint32Array.of(start, tokens).buffer));
      write('y', new Uint8Array(count * 4).fill(0xff));
      await program.submit(0);
      const y = new Float32Array(count);
      program.read(names.indexOf('y'), 0, new Uint8Array(y.buffer));
      const shape = [1, heads, size];
      const made =
        parts === 0
          ? y.subarray(0, tokens * heads * size)
          : attentionCombine.evaluate(
              { parts: { shape: [1, heads, parts, size + 2], data: Float64Array.from(y) } },
              {},
              shape,
            );
      const expected = bounds(start, tokens);
      if (!expected) throw new Error('there is no bound');
      expect(compare(Float32Array.from(made), expected).wrong, `${kernel.name} at ${start}`).toBeUndefined();
      // Nothing is stored for tokens that are not there.
      if (parts === 0) expect(y.subarray(tokens * heads * size).every(Number.isNaN)).toBe(true);
    }
    program.close();
  }
});
