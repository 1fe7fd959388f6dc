import { expect, it } from 'vitest';
import {
  add,
  attention,
  embed,
  linear,
  mergeHeads,
  mul,
  rmsNorm,
  scale,
  split,
  splitHeads,
  tokens,
  weight,
  type Tensor,
} from 'upgc';
import { runs } from '../support/devices.js';
import { deviceError, tiny } from '../support/tiny.js';
import { temporaryFolder } from '../support/temporary.js';

/** Graphs that once came out wrong, each on all targets and devices. */

const table = (): Tensor => weight('table', [11, 10]);

const graphs: Readonly<Record<string, () => Tensor>> = {
  'weights that are parts of a tensor, or computed': () => {
    const [first, second] = split(weight('both', [7, 16]), [10, 6]);
    const [factor] = split(weight('norm', [13]), [10, 3]);
    const twice = weight('twice', [10, 7]);
    const x = rmsNorm(embed(tokens(), table()), factor, { eps: 1e-5 });
    const [y] = split(linear(x, first), [6, 1]);
    return linear(add(linear(linear(y, second), add(twice, twice)), x), table());
  },
  'a weight with the name of a cache': () => {
    const x = embed(tokens(), table());
    const heads = splitHeads(x, 2);
    const mixed = mergeHeads(attention(heads, heads, heads, { causal: true }));
    return linear(mul(mixed, weight('k_cache.0', [10])), table());
  },
  'a chain of seventy elementwise ops': () => {
    let x = embed(tokens(), table());
    // Between the scales an addition, or they would be folded into one.
    for (let i = 0; i < 35; i++) x = scale(add(x, weight('bias', [10])), { by: i % 2 === 0 ? 1.25 : 0.8 });
    return linear(x, table());
  },
  'a sum of forty products': () => {
    const x = embed(tokens(), table());
    let sum = x;
    for (let i = 0; i < 40; i++) sum = add(sum, linear(x, weight(`w${i}`, [10, 10]), weight(`b${i}`, [10])));
    return linear(sum, table());
  },
};

it.each(Object.keys(graphs).flatMap((name) => runs().map((run) => ({ name, ...run }))))(
  '$name, target $target on $device',
  async ({ name, target, device }) => {
    const graph = graphs[name];
    expect(graph).toBeDefined();
    if (!graph) return;
    const error = await deviceError(temporaryFolder(), tiny(graph), { target, device }, [1, 5, 3, 10]);
    // At most 100 sums of 11 terms on the way, each rounding by 2^-24 of values no larger than the logits'.
    expect(error).toBeLessThanOrEqual(100 * 11 * 2 ** -24);
  },
);
