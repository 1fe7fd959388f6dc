import { expect, it } from 'vitest';
import * as dsl from '../../src/ir/dsl.js';
import type { Tensor } from '../../src/ir/dsl.js';
import { compileGraph } from '../../src/compiler.js';
import { kernelName } from '../../src/passes/text.js';
import { targets } from '../../src/passes/target.js';
import { runs, type Run } from '../support/devices.js';
import { dtypeOf } from '../support/random-graph.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/**
 * Each shape that a kernel with a prologue, several results or rotated pairs can have, in small models: every logit of
 * every entry point within its error bound of the interpreter's, on all targets and devices.
 */

interface Shape {
  readonly body: () => Tensor;
  /** A kernel of decode that this is about. */
  readonly kernel: string;
}

let made = 0;
/** A weight whose values test/support/random-graph.ts chooses by the last part of its name. */
const weight = (
  kind: 'table' | 'matrix' | 'vector' | 'factor',
  shape: readonly number[],
  dtype = 'f32',
): Tensor => dsl.weight(`w${made++}.${dtype}.${kind}`, shape);
const widthOf = (x: Tensor): number => Number(x.type.shape.at(-1));
const embedded = (width: number): Tensor => dsl.embed(dsl.tokens(), weight('table', [13, width]));
const norm = (x: Tensor): Tensor => dsl.rmsNorm(x, weight('factor', [widthOf(x)], 'bf16'), { eps: 1e-5 });
const project = (x: Tensor, n: number, bias = false): Tensor => {
  const matrix = weight('matrix', [n, widthOf(x)], 'bf16');
  return bias ? dsl.linear(x, matrix, weight('vector', [n])) : dsl.linear(x, matrix);
};
const logits = (x: Tensor): Tensor => project(x, 13);

interface Heads {
  readonly queries: number;
  readonly groups: number;
  readonly size: number;
  /** Elements of a head that turn; none when 0. */
  readonly dims: number;
}

const turned = (x: Tensor, { dims }: Heads): Tensor => (dims === 0 ? x : dsl.rope(x, { theta: 100, dims }));

function attended(q: Tensor, k: Tensor, v: Tensor, heads: Heads): Tensor {
  const { queries, groups } = heads;
  const mixed = dsl.attention(
    turned(dsl.splitHeads(q, queries), heads),
    turned(dsl.splitHeads(k, groups), heads),
    dsl.splitHeads(v, groups),
    { causal: true },
  );
  return dsl.mergeHeads(mixed);
}

/** Attention to x, queries, keys and values of one matrix or of three. */
function attention(x: Tensor, heads: Heads, fused: boolean, bias = false): Tensor {
  const [q, kv] = [heads.queries * heads.size, heads.groups * heads.size];
  if (!fused) return attended(project(x, q, bias), project(x, kv, bias), project(x, kv, bias), heads);
  const [a, b, c] = dsl.split(project(x, q + 2 * kv, bias), [q, kv, kv]);
  return attended(a, b, c, heads);
}

const gated = (x: Tensor, n: number): Tensor => dsl.mul(dsl.silu(project(x, n)), project(x, n));

/** Attention to x with nothing before it that a kernel could prepare. */
const plain = (heads: Heads, fused: boolean, bias = false): Tensor =>
  logits(attention(embedded(20), heads, fused, bias));

/** A norm of this width and the product that reads it. */
const prepared = (width: number): Shape => ({
  body: () => logits(norm(embedded(width))),
  kernel: 'linear_norm',
});

/** The widest row that threadgroup memory holds beside a float for each of 32 simdgroups. */
const widest = targets.metal.threadgroupBytes / 4 - 32;

const shapes: Readonly<Record<string, Shape>> = {
  'pairs of three matrices': {
    body: () => plain({ queries: 4, groups: 2, size: 6, dims: 6 }, false),
    kernel: 'linear_rope_cache',
  },
  'pairs of parts of one matrix': {
    body: () => plain({ queries: 4, groups: 2, size: 6, dims: 6 }, true),
    kernel: 'linear_rope_cache',
  },
  'pairs of some elements of an odd number of heads': {
    body: () => plain({ queries: 3, groups: 1, size: 10, dims: 4 }, true),
    kernel: 'linear_rope_cache',
  },
  'pairs of two elements of heads of two': {
    body: () => plain({ queries: 5, groups: 5, size: 2, dims: 2 }, false),
    kernel: 'linear_rope_cache',
  },
  'pairs with a bias': {
    body: () => plain({ queries: 3, groups: 3, size: 6, dims: 2 }, false, true),
    kernel: 'linear_rope_cache',
  },
  'pairs of parts with a bias': {
    body: () => plain({ queries: 3, groups: 3, size: 6, dims: 4 }, true, true),
    kernel: 'linear_rope_cache',
  },
  'pairs with an epilogue that reads another value': {
    body: () => {
      const x = embedded(18);
      const turn = dsl.rope(dsl.splitHeads(project(dsl.silu(x), 18, true), 3), { theta: 100, dims: 4 });
      return logits(dsl.mergeHeads(dsl.gelu(dsl.add(turn, dsl.splitHeads(x, 3)))));
    },
    kernel: 'linear_rope_add_gelu',
  },
  'heads of an odd width, which have no pairs': {
    body: () => plain({ queries: 3, groups: 1, size: 5, dims: 4 }, true),
    kernel: 'rope_cache',
  },
  'a plain part beside parts for the caches': {
    body: () => plain({ queries: 3, groups: 1, size: 7, dims: 0 }, true, true),
    kernel: 'linear_cache',
  },
  'a plain part with several readers': {
    body: () => {
      const heads = { queries: 1, groups: 1, size: 6, dims: 0 };
      const [q, k, v] = dsl.split(project(embedded(9), 18), [6, 6, 6]);
      const [left, right] = dsl.split(q, [2, 4]);
      const mixed = dsl.add(attended(q, k, v, heads), dsl.softmax(q));
      return dsl.add(logits(mixed), dsl.add(logits(dsl.gelu(left)), logits(dsl.silu(right))));
    },
    kernel: 'linear_cache',
  },
  'several results, none a multiple of the blocks': {
    body: () => {
      const x = embedded(11);
      const sizes = [1, 5, 33, 66];
      const results = sizes.map((n, i) => dsl.softmax(project(x, n, i % 2 === 0)));
      return results.map(logits).reduce((a, b) => dsl.add(a, b));
    },
    kernel: 'linear',
  },
  'several results after a norm': {
    body: () => {
      const x = norm(embedded(11));
      const results = [3, 34, 1, 129].map((n) => dsl.softmax(dsl.gelu(project(x, n))));
      return results.map(logits).reduce((a, b) => dsl.add(a, b));
    },
    kernel: 'linear_norm_gelu',
  },
  'parallel attention and gated MLP of one norm': {
    body: () => {
      const x = embedded(18);
      const y = norm(x);
      const mixed = project(attention(y, { queries: 3, groups: 1, size: 6, dims: 4 }, true), 18);
      return logits(dsl.add(dsl.add(x, mixed), project(gated(y, 35), 18)));
    },
    kernel: 'linear_norm_rope_cache_silu_mul',
  },
  'a norm of a part of a row, by a computed gain': {
    body: () => {
      const [, x] = dsl.split(embedded(25), [3, 22]);
      const gain = dsl.add(weight('factor', [22]), weight('vector', [22], 'f16'));
      return logits(dsl.rmsNorm(x, gain, { eps: 1e-5 }));
    },
    kernel: 'linear_norm',
  },
  'a norm of the row that the product adds to its result': {
    body: () => {
      const x = embedded(21);
      return logits(dsl.add(x, project(norm(x), 21)));
    },
    kernel: 'linear_norm_add',
  },
  'a norm of width 1': prepared(1),
  'a norm of width 33': prepared(33),
  'a norm of width 5120': prepared(5120),
  'a norm as wide as threadgroup memory': prepared(widest),
};

function trialOf({ body }: Shape, run: Run): Trial {
  // Weights are named in order, so that a build and its reference have the same.
  const build = (): Tensor => {
    made = 0;
    return body();
  };
  const model = dsl.model({ name: 'shape', config: dsl.z.looseObject({}), context: () => 9 }, build);
  const graph = dsl.buildGraph('shape', { dtype: 'f32', dtypeOf }, build);
  return { model, graph, ...run, tokens: [1, 12, 0, 5, 5, 7, 3], chunk: 4, context: 9 };
}

it.each(Object.entries(shapes).flatMap(([name, shape]) => runs().map((run) => ({ name, ...run, shape }))))(
  '$name, target $target on $device',
  async ({ target, device, shape }) => {
    const trial = trialOf(shape, { target, device });
    const { chunk, context } = trial;
    const entries = compileGraph(trial.graph, { target: targets[target], context, chunk })?.entries ?? [];
    const decode = entries.find((entry) => entry.name === 'decode');
    expect(decode?.kernels.map(kernelName)).toContain(shape.kernel);
    await compiled(trial, async (build) => {
      const { wrong, ratio } = await difference(build, trial);
      expect(wrong).toBeUndefined();
      expect(ratio).toBeLessThanOrEqual(1);
    });
  },
);
