import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { checkMetal } from 'upgc/metal-cpu';
import * as dsl from '../../src/ir/dsl.js';
import { isPackedName, packedNames } from '../../src/ir/packed.js';
import { buildFiles } from '../../src/runtime/plan.js';
import { laneRuns, type Run } from '../support/devices.js';
import { dtypeOf, packedPolicy } from '../support/random-graph.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/**
 * Products of chunks of tokens in tiles of 8 x 8 matrices, in every format, with every epilogue: every logit within its
 * error bound of the interpreter's.
 */

const vocabulary = 13;

const runs = laneRuns('metal', 'cuda');

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

/** Attention to a norm: queries and keys turn, keys and values go to caches; then the residual and a gate with a bias. */
function block(width: number, formats: readonly [string, ...string[]], dims: number): dsl.Tensor {
  const [heads, groups, size] = [4, 2, 16];
  let made = 0;
  const matrix = (rows: number, columns: number, format: string): dsl.Tensor =>
    dsl.weight(`w${made++}.${isPackedName(format) ? `bf16.${format}` : format}.matrix`, [rows, columns]);
  const linear = (x: dsl.Tensor, rows: number, format: string): dsl.Tensor =>
    dsl.linear(x, matrix(rows, Number(x.type.shape[1]), format), dsl.weight(`w${made++}.f32.vector`, [rows]));
  const x = dsl.embed(dsl.tokens(), matrix(vocabulary, width, 'f32'));
  const h = dsl.rmsNorm(x, dsl.weight('gain.bf16.factor', [width]), { eps: 1e-5 });
  const widths = [heads * size, groups * size, groups * size];
  const [whole, ...others] = formats;
  const [q, k, v] =
    others.length > 0
      ? widths.map((rows, i) => linear(h, rows, formats[i] ?? whole))
      : dsl.split(linear(h, heads * size + 2 * groups * size, whole), widths);
  if (!q || !k || !v) throw new Error('attention reads three vectors');
  const turned = (part: dsl.Tensor, count: number): dsl.Tensor =>
    dsl.rope(dsl.splitHeads(part, count), { theta: 100, dims });
  const mixed = dsl.attention(turned(q, heads), turned(k, groups), dsl.splitHeads(v, groups), {
    causal: true,
  });
  const back = dsl.add(x, linear(dsl.mergeHeads(mixed), width, whole));
  const inner = dsl.mul(dsl.gelu(linear(back, 48, whole)), linear(back, 48, whole));
  return linear(dsl.scale(inner, { by: 0.5 }), vocabulary, whole);
}

interface Block {
  readonly name: string;
  readonly formats: readonly [string, ...string[]];
  readonly width: number;
  readonly dims: number;
  readonly chunk: number;
  readonly tokens: number;
  /** Calls of the function that multiplies a tile. */
  readonly tiled: number;
  readonly kv?: 'f16';
}

const blocks: readonly Block[] = [
  // Each part of the matrix, the output projection, gate and up; the last product has rows of 48.
  { name: 'parts of a matrix', formats: ['q5g32'], width: 64, dims: 16, chunk: 40, tokens: 61, tiled: 5 },
  {
    name: 'three formats',
    formats: ['q4g32', 'f32', 'f16'],
    width: 64,
    dims: 8,
    chunk: 96,
    tokens: 75,
    tiled: 5,
    kv: 'f16',
  },
  { name: 'a chunk of 8', formats: ['bf16'], width: 96, dims: 16, chunk: 8, tokens: 9, tiled: 5 },
  { name: 'rows of no whole run', formats: ['bf16'], width: 40, dims: 16, chunk: 8, tokens: 9, tiled: 1 },
];

it.each(
  blocks.flatMap((each) =>
    runs
      .filter(({ target, device }) => target === 'metal' || device === 'cuda' || each.chunk > 8)
      .map((run) => ({ ...each, ...run })),
  ),
)(
  '$name, a chunk of $chunk, target $target on $device',
  async ({ formats, width, dims, chunk, tokens, tiled, kv, target, device }) => {
    await check(
      trialOf(() => block(width, formats, dims), {
        ...{ target, device, chunk, quantize: packedPolicy, tokens: texts(tokens) },
        ...(kv && { kv }),
      }),
      tiled,
    );
  },
);
