import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compileGraph } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { targets } from '../../src/passes/target.js';
import { planSchema, readPlan, type Plan } from '../../src/runtime/plan.js';
import { graphOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

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

it('refuses inputs that overlap, lie elsewhere than in io, or end past it', () => {
  const { inputs, arenas } = plan;
  const step = (change: Partial<typeof inputs.step>): Plan => ({
    ...plan,
    inputs: { ...inputs, step: { ...inputs.step, ...change } },
  });
  expect(refused(step({ offset: inputs.tokens.offset }))).toBe('inputs.step: overlaps tokens');
  expect(refused(step({ arena: 'weights' }))).toBe('inputs.step.arena: must be io');
  expect(refused(step({ offset: 2 ** 20 }))).toBe(
    `inputs.step: ends past the ${arenas.io.bytes} bytes of io`,
  );
});

it('refuses a grid that would run for hours', () => {
  const [first, ...rest] = plan.entries.decode.dispatches;
  if (!first) throw new Error('no dispatch');
  const bytes = first.bindings.reduce((sum, binding) => sum + binding.bytes, 0);
  const grid = (x: number): Plan =>
    withEntry('decode', { dispatches: [{ ...first, grid: [x, 1, 1] }, ...rest] });
  expect(refused(grid(bytes))).toBeUndefined();
  expect(refused(grid(bytes + 1))).toBe(
    `entries.decode.dispatches.0.grid: is of more threadgroups than the ${bytes} bytes bound`,
  );
});

it('shows what it does not know cut short', () => {
  const dir = temporaryFolder();
  const refusal = (changes: object): number => {
    writeFileSync(path.join(dir, 'plan.json'), JSON.stringify({ ...plan, ...changes }));
    return renderedError(() => readPlan(dir), dir).length;
  };
  expect(refusal({ ['x'.repeat(100_000)]: 1 })).toBeLessThan(500);
  expect(refusal({ version: 'x'.repeat(100_000) })).toBeLessThan(500);
});
