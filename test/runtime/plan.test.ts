import { expect, it } from 'vitest';
import { compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { targets } from '../../src/passes/target.js';
import { planSchema, type Plan } from '../../src/runtime/plan.js';
import { graphOf } from '../support/graphs.js';

/** What parts of a plan say of each other: the native side knows neither logits nor inputs from other memory. */

const compiled = compileGraph(
  graphOf(() =>
    dsl.linear(dsl.embed(dsl.tokens(), dsl.weight('table', [10, 8])), dsl.weight('head', [10, 8])),
  ),
  { target: targets.cpu, context: 16, chunk: 4 },
);
if (!compiled) throw new Error('nothing was compiled');
const { plan } = compiled;

/** Where and why the plan is refused. */
function refused(changed: Plan): string | undefined {
  const issue = planSchema.safeParse(changed).error?.issues[0];
  return issue && `${issue.path.join('.')}: ${issue.message}`;
}

/** The plan with an entry changed. */
function withEntry<N extends keyof Plan['entries']>(name: N, change: Partial<Plan['entries'][N]>): Plan {
  return { ...plan, entries: { ...plan.entries, [name]: { ...plan.entries[name], ...change } } };
}

it('accepts what the compiler writes', () => {
  expect(refused(plan)).toBeUndefined();
});

it.each(['decode', 'prefill', 'score'] as const)(
  'refuses logits of %s that are not as long as its rows',
  (name) => {
    const { logits } = plan.entries[name].outputs;
    const rows = name === 'score' ? 4 : 1;
    for (const bytes of [logits.bytes - 4, logits.bytes + 4])
      expect(refused(withEntry(name, { outputs: { logits: { ...logits, bytes } } }))).toBe(
        `entries.${name}.outputs.logits.bytes: must be ${rows * 10 * 4}`,
      );
  },
);

it.each([
  ['tokens', 17 * 4],
  ['step', 8],
  ['sampling', 16],
  ['seed', 4],
] as const)('refuses an input %s that is not %i bytes', (name, bytes) => {
  for (const other of [bytes - 4, bytes + 4]) {
    const inputs = { ...plan.inputs, [name]: { ...plan.inputs[name], bytes: other } };
    expect(refused({ ...plan, inputs })).toBe(`inputs.${name}.bytes: must be ${bytes}`);
  }
});

it('refuses steps that are longer than the context', () => {
  expect(refused(withEntry('prefill', { tokens: 16 }))).toBeUndefined();
  expect(refused(withEntry('prefill', { tokens: 17 }))).toBe(
    'entries.prefill.tokens: is more than the context of 16',
  );
});
