import { expect, it } from 'vitest';
import { compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { isOp } from '../../src/ir/graph.js';
import { targets } from '../../src/passes/target.js';
import { kernelName } from '../../src/passes/text.js';
import { dtypeOf } from '../support/random-graph.js';
import { compiled, difference, type Trial } from '../support/trial.js';

/**
 * Texts long enough for the attention of a token to be cut into parts: some full, some short, some without a row. Every
 * logit of every entry point is within its error bound of the interpreter's, which knows of no parts.
 */

const context = 256;
const [heads, groups] = [4, 2];

/** Attention of a token embedding, its result read by the product at once or after something else. */
function attending(window: number | undefined, direct: boolean, size: number): dsl.Tensor {
  let made = 0;
  const weight = (kind: 'table' | 'matrix', shape: readonly number[]): dsl.Tensor =>
    dsl.weight(`w${made++}.f32.${kind}`, shape);
  const x = dsl.embed(dsl.tokens(), weight('table', [13, 12]));
  const project = (count: number): dsl.Tensor =>
    dsl.splitHeads(dsl.linear(x, weight('matrix', [count * size, 12])), count);
  const sight = { causal: true, ...(window === undefined ? {} : { window }) };
  const mixed = dsl.mergeHeads(dsl.attention(project(heads), project(groups), project(groups), sight));
  return dsl.linear(direct ? mixed : dsl.silu(mixed), weight('matrix', [13, heads * size]));
}

it.each([
  { window: undefined, direct: true, size: 8, kernel: /^linear_combine/ },
  { window: undefined, direct: false, size: 8, kernel: /^attention_combine/ },
  { window: 140, direct: true, size: 6, kernel: /^linear_combine/ },
  { window: 140, direct: false, size: 8, kv: 'f16', kernel: /^attention_combine/ },
] as const)('window $window, heads of $size, combined by $kernel', async ({ kernel, ...given }) => {
  const target = 'metal';
  const chunk = 20;
  const { window, direct, size } = given;
  const build = (): dsl.Tensor => attending(window, direct, size);
  const trial: Trial = {
    model: dsl.model({ name: 'parts', config: dsl.z.looseObject({}), context: () => context }, build),
    graph: dsl.buildGraph('parts', { dtype: 'f32', dtypeOf }, build),
    target,
    // Past 128 and 192 rows, where parts grow by a block.
    tokens: Array.from({ length: 200 }, (_, i) => (7 * i + (i >> 3)) % 13),
    chunk,
    context,
    ...('kv' in given && { kv: given.kv }),
  };
  const entries = compileGraph(trial.graph, { target: targets[target], context, chunk })?.entries ?? [];
  const decode = entries.find(({ name }) => name === 'decode');
  const [cut] = decode?.graph.nodes.filter((node) => isOp(node, 'attention_parts')) ?? [];
  expect(cut?.type.shape[2]).toBeGreaterThanOrEqual(2);
  expect(decode?.kernels.map(kernelName)).toContainEqual(expect.stringMatching(kernel));
  await compiled(trial, async (folder) => {
    expect((await difference(folder, trial)).wrong).toBeUndefined();
  });
});
