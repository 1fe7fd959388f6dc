import path from 'node:path';
import { writeFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { add, embed, linear, model, rmsNorm, split, tokens, weight, z } from 'upgc';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { interpret } from '../../src/ir/interpret.js';
import { f32, writeSafetensors } from '../support/safetensors.js';
import { temporaryFolder } from '../support/temporary.js';

const shapes = { table: [11, 10], both: [7, 16], norm: [13], twice: [10, 7] } as const;

/** Weights that are parts of a tensor or computed from one, in every place a kernel takes a weight. */
const views = model({ name: 'views', config: z.object({}), context: () => 8 }, () => {
  const table = weight('table', shapes.table);
  const [first, second] = split(weight('both', shapes.both), [10, 6]);
  const [scale] = split(weight('norm', shapes.norm), [10, 3]);
  const twice = weight('twice', shapes.twice);
  const x = rmsNorm(embed(tokens(), table), scale, { eps: 1e-5 });
  const [y] = split(linear(x, first), [6, 1]);
  return linear(add(linear(linear(y, second), add(twice, twice)), x), table);
});

it.each(['cpu', 'metal'] as const)('reads weights through views, target %s', async (target) => {
  const dir = temporaryFolder();
  const values = new Map(
    Object.entries(shapes).map(([name, shape], seed) => {
      const count = shape.reduce((a, b) => a * b, 1);
      return [name, Float32Array.from({ length: count }, (_, i) => Math.sin(17 * seed + i))] as const;
    }),
  );
  const stored = [...values].map(
    ([name, data]) => [name, f32(shapes[name as keyof typeof shapes], [...data])] as const,
  );
  writeSafetensors(path.join(dir, 'model.safetensors'), Object.fromEntries(stored));
  writeFileSync(path.join(dir, 'config.json'), '{}');
  const out = path.join(dir, 'build');
  await compile({ model: views, weights: dir, target, out });
  const session = await Session.open(out);
  const ids = [1, 5, 3, 10];
  const logits = await session.score(ids);
  session.close();
  const exact = interpret(views.build({}).graph, {
    inputs: new Map([['tokens', ids]]),
    weights: (name) => Float64Array.from(values.get(name) ?? []),
  }).outputs.get('logits');
  const difference = exact?.data.map((value, i) => Math.abs(value - (logits[i] ?? NaN)));
  // Four sums of at most 11 terms, each rounding by 2^-24 of numbers below 100.
  expect(Math.max(...(difference ?? [NaN]))).toBeLessThanOrEqual(4 * 11 * 2 ** -24 * 100);
});
