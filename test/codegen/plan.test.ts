import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { emit } from '../../src/codegen/emit.js';
import { makePlan } from '../../src/codegen/plan.js';
import { compileGraph, type Compiled } from '../../src/compiler.js';
import * as dsl from '../../src/ir/dsl.js';
import { targets, type TargetName } from '../../src/passes/target.js';
import { planSchema, readPlan, type Plan, type PlanEntry, type Region } from '../../src/runtime/plan.js';
import { graphOf } from '../support/graphs.js';
import { renderedError } from '../support/snapshot.js';
import { temporaryFolder } from '../support/temporary.js';

/** Two layers with all that a decoder has. */
const graph = graphOf(() => {
  const project = (x: dsl.Tensor, name: string, n: number): dsl.Tensor =>
    dsl.linear(x, dsl.weight(name, [n, Number(x.type.shape[1])]));
  const norm = (x: dsl.Tensor, name: string): dsl.Tensor =>
    dsl.rmsNorm(x, dsl.weight(name, [24]), { eps: 1e-5 });
  const table = dsl.weight('table', [50, 24]);
  const y = dsl.layers(2, 'layers', dsl.embed(dsl.tokens(), table), (x) => {
    const [q, k, v] = dsl.split(project(norm(x, 'norm'), 'qkv', 48), [24, 12, 12]);
    const turn = (heads: dsl.Tensor): dsl.Tensor => dsl.rope(heads, { theta: 100 });
    const mixed = dsl.attention(
      turn(dsl.splitHeads(q, 4)),
      turn(dsl.splitHeads(k, 2)),
      dsl.splitHeads(v, 2),
      {
        causal: true,
      },
    );
    const h = dsl.add(x, project(dsl.mergeHeads(mixed), 'o', 24));
    const [gate, up] = dsl.split(project(norm(h, 'mlp_norm'), 'gate_up', 80), [40, 40]);
    return dsl.add(h, project(dsl.mul(dsl.silu(gate), up), 'down', 24));
  });
  return dsl.linear(norm(y, 'final'), table);
});

function compiledFor(target: TargetName): Compiled {
  const compiled = compileGraph(graph, { target: targets[target], context: 32, chunk: 8 });
  if (!compiled) throw new Error('nothing was compiled');
  return compiled;
}

const planFor = (target: TargetName): Plan => compiledFor(target).plan;

const plan = planFor('cpu');

/** A build folder with this text as its plan. */
function buildFolder(text: string): string {
  const dir = temporaryFolder();
  writeFileSync(path.join(dir, 'plan.json'), text);
  return dir;
}

const overlap = (a: Region, b: Region): boolean =>
  a.arena === b.arena && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;

/** What is wrong with the memory of an entry, found from the plan alone by running it in the mind. */
function memoryFaults({ kernels, arenas, inputs, weights }: Plan, entry: PlanEntry): string[] {
  const faults: string[] = [];
  interface Write {
    readonly region: Region;
    readonly epoch: number;
  }
  // What lies where before the step: weights, and what the host writes.
  let writes: Write[] = [
    ...weights.map(({ offset, bytes }) => ({
      region: { arena: 'weights', offset, bytes } as const,
      epoch: -1,
    })),
    { region: inputs.tokens, epoch: -1 },
    { region: inputs.step, epoch: -1 },
    { region: inputs.sampling, epoch: -1 },
    { region: inputs.seed, epoch: -1 },
  ];
  let reads: Write[] = [];
  let epoch = 0;
  for (const dispatch of entry.dispatches) {
    if (dispatch.barrier) [epoch, reads] = [epoch + 1, []];
    const buffers = (kernels[dispatch.kernel]?.arguments ?? []).flatMap((argument) =>
      argument.kind === 'buffer' ? [argument] : [],
    );
    if (buffers.length !== dispatch.bindings.length) faults.push(`${dispatch.label}: bindings`);
    // Operands that this dispatch alone reads, each element where it then stores the result's.
    const own: Region[] = [];
    buffers.forEach(({ name, access }, i) => {
      const region = dispatch.bindings[i];
      if (!region) return;
      if (region.offset + region.bytes > arenas[region.arena].bytes)
        faults.push(`${dispatch.label}: ${name} outside`);
      if (access === 'write') {
        const race = [...reads, ...writes].some(
          (other) => other.epoch === epoch && overlap(other.region, region) && !own.includes(other.region),
        );
        if (race) faults.push(`${dispatch.label}: ${name} races`);
        // An append changes rows of a state; any other write replaces what lay there.
        if (region.arena !== 'state' && name !== 'ids')
          writes = writes.filter((other) => !overlap(other.region, region));
        writes.push({ region, epoch });
      } else {
        const whole = writes.some(
          (other) =>
            other.epoch < epoch && other.region.offset === region.offset && overlap(other.region, region),
        );
        if (!whole) faults.push(`${dispatch.label}: ${name} reads what is not there`);
        reads.push({ region, epoch });
        if (access === 'element') own.push(region);
      }
    });
  }
  for (const output of Object.values(entry.outputs))
    if (!writes.some((write) => write.region.offset === output.offset && overlap(write.region, output)))
      faults.push('an output is not written');
  return faults;
}

describe('makePlan', () => {
  it.each(['cpu', 'metal'] as const)('writes a plan for %s that reads back the same', (target) => {
    const made = planFor(target);
    expect(planSchema.parse(JSON.parse(JSON.stringify(made)))).toEqual(made);
    expect(readPlan(buildFolder(JSON.stringify(made)))).toEqual(made);
  });

  it.each(['cpu', 'metal'] as const)(
    'never lets %s read what is not there, or write what is in use',
    (target) => {
      const made = planFor(target);
      for (const entry of Object.values(made.entries)) {
        expect(memoryFaults(made, entry)).toEqual([]);
        expect(entry.dispatches.length).toBeGreaterThan(10);
      }
    },
  );

  it('would be caught if it did', () => {
    const { decode } = plan.entries;
    const without = decode.dispatches.map((dispatch) => ({ ...dispatch, barrier: false }));
    expect(memoryFaults(plan, { ...decode, dispatches: without })).not.toEqual([]);
    const [, ...late] = decode.dispatches;
    expect(memoryFaults(plan, { ...decode, dispatches: late })).not.toEqual([]);
    const crowded = decode.dispatches.map((dispatch) => ({
      ...dispatch,
      bindings: dispatch.bindings.map((region) =>
        region.arena === 'pool' ? { ...region, offset: 0 } : region,
      ),
    }));
    expect(memoryFaults(plan, { ...decode, dispatches: crowded })).not.toEqual([]);
  });

  it('places every tensor once, aligned and apart', () => {
    for (const [arena, tensors] of [
      ['weights', plan.weights],
      ['state', plan.state],
    ] as const) {
      expect(new Set(tensors.map(({ name }) => name)).size).toBe(tensors.length);
      const regions = tensors.map(({ offset, bytes }) => ({ arena, offset, bytes }));
      regions.forEach((region, i) => {
        expect(region.offset % targets.cpu.alignment).toBe(0);
        expect(regions.slice(i + 1).some((other) => overlap(region, other))).toBe(false);
      });
    }
    expect(plan.state.map(({ name, shape }) => `${name} ${shape.join('x')}`)).toEqual([
      'k_cache.0 32x2x6',
      'v_cache.0 32x2x6',
      'k_cache.1 32x2x6',
      'v_cache.1 32x2x6',
    ]);
    expect(plan.weights.filter(({ name }) => name === 'table' || name.startsWith('rope_table'))).toHaveLength(
      2,
    );
  });

  it.each(['cpu', 'metal'] as const)('asks of a buffer what every launch for %s binds at least', (target) => {
    const { kernels, entries } = planFor(target);
    const dispatches = Object.values(entries).flatMap((entry) => entry.dispatches);
    kernels.forEach(({ name, arguments: all }, index) => {
      const launches = dispatches.filter(({ kernel }) => kernel === index);
      expect(launches.length, name).toBeGreaterThan(0);
      const buffers = all.filter((argument) => argument.kind === 'buffer');
      buffers.forEach((buffer, i) => {
        const bound = launches.map(({ bindings }) => bindings[i]?.bytes ?? 0);
        expect(buffer.bytes, `${name} ${buffer.name}`).toBe(Math.min(...bound));
      });
    });
  });

  it('refuses a result over an operand that other threads still read', () => {
    const { entries } = compiledFor('cpu');
    const emitted = emit('small', entries, targets.cpu);
    const options = { model: 'small', target: targets.cpu, bosToken: null, eosTokens: [], packed: false };
    expect(() => makePlan(entries, emitted, options)).not.toThrow();
    const crowded = entries.map((entry) => ({
      ...entry,
      pool: entry.pool && {
        ...entry.pool,
        buffers: entry.pool.buffers.map((buffer) => ({ ...buffer, offset: 0 })),
      },
    }));
    expect(() => makePlan(crowded, emitted, options)).toThrow(/^\w+ would write y\d? over \w+$/);
  });

  it('labels dispatches for people', () => {
    const labels = plan.entries.decode.dispatches.map(({ label }) => label);
    const layer = ['linear_norm_rope_cache', 'attention', 'linear_add', 'linear_norm_silu_mul', 'linear_add'];
    expect(labels).toEqual([
      'embed',
      ...layer.map((label) => `layers.0.${label}`),
      ...layer.map((label) => `layers.1.${label}`),
      'linear_norm',
      'sample',
    ]);
  });
});

describe('readPlan', () => {
  const refused = (dir: string): string => renderedError(() => readPlan(dir), dir);
  const json = JSON.stringify(plan);
  /** The plan with one field changed. */
  const changed = (fields: Record<string, unknown>): string =>
    refused(buildFolder(JSON.stringify({ ...plan, ...fields })));

  it('refuses a folder that is not there, or without a plan', () => {
    const dir = temporaryFolder();
    const empty = path.join(dir, 'empty');
    mkdirSync(empty);
    expect([path.join(dir, 'missing'), empty].map((folder) => renderedError(() => readPlan(folder), dir)))
      .toMatchInlineSnapshot(`
        [
          "error: there is no folder '<dir>/missing'
         note: compile the model: upgc compile <model.graph.ts> --out DIR",
          "error: '<dir>/empty' is not a build folder: it has no plan.json
         note: compile the model: upgc compile <model.graph.ts> --out DIR",
        ]
      `);
  });

  it('refuses what is not JSON', () => {
    const texts = [json.slice(0, -20), '', 'version: 1'];
    expect(texts.map((text) => refused(buildFolder(text)))).toMatchInlineSnapshot(`
      [
        "error: <dir>/plan.json is not valid JSON: it is damaged or cut short
       note: <parser's message>
       note: compile the model: upgc compile <model.graph.ts> --out DIR",
        "error: <dir>/plan.json is not valid JSON: it is damaged or cut short
       note: <parser's message>
       note: compile the model: upgc compile <model.graph.ts> --out DIR",
        "error: <dir>/plan.json is not valid JSON: it is damaged or cut short
       note: <parser's message>
       note: compile the model: upgc compile <model.graph.ts> --out DIR",
      ]
    `);
  });

  it('refuses another version before it looks at the rest', () => {
    const texts = [
      changed({ version: 99, target: 'abacus' }),
      changed({ version: '1' }),
      refused(buildFolder('{}')),
    ];
    expect(texts).toMatchInlineSnapshot(`
      [
        "error: <dir>/plan.json is of version 99; this upgc reads version 2
       note: compile the model: upgc compile <model.graph.ts> --out DIR",
        "error: <dir>/plan.json is of version "1"; this upgc reads version 2
       note: compile the model: upgc compile <model.graph.ts> --out DIR",
        "error: <dir>/plan.json: version: Invalid input: expected 2
       note: compile the model: upgc compile <model.graph.ts> --out DIR",
      ]
    `);
  });

  it('names the field that is wrong', () => {
    const { decode } = plan.entries;
    const [dispatch] = decode.dispatches;
    const withDispatch = (fields: Record<string, unknown>): string =>
      changed({
        entries: { ...plan.entries, decode: { ...decode, dispatches: [{ ...dispatch, ...fields }] } },
      });
    const [kernel] = plan.kernels;
    const texts = [
      changed({ target: 'abacus' }),
      changed({ context: 0 }),
      changed({ surprise: true }),
      changed({ kernels: [{ ...kernel, name: 'a b' }] }),
      changed({ kernels: [{ ...kernel, threads: 4096 }] }),
      withDispatch({ grid: [1, 1] }),
      withDispatch({ bindings: [{ arena: 'heap', offset: 0, bytes: 4 }] }),
      withDispatch({ bindings: [{ arena: 'pool', offset: -4, bytes: 4 }] }),
      withDispatch({ bindings: [{ arena: 'pool', offset: 2 ** 60, bytes: 4 }] }),
      refused(buildFolder('[]')),
    ];
    expect(texts.map((text) => text.split('\n')[0])).toMatchInlineSnapshot(`
      [
        "error: <dir>/plan.json: target: Invalid option: expected one of "metal"|"cuda"|"cpu"",
        "error: <dir>/plan.json: context: Too small: expected number to be >0",
        "error: <dir>/plan.json: the plan: Unrecognized key: "surprise"",
        "error: <dir>/plan.json: kernels.0.name: must be an identifier",
        "error: <dir>/plan.json: kernels.0.threads: Too big: expected number to be <=1024",
        "error: <dir>/plan.json: entries.decode.dispatches.0.grid: Too small: expected array to have >=3 items",
        "error: <dir>/plan.json: entries.decode.dispatches.0.bindings.0.arena: Invalid option: expected one of "weights"|"state"|"pool"|"io"",
        "error: <dir>/plan.json: entries.decode.dispatches.0.bindings.0.offset: Too small: expected number to be >=0",
        "error: <dir>/plan.json: entries.decode.dispatches.0.bindings.0.offset: Too big: expected int to be <=9007199254740991",
        "error: <dir>/plan.json: the plan: Invalid input: expected object, received array",
      ]
    `);
  });

  it('reads what a build folder holds', () => {
    const dir = buildFolder(json);
    expect(readPlan(dir)).toEqual(JSON.parse(readFileSync(path.join(dir, 'plan.json'), 'utf8')));
  });
});
