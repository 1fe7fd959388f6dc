import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { checkMetal } from 'upgc/metal-cpu';
import * as dsl from '../../src/ir/dsl.js';
import { isPackedName, packedNames } from '../../src/ir/packed.js';
import { buildFiles } from '../../src/runtime/plan.js';
import { hasCuda, noteSkipped, type Run } from '../support/devices.js';
import { dtypeOf } from '../support/random-graph.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/**
 * Products of chunks of tokens in tiles of 8 x 8 matrices, in every format, with every epilogue: every logit within its
 * error bound of the interpreter's.
 */

const vocabulary = 13;

const runs: readonly Run[] = [
  { target: 'metal', device: 'cpu' },
  { target: 'cuda', device: 'cpu' },
  ...(hasCuda
    ? ([
        { target: 'metal', device: 'cuda' },
        { target: 'cuda', device: 'cuda' },
      ] as const)
    : []),
];
if (!hasCuda) noteSkipped();

const texts = (count: number): number[] => Array.from({ length: count }, (_, i) => (i * 7 + 3) % vocabulary);

async function check(trial: Trial, kernels: number): Promise<void> {
  await compiled(trial, async (build) => {
    const text = readFileSync(path.join(build, buildFiles.kernels), 'utf8');
    expect(text.match(/^ +multiply_tile</gm)?.length ?? 0).toBe(kernels);
    expect(await checkMetal(text, 'kernels.metal')).toEqual([]);
    const { wrong, ratio } = await difference(build, trial);
    expect(wrong).toBeUndefined();
    expect(ratio).toBeLessThanOrEqual(1);
  });
}

function trialOf(body: () => dsl.Tensor, more: Partial<Trial> & Run): Trial {
  return {
    model: dsl.model({ name: 'tiles', config: dsl.z.looseObject({}), context: () => 128 }, body),
    graph: dsl.buildGraph('tiles', { dtype: 'f32', dtypeOf }, body),
    tokens: texts(21),
    chunk: 16,
    context: 128,
    ...more,
  };
}

const stored = (name: string, format: string, rows: number, width: number): dsl.Tensor =>
  dsl.weight(`${name}.${isPackedName(format) ? 'bf16' : format}.matrix`, [rows, width]);

/** A norm, a gated pair of matrices and a residual; the gated rows do not fill their last tile. */
function gated(width: number, format: string): dsl.Tensor {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table.f32.table', [vocabulary, width]));
  const h = dsl.rmsNorm(x, dsl.weight('gain.bf16.factor', [width]), { eps: 1e-5 });
  const linear = (from: dsl.Tensor, name: string, rows: number, columns: number): dsl.Tensor =>
    dsl.linear(from, stored(name, format, rows, columns));
  const inner = dsl.mul(dsl.silu(linear(h, 'gate', 96, width)), linear(h, 'up', 96, width));
  const back = dsl.add(x, dsl.linear(inner, dsl.weight('down.f32.matrix', [width, 96])));
  return linear(back, 'head', vocabulary, width);
}

it.each(
  [...packedNames, 'bf16', 'f16', 'f32'].flatMap((format) =>
    // Targets differ in the tile only.
    runs
      .filter(({ target }) => target === 'metal' || ['q4g32', 'f32'].includes(format))
      .map((run) => ({ format, ...run })),
  ),
)('a gated MLP of $format, target $target on $device', async ({ format, target, device }) => {
  const width = format.endsWith('k') ? 256 : 64;
  const quantize = isPackedName(format) ? format : 'stored';
  // Gate and up are one kernel, as are down and, in the entry that scores, the logits.
  await check(
    trialOf(() => gated(width, format), { target, device, quantize }),
    3,
  );
});
