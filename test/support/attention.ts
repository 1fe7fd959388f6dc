import { compileGraph } from '../../src/compiler.js';
import type { NdArray } from '../../src/ir/define.js';
import * as dsl from '../../src/ir/dsl.js';
import { makeGraph, makeNode, type Node } from '../../src/ir/graph.js';
import { evaluateNode } from '../../src/ir/interpret.js';
import { attentionCombine } from '../../src/ir/ops/attention-parts.js';
import { philox } from '../../src/ir/ops/sample.js';
import { f32, i32 } from '../../src/ir/type.js';
import type { CacheDType } from '../../src/passes/insert-kv-cache.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { cacheFolder } from '../../src/runtime/addon.js';
import type { EntryName } from '../../src/runtime/plan.js';
import { decodeF16 } from '../../src/weights/dtype.js';
import { addon, launchSpec } from '../native/support.js';
import { compare, errorBounds, type Comparison } from './error-bound.js';
import { graphOf, inputOf } from './graphs.js';

/** Attention by itself, and what it is compiled for. */
export interface AttentionCase {
  readonly heads: number;
  readonly groups: number;
  readonly size: number;
  readonly kv?: CacheDType;
  readonly window?: number;
  readonly softcap?: number;
  readonly target?: TargetName;
  readonly device?: 'cpu' | 'cuda';
  readonly context: number;
  readonly chunk: number;
}

export const attentionTitle = (given: AttentionCase): string => {
  const { heads, groups, size, kv = 'f32', window, softcap, target = 'metal', device = 'cpu' } = given;
  const words = `${heads} heads of ${size} over ${groups} in ${kv}`;
  return [words, window && `window ${window}`, softcap && 'softcap', `${target} on ${device}`]
    .filter(Boolean)
    .join(', ');
};

/** Halves, which f32 holds too, with magnitudes around 1; `bits` as f16. */
function halves(count: number, key: number): { bits: Uint16Array; values: Float64Array } {
  const bits = Uint16Array.from({ length: count }, (_, i) => {
    const [random] = philox(i, 0, key);
    return ((random & 0x8000) | ((13 + (random & 1)) << 10) | ((random >>> 16) & 0x3ff)) & 0xffff;
  });
  return { bits, values: Float64Array.from(bits, decodeF16) };
}

/** A step of attention: how far each element is from the interpreter's, and what was stored for tokens that are not there. */
export interface AttentionStep {
  readonly kernel: string;
  readonly start: number;
  readonly comparison: Comparison;
  readonly beyond: Float32Array;
}

/**
 * Runs the kernel of attention as it is emitted for an entry, over caches with NaN past the last token. Queries are
 * halves unless they are `rounded` to them by the kernel.
 */
export async function* attentionSteps(
  given: AttentionCase,
  entry: Extract<EntryName, 'decode' | 'prefill'>,
  steps: readonly { readonly start: number; readonly tokens: number }[],
  rounded = false,
): AsyncGenerator<AttentionStep> {
  const { heads, groups, size, kv = 'f32', window, softcap, target = 'metal', device = 'cpu' } = given;
  const { context, chunk } = given;
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
  if (rows !== (window === undefined ? context : window + chunk)) throw new Error(`a cache of ${rows} rows`);
  if (plan.arenas.state.bytes < 2 * rows * groups * size * (kv === 'f16' ? 2 : 4))
    throw new Error('the caches do not fit into their arena');

  const q = halves(chunk * heads * size, 1).values.map((x) => (rounded ? Math.fround(x * 1.0003) : x));
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
      { shape: [tokens, heads, size], data: q.subarray(0, tokens * heads * size) },
      { shape: type.shape, data: k.values },
      { shape: type.shape, data: v.values },
      { shape: [], data: Float64Array.of(start) },
    ];
    const values = new Map<Node, NdArray>([[node, evaluateNode(node, arrays, {})]]);
    arrays.forEach((value, i) => values.set(inputs[i] ?? node, value));
    const made = makeGraph({ name: 'g', outputs: new Map([['y', node]]), updates: new Map(), dims: {} });
    const expected = errorBounds(made, values, new Map(), { halves: rounded }).get(node);
    if (!expected) throw new Error('there is no bound');
    return expected;
  };

  const dispatch = plan.entries[entry].dispatches.find(({ kernel }) =>
    plan.kernels[kernel]?.name.startsWith('attention'),
  );
  const kernel = dispatch && plan.kernels[dispatch.kernel];
  if (!kernel) throw new Error(`${entry} has no attention`);
  const parts = kernel.name.startsWith('attention_parts') ? Number(kernel.name.split('_')[2]) : 0;
  const count = heads * (parts > 0 ? parts * (size + 2) : size) * (entry === 'decode' ? 1 : chunk);
  const bytes = { q: q.length * 4, k: cache(k, 0).length, v: cache(v, 0).length, y: count * 4, step: 8 };
  const names = kernel.arguments.flatMap(({ kind, name }) => (kind === 'buffer' ? [name] : []));
  const program = await addon.createProgram(
    device,
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
  try {
    write('q', new Uint8Array(Float32Array.from(q).buffer));
    for (const { start, tokens } of steps) {
      write('k', cache(k, start + tokens));
      write('v', cache(v, start + tokens));
      write('step', new Uint8Array(Uint32Array.of(start, tokens).buffer));
      write('y', new Uint8Array(count * 4).fill(0xff));
      await program.submit(0);
      const y = new Float32Array(count);
      program.read(names.indexOf('y'), 0, new Uint8Array(y.buffer));
      const partial = { shape: [1, heads, parts, size + 2], data: Float64Array.from(y) };
      const made =
        parts === 0
          ? y.subarray(0, tokens * heads * size)
          : attentionCombine.evaluate({ parts: partial }, {}, [1, heads, size]);
      const comparison = compare(Float32Array.from(made), bounds(start, tokens));
      const beyond = parts === 0 ? y.subarray(tokens * heads * size) : new Float32Array();
      yield { kernel: kernel.name, start, comparison, beyond };
    }
  } finally {
    program.close();
  }
}
