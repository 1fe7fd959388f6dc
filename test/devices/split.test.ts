import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { checkMetal } from 'upgc/metal-cpu';
import * as dsl from '../../src/ir/dsl.js';
import { isPackedName } from '../../src/ir/packed.js';
import type { Quantize } from '../../src/ir/policy.js';
import { buildFiles } from '../../src/runtime/plan.js';
import { dtypeOf } from '../support/random-graph.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/**
 * Products of one token whose vector is split over simdgroups, in every shape that the split can have, on the CPU
 * device's 32 lanes: every logit within its error bound of the interpreter's.
 */

const vocabulary = 13;

/** A norm, a gated pair of matrices and a residual, of rows of this length. */
function gated(width: number, stored: string): dsl.Tensor {
  const linear = (x: dsl.Tensor, name: string, rows: number): dsl.Tensor =>
    dsl.linear(x, dsl.weight(`${name}.${stored}.matrix`, [rows, width]));
  const x = dsl.embed(dsl.tokens(), dsl.weight('table.f32.table', [vocabulary, width]));
  const h = dsl.rmsNorm(x, dsl.weight('gain.bf16.factor', [width]), { eps: 1e-5 });
  return dsl.add(
    dsl.mul(dsl.silu(linear(h, 'gate', vocabulary)), linear(h, 'up', vocabulary)),
    linear(x, 'plain', vocabulary),
  );
}

/** A build for target cuda on the CPU device gives the interpreter's logits; `checkText` sees its kernels. */
async function compare(
  body: () => dsl.Tensor,
  quantize: Quantize,
  checkText: (text: string) => Promise<void> | void,
): Promise<void> {
  const trial: Trial = {
    model: dsl.model({ name: 'split', config: dsl.z.looseObject({}), context: () => 4 }, body),
    graph: dsl.buildGraph('split', { dtype: 'f32', dtypeOf }, body),
    quantize,
    target: 'cuda',
    tokens: [1, 12, 5],
    chunk: 2,
    context: 4,
  };
  await compiled(trial, async (build) => {
    await checkText(readFileSync(path.join(build, buildFiles.kernels), 'utf8'));
    const { wrong, ratio } = await difference(build, trial);
    expect(wrong).toBeUndefined();
    expect(ratio).toBeLessThanOrEqual(1);
  });
}

/** What of a vector the lanes have: some lanes idle, all busy, several slices, more than fits threadgroup memory. */
const widths = { 'idle lanes': 192, 'one slice': 1024, 'three slices': 2880, 'several passes': 7168 };

/** Bits beyond the fourth and scales in blocks do not depend on the slices: short vectors have them too. */
function formatsOf(width: number): string[] {
  const all = ['q4g32', 'q8g32', 'f16', 'bf16', 'f32'];
  if (width === widths['idle lanes']) return [...all, 'q5g32', 'q5g32b', 'q6g32'];
  if (width === widths['three slices']) return [...all, 'q5g32', 'q6g32'];
  return width === widths['one slice'] ? [...all, 'q4k', 'q5k', 'q6k'] : all;
}

it.each(
  Object.entries(widths).flatMap(([name, width]) =>
    formatsOf(width).map((format) => ({ name, width, format })),
  ),
)('$name, $width elements of $format', async ({ width, format }) => {
  const packed = isPackedName(format);
  await compare(
    () => gated(width, packed ? 'bf16' : format),
    packed ? format : 'stored',
    async (text) => {
      expect(text.match(/^ {4}wait_for_inputs\(\);$/gm)?.length).toBeGreaterThanOrEqual(2);
      expect(await checkMetal(text, 'kernels.metal')).toEqual([]);
    },
  );
});

/** The MLP of a model: gate and up, then down, whose only reader lets its vector lie in the order of lanes. */
function mlp(width: number): dsl.Tensor {
  const linear = (x: dsl.Tensor, name: string, rows: number, columns: number): dsl.Tensor =>
    dsl.linear(x, dsl.weight(`${name}.bf16.matrix`, [rows, columns]));
  const x = dsl.embed(dsl.tokens(), dsl.weight('table.f32.table', [vocabulary, 64]));
  const gated = dsl.mul(dsl.silu(linear(x, 'gate', width, 64)), linear(x, 'up', width, 64));
  return linear(dsl.add(linear(gated, 'down', 64, width), x), 'head', vocabulary, 64);
}

it.each([192, 2880])('a vector of %i elements in the order of lanes', async (width) => {
  await compare(
    () => mlp(width),
    'q4g32',
    (text) => {
      expect(text).toContain('[lane_order<');
    },
  );
});
