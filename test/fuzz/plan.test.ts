import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import {
  add,
  attention,
  embed,
  linear,
  mergeHeads,
  rope,
  splitHeads,
  tokens,
  weight,
  type Tensor,
} from 'upgc';
import { compile, type TargetName } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import {
  arenaNames,
  entryNames,
  planSchema,
  type Plan,
  type PlanEntry,
  type Region,
} from '../../src/runtime/plan.js';
import { damagedJson, explained, fuzz, titleOf } from '../support/damage.js';
import { temporaryFolder } from '../support/temporary.js';
import { tiny, writeCheckpoint } from '../support/tiny.js';

// For a busy machine; it takes less than a minute.
vi.setConfig({ testTimeout: 300_000 });

/**
 * Damaged plans are opened and run, in this very process: the device must refuse them, or survive them. What a plan says of
 * a kernel's parameters changes what is compiled, which takes too long here: then the compiler refuses to run.
 */

const source = tiny((): Tensor => {
  const table = weight('table', [24, 8]);
  const x = embed(tokens(), table);
  const heads = (name: string): Tensor => splitHeads(linear(x, weight(name, [8, 8])), 2);
  const turned = (name: string): Tensor => rope(heads(name), { theta: 100 });
  const mixed = mergeHeads(attention(turned('q'), turned('k'), heads('v'), { causal: true }));
  return linear(add(x, linear(mixed, weight('o', [8, 8]))), weight('head', [24, 8]));
});

const show = (text: Buffer): string => text.toString('latin1');
const keys = [
  ...[
    'version',
    'model',
    'arenas',
    'kernels',
    'entries',
    'grid',
    'bindings',
    'bytes',
    'offset',
    'index',
    'ring',
  ],
  ...[
    'access',
    'kind',
    'threads',
    'barrier',
    'tokens',
    'context',
    'weights',
    'state',
    'pool',
    'io',
    'inputs',
  ],
];
const stepMs = 10_000;

async function inTime<R>(work: Promise<R>): Promise<R> {
  const begun = performance.now();
  try {
    return await work;
  } finally {
    expect(performance.now() - begun).toBeLessThan(stepMs);
  }
}

/** A build with its kernels compiled, and a compiler that finds them and makes no others. */
async function built(target: TargetName): Promise<{ out: string; clang: string }> {
  const dir = temporaryFolder();
  writeCheckpoint(dir, source);
  const out = path.join(dir, 'build');
  await compile({ model: source, weights: dir, target, context: 16, chunk: 4, out });
  const clang = path.join(dir, 'bin', 'clang++');
  const allowed = path.join(dir, 'allowed');
  mkdirSync(path.dirname(clang));
  const versions = ['', ...Array.from({ length: 10 }, (_, i) => `-${25 - i}`)];
  const compilers = versions.flatMap((version) => [`clang++${version}`, `clang${version}`]).join(' ');
  const script = [
    '#!/bin/sh',
    `[ "$1" = --version ] || [ -e '${allowed}' ] || exit 1`,
    `for compiler in ${compilers}; do command -v "$compiler" > /dev/null && exec "$compiler" "$@"; done`,
    'exit 1',
  ];
  writeFileSync(clang, script.join('\n'));
  chmodSync(clang, 0o755);
  writeFileSync(allowed, '');
  (await Session.open(out, { clang })).close();
  rmSync(allowed);
  (await Session.open(out, { clang })).close();
  return { out, clang };
}

type Dispatch = PlanEntry['dispatches'][number];

/** Mistakes that leave a plan of the right form: what its parts say of each other and of the kernels is wrong. */
type Changing = (plan: Plan, pick: (count: number) => number, value: number) => void;

const dispatchOf = ({ entries }: Plan, pick: (count: number) => number): Dispatch | undefined => {
  const entry = entries[entryNames[pick(3)] ?? 'decode'];
  return entry.dispatches[pick(entry.dispatches.length)];
};
const bindingOf = (plan: Plan, pick: (count: number) => number): Region | undefined => {
  const bindings = dispatchOf(plan, pick)?.bindings ?? [];
  return bindings[pick(bindings.length)];
};
const set = <T extends object>(target: T | undefined, change: Partial<T>): void => {
  if (target) Object.assign(target, change);
};

const changes: readonly Changing[] = [
  (plan, pick) => set(dispatchOf(plan, pick), { kernel: pick(plan.kernels.length) }),
  (plan, pick, value) => {
    const dispatch = dispatchOf(plan, pick);
    if (dispatch) dispatch.grid[pick(3)] = value;
  },
  (plan, pick) => set(dispatchOf(plan, pick), { barrier: pick(2) === 0 }),
  (plan, pick) => dispatchOf(plan, pick)?.bindings.reverse(),
  (plan, pick) => set(bindingOf(plan, pick), { offset: 16 * pick(200) }),
  (plan, pick, value) => set(bindingOf(plan, pick), { bytes: value }),
  (plan, pick) => set(bindingOf(plan, pick), { arena: arenaNames[pick(4)] ?? 'io' }),
  (plan, pick) => {
    const { dispatches } = plan.entries[entryNames[pick(3)] ?? 'decode'];
    const [taken] = dispatches.splice(pick(dispatches.length), 1);
    if (taken && pick(2) === 0) dispatches.splice(pick(dispatches.length), 0, taken);
  },
  (plan, pick, value) => set(plan.arenas[arenaNames[1 + pick(3)] ?? 'io'], { bytes: value }),
  (plan, pick, value) => {
    const { arguments: list } = plan.kernels[pick(plan.kernels.length)] ?? { arguments: [] };
    const argument = list[pick(list.length)];
    if (argument?.kind === 'buffer') argument.bytes = value;
  },
  (plan, pick) =>
    set(plan.inputs[(['tokens', 'step', 'sampling', 'seed'] as const)[pick(4)] ?? 'seed'], {
      offset: 16 * pick(50),
    }),
  (plan, pick) => set(plan.entries[entryNames[pick(3)] ?? 'decode'], { tokens: 1 + pick(16) }),
  (plan, pick) => {
    const context = 1 + pick(40);
    set(plan, { context });
    plan.inputs.tokens.bytes = (context + 1) * 4;
    for (const state of plan.state) state.shape[0] = context;
  },
  (plan, pick) => {
    const vocabulary = 1 + pick(60);
    plan.model.vocabulary = vocabulary;
    for (const name of entryNames)
      plan.entries[name].outputs.logits.bytes =
        vocabulary * 4 * (name === 'score' ? plan.entries.score.tokens : 1);
  },
];

const wrongPlans = (valid: string): fc.Arbitrary<Buffer> => {
  const value = fc.oneof(
    fc.integer({ min: 1, max: 80 }),
    fc.constantFrom(...[256, 4096, 2 ** 16, 2 ** 20, 2 ** 31 - 1]),
  );
  const change = fc.tuple(fc.constantFrom(...changes), fc.infiniteStream(fc.nat()), value);
  return fc.array(change, { minLength: 1, maxLength: 4 }).map((list) => {
    const plan = planSchema.parse(JSON.parse(valid));
    for (const [work, numbers, number] of list)
      work(plan, (count) => (numbers.next().value ?? 0) % Math.max(1, count), number);
    return Buffer.from(JSON.stringify(plan));
  });
};

const runs = 2500;

describe.each(['cpu', 'metal'] as const)('plan.json of target %s', (target) => {
  /** Opens plans and runs a few steps; how many opened, and how many ran to the end. */
  async function openAndRun(
    plansOf: (valid: string) => fc.Arbitrary<Buffer>,
  ): Promise<{ opened: number; ran: number }> {
    const { out, clang } = await built(target);
    const file = path.join(out, 'plan.json');
    const valid = JSON.stringify(JSON.parse(readFileSync(file, 'utf8')));
    let opened = 0;
    const ran = await fuzz({ runs, of: plansOf(valid), show }, async (text) => {
      writeFileSync(file, text);
      try {
        const session = await inTime(Session.open(out, { clang }));
        opened++;
        try {
          const { context, model } = session.plan;
          const ids = [1, 2, 3, 4, 5].slice(0, context).map((id) => id % model.vocabulary);
          await inTime(session.score(ids));
          await inTime(session.generate(ids.slice(0, 3), { maxTokens: 2, greedy: true }).next());
          return true;
        } finally {
          session.close();
        }
      } catch (error) {
        explained(error, 'build');
        return false;
      }
    });
    return { opened, ran };
  }

  it(titleOf('damaged, runs or is explained', runs), async () => {
    const { opened } = await openAndRun((valid) => damagedJson(valid, keys));
    expect(opened).toBeGreaterThan(20);
    expect(opened).toBeLessThan(runs / 2);
  });

  it(titleOf('with mistakes of the right form, runs or is explained', runs), async () => {
    const { opened, ran } = await openAndRun(wrongPlans);
    expect(ran).toBeGreaterThan(100);
    expect(opened).toBeLessThan(runs * 0.9);
  });
});
