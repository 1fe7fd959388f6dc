import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { checkMetal } from 'upgc/metal-cpu';
import { compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { packedNames, type PackedName } from '../../src/ir/packed.js';
import { policyOf } from '../../src/ir/policy.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { buildFiles, readPlan } from '../../src/runtime/plan.js';
import { quantise } from '../../src/weights/quantise.js';
import { dtypeOf } from '../support/random-graph.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/** Packed matrices on the CPU device, as every target reads them, against the interpreter. */

const width = 256;
const vocabulary = 37;
const rows = (x: dsl.Tensor, name: string, n: number): dsl.Tensor =>
  dsl.linear(x, dsl.weight(`${name}.f32.matrix`, [n, Number(x.type.shape[1])]));

/**
 * Reads packed matrices in every way there is: a table, a tied head, parts of one result after a norm, a transposed
 * matrix with a bias. Sums of a few products: bounds stay narrow.
 */
function shallow(): dsl.Tensor {
  const table = dsl.weight('table.bf16.table', [vocabulary, width]);
  const x = dsl.embed(dsl.tokens(), table);
  const h = dsl.rmsNorm(x, dsl.weight('gain.f32.factor', [width]), { eps: 1e-5 });
  const gated = dsl.mul(dsl.silu(rows(h, 'gate', vocabulary)), rows(h, 'up', vocabulary));
  const turned = dsl.weight('turned.f16.matrix', [vocabulary, width], { transposed: true });
  const biased = dsl.linear(x, turned, dsl.weight('bias.f32.vector', [vocabulary]));
  return dsl.add(dsl.linear(x, table), dsl.add(gated, biased));
}

/** A layer of attention and a gated MLP, whose bounds are as wide as worst cases are. */
function layer(): dsl.Tensor {
  const x = dsl.embed(dsl.tokens(), dsl.weight('table.bf16.table', [vocabulary, width]));
  const h = dsl.rmsNorm(x, dsl.weight('gain.f32.factor', [width]), { eps: 1e-5 });
  const heads = (name: string): dsl.Tensor => dsl.splitHeads(rows(h, name, 2 * 16), 2);
  const turned = (name: string): dsl.Tensor => dsl.rope(heads(name), { theta: 10000, dims: 12 });
  const mixed = dsl.mergeHeads(dsl.attention(turned('q'), turned('k'), heads('v'), { causal: true }));
  const gate = rows(mixed, 'gate', vocabulary);
  return dsl.mul(dsl.silu(gate), rows(mixed, 'up', vocabulary));
}

type Quantize = NonNullable<dsl.ModelOptions<dsl.z.ZodType>['quantize']>;

function trialOf(body: () => dsl.Tensor, quantize: Quantize, target: TargetName): Trial {
  return {
    model: dsl.model({ name: 'packed', config: dsl.z.looseObject({}), context: () => 12 }, body),
    graph: dsl.buildGraph('packed', { dtype: 'f32', dtypeOf }, body),
    quantize,
    target,
    tokens: [1, 36, 0, 5, 5, 7],
    chunk: 3,
    context: 12,
  };
}

const both = Object.keys(targets) as TargetName[];

/** q, k and v in one kernel, gate and up in two. */
const mixture: Quantize = [
  { match: 'q.*', format: 'q4k' },
  { match: 'k.*', format: 'q6k' },
  { match: 'v.*', format: 'stored' },
  { match: 'gate.*', format: 'q8g32' },
  { match: '*', format: 'q5g32b' },
];

/** What someone could get wrong in the text, by the format that shows it. */
const mistakes: Readonly<Record<string, readonly [PackedName, RegExp, string]>> = {
  'a scale off by 1e-3': ['q4g32', /scale \* parts\[j\]/, '1.001f * scale * parts[j]'],
  'the scale of another group': ['q4g64', /run \/ 2\b/, 'run / 4'],
  'halves of bytes the wrong way round': ['q8g32', /(lower = .*?);\n(.*upper = )/, '$1 + 1;\n$2'],
  'a high bit of the wrong element': ['q5g32', /high0 >> \(j \+ 16\)/, 'high0 >> (j + 15)'],
  'a forgotten bias': ['q4g32b', / \+ bias \* totals\[j\]/, ''],
  'one scale for two groups': ['q6k', /run \* 2 \+ 1\]/, 'run * 2]'],
};

describe.each(both)('target %s', (target) => {
  it.each<PackedName>(packedNames)('computes with %s what the interpreter does', async (format) => {
    const trial = trialOf(shallow, format, target);
    await compiled(trial, async (build) => {
      const { wrong, ratio } = await difference(build, trial);
      expect(wrong).toBeUndefined();
      expect(ratio).toBeGreaterThan(1e-4);
      const stored = new Set(readPlan(build).weights.map(({ dtype }) => dtype));
      expect(stored).toEqual(new Set([format, 'f32']));
    });
  });

  it('computes with several formats in one kernel', async () => {
    const trial = trialOf(layer, mixture, target);
    await compiled(trial, async (build) => {
      expect((await difference(build, trial)).wrong).toBeUndefined();
    });
  });

  it.each(Object.entries(mistakes))('finds %s', async (_, [format, pattern, replacement]) => {
    const trial = trialOf(shallow, format, target);
    await compiled(trial, async (build) => {
      const file = path.join(build, buildFiles.kernels);
      const right = readFileSync(file, 'utf8');
      const wrong = right.replace(pattern, replacement);
      expect(wrong).not.toBe(right);
      writeFileSync(file, wrong);
      expect((await difference(build, trial)).wrong).toMatch(/logit|generated/);
    });
  });

  it('writes kernels that a Metal compiler would take', async () => {
    const texts = packedNames.map((format) => {
      const { graph } = trialOf(shallow, format, target);
      const quantised = quantise(graph, policyOf(format), undefined).graph;
      return compileGraph(quantised, { target: targets[target], context: 12 })?.kernels ?? '';
    });
    for (const [i, text] of texts.entries())
      expect([packedNames[i], await checkMetal(text, 'kernels.metal')]).toEqual([packedNames[i], []]);
  });
});

it('puts matrices of several formats into one kernel, but not the parts of one result', () => {
  const { graph } = trialOf(layer, mixture, 'metal');
  const packed = quantise(graph, policyOf(mixture), undefined).graph;
  const build = compileGraph(packed, { target: targets.metal, context: 12 });
  expect(build?.plan.kernels.map(({ name }) => name)).toContain(
    'matvec_q4k_q6k_f32_norm_rope_cache_32_32_32x256',
  );
  const decode = build?.entries.find(({ name }) => name === 'decode')?.kernels ?? [];
  const borders = decode.flatMap(({ outputs }) => outputs.map(({ border }) => border));
  expect(borders).toContainEqual(expect.stringMatching(/^its reader has a matrix of q5g32b, not q8g32 as %/));
});
