import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { model, z, type Model, type Tensor } from 'upgc';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { isOp } from '../../src/ir/graph.js';
import { interpret } from '../../src/ir/interpret.js';
import type { Run } from './devices.js';
import { f32, writeSafetensors } from './safetensors.js';

/** A model without hyper-parameters, for tests that need a small graph on a device. */
export const tiny = (graph: () => Tensor, name = 'tiny'): Model =>
  model({ name, config: z.object({}), context: () => 64 }, graph);

/** Writes a checkpoint that has every weight of the model, its values in [-1, 1] but for those that `valueOf` gives. */
export function writeCheckpoint(
  dir: string,
  source: Model,
  valueOf: (weight: string, element: number) => number | undefined = () => undefined,
): ReadonlyMap<string, Float32Array> {
  const values = new Map<string, Float32Array>();
  const stored: Record<string, ReturnType<typeof f32>> = {};
  for (const [seed, node] of source.build({}).graph.nodes.entries()) {
    if (!isOp(node, 'weight')) continue;
    const { name, shape } = node.attrs;
    const count = shape.reduce((a, b) => a * b, 1);
    const data = Float32Array.from(
      { length: count },
      (_, i) => valueOf(name, i) ?? Math.sin(17 * seed + 1.3 * i),
    );
    values.set(name, data);
    stored[name] = f32(shape, [...data]);
  }
  writeSafetensors(path.join(dir, 'model.safetensors'), stored);
  writeFileSync(path.join(dir, 'config.json'), '{}');
  return values;
}

export async function openTiny(dir: string, source: Model, { target, device }: Run): Promise<Session> {
  const out = path.join(dir, `build-${target}`);
  await compile({ model: source, weights: dir, target, out });
  return Session.open(out, { device });
}

/** The largest difference between the device's logits and the interpreter's, in units of the largest logit. */
export async function deviceError(
  dir: string,
  source: Model,
  run: Run,
  ids: readonly number[],
): Promise<number> {
  const values = writeCheckpoint(dir, source);
  const session = await openTiny(dir, source, run);
  const logits = await session.score(ids);
  session.close();
  const exact = interpret(source.build({}).graph, {
    inputs: new Map([['tokens', ids]]),
    weights: (name) => Float64Array.from(values.get(name) ?? []),
  }).outputs.get('logits');
  if (exact?.data.length !== logits.length) return Infinity;
  const largest = exact.data.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  // A comparison with NaN would pass for none.
  return (
    exact.data.reduce((worst, value, i) => {
      const difference = Math.abs(value - (logits[i] ?? NaN));
      return Number.isNaN(difference) ? Infinity : Math.max(worst, difference);
    }, 0) / largest
  );
}
