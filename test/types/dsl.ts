/** Types of the language, checked by `tsc -p test/tsconfig.json`; nothing here runs. */
import {
  add,
  argmax,
  attention,
  embed,
  layerNorm,
  layers,
  linear,
  model,
  mul,
  positions,
  reshape,
  rmsNorm,
  rope,
  scale,
  scope,
  silu,
  split,
  tokens,
  weight,
  z,
} from 'upgc';
import type { Model, Tensor } from 'upgc';
import { expectTypeOf } from 'vitest';

declare const x: Tensor;
declare const w: Tensor;

export const accepted: Tensor[] = [
  linear(x, w),
  linear(x, w, w),
  rmsNorm(x, w, { eps: 1e-5 }),
  attention(x, x, x, { causal: true }),
  attention(x, x, x, { causal: true, scale: 0.5 }),
  attention(x, x, x, { causal: true, window: 4096 }),
  rope(x, { theta: 10000 }),
  rope(x, { theta: 10000, dims: 64 }),
  rope(x, { theta: 10000, factors: [1, 2], long: { past: 64, factors: [2, 3] }, scale: 1.2 }),
  layerNorm(x, w, { eps: 1e-5 }),
  layerNorm(x, w, { bias: w, eps: 1e-5 }),
  positions(w),
  weight('matrix', [10, 4], { transposed: true }),
  attention(x, x, x, { causal: true, softcap: 50 }),
  reshape(x, { shape: ['T', 2, 4] }),
  scale(x, { by: 2 }),
  embed(tokens(), weight('table', [10, 4])),
  layers(2, 'layers', x, (h, index) => scale(h, { by: index })),
  argmax(silu(mul(x, add(x, x)))),
];

export const refused: unknown[] = [
  // @ts-expect-error: a weight is needed
  linear(x),
  // @ts-expect-error: there is no fourth input
  linear(x, w, w, w),
  // @ts-expect-error: linear has no attributes
  linear(x, w, { bias: true }),
  // @ts-expect-error: eps is needed
  rmsNorm(x, w),
  // @ts-expect-error: eps is a number
  rmsNorm(x, w, { eps: '1e-5' }),
  // @ts-expect-error: eps is misspelt
  rmsNorm(x, w, { epsilon: 1e-5 }),
  // @ts-expect-error: eps is needed
  layerNorm(x, w, { bias: w }),
  // @ts-expect-error: causal is needed
  attention(x, x, x, {}),
  // @ts-expect-error: attributes are needed
  attention(x, x, x),
  // @ts-expect-error: where a step starts is for passes to add
  attention(x, x, x, x, { causal: true }),
  // @ts-expect-error: a string is no tensor
  silu('x'),
  // @ts-expect-error: a shape is no tensor
  add(x, [4]),
  // @ts-expect-error: theta is needed
  rope(x, {}),
  // @ts-expect-error: a named length is not a weight's
  weight('w', ['T', 4]),
  // @ts-expect-error: layers return a tensor
  layers(2, 'layers', x, () => undefined),
];

const three = split(x, [1, 2, 3]);
expectTypeOf(three).toEqualTypeOf<readonly [Tensor, Tensor, Tensor]>();
// @ts-expect-error: there is no fourth part
export const [, , , fourth] = three;
const sizes: number[] = [1, 2];
expectTypeOf(split(x, sizes)).toEqualTypeOf<Tensor[]>();
expectTypeOf(scope('model', () => 3)).toEqualTypeOf<number>();

const config = z
  .object({ hidden_size: z.int().default(64), heads: z.int().optional() })
  .transform((c) => ({ ...c, head_size: c.hidden_size / (c.heads ?? 1) }));

export const typed: Model = model({ name: 'm', config, context: (c) => c.hidden_size }, (c) => {
  expectTypeOf(c).toEqualTypeOf<{ head_size: number; hidden_size: number; heads?: number | undefined }>();
  // @ts-expect-error: the config has no such field
  weight('w', [c.head_dim]);
  return linear(x, weight('w', [c.head_size, c.hidden_size]));
});

// @ts-expect-error: the graph must return a tensor
export const empty: Model = model({ name: 'm', config, context: () => 1 }, () => undefined);

// @ts-expect-error: the longest context is needed
export const endless: Model = model({ name: 'm', config }, () => x);

// @ts-expect-error: the context is a number of tokens
export const vague: Model = model({ name: 'm', config, context: () => 'long' }, () => x);
